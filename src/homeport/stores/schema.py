"""The tables of the SQLite store, and the steps that lead to them from every earlier version. SQL only.

`allocations` has a row an address: the primary key is R1. `address` is 4 or 16 bytes in network order, so rows sort as
addresses do. `record` is everything else as JSON; the columns beside it are what is asked for. `version` is the ledger
entry that wrote the row, so no version is ever used twice. `runs` are the longest unbroken runs of taken addresses,
kept in the transaction of every change: the first free address after any other is one look-up away, however full the
range.
"""

from __future__ import annotations

APPLICATION_ID = 0x484F4D45  # "HOME": tells our files from anybody else's

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

# Step n leads from schema n to n + 1. Files of a released version exist: never edit a step, add one.
MIGRATIONS: tuple[str, ...] = (_FIRST,)
