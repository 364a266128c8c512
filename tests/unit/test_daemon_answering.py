"""What a call comes to, and what happens with the journal before and after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.daemons import call_of

from homeport.cni.invocations import Invocation
from homeport.daemon import delivering
from homeport.daemon.answering import Answerer
from homeport.daemon.calls import Call, Outcome
from homeport.daemon.delivering import Delivery
from homeport.daemon.journal import Journal
from homeport.daemon.workers import Workers
from homeport.metaplugin.deleting import Deferred
from homeport.model.errors import CniError, IOFailure
from homeport.model.results import IPConfig, Result
from homeport.wiring import build_shells

CONF = b'{"cniVersion":"1.0.0","name":"n","type":"homeport"}'
ADD = call_of("ADD", stdin=CONF, NETNS="/run/netns/none")
DELETE = call_of("DEL", stdin=CONF, NETNS="/run/netns/none")
RESULT = Result(ips=(IPConfig(address=ip_interface("10.0.0.5/24")),))


class Script:
    """A meta-plugin that notes its calls; `fails` has what each verb raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str | None]] = []
        self.fails: dict[str, Exception] = {}

    def _note(self, verb: str, invocation: Invocation) -> None:
        attachment = invocation.attachment
        self.calls.append((verb, attachment.container_id, attachment.netns_path))
        if verb in self.fails:
            raise self.fails[verb]

    def add(self, conf: Mapping[str, Any], invocation: Invocation) -> Result:
        self._note("add", invocation)
        return RESULT

    def delete(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        self._note("delete", invocation)

    def check(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        self._note("check", invocation)

    def gc(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        self._note("gc", invocation)

    def status(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        self._note("status", invocation)

    def delegate_add(self, conf: Mapping[str, Any], invocation: Invocation, attributes: Mapping[str, Any]) -> Result:
        self._note("delegate_add", invocation)
        return RESULT

    def delegate_delete(self, conf: Mapping[str, Any], invocation: Invocation, attributes: Mapping[str, Any]) -> None:
        self._note("delegate_delete", invocation)

    def delegate_check(self, conf: Mapping[str, Any], invocation: Invocation, attributes: Mapping[str, Any]) -> None:
        self._note("delegate_check", invocation)

    def delegate_status(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        self._note("delegate_status", invocation)

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _, _ in self.calls]


@pytest.fixture
def meta() -> Script:
    return Script()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "journal", report=lambda *_: None)
    made.open()
    return made


@pytest.fixture
def answerer(meta: Script, journal: Journal) -> Answerer:
    return Answerer(shells=build_shells(environ={}), meta=meta, journal=journal)


def error_of(outcome: Outcome) -> CniError:
    assert outcome.error is not None
    return outcome.error


@pytest.mark.parametrize(
    ("command", "verb"), [("ADD", "add"), ("DEL", "delete"), ("CHECK", "check"), ("GC", "gc"), ("STATUS", "status")]
)
@pytest.mark.parametrize("name", ["homeport", "homeport-shim", "multus", "multus-shim"])
def test_every_verb_under_every_name(answerer: Answerer, meta: Script, command: str, verb: str, name: str) -> None:
    outcome = answerer.carry_out(call_of(command, plugin=name, stdin=CONF, NETNS="/run/netns/none"))
    assert (meta.verbs, outcome.error) == ([verb], None)
    reply = outcome.reply()
    assert reply.exit_code == 0
    assert (json.loads(reply.stdout) if reply.stdout else {}) == (
        {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]} if command == "ADD" else {}
    )


@pytest.mark.parametrize(
    ("command", "verb"),
    [("ADD", "delegate_add"), ("DEL", "delegate_delete"), ("CHECK", "delegate_check"), ("STATUS", "delegate_status")],
)
def test_hotplug(answerer: Answerer, meta: Script, command: str, verb: str) -> None:
    call = msgspec.structs.replace(call_of(command, stdin=CONF, NETNS="/run/netns/none"), attributes={})
    assert answerer.carry_out(call).error is None
    assert meta.verbs == [verb]


def test_hotplug_knows_no_gc(answerer: Answerer) -> None:
    assert error_of(answerer.carry_out(msgspec.structs.replace(call_of("GC", stdin=CONF), attributes={}))).code == 2


def test_version_needs_nothing_but_its_command(answerer: Answerer) -> None:
    reply = answerer.carry_out(Call(plugin="macvlan", environ={"CNI_COMMAND": "VERSION"}, stdin=b"")).reply()
    assert reply.exit_code == 0
    assert json.loads(reply.stdout)["cniVersion"] == "1.1.0"
    assert reply.stdout.endswith(b"\n")


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        (call_of("ADD", stdin=CONF), 4, "CNI_NETNS: missing, required for ADD"),
        (call_of("FROB", stdin=CONF), 4, 'CNI_COMMAND: found "FROB"'),
        (call_of("DEL", "../../etc", stdin=CONF), 4, 'CNI_CONTAINERID: found "../../etc"'),
        (call_of("DEL", "c" * 4096 + "/", stdin=CONF), 4, "CNI_CONTAINERID"),
        (call_of("DEL", stdin=CONF, IFNAME="a/b"), 4, 'CNI_IFNAME: found "a/b"'),
        (call_of("DEL", stdin=CONF, IFNAME="\udcff"), 4, "CNI_IFNAME: found '\\udcff', expected UTF-8"),
        (call_of("DEL", stdin=b""), 6, "found nothing"),
        (call_of("DEL", stdin=b"[]"), 6, "expected a JSON object"),
        (call_of("DEL", stdin=b'{"cniVersion":5}'), 7, 'key "cniVersion"'),
        (call_of("DEL", plugin="../bridge", stdin=CONF), 105, 'plugin "../bridge": not built in'),
        (call_of("DEL", plugin="p" * 4096, stdin=CONF), 105, "not built in"),
        (call_of("ADD", plugin="loopback", stdin=CONF, NETNS="/proc/self/ns/net"), 8, "own network namespace"),
        (call_of("STATUS", plugin="loopback", stdin=CONF), 1, "STATUS: found cniVersion"),
    ],
)
def test_bad_calls(answerer: Answerer, meta: Script, call: Call, code: int, words: str) -> None:
    outcome = answerer.carry_out(call)
    assert error_of(outcome).code == code
    assert words in str(outcome.error)
    reply = outcome.reply()
    assert reply.exit_code == 1
    assert json.loads(reply.stdout)["code"] == code
    assert meta.calls == []


