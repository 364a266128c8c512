"""Objects of an API server that breaks, forgets or refuses: what is said of a write, and what of a list.

The server is a script on a socket, since no real one can be made to do these things.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec
import pytest
from tests.stand_ins_api import Asked, Behaviour, Hang, Piece, Reset, ScriptedServer, answer, chunk, status, streaming

from homeport.ipam.identities import Workload
from homeport.kube.asking import Asker
from homeport.kube.configs import ApiConfig
from homeport.kube.discovering import Discovery
from homeport.kube.errors import Expired
from homeport.kube.objects import KubernetesObjects
from homeport.kube.sending import Sender
from homeport.model.errors import CniError, IOFailure, TryAgainLater, Unreachable
from homeport.ports import ApiObject, ObjectChanged, ObjectExists, PatchRefused, Resource

THINGS = Resource(group="shop.example", version="v1", plural="things", kind="Thing")
WaitUntil = Callable[..., None]


def thing(name: str = "a", version: str = "5") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u", "resourceVersion": version}}


def page(*names: str, more: str = "") -> bytes:
    return answer(200, {"metadata": {"resourceVersion": "9", "continue": more}, "items": [thing(n) for n in names]})


class Serve(Protocol):
    def __call__(self, behaviour: Behaviour) -> ScriptedServer: ...


class Connect(Protocol):
    def __call__(self, config: ApiConfig, *, seconds: float = 2.5) -> KubernetesObjects: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ScriptedServer] = []

    def make(behaviour: Behaviour) -> ScriptedServer:
        servers.append(ScriptedServer(behaviour))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[KubernetesObjects] = []

    def make(config: ApiConfig, *, seconds: float = 2.5) -> KubernetesObjects:
        made.append(KubernetesObjects.connect(config, deadline_seconds=seconds))
        return made[-1]

    yield make
    for objects in made:
        objects.close()


def in_turn(*answers: Piece) -> Behaviour:
    """Each question gets the next; the last one is for all that follow."""
    left = list(answers)

    def behave(_asked: Asked) -> Iterator[Piece]:
        yield left.pop(0) if len(left) > 1 else left[0]

    return behave


# --- was it sent? ------------------------------------------------------------------------------------------------


def test_nobody_listens(serve: Serve, connect: Connect) -> None:
    server = serve(in_turn(answer(201, thing())))
    objects = connect(server.config)
    server.close()
    with pytest.raises(Unreachable, match=r"create things a: no answer from .*: connection refused"):
        objects.create(THINGS, {"metadata": {"name": "a"}})


def test_tls_never_came_up(serve: Serve, connect: Connect) -> None:
    """A plain server that hangs up: no request can have been sent."""
    config = msgspec.structs.replace(serve(in_turn(Reset())).config, tls=True, verify=False)
    with pytest.raises(Unreachable):
        connect(config, seconds=0.5).delete(THINGS, "a")


def test_connections_that_nobody_accepts(connect: Connect) -> None:
    """A listener whose queue is full: the kernel answers no further SYN."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        config = ApiConfig(host="127.0.0.1", port=port, tls=False, source="a test")
        with pytest.raises(Unreachable):
            connect(config, seconds=0.5).delete(THINGS, "a")


@pytest.mark.parametrize(
    "pieces", [[Reset()], [Hang()], [b"HTTP/1.1 201 "], [b""]], ids=["reset", "mute", "half", "closed"]
)
def test_what_was_sent_may_have_been_done(serve: Serve, connect: Connect, pieces: list[Piece]) -> None:
    with pytest.raises(TryAgainLater) as lost:
        connect(serve(in_turn(*pieces)).config, seconds=0.5).create(THINGS, {"metadata": {"name": "a"}})
    assert not isinstance(lost.value, Unreachable)


