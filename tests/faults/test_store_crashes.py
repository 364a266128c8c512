"""The SQLite store under SIGKILL and races (docs/identity.md R1, E21, E24): nothing lost, nothing doubled.

Every process here is a real one.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from tests.stand_ins import World, attachment_of, netconf, shells_on

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Slot
from homeport.ipam.objects import Pod
from homeport.model.errors import PoolExhausted, TryAgainLater
from homeport.plugins import whereabouts
from homeport.stores.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def allocation(number: int) -> Allocation:
    return Allocation(
        scope="",
        address=IPv4Address(int(IPv4Address("10.0.0.0")) + number),
        slot=Slot(PodOwner("ns", f"p{number}", "u"), "net", "net1"),
        phase=Phase.BOUND,
        since=NOW,
    )


# --- races ---

CLAIM_SIX = """
import sys
from tests.stand_ins import attachment_of, netconf, shells_on
from homeport.model.errors import PoolExhausted
from homeport.plugins import whereabouts
from homeport.stores.sqlite import SqliteStore

shells = shells_on("n1", SqliteStore(sys.argv[1]))
conf = netconf({"range": "10.0.0.0/16", "range_start": "10.0.0.1", "range_end": "10.0.0.40"})
print("ready", flush=True)
sys.stdin.readline()
for number in range(6):
    try:
        print(whereabouts.add(conf, attachment_of(None, f"c{sys.argv[2]}-{number}"), shells).ips[0].address.ip)
    except PoolExhausted:
        print("exhausted")
"""


def test_processes_that_race_for_the_last_addresses_share_them_out(tmp_path: Path) -> None:
    """48 for 40, from the very making of the file on."""
    path = tmp_path / "state" / "allocations.db"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_SIX, str(path), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for n in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    counted = Counter(line for racer in racers for line in racer.communicate()[0].split())
    assert counted.pop("exhausted") == 8
    assert sorted(map(ip_address, counted)) == [ip_address(f"10.0.0.{n}") for n in range(1, 41)]
    assert set(counted.values()) == {1}


def test_threads_of_a_process_share_one_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "allocations.db")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: store.create(allocation(n), cause="test"), range(200)))
    assert len(tuple(store.all())) == 200
    store.close()
    assert len(tuple(store.all())) == 200  # opened again
    store.close()


def test_a_forked_child_does_not_use_its_parents_connection(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "allocations.db")
    store.create(allocation(1), cause="parent")
    child = os.fork()
    if child == 0:
        store.create(allocation(2), cause="child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    store.create(allocation(3), cause="parent")
    assert [e.cause for e in store.ledger()] == ["parent", "child", "parent"]
    store.close()


def test_a_store_that_is_replaced_under_a_running_process_is_opened_anew(tmp_path: Path) -> None:
    """A backup put back in place: an old connection would go on in a file that has no name."""
    path, backup = tmp_path / "allocations.db", tmp_path / "backup.db"
    store = SqliteStore(path)
    store.create(allocation(1), cause="before")
    store.close()
    shutil.copy(path, backup)
    store.create(allocation(2), cause="after")
    os.replace(backup, path)
    for leftover in ("-wal", "-shm"):
        Path(f"{path}{leftover}").unlink(missing_ok=True)
    assert [str(a.address) for a in store.all()] == ["10.0.0.1"]
    store.close()


# --- SIGKILL ---

ADD_AND_DIE = """
import os, signal, sqlite3, sys
from tests.stand_ins import World, attachment_of, netconf, shells_on
from homeport.plugins import whereabouts
from homeport.stores.sqlite import SqliteStore

path, verb, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
steps = 0

def count(statement):
    global steps
    steps += 1
    if steps == wanted:
        os.kill(os.getpid(), signal.SIGKILL)

