"""Whereabouts' ipam section: every key, flat files, CNI_ARGS, and what comes into the result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stand_ins import Drawer, World, attachment_of, netconf, shells_on

from homeport.cni import netconfs, versions
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.files import LocalFiles
from homeport.model.errors import (
    CniError,
    DecodeFailure,
    Drift,
    InvalidNetConf,
    IOFailure,
    PluginNotAvailable,
    TryAgainLater,
)
from homeport.plugins import whereabouts
from homeport.stores.memory import MemoryStore

FLAT = "/etc/cni/net.d/whereabouts.d/whereabouts.conf"
NOBODY = Attachment(container_id="", ifname="")


def added(
    ipam: Mapping[str, Any], *, args: Mapping[str, str] | None = None, files: Drawer | None = None, **keys: Any
) -> dict[str, Any]:
    """ADD on an empty store: the result as 1.1.0 writes it, without its version."""
    conf = netconf(ipam, **keys)
    attachment = attachment_of(None, "c1", **(args or {}))
    result = whereabouts.add(conf, attachment, shells_on("n1", MemoryStore(), files=files))
    encoded = versions.encode_result(result, "1.1.0")
    del encoded["cniVersion"]
    return encoded


def test_everything_that_goes_into_a_result() -> None:
    found = added(
        {
            "range": "10.0.0.0/24",
            "ipRanges": [{"range": "fd00::/64", "range_start": "fd00::10"}, {"range": "10.1.0.0/16"}],
            "gateway": "10.0.0.1",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.0.0.9", "mtu": 1400}],
            "dns": {"nameservers": ["10.0.0.53"], "search": ["example.com"]},
            "addresses": [{"address": "192.168.1.5/24", "gateway": "192.168.1.1"}],
        }
    )
    assert found == {
        "ips": [
            {"address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"address": "fd00::10/64"},  # a gateway of the other family is not put on it
            {"address": "10.1.0.1/16", "gateway": "10.0.0.1"},
            {"address": "192.168.1.5/24", "gateway": "192.168.1.1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.0.0.9", "mtu": 1400}],
        "dns": {"nameservers": ["10.0.0.53"], "search": ["example.com"]},
    }


def test_no_range_is_success_without_addresses() -> None:
    assert added({}) == {}
    assert added({"range": ""}) == {}


def test_addresses_in_cni_args_are_added_bare_ones_with_the_prefix_of_their_range() -> None:
    args = {"IP": "10.0.0.77, 192.168.1.5/24", "GATEWAY": "192.168.1.1"}
    found = added({"range": "10.0.0.0/24", "range_start": "10.0.0.77"}, args=args)
    assert found["ips"] == [
        {"address": "10.0.0.78/24"},  # .77 is the interface's own already
        {"address": "10.0.0.77/24"},
        {"address": "192.168.1.5/24", "gateway": "192.168.1.1"},
    ]


@pytest.mark.parametrize(
    ("ipam", "args", "message"),
    [
        ({"range": "10.0.0.0/24", "exclude": ["10.0.0.x"]}, {}, 'key "ipam.exclude[0]": found "10.0.0.x"'),
        ({"range": "10.0.0.0/24", "range_start": "10.1.0.1"}, {}, 'key "ipam.range_start": found "10.1.0.1"'),
        ({"ipRanges": [{"range": "10.0.0.0/24", "range_end": "10.1.0.1"}]}, {}, 'key "ipam.ipRanges[0].range_end"'),
        ({"range": 5}, {}, 'key "ipam.range": found 5, expected str'),
        ({"gateway": "x"}, {}, 'key "ipam.gateway": found "x", expected an IP address'),
        ({"ipRanges": {}}, {}, 'key "ipam.ipRanges": found {}, expected array'),
        ({"addresses": [{"address": "10.0.0.1"}]}, {}, 'key "ipam.addresses[0].address": found "10.0.0.1"'),
        ({"addresses": [{}]}, {}, 'key "ipam.addresses[0].address": missing'),
        (
            {"addresses": [{"address": "10.0.0.1/8", "gateway": "::1"}]},
            {},
            'key "ipam.addresses[0].gateway": found ::1, expected an IPv4 address',
        ),
        ({"routes": [{"dst": "x"}]}, {}, 'key "ipam.routes[0].dst": found "x"'),
        ({"log_level": "loud"}, {}, 'key "ipam.log_level": found "loud", expected one of'),
        ({"store": "allocations.db"}, {}, 'key "ipam.store": found "allocations.db", expected an absolute path'),
        ({"range": "10.0.0.0/24"}, {"IP": "10.1.0.1"}, 'key "CNI_ARGS IP": found "10.1.0.1", expected a prefix'),
        ({"range": "10.0.0.0/24"}, {"IP": "ten"}, 'key "CNI_ARGS IP": found "ten", expected an IP address'),
        ({"range": "10.0.0.0/24"}, {"GATEWAY": "ten"}, 'key "CNI_ARGS GATEWAY": found "ten"'),
        ({"range": "10.0.0.0/24", "sticky": {"order": 1}}, {}, 'key "ipam.sticky.order"'),
    ],
)
def test_a_wrong_value_is_refused_with_key_and_value(
    ipam: Mapping[str, Any], args: Mapping[str, str], message: str
) -> None:
    with pytest.raises(InvalidNetConf) as refused:
        added(ipam, args=args)
    assert message in refused.value.msg


def test_an_old_version_has_room_for_one_static_address_of_a_family() -> None:
    addresses = [{"address": "10.0.0.1/8"}, {"address": "10.0.0.2/8"}]
    with pytest.raises(InvalidNetConf, match="found 2 IPv4 addresses, expected one at most with"):
        added({"addresses": addresses}, cniVersion="0.2.0")
    assert len(added({"addresses": addresses}, cniVersion="0.3.0")["ips"]) == 2


@pytest.mark.parametrize("ipam", [None, {}, {"type": "host-local"}])
def test_another_plugins_section_is_refused(ipam: Mapping[str, Any] | None) -> None:
    conf = netconfs.parse(msgspec.json.encode({"cniVersion": "1.0.0", "name": "n", "type": "x", "ipam": ipam}))
    with pytest.raises(InvalidNetConf, match="ipam"):
        whereabouts.add(conf, attachment_of(None, "c"), shells_on("n1", MemoryStore()))


# --- flat files ---


def flat(**keys: Any) -> bytes:
    return msgspec.json.encode(keys)


def test_a_flat_file_fills_what_the_network_leaves_empty() -> None:
    defaults = {"range": "10.0.0.0/24", "gateway": "10.0.0.1", "exclude": ["10.0.0.2/32"], "datastore": "kubernetes"}
    files = Drawer({FLAT: flat(**defaults, kubernetes={"kubeconfig": "/x"})})
    assert added({}, files=files)["ips"] == [{"address": "10.0.0.3/24", "gateway": "10.0.0.1"}]
    own = {"gateway": "10.0.0.9", "exclude": []}
    assert added(own, files=files)["ips"] == [{"address": "10.0.0.1/24", "gateway": "10.0.0.9"}]


def test_the_first_file_there_is_counts_and_the_networks_own_is_the_first() -> None:
    later = "/host/etc/cni/net.d/whereabouts.d/whereabouts.conf"
    files = Drawer(
        {later: flat(range="10.2.0.0/24"), FLAT: flat(range="10.1.0.0/24"), "/own": flat(range="10.0.0.0/24")}
    )
    assert added({}, files=files)["ips"] == [{"address": "10.1.0.1/24"}]
    assert added({"configuration_path": "/own"}, files=files)["ips"] == [{"address": "10.0.0.1/24"}]
    assert added({"configuration_path": "/none"}, files=files)["ips"] == [{"address": "10.1.0.1/24"}]


@pytest.mark.parametrize("key", ["enable_overlapping_ranges", "sticky"])
def test_a_false_of_the_network_is_not_overruled(key: str) -> None:
    files = Drawer({FLAT: flat(range="10.0.0.0/24", enable_overlapping_ranges=True, sticky=True)})
    store, world = MemoryStore(), World()
    pod = world.start(world.scale("web", 1), 0)
    whereabouts.add(netconf({key: False}), attachment_of(pod, "c"), shells_on("n1", store, world=world, files=files))
    (allocation,) = store.all()
    assert allocation.scope == ("#10.0.0.0/24" if key == "enable_overlapping_ranges" else "")
    assert (allocation.slot.workload is None) == (key == "sticky")


def test_a_flat_file_that_cannot_be_read_fails_the_del_too_as_it_may_name_the_store() -> None:
    files = Drawer({FLAT: b"{"})
    shells = shells_on("n1", MemoryStore(), files=files)
    for verb in (whereabouts.add, whereabouts.delete):
        with pytest.raises(DecodeFailure, match=re.escape(f"decode whereabouts configuration {FLAT}")):
            verb(netconf({}), attachment_of(None, "c"), shells)


def test_a_section_that_went_wrong_since_is_no_obstacle_to_del() -> None:
    store = MemoryStore()
    shells = shells_on("n1", store)
    whereabouts.add(netconf({"range": "10.0.0.0/24"}), attachment_of(None, "c"), shells)
    whereabouts.delete(netconf({"range": "x", "log_level": 5, "log_file": 7}), attachment_of(None, "c"), shells)
    assert tuple(store.all()) == ()


# --- CHECK and STATUS ---

CHECKED = {"range": "10.0.0.0/24", "ipRanges": [{"range": "fd00::/64"}], "addresses": [{"address": "192.168.1.5/24"}]}


def checked(store: MemoryStore, ips: list[str] | None, *, container_id: str = "c") -> None:
    """CHECK of the container with these addresses in prevResult."""
    conf = netconf(CHECKED, **({} if ips is None else {"prevResult": {"ips": [{"address": ip} for ip in ips]}}))
    whereabouts.check(conf, attachment_of(None, container_id), shells_on("n1", store))


@pytest.fixture
def held() -> MemoryStore:
    """A store in which container "c" has 10.0.0.1 and fd00::1."""
    store = MemoryStore()
    whereabouts.add(netconf(CHECKED), attachment_of(None, "c"), shells_on("n1", store))
    return store


WHOLE = ["10.0.0.1/24", "fd00::1/64", "192.168.1.5/24"]


def test_check_agrees_with_what_add_did(held: MemoryStore) -> None:
    checked(held, WHOLE)
    checked(held, [*WHOLE, "172.16.0.1/12"])  # another plugin's of the chain


@pytest.mark.parametrize(
    ("ips", "message"),
    [
        (WHOLE[1:], "check net1: expected 10.0.0.1/24 in prevResult, found 192.168.1.5/24, fd00::1/64"),
        (["10.0.0.1/16", *WHOLE[1:]], "expected 10.0.0.1/24 in prevResult"),
        (WHOLE[:2], "expected 192.168.1.5/24 in prevResult"),
        ([], "found none"),
    ],
)
def test_check_finds_a_result_that_drifted(held: MemoryStore, ips: list[str], message: str) -> None:
    with pytest.raises(Drift) as drift:
        checked(held, ips)
    assert message in drift.value.msg


def test_check_finds_a_store_that_drifted(held: MemoryStore) -> None:
    (four, six) = held.all()
    held.delete(six, cause="test")
    with pytest.raises(Drift, match=r"expected an allocation of fd00::/64 .* to c, found fd00::1 allocated to nobody"):
        checked(held, WHOLE)
    held.delete(four, cause="test")
    whereabouts.add(netconf({"range": "10.0.0.0/24"}), attachment_of(None, "thief"), shells_on("n1", held))
    with pytest.raises(Drift, match=r"to c, found 10\.0\.0\.1 Bound for thief multustest/net1"):
        checked(held, WHOLE)
    with pytest.raises(Drift, match="found none"):
        checked(held, ["192.168.1.5/24"])


def test_check_needs_the_result_of_add(held: MemoryStore) -> None:
    with pytest.raises(InvalidNetConf, match="prevResult"):
        checked(held, None)


def test_status_is_the_stores() -> None:
    whereabouts.status(netconf({"range": "10.0.0.0/24"}), NOBODY, shells_on("n1", MemoryStore()))

    class Broken(MemoryStore):
        def get(self, scope: str, address: object) -> None:
            raise IOFailure("read allocation store /x: disk I/O error", "SQLITE_IOERR")

    with pytest.raises(PluginNotAvailable, match="disk I/O error"):
        whereabouts.status(netconf({"range": "10.0.0.0/24"}), NOBODY, shells_on("n1", Broken()))

    class Away(MemoryStore):
        def get(self, scope: str, address: object) -> None:
            raise TryAgainLater("no answer")

    whereabouts.status(netconf({"range": "10.0.0.0/24"}), NOBODY, shells_on("n1", Away()))
    with pytest.raises(InvalidNetConf):
        whereabouts.status(netconf({"range": "x"}), NOBODY, shells_on("n1", MemoryStore()))


class Unreachable(MemoryStore):
    def of_holder(self, container_id: str, ifname: str) -> Any:
        raise TryAgainLater("read allocation store: busy")


@pytest.mark.parametrize("verb", [whereabouts.delete, whereabouts.check])
def test_an_unreachable_store_is_never_nothing_there(verb: Any) -> None:
    """R12: the original swallows it, and the address is lost."""
    conf = netconf({"range": "10.0.0.0/24"}, prevResult={"ips": []})
    with pytest.raises(TryAgainLater):
        verb(conf, attachment_of(None, "c"), shells_on("n1", Unreachable()))


# --- the log ---


def logged(path: Path, conf: NetConf, *verbs: str) -> list[str]:
    world = World()
    pod = world.start(world.scale("web", 1), 0)
    shells = shells_on("n1", MemoryStore(), world=world)
    for verb in verbs:
        getattr(whereabouts, verb)(conf, attachment_of(pod, "c1"), shells)
    return path.read_text().splitlines() if path.exists() else []


LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (debug|info|error) [^,]+, network=multustest container=c1 .*"
)


def test_the_log_has_a_line_an_event_with_time_level_text_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "new" / "whereabouts.log"
    conf = netconf({"range": "10.0.0.0/24", "log_file": str(path)})
    lines = logged(path, conf, "add", "delete")
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [line.split(" ", 1)[1] for line in lines if " info " in line] == [
        "info address allocated, network=multustest container=c1 ifname=net1 pod=ns/web-0 "
        "address=10.0.0.1 owner=ns/web-0",
        "info addresses released, network=multustest container=c1 ifname=net1 pod=ns/web-0",
    ]


@pytest.mark.parametrize(("level", "count"), [("error", 0), ("verbose", 1), ("debug", 2), ("", 2)])
def test_the_level_chooses(tmp_path: Path, level: str, count: int) -> None:
    path = tmp_path / "whereabouts.log"
    conf = netconf({"range": "10.0.0.0/24", "log_file": str(path), "log_level": level})
    assert len(logged(path, conf, "add")) == count


def test_a_failure_is_in_the_log_with_its_code(tmp_path: Path) -> None:
    path = tmp_path / "whereabouts.log"
    conf = netconf({"range": "x\n2026 forged", "log_file": str(path), "log_level": "error"})
    with pytest.raises(CniError):
        logged(path, conf, "add")
    (line,) = path.read_text().splitlines()
    assert " error ADD failed: " in line
    assert line.endswith("code=7")


def test_a_log_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "file" / "log", Path("/proc/nowhere/log"), Path("relative/../\0")):
        (tmp_path / "file").write_text("")
        assert (
            logged(tmp_path / "none", netconf({"range": "10.0.0.0/24", "log_file": str(path)}), "add", "delete") == []
        )


def test_a_log_that_grew_makes_room(tmp_path: Path) -> None:
    path = tmp_path / "whereabouts.log"
    with path.open("wb") as file:
        file.truncate(11 * 1024 * 1024)
    logged(path, netconf({"range": "10.0.0.0/24", "log_file": str(path)}), "add")
    assert path.stat().st_size < 1000
    assert (tmp_path / "whereabouts.log.1").stat().st_size == 11 * 1024 * 1024


def test_a_path_that_cannot_be_one_is_an_error_of_ours() -> None:
    shells = shells_on("n1", MemoryStore())
    conf = netconf({"configuration_path": "/etc/\0"})
    for verb in (whereabouts.add, whereabouts.delete):
        with pytest.raises(IOFailure, match="null"):
            verb(conf, attachment_of(None, "c"), msgspec.structs.replace(shells, files=LocalFiles()))
