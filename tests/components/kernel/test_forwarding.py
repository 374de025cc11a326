"""Routes, neighbours and FDB entries: from what is there to what should be, as text and in the kernel."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from kubewire.components.kernel import forwarding, iproute
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.forwarding import Commands, FdbEntry, Forwarding, Hop, Neighbour, Route, difference
from tests.scratch import isolated

PODS = "10.244.2.0/24"
ROUTE = Route.via(PODS, "172.18.0.4", "eth0")
ELSEWHERE = Route.via(PODS, "172.18.0.5", "eth0")
BLACKHOLE = Route(PODS, protocol="80")
TUNNEL = Route.via(PODS, "10.244.2.0", "vx", onlink=True, protocol="80")
TWO_WAYS = Route(PODS, (Hop("172.18.0.4"), Hop("172.18.0.5")), "bird")
NEIGHBOUR, OTHER_MAC = (
    Neighbour("10.244.2.0", "5e:00:00:00:00:02", "vx"),
    Neighbour("10.244.2.0", "5e:00:00:00:00:09", "vx"),
)
FDB = FdbEntry("5e:00:00:00:00:02", "172.18.0.4", "vx")


def having(*routes: Route) -> Forwarding:
    return Forwarding(frozenset(routes))


@pytest.mark.parametrize(
    ("now", "wanted", "lines"),
    [
        ([], [ROUTE], [f"route replace {PODS} via 172.18.0.4 dev eth0"]),
        ([], [BLACKHOLE], [f"route replace blackhole {PODS} proto 80"]),
        ([], [TUNNEL], [f"route replace {PODS} proto 80 via 10.244.2.0 dev vx onlink"]),
        ([], [TWO_WAYS], [f"route replace {PODS} proto bird nexthop via 172.18.0.4 nexthop via 172.18.0.5"]),
        ([ROUTE], [ROUTE], []),
        ([ROUTE], [ELSEWHERE], [f"route replace {PODS} via 172.18.0.5 dev eth0"]),
        ([ROUTE], [], [f"route del {PODS} via 172.18.0.4 dev eth0"]),
        ([TUNNEL], [], [f"route del {PODS} proto 80"]),
        ([TWO_WAYS], [], [f"route del {PODS} proto bird"]),
        (
            [BLACKHOLE],
            [TUNNEL],
            [f"route del {PODS} proto 80", f"route replace {PODS} proto 80 via 10.244.2.0 dev vx onlink"],
        ),
        ([TUNNEL], [BLACKHOLE], [f"route del {PODS} proto 80", f"route replace blackhole {PODS} proto 80"]),
    ],
)
def test_routes(now: list[Route], wanted: list[Route], lines: list[str]) -> None:
    assert difference(having(*now), having(*wanted)) == Commands(ip="".join(f"{line}\n" for line in lines))


def test_no_packet_meets_half_a_path() -> None:
    whole = Forwarding(frozenset({TUNNEL}), frozenset({NEIGHBOUR}), frozenset({FDB}))
    there, gone = difference(Forwarding(), whole), difference(whole, Forwarding())
    assert [line.split()[0] for line in there.ip.splitlines()] == ["neigh", "route"]
    assert there.fdb_set and not there.fdb_delete
    assert [line.split()[0] for line in gone.ip.splitlines()] == ["route", "neigh"]
    assert gone.fdb_delete and not gone.fdb_set


def test_what_is_replaced_is_not_deleted_by_its_old_value() -> None:
    now = Forwarding(neighbours=frozenset({NEIGHBOUR}), fdb=frozenset({FDB}))
    moved = FdbEntry(FDB.mac, "172.18.0.9", "vx")
    commands = difference(now, Forwarding(neighbours=frozenset({OTHER_MAC}), fdb=frozenset({moved})))
    assert commands == Commands(
        fdb_set=f"fdb replace {FDB.mac} dev vx dst 172.18.0.9 self permanent\n",
        ip=f"neigh replace 10.244.2.0 lladdr {OTHER_MAC.mac} dev vx nud permanent\n",
    )


def links() -> None:
    for line in (
        "link add eth0 type veth peer name eth1",
        "address add 172.18.0.3/16 dev eth0",
        "link set eth1 up",
        "link set eth0 up",
        "link add vx type vxlan id 1 dev eth0 local 172.18.0.3 dstport 8472 nolearning",
        "address add 10.244.1.0/32 dev vx",
        "link set vx up",
    ):
        subprocess.run(["ip", *line.split()], check=True)


async def _there() -> Forwarding:
    routes = [
        *await forwarding.routes(4, "dev", "eth0"),
        *await forwarding.routes(4, protocol="80"),
        *await forwarding.routes(4, protocol="bird"),
    ]
    return Forwarding(frozenset(routes)) | await forwarding.tunnel("vx", 4)


def round_trip() -> None:
    links()
    states = [
        Forwarding(frozenset({TUNNEL}), frozenset({NEIGHBOUR}), frozenset({FDB})),
        Forwarding(frozenset({BLACKHOLE})),
        Forwarding(frozenset({ELSEWHERE, Route("10.244.9.0/24", protocol="80")}), frozenset({OTHER_MAC})),
        Forwarding(frozenset({Route(PODS, (Hop("172.18.0.4", "eth0"), Hop("172.18.0.5", "eth0")), "bird")})),
        Forwarding(frozenset({Route.via("10.244.2.7/32", "172.18.0.4", "eth0")})),
        Forwarding(),
    ]
    for wanted in states:
        asyncio.run(forwarding.apply(difference(asyncio.run(_there()), wanted)))
        assert asyncio.run(_there()) == wanted


@pytest.mark.packet
def test_the_kernel_has_what_was_wanted_and_nothing_else() -> None:
    isolated(round_trip)


def others() -> None:
    links()
    subprocess.run(["ip", "route", "add", "10.244.7.0/24", "via", "172.18.0.9", "proto", "static"], check=True)
    assert asyncio.run(forwarding.routes(4, protocol="80")) == []
    asyncio.run(
        forwarding.apply(difference(Forwarding(frozenset({Route("10.244.7.0/24", protocol="80")})), Forwarding()))
    )


@pytest.mark.packet
def test_a_route_of_another_protocol_is_not_ours_to_delete() -> None:
    with pytest.raises(AssertionError, match="No such process"):
        isolated(others)


def broken_batch() -> None:
    with pytest.raises(CommandError, match="Cannot find device"):
        asyncio.run(iproute.batch("ip", "link set nowhere up\nlink set lo down\n"))
    assert "UP" not in subprocess.check_output(["ip", "link", "show", "lo"], text=True).split(">")[0].split(",")
    assert asyncio.run(iproute.query("ip", "link", "show", "dev", "nowhere", check=False)) == []
    with pytest.raises(CommandError, match="nowhere"):
        asyncio.run(iproute.query("ip", "link", "show", "dev", "nowhere"))


@pytest.mark.packet
def test_a_batch_goes_on_after_a_line_that_fails_and_says_which_did() -> None:
    isolated(broken_batch)
