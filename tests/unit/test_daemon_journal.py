"""The directory of DELs that wait: nothing is lost, nothing unreadable is forgotten."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec
import pytest
from tests.daemons import call_of

from homeport.daemon import framing, journal
from homeport.daemon.journal import Entry, Journal
from homeport.model.errors import CniError, IOFailure, StoreFull, TryAgainLater

DELETE = call_of("DEL", "c1", stdin=b'{"cniVersion":"1.0.0","name":"n"}')


class Reports:
    def __init__(self) -> None:
        self.made: list[tuple[str, CniError]] = []

    def __call__(self, path: str, error: CniError) -> None:
        self.made.append((path, error))


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def opened(tmp_path: Path, reports: Reports) -> Journal:
    made = Journal(tmp_path / "state" / "journal", report=reports)
    made.open()
    return made


def only(entries: tuple[Entry, ...]) -> Entry:
    (entry,) = entries
    return entry


def test_an_entry_is_the_request_itself_and_private(opened: Journal) -> None:
    opened.write(DELETE)
    entry = only(opened.entries())
    path = opened.path / entry.name
    assert entry.call == DELETE
    assert path.read_bytes() == framing.encode_request(DELETE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(opened.path.stat().st_mode) == 0o700
    assert entry.name.startswith("c1-eth0-")
    assert entry.name.endswith(".del")
    opened.remove(entry)
    assert os.listdir(opened.path) == []


def test_entries_of_a_container_go_by_their_contents(opened: Journal) -> None:
    opened.write(DELETE)
    opened.write(msgspec.structs.replace(DELETE, environ={**DELETE.environ, "CNI_CONTAINERID": "c1-eth0"}))
    (opened.path / "dropped-by-a-shim.del").write_bytes(framing.encode_request(call_of("DEL", "c1", IFNAME="net1")))
    assert {e.call.environ["CNI_IFNAME"] for e in opened.of("c1")} == {"eth0", "net1"}
    assert only(opened.of("c1-eth0")).call.container_id == "c1-eth0"
    assert opened.of("c") == ()
    assert len(opened.entries()) == 3


def test_removing_what_is_gone_is_success(opened: Journal) -> None:
    opened.write(DELETE)
    entry = only(opened.entries())
    assert opened.holds(entry)
    opened.remove(entry)
    assert not opened.holds(entry)
    opened.remove(entry)
    assert opened.entries() == ()


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"HPR1",
        framing.encode_request(DELETE)[:-1],
        framing.encode_request(DELETE) + b"x",
        b"\x00" * 200,
        framing.encode_request(call_of("ADD")),
        framing.encode_request(call_of("DEL", "")),
        b"HPR1\x00\x00\x00\x00\xff\xff\xff\xff",
    ],
)
def test_what_cannot_be_read_is_set_aside_and_told(opened: Journal, reports: Reports, contents: bytes) -> None:
    (opened.path / "a.del").write_bytes(contents)
    opened.write(DELETE)
    assert only(opened.entries()).call == DELETE
    assert (opened.path / "a.del.bad").read_bytes() == contents
    ((path, error),) = reports.made
    assert path == str(opened.path / "a.del.bad")
    assert error.code == 6
    opened.entries()
    assert len(reports.made) == 1


def test_a_name_as_long_as_a_container_id_may_be(opened: Journal) -> None:
    long = msgspec.structs.replace(DELETE, environ={**DELETE.environ, "CNI_CONTAINERID": "c" * 4096})
    opened.write(long)
    assert only(opened.of("c" * 4096)).call == long


def test_a_hostile_name_stays_in_the_directory(opened: Journal) -> None:
    hostile = msgspec.structs.replace(DELETE, environ={**DELETE.environ, "CNI_CONTAINERID": "../../x"})
    opened.write(hostile)
    assert only(opened.of("../../x")).call == hostile
    assert len(os.listdir(opened.path)) == 1


def test_other_files_are_left_alone(opened: Journal) -> None:
    for name in (".tmp-c1.del", "README", "a.del.bad"):
        (opened.path / name).write_bytes(b"x")
    assert opened.entries() == ()
    assert len(os.listdir(opened.path)) == 3


def test_opening_tidies_up_after_writers_that_were_killed_long_ago(opened: Journal, reports: Reports) -> None:
    old, new = opened.path / ".tmp-old", opened.path / ".tmp-new"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    opened.write(DELETE)
    Journal(opened.path, report=reports).open()
    assert not old.exists()
    assert new.exists()
    assert len(opened.entries()) == 1


def test_a_full_disk_leaves_nothing(opened: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreFull, match="write journal entry of container c1: No space left"):
        opened.write(DELETE)
    assert os.listdir(opened.path) == []


def test_a_file_that_the_disk_does_not_give_is_not_forgotten(opened: Journal) -> None:
    (opened.path / "a.del").mkdir()  # reading it fails with EISDIR
    with pytest.raises(IOFailure, match="read journal entry"):
        opened.of("c1")


def test_a_bound(opened: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_ENTRIES", 2)
    opened.write(DELETE)
    opened.write(DELETE)
    with pytest.raises(TryAgainLater, match="found 2 entries"):
        opened.write(DELETE)


def test_a_directory_that_was_tidied_away_holds_nothing_and_comes_back(opened: Journal) -> None:
    opened.path.rmdir()
    assert opened.entries() == ()
    opened.write(DELETE)
    assert len(opened.entries()) == 1