def test_a_first_attempt_that_was_sent_is_remembered(serve: Serve, connect: Connect) -> None:
    """The API server dies over the first attempt, and the others find nobody."""

    def behave(_asked: Asked) -> Iterator[Piece]:
        threading.Thread(target=server.close).start()
        yield Reset()

    server = serve(behave)
    with pytest.raises(TryAgainLater, match="connection refused") as lost:
        connect(server.config).create(THINGS, {"metadata": {"name": "a"}})
    assert not isinstance(lost.value, Unreachable)


def test_an_overloaded_server_may_have_done_it(serve: Serve, connect: Connect) -> None:
    with pytest.raises(TryAgainLater, match="answered 504") as lost:
        connect(serve(in_turn(status(504, "Timeout"))).config, seconds=0.5).delete(THINGS, "a")
    assert not isinstance(lost.value, Unreachable)


# --- refusals ----------------------------------------------------------------------------------------------------


def test_the_second_copy_of_a_write_meets_what_the_first_has_done(serve: Serve, connect: Connect) -> None:
    server = serve(in_turn(Reset(), status(409, "AlreadyExists", name="a", kind="things")))
    with pytest.raises(ObjectExists):
        connect(server.config).create(THINGS, {"metadata": {"name": "a"}})
    assert [asked.method for asked in server.asked] == ["POST", "POST"]


def test_a_conflict_is_about_the_version_only_where_one_was_given(serve: Serve, connect: Connect) -> None:
    objects = connect(serve(in_turn(status(409, "Conflict"))).config)
    with pytest.raises(ObjectChanged):
        objects.patch(THINGS, "a", {}, version="5")
    with pytest.raises(TryAgainLater, match="answered 409"):
        objects.patch(THINGS, "a", {})
    with pytest.raises(ObjectChanged):
        objects.delete(THINGS, "a", uid="u")
    with pytest.raises(TryAgainLater, match="answered 409"):
        objects.delete(THINGS, "a")
    with pytest.raises(TryAgainLater, match="answered 409"):
        objects.create(THINGS, {"metadata": {"name": "a"}})
    with pytest.raises(PatchRefused):
        objects.patch_json(THINGS, "a", [])


def test_what_is_invalid_is_refused_with_the_servers_words(serve: Serve, connect: Connect) -> None:
    refusal = status(422, "Invalid", "spec.scope: Invalid value", name="a", kind="Thing", causes=[{"field": "spec"}])
    objects = connect(serve(in_turn(refusal)).config)
    writes: list[Callable[[], object]] = [
        lambda: objects.create(THINGS, {"metadata": {"name": "a"}}),
        lambda: objects.patch(THINGS, "a", {}, version="5"),
        lambda: objects.patch_json(THINGS, "a", []),
    ]
    for write in writes:
        with pytest.raises(IOFailure) as refused:
            write()
        assert refused.value.details == "spec.scope: Invalid value"


def test_a_missing_definition_is_named(serve: Serve, connect: Connect) -> None:
    objects = connect(serve(in_turn(answer(404, b"404 page not found\n"))).config)
    questions: list[Callable[[], object]] = [
        lambda: objects.get(THINGS, "a"),
        lambda: objects.list(THINGS),
        lambda: objects.create(THINGS, {"metadata": {"name": "a"}}),
        lambda: objects.patch(THINGS, "a", {}, version="5"),
        lambda: objects.delete(THINGS, "a"),
    ]
    for ask in questions:
        with pytest.raises(IOFailure, match=r'expected the definition "things\.shop\.example" to be installed'):
            ask()


# --- lists and watches -------------------------------------------------------------------------------------------


def test_a_list_whose_version_was_forgotten_begins_again(serve: Serve, connect: Connect) -> None:
    server = serve(in_turn(page("a", more="t1"), status(410, "Expired"), page("a", "b", more="t2"), page("c")))
    assert [found.name for found in connect(server.config).list(THINGS)] == ["a", "b", "c"]
    assert [asked.query.get("continue") for asked in server.asked] == [None, "t1", None, "t2"]


def test_a_list_that_never_ends_in_time_is_no_list(serve: Serve, connect: Connect) -> None:
    def behave(asked: Asked) -> Iterator[Piece]:
        yield status(410, "Expired") if "continue" in asked.query else page("a", more="t")

    server = serve(behave)
    with pytest.raises(Expired):
        connect(server.config).list(THINGS)
    assert len(server.asked) == 6


