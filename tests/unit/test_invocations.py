"""CNI_* variables in, one call or one error out."""

from __future__ import annotations

import pytest

from homeport.cni import invocations
from homeport.cni.invocations import Attachment
from homeport.model.errors import InvalidEnvironment

WHOLE = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/a",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=true;K8S_POD_NAME=web-0",
    "CNI_PATH": "/opt/cni/bin::/usr/lib/cni",
}


def test_a_whole_call() -> None:
    call = invocations.parse_environment({**WHOLE, "HOME": "/root"})
    assert call.command == "ADD"
    assert call.attachment == Attachment(
        container_id="c1",
        ifname="eth0",
        netns_path="/run/netns/a",
        args={"IgnoreUnknown": "true", "K8S_POD_NAME": "web-0"},
        path=("/opt/cni/bin", "/usr/lib/cni"),
    )
    assert list(call.attachment.args) == ["IgnoreUnknown", "K8S_POD_NAME"]
    assert not call.netns_override


@pytest.mark.parametrize(
    ("command", "required"),
    [
        ("ADD", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}),
        ("CHECK", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}),
        ("DEL", {"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"}),
        ("GC", {"CNI_PATH"}),
        ("STATUS", {"CNI_PATH"}),
        ("VERSION", set()),
    ],
)
def test_all_missing_variables_are_named_at_once(command: str, required: set[str]) -> None:
    everything = {name for name in WHOLE if name not in ("CNI_COMMAND", "CNI_ARGS")}
    if not required:
        assert invocations.parse_environment({"CNI_COMMAND": command}).command == command
        return
    with pytest.raises(InvalidEnvironment) as caught:
        invocations.parse_environment({"CNI_COMMAND": command, **dict.fromkeys(required, "")})
    assert caught.value.code == 4
    assert {name for name in everything if name in caught.value.msg} == required


def test_malformed_and_missing_variables_are_named_together() -> None:
    wrong = {**WHOLE, "CNI_CONTAINERID": "../x", "CNI_IFNAME": "a/b", "CNI_ARGS": "nonsense", "CNI_NETNS": ""}
    with pytest.raises(InvalidEnvironment) as caught:
        invocations.parse_environment(wrong)
    for part in ("CNI_CONTAINERID", '"../x"', "CNI_IFNAME", '"a/b"', "CNI_ARGS", '"nonsense"', "CNI_NETNS: missing"):
        assert part in caught.value.msg


@pytest.mark.parametrize("command", ["", "add", "REMOVE"])
def test_an_unknown_verb(command: str) -> None:
    with pytest.raises(InvalidEnvironment, match=r"CNI_COMMAND: .*expected one of ADD, DEL"):
        invocations.parse_environment({**WHOLE, "CNI_COMMAND": command})


@pytest.mark.parametrize("container_id", ["../etc", "a/b", "-a", ".a", "a b", "a\n", "ä"])
def test_container_ids_that_could_leave_a_directory(container_id: str) -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_CONTAINERID"):
        invocations.parse_environment({**WHOLE, "CNI_CONTAINERID": container_id})


@pytest.mark.parametrize("ifname", [".", "..", "a/b", "a:b", "a b", "x" * 16, "tab\t"])
def test_interface_names_the_kernel_refuses(ifname: str) -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_IFNAME"):
        invocations.parse_environment({**WHOLE, "CNI_IFNAME": ifname})


def test_gc_ignores_the_attachment_variables() -> None:
    call = invocations.parse_environment({"CNI_COMMAND": "GC", "CNI_PATH": "/x", "CNI_IFNAME": "a/b", "CNI_ARGS": "?"})
    assert call.attachment == Attachment(container_id="", ifname="", path=("/x",))


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("", {}),
        ("A=1", {"A": "1"}),
        ("A=1;", {"A": "1"}),
        ("A=;B=x=y", {"A": "", "B": "x=y"}),
        ("A=1;B=2;A=3", {"A": "3", "B": "2"}),
    ],
)
def test_args(text: str, args: dict[str, str]) -> None:
    assert invocations.parse_args(text) == args


@pytest.mark.parametrize("text", ["A", "=1", "A=1;B", "A=1; ;B=2"])
def test_malformed_args(text: str) -> None:
    with pytest.raises(InvalidEnvironment, match=r"CNI_ARGS: found .* expected KEY=VALUE"):
        invocations.parse_args(text)


@pytest.mark.parametrize("args", [{"A": "1;B=2"}, {"": "1"}, {"A=": "1"}, {"A": "\0"}])
def test_args_that_cannot_be_said(args: dict[str, str]) -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_ARGS"):
        invocations.format_args(args)


@pytest.mark.parametrize("override", ["1", "true", "TRUE"])
def test_netns_override(override: str) -> None:
    assert invocations.parse_environment({**WHOLE, "CNI_NETNS_OVERRIDE": override}).netns_override


def test_environment_is_the_inverse() -> None:
    call = invocations.parse_environment(WHOLE)
    assert invocations.parse_environment(invocations.environment("ADD", call.attachment)) == call
    assert invocations.environment("STATUS", call.attachment) == {
        "CNI_COMMAND": "STATUS",
        "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
    }
