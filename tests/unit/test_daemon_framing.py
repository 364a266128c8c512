"""The own protocol: both directions, every cut, and nothing but its own error for whatever bytes come."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.daemon import framing
from homeport.daemon.calls import Call, Reply
from homeport.daemon.framing import BadFrame

CALL = Call(plugin="macvlan", environ={"CNI_COMMAND": "ADD", "CNI_ARGS": "A=b;C=d=e"}, stdin=b'{"name":"n"}')
FRAME = b"HPR1\0\0\0\x3b\0\0\0\x0cCNI_COMMAND=ADD\0CNI_ARGS=A=b;C=d=e\0HOMEPORT_PLUGIN=macvlan\0" + b'{"name":"n"}'


def frame(environment: bytes, stdin: bytes = b"", *, magic: bytes = b"HPR1") -> bytes:
    return magic + struct.pack(">II", len(environment), len(stdin)) + environment + stdin


def test_the_bytes_of_a_request() -> None:
    assert framing.encode_request(CALL) == FRAME
    assert framing.decode_request(FRAME) == CALL


@pytest.mark.parametrize("cut", range(len(FRAME)))
def test_a_request_cut_short(cut: int) -> None:
    with pytest.raises(BadFrame):
        framing.decode_request(FRAME[:cut])


def test_a_request_with_more_behind_it() -> None:
    with pytest.raises(BadFrame, match="found 84 bytes, expected 83"):
        framing.decode_request(FRAME + b"x")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (frame(b"HOMEPORT_PLUGIN=x\0", magic=b"HPR2"), "expected b'HPR1'"),
        (frame(b""), "HOMEPORT_PLUGIN is missing"),
        (frame(b"HOMEPORT_PLUGIN=\0"), "HOMEPORT_PLUGIN is missing"),
        (frame(b"HOMEPORT_PLUGIN=x"), "does not end with NUL"),
        (frame(b"HOMEPORT_PLUGIN=x\0\0"), "expected KEY=VALUE"),
        (frame(b"HOMEPORT_PLUGIN=x\0=y\0"), "expected KEY=VALUE"),
        (frame(b"HOMEPORT_PLUGIN=x\0CNI_COMMAND\0"), "expected KEY=VALUE"),
        (b"HPR1" + struct.pack(">II", 256 * 1024 + 1, 0), "environment of the call: found 262145 bytes"),
        (b"HPR1" + struct.pack(">II", 0, 4 * 1024 * 1024 + 1), "stdin of the call: found 4194305 bytes"),
        (b"HPR1" + b"\xff" * 8, "environment of the call: found 4294967295 bytes"),
    ],
)
def test_a_bad_request(bad: bytes, words: str) -> None:
    with pytest.raises(BadFrame, match=words) as caught:
        framing.decode_request(bad)
    assert caught.value.code == 6


def test_only_the_variables_of_cni_are_taken_and_the_first_of_two() -> None:
    call = framing.decode_request(
        frame(b"PATH=/bin\0CNI_IFNAME=a\0CNI_IFNAME=b\0HOMEPORT_SOCKET=/x\0HOMEPORT_PLUGIN=p\0HOMEPORT_PLUGIN=q\0")
    )
    assert call == Call(plugin="p", environ={"CNI_IFNAME": "a"}, stdin=b"")


def test_bytes_that_are_no_text_survive_both_ways() -> None:
    whole = frame(b"CNI_IFNAME=\xff\xfe\0HOMEPORT_PLUGIN=p\0")
    call = framing.decode_request(whole)
    assert call.environ == {"CNI_IFNAME": "\udcff\udcfe"}
    assert framing.encode_request(call) == whole


@pytest.mark.parametrize(
    "call",
    [
        Call(plugin="p", environ={"CNI_IFNAME": "a\0CNI_NETNS=/x"}, stdin=b""),
        Call(plugin="p", environ={"CNI_A=B": "c"}, stdin=b""),
        Call(plugin="p", environ={"": "c"}, stdin=b""),
        Call(plugin="p", environ={"CNI_IFNAME": "\ud800"}, stdin=b""),
        Call(plugin="p", environ={"CNI_ARGS": "x" * framing.MAX_ENVIRONMENT_BYTES}, stdin=b""),
        Call(plugin="p", environ={}, stdin=b"x" * (framing.MAX_STDIN_BYTES + 1)),
    ],
)
def test_what_the_form_cannot_carry(call: Call) -> None:
    with pytest.raises(BadFrame):
        framing.encode_request(call)


def test_a_reply() -> None:
    reply = Reply(exit_code=1, stdout=b"{}")
    assert framing.encode_reply(reply) == b"HPR1\0\0\0\x01\0\0\0\x02{}"
    assert framing.decode_reply(framing.encode_reply(reply)) == reply
    for cut in range(14):
        with pytest.raises(BadFrame):
            framing.decode_reply(framing.encode_reply(reply)[:cut])
    with pytest.raises(BadFrame, match="exit code 256"):
        framing.decode_reply(b"HPR1\0\0\x01\0\0\0\0\0")
    with pytest.raises(BadFrame, match="stdout of the call"):
        framing.encode_reply(Reply(exit_code=0, stdout=b"x" * (framing.MAX_STDOUT_BYTES + 1)))


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(
    _TEXT.filter(bool), st.dictionaries(_TEXT.map("CNI_{}".format).filter(lambda n: "=" not in n), _TEXT), st.binary()
)
def test_every_call_comes_back(plugin: str, environ: dict[str, str], stdin: bytes) -> None:
    call = Call(plugin=plugin, environ=environ, stdin=stdin)
    assert framing.decode_request(framing.encode_request(call)) == call


@given(st.one_of(st.binary(), st.binary().map(lambda b: b"HPR1" + b), st.binary().map(lambda b: frame(b))))
def test_no_bytes_do_worse_than_being_refused(data: bytes) -> None:
    for decode in (framing.decode_request, framing.decode_reply, framing.request_sizes):
        with contextlib.suppress(BadFrame):
            decode(data)


@given(st.integers(0, len(FRAME) - 1), st.integers(0, 255))
def test_a_request_with_one_byte_changed(at: int, byte: int) -> None:
    changed = FRAME[:at] + bytes([byte]) + FRAME[at + 1 :]
    try:
        call = framing.decode_request(changed)
    except BadFrame:
        return
    assert framing.decode_request(framing.encode_request(call)) == call