def test_a_list_is_whole_or_an_error(serve: Serve, connect: Connect) -> None:
    server = serve(in_turn(page("a", more="t"), answer(403, b"")))
    with pytest.raises(IOFailure, match='forbids "list" of "things"'):
        connect(server.config).list(THINGS)


class Ear:
    def __init__(self) -> None:
        self.changed: list[str] = []
        self.gone: list[str] = []
        self.listed: list[str] = []

    def watch(self, objects: KubernetesObjects, *, since: str = "") -> Any:
        return objects.watch(
            THINGS,
            on_change=lambda found: self.changed.append(found.name),
            on_gone=self._note_gone,
            on_listed=self.listed.append,
            since=since,
        )

    def _note_gone(self, found: ApiObject) -> None:
        self.gone.append(found.name)


def test_a_watch_that_breaks_in_the_middle_of_a_list_tells_of_no_end(
    serve: Serve, connect: Connect, wait_until: WaitUntil
) -> None:
    lists = iter([page("a", "b"), page("a", more="t"), page("a", "b")])

    def behave(asked: Asked) -> Iterator[Piece]:
        if asked.watching:
            yield streaming() + chunk({"type": "ERROR", "object": {"kind": "Status", "code": 410}})
            yield b""
        elif "continue" in asked.query:
            yield status(410, "Expired")
        else:
            yield next(lists, None) or Hang()

    server, ear = serve(behave), Ear()
    ear.watch(connect(server.config))
    wait_until(lambda: len(ear.listed) == 2, 10)
    assert (ear.changed, ear.gone) == (["a", "b"], [])


def test_a_version_to_begin_with_is_given_up_only_when_it_is_forgotten(
    serve: Serve, connect: Connect, wait_until: WaitUntil
) -> None:
    lists = iter([status(500, "InternalError")] * 4 + [status(410, "Expired"), page("a")])

    def behave(asked: Asked) -> Iterator[Piece]:
        yield Hang() if asked.watching else next(lists)

    server, ear = serve(behave), Ear()
    ear.watch(connect(server.config), since="3")
    wait_until(lambda: ear.changed == ["a"], 15)
    asked = [a.query.get("resourceVersion") for a in server.asked if not a.watching]
    assert (asked[-1], set(asked[:-1])) == (None, {"3"})


@pytest.mark.parametrize(("version", "lists"), [("8", 2), ("9", 1), ("12", 1)])
def test_a_database_that_was_set_back_is_listed_anew(
    serve: Serve, connect: Connect, wait_until: WaitUntil, version: str, lists: int
) -> None:
    """While it was away. Its watch would wait for versions that are yet to come, without a word."""
    asked_for: list[str] = []

    def behave(asked: Asked) -> Iterator[Piece]:
        if asked.query.get("resourceVersion") == "0":
            asked_for.append("version")
            yield answer(200, {"metadata": {"resourceVersion": version}, "items": []})
        elif not asked.watching:
            asked_for.append("list")
            yield page("a") if asked_for == ["list"] else page("b")
        else:
            asked_for.append("watch")
            if asked_for.count("watch") == 1:
                yield streaming()
                yield b""
            elif asked_for.count("watch") == 2:
                yield status(503, "ServiceUnavailable")
            else:
                yield streaming()
                yield Hang()

    ear = Ear()
    watch = ear.watch(connect(serve(behave).config))
    wait_until(lambda: asked_for.count("watch") == 3 and watch.is_current(), 10)
    assert asked_for.count("version") == 1, "not when a watch merely breaks"
    assert watch.was_away() == (lists == 1), "a list tells all there is"
    assert asked_for.count("list") == lists
    assert (ear.changed, ear.gone) == ((["a", "b"], ["a"]) if lists == 2 else (["a"], []))


