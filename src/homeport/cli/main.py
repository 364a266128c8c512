"""`homeport`: the command line's root; each command is a module of this package.

Imports stay light: a command imports what it needs when it runs, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import homeport
from homeport.cli import cni, conformance, doctor, explain, install, ips, lab, lint, migrate, plan, release, who
from homeport.model.errors import CniError

app = typer.Typer(
    name="homeport",
    help="Addresses that belong to a replica: CNI networks, IPAM and a cluster lab on one machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cni.app, name="cni")
app.add_typer(lab.app, name="lab")
app.command("lint")(lint.lint)
app.command("plan")(plan.plan)
app.command("ips")(ips.ips)
app.command("who")(who.who)
app.command("explain")(explain.explain)
app.command("doctor")(doctor.doctor)
app.command("release")(release.release)
app.command("reserve")(release.reserve)
app.add_typer(migrate.app, name="migrate")
app.command("conformance")(conformance.conformance)
app.command("install")(install.install)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"homeport {homeport.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Holds the options that stand before a command."""


def main() -> None:
    """The console script. An expected failure is one line on stderr and exit code 1; usage errors exit 2."""
    try:
        app()
    except CniError as error:
        typer.echo(f"homeport: {error.msg}", err=True)
        if error.details:
            typer.echo(f"  {error.details}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
