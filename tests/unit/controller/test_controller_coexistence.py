"""The controller of a cluster that Whereabouts shares: what it keeps or frees, both kinds of nodes see."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from tests.stand_ins_objects import MemoryObjects
from tests.stand_ins_whereabouts import WhereaboutsNode, reconcile
from tests.unit.controller.stages import Stage

from homeport.controller import settings
from homeport.ipam.allocations import released
from homeport.ipam.identities import Replica
from homeport.kube.resources import PODS
from homeport.model.errors import InvalidNetConf
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS

WHERE = "kube-system"


def theirs(stage: Stage) -> WhereaboutsNode:
    return WhereaboutsNode(MemoryObjects(stage.server), "10.0.0.0/24", namespace=WHERE)


def entries(stage: Stage) -> Mapping[str, Any]:
    (pool,) = stage.people.list(POOLS, namespace=WHERE)
    found: Mapping[str, Any] = msgspec.json.decode(pool.body)["spec"]["allocations"]
    return found


def test_a_reservation_of_a_map_is_kept_from_whereabouts() -> None:
    stage = Stage()
    assert theirs(stage).add("w1", "ns/old-1") == [ip_address("10.0.0.1")]
    stage.workload("web", 1, addresses=[2])
    stage.actor(whereabouts_namespace=WHERE).work()
    assert stage.phases() == {2: "Reserved"}
    assert theirs(stage).add("w2", "ns/old-2") == [ip_address("10.0.0.3")]


def test_an_address_of_theirs_is_not_reserved_but_told() -> None:
    stage = Stage()
    theirs(stage).add("w1", "ns/old-1")
    stage.workload("web", 1, addresses=[1])
    actor = stage.actor(whereabouts_namespace=WHERE)
    actor.work()
    assert stage.phases() == {}
    assert actor.reasons() == ["AddressTaken"]


def test_what_is_released_is_free_for_both() -> None:
    stage = Stage(whenScaled="Release")
    theirs(stage).add("w1", "ns/old-1")
    web = stage.workload("web", 1)
    stage.bind(Replica(web, 0), 2)
    actor = stage.actor(whereabouts_namespace=WHERE)
    actor.work()
    assert set(entries(stage)) == {"1", "2"}
    (held,) = stage.store.all()
    left = released(held, at=stage.clock.now())
    assert left is not None
    CoexistingStore(stage.store, stage.people, WHERE).replace(left, cause="DEL")
    stage.workload("web", 0)
    stage.remove(PODS, "web-0")
    actor.work()
    assert stage.phases() == {}
    assert set(entries(stage)) == {"1"}


def test_what_their_reconciler_deletes_comes_back_with_the_next_full_pass() -> None:
    stage = Stage()
    theirs(stage).add("w1", "ns/old-1")
    stage.stranger("p", 2)
    actor = stage.actor(whereabouts_namespace=WHERE)
    actor.work()
    reconcile(stage.people, {"ns/old-1": ["10.0.0.1"]}, namespace=WHERE)
    assert [r.name for r in stage.people.list(RESERVATIONS, namespace=WHERE)] == ["10.0.0.1"]
    actor.work(400.0)
    assert [r.name for r in stage.people.list(RESERVATIONS, namespace=WHERE)] == ["10.0.0.1", "10.0.0.2"]


def test_an_address_that_both_gave_away_is_told_and_left_alone() -> None:
    stage = Stage()
    stage.stranger("p", 1)
    theirs(stage).add("w1", "ns/old-1")
    actor = stage.actor(whereabouts_namespace=WHERE)
    actor.work()
    assert stage.phases() == {1: "Bound"}
    assert entries(stage)["1"]["podref"] == "ns/old-1"
    assert actor.reasons() == ["AddressContested"]
    assert actor.reporter.registry.get_sample_value("homeport_controller_contested_addresses") == 1


def test_the_setting_is_a_namespace() -> None:
    assert settings.parse({"whereaboutsNamespace": WHERE}, pod="", namespace="").whereabouts_namespace == WHERE
    with pytest.raises(InvalidNetConf, match="whereaboutsNamespace"):
        settings.parse({"whereaboutsNamespace": "a/b"}, pod="", namespace="")
