"""`homeport doctor` as a command: what may be asked together, the codes, the question before a repair."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from homeport.cli import doctor as command
from homeport.cli.main import app
from homeport.doctor import cluster_checks, node_checks
from homeport.doctor.findings import Diagnosis, Report, Severity, Sure, Unlooked, report
from homeport.doctor.repairing import carry_out
from homeport.doctor.repairs import ChangeMode, MakeDirectory, RemoveUnfinished
from homeport.model.errors import IOFailure, TryAgainLater

OPEN = 0o664


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["doctor", *words], input=stdin)


def told(path: Path, severity: Severity = Severity.WARNING) -> Diagnosis:
    repair = ChangeMode(says=f"close {path}", proof="it is ours", path=str(path), take=0o022)
    return Diagnosis(
        id="file-writable",
        severity=severity,
        sure=Sure.LIKELY,
        place=str(path),
        found="open",
        expected="closed",
        why="anybody may write",
        run=("chmod go-w it",),
        repair=repair,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.touch()
    made.chmod(OPEN)
    return made


@pytest.fixture
def on_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A node on which this file being open is all that is wrong, and a person at a terminal."""

    def examine(_config: object) -> Report:
        return report("node n1", [told(path)] if path.stat().st_mode & 0o022 else [])

    monkeypatch.setattr(command, "_examine_node", examine)
    monkeypatch.setattr(command, "_is_asked_by_a_person", lambda: True)
    return iter(())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cluster", "--lab", "x"], "expected one of --cluster and --lab"),
        (["--cluster", "--config", "/x"], "expected without --cluster"),
        (["--kubeconfig", "/x"], "expected with --cluster"),
        (["--yes"], "expected with --repair"),
        (["--repair", "--cluster"], "expected on the node itself"),
        (["--repair"], "expected with --yes"),
        (["--repair", "-o", "json"], "expected with --yes"),
        (["-o", "xml"], "xml"),
    ],
)
def test_what_makes_no_sense_is_refused(words: Sequence[str], expected: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert expected in " ".join(done.output.replace("│", " ").split())


def test_nothing_could_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run()
    assert done.exit_code == 2
    assert "expected root" in done.stderr
    assert run("--lab", "there-is-no-such-lab").exit_code == 2


def test_the_list_of_checks() -> None:
    listed = json.loads(run("--checks", "-o", "json").stdout)
    assert [c["id"] for c in listed["node"]] == [c.id for c in node_checks.CHECKS]
    assert [c["id"] for c in listed["cluster"]] == [c.id for c in cluster_checks.CHECKS]
    assert len(run("--checks").stdout.splitlines()) == 1 + len(node_checks.CHECKS) + len(cluster_checks.CHECKS)


@pytest.mark.parametrize(
    ("severities", "unlooked", "code"),
    [([], 0, 0), (["info", "warning"], 0, 0), (["warning"], 1, 2), (["error"], 0, 1), (["error"], 1, 1)],
)
def test_exit_codes(
    severities: list[str], unlooked: int, code: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [told(path, Severity(s)) for s in severities]
    unseen = [Unlooked(place="the moon", why="it is far")] * unlooked
    monkeypatch.setattr(command, "_examine_node", lambda _config: report("node n1", found, unseen))
    done = run()
    assert done.exit_code == code
    assert ("not looked at: the moon: it is far" in done.stdout) == bool(unlooked)
    as_json = run("-o", "json")
    assert as_json.exit_code == code
    assert [d["severity"] for d in json.loads(as_json.stdout)["diagnoses"]] == [
        d.severity.value for d in report("", found).diagnoses
    ]


@pytest.mark.usefixtures("on_path")
def test_a_no_leaves_it_as_it_is(path: Path) -> None:
    done = run("--repair", stdin="n\n")
    assert "repair file-writable: close" in done.stderr
    assert path.stat().st_mode & 0o777 == OPEN


@pytest.mark.usefixtures("on_path")
def test_a_yes_repairs_and_looks_again(path: Path) -> None:
    done = run("--repair", stdin="y\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert done.stdout.endswith("node n1: nothing is wrong\n")


@pytest.mark.usefixtures("on_path")
def test_a_repair_that_fails_is_told_and_the_finding_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_repair: object) -> str:
        raise IOFailure("it is read-only")

    monkeypatch.setattr("homeport.doctor.repairing.carry_out", refuse)
    done = run("--repair", "--yes")
    assert "not done: it is read-only" in done.stderr
    assert "[file-writable]" in done.stdout.partition("node n1:")[2]


def test_json_after_a_repair_is_one_document(path: Path, on_path: None) -> None:
    done = run("--repair", "--yes", "-o", "json")
    assert json.loads(done.stdout) == {"place": "node n1", "diagnoses": [], "unlooked": []}


# --- repairs by themselves -------------------------------------------------------------------------------------------


def test_a_mode_is_only_ever_taken_from(path: Path) -> None:
    repair = ChangeMode(says="", proof="", path=str(path), take=0o022)
    path.chmod(0o626)
    carry_out(repair)
    assert path.stat().st_mode & 0o777 == 0o604
    assert carry_out(repair) == "nothing to do"
    path.unlink()
    with pytest.raises(IOFailure):
        carry_out(repair)


def test_a_directory_that_is_there_is_left(tmp_path: Path) -> None:
    repair = MakeDirectory(says="", proof="", path=str(tmp_path / "state/journal"))
    assert carry_out(repair) == "made"
    assert (tmp_path / "state/journal").stat().st_mode & 0o777 == 0o700
    assert carry_out(repair) == "nothing to do"


def test_an_entry_that_is_being_written_stays(tmp_path: Path) -> None:
    entry = tmp_path / ".tmp-1"
    entry.write_bytes(b"")
    repair = RemoveUnfinished(says="", proof="", path=str(entry))
    with pytest.raises(TryAgainLater):
        carry_out(repair)
    os.utime(entry, (0, 0))
    assert carry_out(repair) == "removed"
    assert carry_out(repair) == "nothing to do"