def test_a_stopped_watch_leaves_the_others_and_its_thread_ends(
    serve: Serve, connect: Connect, wait_until: WaitUntil
) -> None:
    def behave(asked: Asked) -> Iterator[Piece]:
        if not asked.watching:
            yield page("a")
            return
        yield streaming()
        yield Hang()

    server, ear = serve(behave), Ear()
    objects = connect(server.config)
    before = threading.active_count()
    first, second = ear.watch(objects), ear.watch(objects)
    wait_until(lambda: sum(a.watching for a in server.asked) == 2)
    wait_until(lambda: first.is_current() and second.is_current())
    serving = threading.active_count() - before
    first.stop()
    wait_until(lambda: threading.active_count() - before < serving)
    assert second.is_current()
    assert [found.name for found in objects.list(THINGS)] == ["a"]


# --- kinds of workloads ------------------------------------------------------------------------------------------


class Kinds:
    """An API server with one API group whose kind `Web` is served in its version `v2` only, until `gone`."""

    def __init__(self) -> None:
        self.gone = False

    def __call__(self, asked: Asked) -> Iterator[Piece]:
        resources = {"v1": [], "v2": [{"name": "webs/status", "kind": "Web", "namespaced": True}, self._web]}
        objects = {"shop/web": {"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": {"replicas": 2}}}
        parts = asked.path.split("/")[3:]
        if not parts:
            versions = [{"groupVersion": f"k.example/{v}", "version": v} for v in resources]
            yield answer(200, {"versions": versions, "preferredVersion": versions[0]})
        elif len(parts) == 1:
            yield answer(200, {"groupVersion": f"k.example/{parts[0]}", "resources": resources[parts[0]]})
        elif self.gone:
            yield answer(404, b"404 page not found\n")
        else:
            _, _, namespace, plural, name = parts
            found = objects.get(f"{namespace}/{name}")
            yield answer(200, found) if found else status(404, "NotFound", name=name, kind=plural)

    @property
    def _web(self) -> dict[str, Any]:
        return {"name": "webs", "kind": "Web", "namespaced": True}


@pytest.fixture
def discover() -> Iterator[Callable[[ApiConfig], Discovery]]:
    senders: list[Sender] = []

    def make(config: ApiConfig) -> Discovery:
        senders.append(Sender(config))
        return Discovery(Asker(senders[-1]))

    yield make
    for sender in senders:
        sender.close()


def test_a_kind_is_looked_for_once_and_again_when_it_is_not_known_any_more(
    serve: Serve, discover: Callable[[ApiConfig], Discovery]
) -> None:
    kinds = Kinds()
    server = serve(kinds)
    discovery = discover(server.config)
    found = discovery.workload(Workload("shop", "Web.k.example", "web"))
    assert found is not None
    assert (found.uid, found.replicas) == ("u", 2)
    assert discovery.workload(Workload("shop", "Web.k.example", "none")) is None
    root = "/apis/k.example"
    web = f"{root}/v2/namespaces/shop/webs"
    assert [a.path for a in server.asked] == [root, f"{root}/v1", f"{root}/v2", f"{web}/web", f"{web}/none"]
    kinds.gone = True
    with pytest.raises(CniError, match="webs"):  # and not None: that it is not served proves nothing
        discovery.workload(Workload("shop", "Web.k.example", "web"))
    kinds.gone = False
    server.asked.clear()
    assert discovery.workload(Workload("shop", "Web.k.example", "web")) == found
    assert len(server.asked) == 4


@pytest.mark.parametrize("kind", ["Gizmo.k.example", "Gizmo.nowhere.example"])
def test_a_kind_that_is_not_served_is_no_absence(
    serve: Serve, discover: Callable[[ApiConfig], Discovery], kind: str
) -> None:
    def behave(asked: Asked) -> Iterator[Piece]:
        yield from Kinds()(asked) if "nowhere" not in asked.path else [answer(404, b"404 page not found\n")]

    with pytest.raises(TryAgainLater, match=r'look up kind "Gizmo" of "(k|nowhere)\.example"'):
        discover(serve(behave).config).workload(Workload("shop", kind, "web"))
