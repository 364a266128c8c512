"""Databases looked at beside whoever uses them: what is there is seen, and nothing is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.stand_ins_holding import A1, A2, allocation_of

from homeport.ipam.identities import Holder, PodOwner
from homeport.model.errors import IOFailure
from homeport.stores.claims import CLAIMS, Claims, HeldClaim, State, read_claims
from homeport.stores.opening import check_whole
from homeport.stores.schema import ALLOCATIONS
from homeport.stores.sqlite import SqliteStore, read_allocations

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OWNER = PodOwner("shop", "visitor", "u1")
HOLDER = Holder(container_id="c1", ifname="net1", netns_path="/run/netns/c1", node="n1", pod_uid="u1")
MINE = allocation_of(OWNER, A1, HOLDER)

Look = Callable[[Path], object]
LOOKS = (
    pytest.param(read_claims, id="claims"),
    pytest.param(read_allocations, id="allocations"),
    pytest.param(lambda path: check_whole(path, CLAIMS), id="whole"),
)


def test_claims_are_seen_beside_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "claims.db"
    claims = Claims(path)
    held = HeldClaim(allocation=MINE, state=State.BOUND, cause="allocated", at=NOW, undelivered=True)
    assert claims.swap(None, held)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    assert read_claims(path) == (held,)
    check_whole(path, CLAIMS)
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    assert after == before
    claims.close()
    assert read_claims(path) == (held,), "the daemon has ended well"


def test_allocations_are_seen_beside_the_plugins(tmp_path: Path) -> None:
    path = tmp_path / "allocations.db"
    store = SqliteStore(path)
    made = {store.create(one, cause="allocated") for one in (MINE, allocation_of(OWNER, A2, HOLDER))}
    assert set(read_allocations(path)) == made
    check_whole(path, ALLOCATIONS)
    store.close()


@pytest.mark.parametrize("look", LOOKS)
def test_a_file_that_is_not_there_is_not_made(look: Look, tmp_path: Path) -> None:
    with pytest.raises(IOFailure, match="no regular file"):
        look(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("look", LOOKS)
def test_another_programs_database_is_not_taken_for_ours(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE claims (scope)")
    db.close()
    with pytest.raises(IOFailure, match="another program's database"):
        look(path)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("contents", [b"nonsense" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_what_is_no_database_is_an_error_and_no_absence(look: Look, contents: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(contents)
    with pytest.raises(IOFailure):
        look(path)
    assert path.read_bytes() == contents


def test_a_damaged_page_is_found_though_nobody_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "claims.db"
    Claims(path).close()
    whole = path.read_bytes()
    size = int.from_bytes(whole[16:18], "big")  # of a page; SQLite file format §1.3.2
    path.write_bytes(whole[:-size] + b"\xff" * size)  # the last table's root
    with pytest.raises(IOFailure, match=r"damage|malformed"):
        check_whole(path, CLAIMS)
    assert read_claims(path) == (), "it is another table's"
