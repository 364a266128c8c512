"""`.pre-commit-hooks.yaml` as pre-commit takes it, and its hooks as they run in somebody's repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from homeport.cli import reading

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"
MISTAKES = (ROOT / "tests/fixtures/lint/mistakes.yaml").read_text()


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """With our own programs in PATH, and nothing of git's or pre-commit's from the user's home."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(cwd),
        "PRE_COMMIT_HOME": str(cwd / ".cache"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def somebodys(tmp_path: Path) -> Path:
    """A repository that uses our hooks, by the programs that are here."""
    hooks = [{**hook, "language": "system"} for hook in YAML(typ="safe").load(HOOKS.read_text())]
    repository = tmp_path / "repository"
    repository.mkdir()
    with (repository / ".pre-commit-config.yaml").open("w") as config:
        YAML().dump({"repos": [{"repo": "local", "hooks": hooks}]}, config)
    (repository / "net.yaml").write_text(MISTAKES)
    (repository / "notes.txt").write_text("sbr: [\n")
    run("git", "init", "--quiet", cwd=repository)
    run("git", "add", ".", cwd=repository)
    return repository


def test_pre_commit_takes_the_manifest(tmp_path: Path) -> None:
    found = run(sys.executable, "-m", "pre_commit", "validate-manifest", HOOKS, cwd=tmp_path)

    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_hooks_take_the_files_that_lint_takes() -> None:
    for hook in YAML(typ="safe").load(HOOKS.read_text()):
        for suffix in reading.SUFFIXES:
            assert re.search(hook["files"], f"deploy/a{suffix}")
        assert not re.search(hook["files"], "deploy/yaml.txt")


def test_a_commit_with_a_mistake_is_stopped_and_says_why(somebodys: Path) -> None:
    found = run(sys.executable, "-m", "pre_commit", "run", "homeport-lint", "--all-files", cwd=somebodys)

    assert found.returncode == 1, found.stderr
    assert "net.yaml:10:17: error[plugin-order]" in found.stdout
    assert "notes.txt" not in found.stdout


def test_the_mending_hook_leaves_files_that_pass(somebodys: Path) -> None:
    mended = run(sys.executable, "-m", "pre_commit", "run", "homeport-lint-fix", "--all-files", cwd=somebodys)
    again = run(sys.executable, "-m", "pre_commit", "run", "homeport-lint", "--all-files", cwd=somebodys)

    assert "files were modified by this hook" in mended.stdout
    assert again.returncode == 0, again.stdout