store = SqliteStore(path)
store.of_holder("c1", "net1")
store._own_connection().set_trace_callback(count)
world = World()
pod = world.start(world.scale("web", 1), 0)
conf = netconf({"range": "10.0.0.0/24", "ipRanges": [{"range": "fd00::/64"}]})
shells = shells_on("n1", store, world=world)
getattr(whereabouts, verb)(conf, attachment_of(pod, "c1"), shells)
print(steps)
"""

BOTH = {"range": "10.0.0.0/24", "ipRanges": [{"range": "fd00::/64"}]}


def run_and_kill(path: Path, verb: str, step: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", ADD_AND_DIE, str(path), verb, str(step)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


def replica() -> tuple[World, Pod]:
    world = World()
    return world, world.start(world.scale("web", 1), 0)


@pytest.mark.parametrize("verb", ["add", "delete"])
def test_killed_at_every_statement_the_same_call_again_ends_well(tmp_path: Path, verb: str) -> None:
    """E21: after the kill the store is whole; the retry gives the same addresses, or lets go of all."""
    world, pod = replica()
    conf, attachment = netconf(BOTH), attachment_of(pod, "c1")
    prepared = tmp_path / "prepared.db"
    store = SqliteStore(prepared)
    store.of_holder("c1", "net1")
    if verb == "delete":
        whereabouts.add(conf, attachment, shells_on("n1", store, world=world))
    store.close()
    whole = run_and_kill(_copied(prepared, tmp_path / "whole.db"), verb, 0)
    assert whole.returncode == 0, whole.stderr
    steps = int(whole.stdout)
    assert steps > 10
    for step in range(1, steps + 1):
        path = _copied(prepared, tmp_path / f"{step}.db")
        assert run_and_kill(path, verb, step).returncode == -signal.SIGKILL
        again = SqliteStore(path)
        shells = shells_on("n1", again, world=world)
        _require_whole(path)
        if verb == "add":
            ips = whereabouts.add(conf, attachment, shells).ips
            assert [str(ip.address) for ip in ips] == ["10.0.0.1/24", "fd00::1/64"]
            assert [a.phase for a in again.all()] == [Phase.BOUND] * 2
        else:
            whereabouts.delete(conf, attachment, shells)
            assert [a.phase for a in again.all()] == [Phase.RETAINED] * 2
        _require_whole(path)
        again.close()


def _copied(source: Path, target: Path) -> Path:
    shutil.copy(source, target)
    return target


def _require_whole(path: Path) -> None:
    """By SQLite's own check, and by ours: runs and ledger say what the allocations say."""
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        taken = sorted(raw for (raw,) in db.execute("SELECT address FROM allocations"))
        runs = db.execute("SELECT first, last FROM runs").fetchall()
        counted = [n.to_bytes(len(a)) for a, b in runs for n in range(int.from_bytes(a), int.from_bytes(b) + 1)]
        assert sorted(counted) == taken
        versions = {v for (v,) in db.execute("SELECT version FROM ledger")}
        assert {v for (v,) in db.execute("SELECT version FROM allocations")} <= versions
    finally:
        db.close()


def test_a_writer_killed_in_its_transaction_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "allocations.db"
    store = SqliteStore(path, busy_seconds=2.0)
    store.create(allocation(1), cause="test")
    hold = f"""
import sqlite3, sys, time
db = sqlite3.connect({str(path)!r}, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("DELETE FROM allocations")
print("held", flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        impatient = SqliteStore(path, busy_seconds=0.05)
        with pytest.raises(TryAgainLater, match="database is locked"):
            impatient.create(allocation(2), cause="test")
        assert len(tuple(impatient.all())) == 1  # reading goes on
        impatient.close()
        holder.kill()
    store.create(allocation(2), cause="test")
    assert len(tuple(store.all())) == 2
    store.close()


# --- E24 ---


def test_e24_a_thousand_replicas_in_a_pool_of_a_thousand_all_at_once(tmp_path: Path) -> None:
    world = World()
    store = SqliteStore(tmp_path / "allocations.db")
    shells = shells_on("n1", store, world=world)
    conf = netconf({"range": "10.0.0.0/16", "range_start": "10.0.1.1", "range_end": "10.0.4.232"})
    workload = world.scale("web", 1000)

    def start(round_: int) -> Callable[[int], str]:
        def run(ordinal: int) -> str:
            pod = world.start(workload, ordinal)
            (ip,) = whereabouts.add(conf, attachment_of(pod, f"r{round_}-{ordinal}"), shells).ips
            return str(ip.address.ip)

        return run

    def stop(ordinal: int) -> None:
        pod = next(p for r, p in world.pods.items() if r.name == f"web-{ordinal}")
        whereabouts.delete(conf, attachment_of(pod, f"r1-{ordinal}"), shells)

    with ThreadPoolExecutor(32) as pool:
        first = list(pool.map(start(1), range(1000)))
        assert first == [str(ip_address("10.0.1.1") + n) for n in range(1000)]
        list(pool.map(stop, range(1000)))
        assert list(pool.map(start(2), reversed(range(1000)))) == first[::-1]
    with pytest.raises(PoolExhausted, match="all 1000 addresses are taken"):
        whereabouts.add(conf, attachment_of(world.start_stranger("s"), "s"), shells)
    assert Counter(a.phase for a in store.all()) == {Phase.BOUND: 1000}
    store.close()
