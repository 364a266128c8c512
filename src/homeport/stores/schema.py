"""The tables of the SQLite store, and the steps that lead to them from every earlier version. SQL only.

`allocations` has a row an address: the primary key is R1. `address` is 4 or 16 bytes in network order, so rows sort as
addresses do. `record` is everything else as JSON; the columns beside it are what is asked for. `version` is the ledger
entry that wrote the row, so no version is ever used twice. `runs` are the longest unbroken runs of taken addresses,
kept in the transaction of every change: the first free address after any other is one look-up away, however full the
range.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a file of one kind. `name` is for messages, `application_id` tells it from any other file.

    Step n of `migrations` leads from schema n to n + 1. `synchronous` is SQLite's word for what outlives a power cut:
    FULL for every change, NORMAL for a whole file of some moment before it.
    """

    name: str
    application_id: int
    migrations: tuple[str, ...]
    synchronous: Literal["FULL", "NORMAL"] = "FULL"


_FIRST = """
CREATE TABLE allocations (
  scope TEXT NOT NULL,
  family INTEGER NOT NULL,
  address BLOB NOT NULL,
  version INTEGER NOT NULL,
  owner TEXT NOT NULL,
  workload TEXT,
  network TEXT NOT NULL,
  ifname TEXT NOT NULL,
  container_id TEXT,
  holder_ifname TEXT,
  record TEXT NOT NULL,
  PRIMARY KEY (scope, family, address)
) WITHOUT ROWID;
CREATE INDEX allocations_by_slot ON allocations (owner, network, ifname);
CREATE INDEX allocations_by_workload ON allocations (workload) WHERE workload IS NOT NULL;
CREATE INDEX allocations_by_holder ON allocations (container_id, holder_ifname) WHERE container_id IS NOT NULL;
CREATE TABLE runs (
  scope TEXT NOT NULL,
  family INTEGER NOT NULL,
  first BLOB NOT NULL,
  last BLOB NOT NULL,
  PRIMARY KEY (scope, family, first)
) WITHOUT ROWID;
CREATE TABLE ledger (
  version INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL,
  cause TEXT NOT NULL,
  scope TEXT NOT NULL,
  address BLOB NOT NULL,
  before TEXT,
  before_version INTEGER,
  after TEXT
);
CREATE INDEX ledger_by_address ON ledger (address, at);
CREATE INDEX ledger_by_time ON ledger (at);
"""

# Files of a released version exist: never edit a step, add one.
ALLOCATIONS = Schema(
    name="allocation store",
    application_id=0x484F4D45,  # "HOME"
    migrations=(_FIRST,),
)
