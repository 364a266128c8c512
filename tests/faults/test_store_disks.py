"""The SQLite store on full, read-only and damaged disks (docs/identity.md R12): an error, and nothing changed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import msgspec
import pytest
from tests.stand_ins import attachment_of, netconf, shells_on

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Slot
from homeport.model.errors import IOFailure, StoreFull
from homeport.plugins import whereabouts
from homeport.stores import sqlite
from homeport.stores.schema import ALLOCATIONS
from homeport.stores.sqlite import SqliteStore

POOL = {"range": "10.0.0.0/16", "range_start": "10.0.0.1", "range_end": "10.0.0.40"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Action = Callable[[SqliteStore], object]


def allocation(number: int) -> Allocation:
    return Allocation(
        scope="",
        address=IPv4Address(int(IPv4Address("10.0.0.0")) + number),
        slot=Slot(PodOwner("ns", f"p{number}", "u"), "net", "net1"),
        phase=Phase.BOUND,
        since=NOW,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.root
def test_a_full_disk_refuses_and_changes_nothing_until_there_is_room(small_disk: Path) -> None:
    path = small_disk / "state" / "allocations.db"
    store = SqliteStore(path)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400_000))
    made: list[Allocation] = []

    def fill() -> None:
        for number in range(1, 10_000):
            made.append(store.create(allocation(number), cause="test"))

    with pytest.raises(StoreFull, match=r"write allocation store .*: database or disk is full"):
        fill()
    assert 10 < len(made) < 9_000
    assert list(store.all()) == made
    assert store.get("", allocation(len(made) + 1).address) is None
    with pytest.raises(StoreFull):
        whereabouts.add(netconf(POOL), attachment_of(None, "c"), shells_on("n1", store))
    store.close()
    ballast.unlink()
    store.create(allocation(len(made) + 1), cause="test")
    assert len(tuple(store.all())) == len(made) + 1
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


@pytest.mark.root
def test_a_store_cannot_be_made_on_a_full_disk_and_leaves_nothing(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(2_000_000))
    with pytest.raises(StoreFull):
        SqliteStore(small_disk / "allocations.db").get("", ip_address("10.0.0.1"))
    assert [entry.name for entry in small_disk.iterdir()] == ["ballast"]


@pytest.mark.root
def test_a_disk_turned_read_only(small_disk: Path) -> None:
    path = small_disk / "allocations.db"
    store = SqliteStore(path)
    first = store.create(allocation(1), cause="test")
    store.close()
    subprocess.run(["mount", "-o", "remount,bind,ro", small_disk], check=True)
    actions: list[Action] = [
        lambda s: s.create(allocation(2), cause="test"),
        lambda s: s.delete(first, cause="test"),
        lambda s: s.get("", first.address),
    ]
    for action in actions:
        with pytest.raises(IOFailure):
            action(SqliteStore(path))
    with pytest.raises(IOFailure, match=r"create allocation store .*: Read-only file system"):
        SqliteStore(small_disk / "other.db").get("", first.address)
    subprocess.run(["mount", "-o", "remount,bind,rw", small_disk], check=True)
    assert list(store.all()) == [first]
    store.close()


# --- files that are not what they should be ---


def _overwrite(path: Path) -> None:
    path.write_bytes(b"this was a database once" * 1000)


def _damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)


def _somebody_elses(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE songs (title)")
    db.close()


def _of_the_future(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def _bad_record(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute('UPDATE allocations SET record = \'{"phase": "Floating"}\'')
    db.close()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_overwrite, _damage, _somebody_elses, _of_the_future, _bad_record, _directory])
def test_a_file_that_cannot_be_read_is_never_an_empty_store(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """R12."""
    path = tmp_path / "allocations.db"
    store = SqliteStore(path)
    created = store.create(allocation(1), cause="test")
    store.close()
    spoil(path)
    spoilt = path.read_bytes() if path.is_file() else b""
    actions: list[Action] = [
        lambda s: s.all(),
        lambda s: s.get("", created.address),
        lambda s: s.delete(created, cause="test"),
        lambda s: s.create(created, cause="test"),
    ]
    for action in actions:
        opened = SqliteStore(path)
        with pytest.raises(IOFailure, match=str(path) if spoil is not _bad_record else "cannot be decoded"):
            action(opened)
        opened.close()
    assert (path.read_bytes() if path.is_file() else b"") == spoilt


@pytest.mark.parametrize("name", ["a b", "what?mode=ro", "#1", "100%25", "Ünïcode", "-x", "a&b=c"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    store = SqliteStore(tmp_path / name)
    store.create(allocation(1), cause="test")
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """As `mktemp` leaves one."""
    path = tmp_path / "allocations.db"
    path.touch()
    store = SqliteStore(path)
    store.create(allocation(1), cause="test")
    assert len(tuple(store.all())) == 1
    store.close()


def test_the_file_and_its_directories_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "allocations.db"
    store = SqliteStore(path)
    store.create(allocation(1), cause="test")
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert {oct(entry.stat().st_mode & 0o777) for entry in path.parent.iterdir()} == {"0o600"}
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"
    store.close()


def test_an_older_schema_is_migrated_once_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "allocations.db"
    store = SqliteStore(path)
    created = store.create(allocation(1), cause="test")
    store.close()
    step = "ALTER TABLE ledger ADD COLUMN note TEXT; CREATE TABLE extra (x)"
    later = msgspec.structs.replace(ALLOCATIONS, migrations=(*ALLOCATIONS.migrations, step))
    monkeypatch.setattr(sqlite, "ALLOCATIONS", later)
    stores = [SqliteStore(path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda s: s.get("", created.address), stores)) == [created] * 8
    for opened in stores:
        opened.close()
