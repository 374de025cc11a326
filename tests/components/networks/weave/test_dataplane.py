"""From a peer's state to what its kernel gets, as text; and what `weave status` shows."""

from ipaddress import IPv4Network

from kubewire.components.kernel.iptables import Ruleset, parse, transaction
from kubewire.components.networks.weave import dataplane, ipsec, status
from kubewire.components.networks.weave.allocator import Allocator, Setup
from kubewire.components.networks.weave.space import Range
from kubewire.components.networks.weave.topology import Link, Peer

RANGE = IPv4Network("10.32.0.0/12")
ONE = ipsec.Association("172.18.0.3", "172.18.0.2", 0x1234, "ab" * 36)


def test_a_peers_name_is_a_mac_of_its_own_for_each_node():
    names = {dataplane.peer_name(f"worker-{number}") for number in range(1000)}
    assert len(names) == 1000
    assert all(int(name[:2], 16) & 3 == 2 for name in names), "locally administered, unicast"
    assert dataplane.peer_name("worker-1") == dataplane.peer_name("worker-1")


def test_the_chains():
    assert transaction(Ruleset(dataplane.rules(RANGE, None).chains), {}) == (
        "*filter\n"
        ":WEAVE-EXPOSE - [0:0]\n"
        "-A WEAVE-EXPOSE -d 10.32.0.0/12 -j ACCEPT\n"
        "COMMIT\n"
        "*nat\n"
        ":WEAVE - [0:0]\n"
        "-A WEAVE -m set --match-set weaver-no-masq-local dst "
        '-m comment --comment "Prevent SNAT to locally running containers" -j RETURN\n'
        "-A WEAVE -s 10.32.0.0/12 -d 224.0.0.0/4 -j RETURN\n"
        "-A WEAVE ! -s 10.32.0.0/12 -d 10.32.0.0/12 -j MASQUERADE\n"
        "-A WEAVE -s 10.32.0.0/12 ! -d 10.32.0.0/12 -j MASQUERADE\n"
        "COMMIT\n"
    )


def test_the_chains_of_an_encrypted_path():
    text = transaction(Ruleset(dataplane.rules(RANGE, [ONE]).chains), {})
    assert (
        ":WEAVE-IPSEC-IN - [0:0]\n"
        ":WEAVE-IPSEC-IN-MARK - [0:0]\n"
        ":WEAVE-IPSEC-OUT - [0:0]\n"
        ":WEAVE-IPSEC-OUT-MARK - [0:0]\n"
        "-A WEAVE-IPSEC-IN -s 172.18.0.3 -d 172.18.0.2 -p esp -m esp --espspi 4660 -j WEAVE-IPSEC-IN-MARK\n"
        "-A WEAVE-IPSEC-IN-MARK -j MARK --set-xmark 0x20000/0x20000\n"
        "-A WEAVE-IPSEC-OUT -s 172.18.0.2 -d 172.18.0.3 -p udp -m udp --dport 6784 -j WEAVE-IPSEC-OUT-MARK\n"
        "-A WEAVE-IPSEC-OUT-MARK -j MARK --set-xmark 0x20000/0x20000\n"
    ) in text
    assert (
        "-A WEAVE-IPSEC-IN -s 172.18.0.3 -d 172.18.0.2 -p udp -m udp --dport 6784 -m mark ! --mark 0x20000/0x20000 "
        "-j DROP\n"
    ) in text


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


def test_flood_entries_come_and_go_alone():
    text = dataplane.flood_difference(["172.18.0.3", "172.18.0.4"], ["172.18.0.4", "172.18.0.5"])
    assert text == (
        "fdb append 00:00:00:00:00:00 dev vxlan-6784 dst 172.18.0.5 self permanent\n"
        "fdb delete 00:00:00:00:00:00 dev vxlan-6784 dst 172.18.0.3 self\n"
    )


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