def test_an_error_is_in_the_version_of_the_configuration(answerer: Answerer, meta: Script) -> None:
    meta.fails["add"] = IOFailure("read x: found y", "z")
    assert json.loads(answerer.carry_out(ADD).reply().stdout) == {
        "cniVersion": "1.0.0",
        "code": 5,
        "msg": "read x: found y",
        "details": "z",
    }


def test_a_bug_is_answered(answerer: Answerer, meta: Script) -> None:
    meta.fails["check"] = ZeroDivisionError("division by zero")
    outcome = answerer.carry_out(call_of("CHECK", stdin=CONF, NETNS="/x"))
    assert json.loads(outcome.reply().stdout) == {
        "cniVersion": "1.0.0",
        "code": 999,
        "msg": 'plugin "homeport": unexpected ZeroDivisionError: division by zero',
        "details": "the daemon's log has the traceback",
    }


def test_an_old_version_that_cannot_say_the_result() -> None:
    reply = Outcome(cni_version="0.2.0", result=Result()).reply()
    assert reply.exit_code == 1
    assert json.loads(reply.stdout)["code"] == 1


def test_each_call_is_observed(meta: Script, journal: Journal) -> None:
    seen: list[tuple[str, int | None]] = []
    answerer = Answerer(
        shells=build_shells(environ={}),
        meta=meta,
        journal=journal,
        observe=lambda call, outcome, _: seen.append((call.command, outcome.error.code if outcome.error else None)),
    )
    answerer.carry_out(ADD)
    answerer.carry_out(call_of("DEL", plugin="nobody", stdin=CONF))
    assert seen == [("ADD", None), ("DEL", 105)]


# --- the journal -------------------------------------------------------------------------------------------------


def test_a_deferred_del_is_written_down_and_answered_with_success(
    answerer: Answerer, meta: Script, journal: Journal
) -> None:
    meta.fails["delete"] = Deferred("API server: away")
    assert answerer.carry_out(DELETE).error is None
    (entry,) = journal.entries()
    assert entry.call == DELETE
    with pytest.raises(Deferred):
        answerer.finish(entry)
    assert journal.entries() == (entry,)
    meta.fails.clear()
    answerer.finish(entry)
    assert journal.entries() == ()
    assert meta.verbs == ["delete"] * 3


def test_a_deferred_del_that_cannot_be_written_down_fails(answerer: Answerer, meta: Script, journal: Journal) -> None:
    meta.fails["delete"] = Deferred("API server: away")
    journal.path.rmdir()
    journal.path.write_text("in the way")
    assert error_of(answerer.carry_out(DELETE)).code == 5


def test_a_del_that_fails_otherwise_is_the_callers_to_repeat(
    answerer: Answerer, meta: Script, journal: Journal
) -> None:
    meta.fails["delete"] = IOFailure("broken")
    assert error_of(answerer.carry_out(DELETE)).code == 5
    assert journal.entries() == ()


def test_a_deferred_hotplug_del_is_not_written_down(answerer: Answerer, meta: Script, journal: Journal) -> None:
    """A file of the journal could not say that it is one."""
    meta.fails["delegate_delete"] = Deferred("API server: away")
    assert error_of(answerer.carry_out(msgspec.structs.replace(DELETE, attributes={}))).code == 11
    assert journal.entries() == ()


