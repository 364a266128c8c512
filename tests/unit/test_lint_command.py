"""`homeport lint` as a person and a CI job run it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from homeport.lint.rules import ALL

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lint"
WARNED = """apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: net}
spec:
  config: '{"cniVersion":"0.4.0","type":"macvlan","colour":"red"}'
"""


def lint(*args: str | Path, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    command = [sys.executable, "-m", "homeport", "lint", *map(str, args)]
    run = subprocess.run(command, input=raw, capture_output=True, check=False, timeout=60)
    return subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(), run.stderr.decode())


def test_the_guide_s_own_files_are_silent_together() -> None:
    run = lint(FIXTURES / "article.yaml", FIXTURES / "statefulset.yaml")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "no problems in 2 files, 1 network, 1 workload\n"


def test_the_beginner_s_mistakes_are_named_with_their_places() -> None:
    run = lint(FIXTURES / "mistakes.yaml")
    assert run.returncode == 1
    assert f'{FIXTURES}/mistakes.yaml:10:17: error[plugin-order]: "sbr" stands before "ipvlan"' in run.stdout
    assert "12:9: error[cni-version-misplaced]: " in run.stdout
    assert '10 |       { "type": "sbr" },\n   |                 ^^^^^\n' in run.stdout
    assert run.stdout.endswith("2 errors in 1 file, 3 networks, 0 workloads (2 fixable with --fix)\n")


def test_json_for_programs() -> None:
    run = lint("-o", "json", FIXTURES / "mistakes.yaml")
    assert run.returncode == 1
    first, second = json.loads(run.stdout)
    assert first | {"found": "", "right": "", "file": ""} == {
        "file": "", "line": 10, "column": 17, "endLine": 10, "endColumn": 22, "rule": "plugin-order",
        "severity": "error", "found": "", "right": "", "fixable": True,
    }  # fmt: skip
    assert second["rule"] == "cni-version-misplaced"


def test_sarif_says_what_could_not_be_read_as_well(tmp_path: Path) -> None:
    run = lint("-o", "sarif", FIXTURES / "mistakes.yaml", tmp_path / "gone.yaml")
    assert run.returncode == 2
    (log,) = json.loads(run.stdout)["runs"]
    assert [result["ruleId"] for result in log["results"]] == ["plugin-order", "cni-version-misplaced"]
    assert log["invocations"][0]["executionSuccessful"] is False
    assert "gone.yaml" in log["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


def test_github_gets_a_line_for_each_finding_and_each_problem(tmp_path: Path) -> None:
    run = lint("-o", "github", FIXTURES / "mistakes.yaml", tmp_path / "gone.yaml")
    assert run.returncode == 2
    first, second, problem = run.stdout.splitlines()
    assert first.startswith("::error title=homeport plugin-order,file=")
    assert ",line=10,endLine=10,col=17," in first
    assert second.startswith("::error title=homeport cni-version-misplaced,")
    assert problem == f'::error title=homeport::read "{tmp_path}/gone.yaml": No such file or directory'


@pytest.mark.parametrize("name", ["config", "nad"])
def test_the_schemas_of_the_repository_are_those_that_are_printed(name: str) -> None:
    stored = Path(__file__).parents[2] / f"schema/{name}.json"
    assert lint("--schema", name).stdout == stored.read_text()


def test_a_cluster_that_cannot_be_found_is_no_cluster_without_problems(tmp_path: Path) -> None:
    run = lint("--cluster", "--kubeconfig", tmp_path / "gone")
    assert (run.returncode, run.stdout) == (2, "")
    assert f"{tmp_path}/gone" in run.stderr


def test_warnings_stop_only_a_strict_run() -> None:
    assert lint("-", stdin=WARNED).returncode == 0
    run = lint("--strict", "-", stdin=WARNED)
    assert run.returncode == 1
    assert run.stdout.startswith("<stdin>:5:")
    assert "warning[unknown-key]" in run.stdout


def test_fix_writes_the_file_and_then_nothing_more(tmp_path: Path) -> None:
    target, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    target.write_bytes((FIXTURES / "mistakes.yaml").read_bytes())
    target.chmod(0o640)
    link.symlink_to(target)
    run = lint("--fix", link)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "fixed 2; no problems in 1 file, 3 networks, 0 workloads\n"
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    once = target.read_bytes()
    assert once.startswith(b"# Two mistakes of one list")
    before = target.stat().st_mtime_ns
    assert lint("--fix", target).stdout == "no problems in 1 file, 3 networks, 0 workloads\n"
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (once, before)
    assert sorted(os.listdir(tmp_path)) == ["link.yaml", "real.yaml"]


def test_diff_shows_what_fix_writes(tmp_path: Path) -> None:
    target = tmp_path / "a.yaml"
    target.write_bytes((FIXTURES / "mistakes.yaml").read_bytes())
    shown = lint("--diff", target)
    assert shown.returncode == 1
    assert target.read_bytes() == (FIXTURES / "mistakes.yaml").read_bytes()
    patched = tmp_path / "patched.yaml"
    subprocess.run(["patch", "-s", "-o", patched, target], input=shown.stdout.encode(), check=True)
    lint("--fix", target)
    assert patched.read_bytes() == target.read_bytes()


def test_directories_are_searched_for_manifests(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("deep/a.yaml", ".git/b.yaml", "c.yml", "d.txt"):
        (tmp_path / name).write_text(WARNED)
    run = lint("-o", "json", tmp_path)
    assert [Path(f["file"]).name for f in json.loads(run.stdout)] == ["c.yml", "a.yaml"]


def test_an_unreadable_file_does_not_hide_the_others(tmp_path: Path) -> None:
    binary, empty = tmp_path / "b.yaml", tmp_path / "empty"
    binary.write_bytes(b"\x7fELF\xd0\x00")
    empty.mkdir()
    run = lint(tmp_path / "gone.yaml", binary, empty, FIXTURES / "mistakes.yaml")
    assert run.returncode == 2
    assert "error[plugin-order]" in run.stdout
    assert run.stderr.splitlines() == [
        f'homeport: read "{tmp_path}/gone.yaml": No such file or directory',
        f'homeport: read "{binary}": found byte 0xd0 at 4, expected UTF-8 text',
        f'homeport: read directory "{empty}": found no manifest, '
        "expected files named *.yaml, *.yml, *.json, *.conf, *.conflist",
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "expected files, directories"),
        (("--fix", "-"), "--diff"),
        (("--fix", "--diff", "x.yaml"), "expected without --diff"),
        (("--explain", "plugin-ordr"), 'did you mean "plugin-order"?'),
        (("--colour", "x.yaml"), "No such option"),
        (("--cluster", "x.yaml"), "expected no files with it"),
        (("--cluster", "--fix"), "where it is applied from"),
        (("--namespace", "shop", "x.yaml"), "expected with --cluster"),
        (("--kubeconfig", "k", "x.yaml"), "expected with --cluster"),
        (("--rules", "-o", "sarif"), "expected text or json"),
        (("--schema", "pod"), "'config', 'nad'"),
    ],
)
def test_wrong_use_exits_with_2(args: tuple[str, ...], said: str) -> None:
    run = lint(*args)
    assert run.returncode == 2
    assert said in run.stderr
    assert run.stdout == ""


def test_rules_are_listed_and_explained() -> None:
    listed = json.loads(lint("--rules", "-o", "json").stdout)
    assert [rule["id"] for rule in listed] == [check.rule.id for check in ALL]
    table = lint("--rules").stdout.splitlines()
    assert len(table) == len(ALL) + 1
    run = lint("--explain", "plugin-order")
    assert run.returncode == 0
    assert run.stdout.startswith("plugin-order (error)\n\nA chained plugin stands before")
    assert "--fix: moves it behind" in run.stdout


def test_colour_on_a_terminal_and_nowhere_else() -> None:
    assert "\x1b" not in lint(FIXTURES / "mistakes.yaml").stdout
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "homeport", "lint", str(FIXTURES / "mistakes.yaml")]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    child = subprocess.Popen(command, stdout=secondary, stderr=secondary, env=environment)
    os.close(secondary)
    shown = b""
    while True:
        try:
            part = os.read(primary, 65536)
        except OSError:  # EIO: the child closed its end
            break
        if not part:
            break
        shown += part
    os.close(primary)
    assert child.wait(timeout=60) == 1
    assert b"\x1b[1;31merror[plugin-order]\x1b[0m" in shown


def test_nothing_from_a_file_reaches_the_terminal_raw() -> None:
    config = '{\'\x9b31m\': 1, "cniVersion": "0.4.0", "type": "macvlan"}'
    text = (
        WARNED.partition("  config")[0]
        + "  config: "
        + json.dumps(config, ensure_ascii=True).replace("\\u009b", "\\x9b")
    )
    run = lint("-", stdin=text)
    assert run.returncode == 1
    assert "\x9b" not in run.stdout


def test_the_page_about_lint_lists_every_rule_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lint.md").read_text()
    for rule in (check.rule for check in ALL):
        assert f"| [`{rule.id}`](lint/{rule.id}.md) | {rule.severity.value} | {rule.fix} | {rule.summary} |" in page


def test_rules_may_be_ignored(tmp_path: Path) -> None:
    path = tmp_path / "warned.yaml"
    path.write_text(WARNED)
    assert lint("--strict", path).returncode == 1
    assert lint("--strict", "--ignore", "unknown-key", path).returncode == 0
    run = lint("--ignore", "unknown-keys", path)
    assert run.returncode == 2
    assert 'no rule "unknown-keys"; did you mean "unknown-key"?' in " ".join(run.stderr.replace("│", "").split())
