"""From a peer's state to what its kernel gets, as text; and what `weave status` shows."""

from ipaddress import IPv4Network

import pytest

from kubewire.components.kernel import vxlan
from kubewire.components.kernel.iptables import Ruleset, parse, transaction
from kubewire.components.networks.weave import dataplane, ipsec, status
from kubewire.components.networks.weave.allocator import Allocator, Setup
from kubewire.components.networks.weave.space import Range
from kubewire.components.networks.weave.topology import Link, Peer

RANGE = IPv4Network("10.32.0.0/12")
ONE = ipsec.Association("172.18.0.3", "172.18.0.2", 0x1234, "ab" * 36)
TWO = ipsec.Association("172.18.0.4", "172.18.0.2", 0x5678, "cd" * 36)


def test_a_peers_name_is_a_mac_of_its_own_for_each_node():
    names = {dataplane.peer_name(f"worker-{number}") for number in range(1000)}
    assert len(names) == 1000
    assert all(int(name[:2], 16) & 3 == 2 for name in names), "locally administered, unicast"
    assert dataplane.peer_name("worker-1") == dataplane.peer_name("worker-1")


OWN = Range(int(RANGE.network_address), int(RANGE.network_address) + 96)


@pytest.mark.parametrize(("name", "incoming"), [("rules", None), ("rules-encrypted", [ONE, TWO])])
def test_the_rules_are_those_of_the_golden_file(name, incoming, golden):
    golden(f"weave/{name}.txt", dataplane.own_set([OWN]) + transaction(dataplane.rules(RANGE, incoming), {}))


def test_the_rules_beside_weave_npc_are_those_of_the_golden_file(golden):
    golden("weave/rules-npc.txt", transaction(dataplane.rules(RANGE, None, expect_npc=True), {}))


def test_the_devices_are_those_of_the_golden_file(golden):
    device = dataplane.Device("02:11:22:33:44:55", "eth0", "172.18.0.2")
    parts = {
        "the bridge": dataplane.make_bridge(device),
        "the VXLAN device": vxlan.commands(dataplane.vxlan_device(device), None) + dataplane.isolate_vxlan(),
        "the veth for datagrams": dataplane.make_veth(device),
    }
    golden("weave/devices.txt", titled(parts))


def test_the_associations_are_those_of_the_golden_file(golden):
    there = ipsec.Association(ONE.destination, ONE.source, 0x4321, "cd" * 36)
    parts = {
        "a direction to this node": ipsec.install(ONE, outgoing=False),
        "a direction from this node": ipsec.install(there, outgoing=True),
        "neither any more": ipsec.remove(ONE) + ipsec.remove_policy(there) + ipsec.remove(there),
    }
    golden("weave/associations.txt", titled(parts))


def test_the_entries_are_those_of_the_golden_file(golden):
    macs = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
    parts = {
        "floods": dataplane.flood_difference(["172.18.0.3", "172.18.0.4"], ["172.18.0.4", "172.18.0.5"]),
        "heartbeats": dataplane.heartbeat_difference(
            [(macs[0], "172.18.0.3"), (macs[1], "172.18.0.4")], [(macs[1], "172.18.0.5")]
        ),
        "learned": dataplane.forget(macs, dataplane.DEVICE, "self") + dataplane.forget(macs[:1], "weave", "master"),
    }
    golden("weave/entries.txt", titled(parts))


def titled(parts):
    return "".join(f"# {title}\n{text}" for title, text in parts.items())


def test_what_leads_to_the_chains_is_added_where_it_is_missing():
    plain, encrypted = (Ruleset(leads=dataplane.rules(RANGE, incoming).leads) for incoming in (None, [ONE]))
    head = [
        "-I FORWARD 1 -i weave -o weave -j ACCEPT",
        "-I FORWARD 2 -o weave -j WEAVE-EXPOSE",
        "-I FORWARD 3 -i weave ! -o weave -j ACCEPT",
        "-I FORWARD 4 -o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]
    missing = ["*nat", "-A POSTROUTING -j WEAVE", "COMMIT", "*filter", *head, "COMMIT"]
    assert transaction(plain, {}).splitlines() == missing
    forward = "".join(f"-A FORWARD {rule}\n" for rule in dataplane.forward_rules())
    saved = f"*nat\n-A POSTROUTING -j WEAVE\nCOMMIT\n*filter\n{forward}COMMIT\n"
    assert transaction(plain, parse(saved)) == ""
    assert [line for line in transaction(encrypted, parse(saved)).splitlines() if line[0] == "*"] == [
        "*mangle",
        "*filter",
    ]
    lost = saved.replace("-A FORWARD -o weave -j WEAVE-EXPOSE\n", "")
    again = transaction(plain, parse(lost)).splitlines()
    assert again[1:4] == [f"-D FORWARD {rule}" for rule in dataplane.forward_rules() if "EXPOSE" not in rule]
    assert again[4:-1] == head, "all of them, in their order"
    elsewhere = saved.replace("*nat", "*mangle")
    assert transaction(plain, parse(elsewhere)).splitlines() == ["*nat", "-A POSTROUTING -j WEAVE", "COMMIT"]


def test_the_key_of_a_direction_is_its_receivers():
    session, nonce = b"s" * 32, b"n" * 32
    keys = {ipsec.key(session, nonce, "a"), ipsec.key(session, nonce, "b"), ipsec.key(session, b"m" * 32, "a")}
    assert len(keys) == 3
    assert all(len(key) == 72 for key in keys)


def test_own_ranges_as_networks():
    first = int(RANGE.network_address)
    assert dataplane.own_networks([Range(first, first + 96)]) == ["10.32.0.0/26", "10.32.0.64/27"]


def peer(quorum=1, known=True):
    return Allocator(Setup("a", 1, "one", IPv4Network("10.32.0.0/26"), quorum, lambda name: known or name == "a"))


def line(allocator, waiting=0):
    text = status.status(allocator, [], [], encrypted=False, targets=0, waiting=waiting, subnet="10.32.0.0/26")
    return next(row.partition(": ")[2] for row in text.splitlines() if "Status:" in row)


def test_what_ipam_is_waiting_for():
    assert line(peer()) == "idle"
    waiting = peer(quorum=3)
    waiting.allocate("c", waiting.setup.universe)
    assert line(waiting) == "awaiting consensus (quorum: 3, known: 1)"
    observer = peer(quorum=0)
    observer.allocate("c", observer.setup.universe)
    assert line(observer) == "priming"
    ready = peer()
    ready.seed(("a", "b"))
    assert line(ready) == "ready"
    assert line(ready, waiting=1) == "waiting for IP range grant from peers"
    alone = peer(known=False)
    alone.seed(("b", "c"))
    assert line(alone) == "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"


def test_who_has_which_part():
    allocator = peer(known=False)
    allocator.nicknames["b"] = "two"
    allocator.seed(("a", "b"))
    allocator.allocate("c", allocator.setup.universe)
    assert status.ipam(allocator) == (
        "a(one)                                      32 IPs (50.0% of total) (1 active)\n"
        "b(two)                                      32 IPs (50.0% of total) - unreachable!\n"
    )


def test_peers_and_their_connections():
    peers = [
        Peer("b", "two", 2, 1, (Link("a", "172.18.0.2:40000", False, False),)),
        Peer("a", "one", 1, 1, (Link("b", "172.18.0.3:6783", True, True),)),
    ]
    assert status.peers(peers) == (
        "a(one)\n"
        "   -> 172.18.0.3:6783       b(two)                                established\n"
        "b(two)\n"
        "   <- 172.18.0.2:40000      a(one)                                pending\n"
    )