def test_an_add_waits_for_the_dels_of_its_container(answerer: Answerer, meta: Script, journal: Journal) -> None:
    journal.write(DELETE)
    journal.write(call_of("DEL", "c2", stdin=CONF))
    assert answerer.carry_out(ADD).error is None
    assert [(verb, container) for verb, container, _ in meta.calls] == [("delete", "c1"), ("add", "c1")]
    assert [e.call.container_id for e in journal.entries()] == ["c2"]


def test_an_add_fails_while_a_del_of_its_container_cannot_be_done(
    answerer: Answerer, meta: Script, journal: Journal
) -> None:
    """Carried out later, it would take away what the ADD made."""
    journal.write(DELETE)
    meta.fails["delete"] = IOFailure("broken")
    error = error_of(answerer.carry_out(ADD))
    assert error.code == 11
    assert "an earlier DEL of it must be done first, and failed: broken" in error.msg
    assert meta.verbs == ["delete"]
    assert len(journal.entries()) == 1


def test_an_entry_that_somebody_else_finished_is_done(answerer: Answerer, meta: Script, journal: Journal) -> None:
    journal.write(DELETE)
    (entry,) = journal.entries()
    journal.remove(entry)
    answerer.finish(entry)
    assert meta.calls == []


def test_a_namespace_of_a_process_is_not_trusted_later(answerer: Answerer, meta: Script, journal: Journal) -> None:
    """The process ID may be another's by then."""
    journal.write(call_of("DEL", stdin=CONF, NETNS="/proc/1234/ns/net"))
    journal.write(call_of("DEL", stdin=CONF, NETNS="/run/netns/x"))
    for entry in journal.entries():
        answerer.finish(entry)
    assert {netns for _, _, netns in meta.calls} == {None, "/run/netns/x"}


# --- callers that go away ----------------------------------------------------------------------------------------


def test_an_add_that_nobody_waited_for_is_undone(answerer: Answerer, meta: Script, journal: Journal) -> None:
    assert error_of(answerer.carry_out(ADD, lambda: True)).code == 11
    assert meta.verbs == ["add", "delete"]
    assert journal.entries() == ()


def test_the_undoing_is_written_down_when_it_fails(answerer: Answerer, meta: Script, journal: Journal) -> None:
    meta.fails["delete"] = IOFailure("broken")
    answerer.carry_out(ADD, lambda: True)
    (entry,) = journal.entries()
    assert entry.call == DELETE


def test_nothing_else_is_undone(answerer: Answerer, meta: Script) -> None:
    meta.fails["add"] = IOFailure("broken")
    answerer.carry_out(ADD, lambda: True)
    answerer.carry_out(DELETE, lambda: True)
    answerer.carry_out(call_of("STATUS", stdin=CONF), lambda: True)
    assert meta.verbs == ["add", "delete", "status"]


# --- in the background -------------------------------------------------------------------------------------------


def test_delivery_goes_on_until_it_is_done(
    answerer: Answerer,
    meta: Script,
    journal: Journal,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivering, "FIRST_PAUSE_SECONDS", 0.01)
    workers = Workers(2, backlog=10)
    delivery = Delivery(journal, workers, answerer.finish)
    for container in ("c1", "c2"):
        journal.write(call_of("DEL", container, stdin=CONF))
    meta.fails["delete"] = Deferred("API server: away")

    def goes_on(until: Callable[[], bool]) -> None:
        def look() -> bool:
            delivery.go_through()
            return until()

        wait_until(look)

    for tries in (2, 4, 6):
        goes_on(lambda tries=tries: len(meta.calls) >= tries)  # type: ignore[misc]  # a lambda's default is untyped
        assert delivery.backlog == 2
    assert len(journal.entries()) == 2
    meta.fails.clear()
    goes_on(lambda: journal.entries() == ())
    assert workers.drain(5)
    delivery.go_through()
    assert delivery.backlog == 0


def test_delivery_waits_longer_after_each_failure(
    meta: Script, journal: Journal, answerer: Answerer, wait_until: Callable[..., None]
) -> None:
    workers = Workers(1, backlog=10)
    delivery = Delivery(journal, workers, answerer.finish)
    journal.write(DELETE)
    meta.fails["delete"] = IOFailure("broken")
    for _ in range(20):
        delivery.go_through()
        assert workers.drain(5)
    assert len(meta.calls) == 1


def test_delivery_begins_nothing_once_it_is_stopped(answerer: Answerer, meta: Script, journal: Journal) -> None:
    workers = Workers(1, backlog=10)
    delivery = Delivery(journal, workers, answerer.finish)
    journal.write(DELETE)
    delivery.stop()
    delivery.go_through()
    assert workers.drain(5)
    assert meta.calls == []
    assert len(journal.entries()) == 1
