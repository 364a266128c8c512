"""What the documentation shows is true: commands and options exist, configurations parse, manifests lint clean."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import typer.core
import typer.main

from homeport.cli.main import app
from homeport.cni import conflists, netconfs

ROOT = Path(__file__).parents[2]
MISTAKES = ROOT / "docs/lint"  # pages that show what is wrong, and are held to what lint says by scripts/check_docs.py
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in (ROOT / "docs").rglob("*.md") if p.parent != MISTAKES)])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, containing: str = "") -> list[object]:
    """Every fenced block of that language with that text in it, as pytest parameters named by page and line."""
    found: list[object] = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[1] == language and containing in match[2]:
                line = text.count("\n", 0, match.start()) + 2
                found.append(pytest.param(match[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def command_lines() -> list[object]:
    """Each line of a block that starts our own command, with or without a prompt."""
    start = re.compile(r"^(?:[$#] )?(?:sudo )?(?:\.venv/bin/)?homeport (.+)$")
    found: list[object] = []
    for page in PAGES:
        for match in FENCE.finditer(page.read_text()):
            if match[1] in ("", "console", "sh", "shell"):
                joined = match[2].replace("\\\n", " ")
                found += [
                    pytest.param(m[1], id=f"{page.relative_to(ROOT)}: {m[1][:60]}")
                    for line in joined.splitlines()
                    if (m := start.match(line.strip()))
                ]
    return found


@pytest.mark.parametrize("text", blocks("json"))
def test_a_configuration_parses(text: str) -> None:
    value = json.loads(text)
    match value:
        case {"plugins": [*_]}:
            conflists.parse(text.encode())
        case {"type": str(), "cniVersion": str(), "name": str()}:
            netconfs.parse(text.encode())


@pytest.mark.parametrize("text", blocks("yaml", "NetworkAttachmentDefinition"))
def test_a_manifest_lints_clean(text: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "homeport", "lint", "-"], input=text, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_is_understood(line: str) -> None:
    """Resolves the command and parses its options without running it."""
    words = shlex.split(line, comments=True)
    words = words[: next((i for i, w in enumerate(words) if w in ("|", ">", "2>", "&&")), len(words))]
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="homeport")
    while isinstance(command, typer.core.TyperGroup):
        if not words or words[0].startswith("-"):
            return
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"no such command: {name}"
        command, context = found, typer.Context(found, parent=context, info_name=name)
    if "--help" in words or "-h" in words:
        return
    known = {
        option
        for p in command.params
        if isinstance(p, typer.core.TyperOption)
        for option in (*p.opts, *p.secondary_opts)
    }
    given = words[: words.index("--")] if "--" in words else words
    for word in given:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, f"{line}: no option {word}"
