"""From the kernel's routes to the wanted ones."""

from ipaddress import ip_network

from components.bgp import fib, links

A, B, C = (ip_network(f"10.{number}.0.0/16") for number in (1, 2, 3))


def test_only_differences_are_told_and_additions_come_first():
    actual = {A: ("10.0.1.2",), B: ("10.0.1.2",)}
    wanted = {A: ("10.0.1.2",), C: ("10.0.1.2", "10.0.2.2")}
    assert fib.changes(actual, wanted) == (
        "route replace 10.3.0.0/16 proto 12 nexthop via 10.0.1.2 nexthop via 10.0.2.2\nroute del 10.2.0.0/16 proto 12\n"
    )


def test_what_ip_prints_is_read():
    entries = [
        {"dst": "default", "gateway": "10.0.1.2"},
        {"dst": "10.1.0.0/16", "nexthops": [{"gateway": "10.0.2.2"}, {"gateway": "10.0.1.2"}]},
        {"dst": "10.2.0.7", "via": {"family": "inet6", "host": "fe80::1"}},
    ]
    assert fib.parse(entries, 4) == {
        ip_network("0.0.0.0/0"): ("10.0.1.2",),
        A: ("10.0.1.2", "10.0.2.2"),
        ip_network("10.2.0.7/32"): ("fe80::1",),
    }


def test_peers_on_a_link_without_carrier():
    def link(address, *flags):
        return {"flags": flags, "addr_info": [{"local": address, "prefixlen": 24}]}

    entries = [link("10.0.1.1", "UP", "NO-CARRIER"), link("10.0.2.1", "UP", "LOWER_UP")]
    assert links.on_dead_links(entries, ["10.0.1.2", "10.0.2.2", "192.0.2.1"]) == ["10.0.1.2"]
