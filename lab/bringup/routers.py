"""Routers of a topology that speak BGP (`topology.routing` of a lab file): their configuration.
Pure.

A router that has an AS number speaks BGP with every other one that shares a network with it. It
also takes whatever node connects from one of its networks (AS 64512 is Calico's default). It
announces its own networks, and nobody is told a default route. Of two-racks, the spine has AS
65000, tor-1 65001 and tor-2 65002.

Nodes behind different routers may have one AS: a router writes its own in place of theirs when it
tells a node (as-override), or the other nodes' routes would look like a loop.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass

from kubewire.topologies.plan import Machine, TopologyPlan, bare

NODES_AS = 64512
CONFIG, ROOT = "/run/routing", "@ROOT@"
_GROUP = b"root:x:0:\nfrrvty:x:85:root\n"
_LOOPBACK = "127.0.0.1"
_FAST = 3  # seconds: hold time, so that a dead router is noticed while people look


@dataclass(frozen=True)
class Daemon:
    """A process of a router: argv, in which ROOT is the folder of the unpacked packages, or main
    with args."""

    name: str
    argv: tuple[str, ...] = ()
    main: str = ""
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Router:
    """What its BGP needs to know. neighbours: (address, AS); nodes: the networks whose nodes may
    connect."""

    machine: Machine
    number: int
    neighbours: tuple[tuple[str, int], ...]
    nodes: tuple[str, ...] = ()


def routers(plan: TopologyPlan) -> list[Router]:
    """The routers that have an AS number, first those without nodes. Those that share a network are
    neighbours."""
    speakers = [machine for machine in plan.machines if machine.asn]
    node_networks = {_network(address) for node in plan.nodes for address in _addresses(node)}
    found = []
    for router in speakers:
        own = {_network(address) for address in _addresses(router)}
        neighbours = tuple(
            (bare(address), other.asn)
            for other in speakers
            for address in _addresses(other)
            if other is not router and _network(address) in own
        )
        nodes = tuple(
            _network(address)
            for address in _addresses(router)
            if _network(address) in node_networks
        )
        found.append(Router(router, router.asn, neighbours, nodes))
    return sorted(found, key=lambda router: bool(router.nodes))


def _addresses(machine: Machine) -> Iterator[str]:
    yield from (interface.address for interface in machine.interfaces)


def _network(address: str) -> str:
    return str(ipaddress.ip_interface(address).network)


def daemons(kind: str) -> tuple[Daemon, ...]:
    """In the order in which to start them."""
    zebra, bgpd = _frr("zebra"), _frr("bgpd", "-p", "179")
    bird = Daemon(
        "bird",
        (
            f"{ROOT}/usr/sbin/bird",
            "-f",
            "-c",
            f"{CONFIG}/bird.conf",
            "-s",
            f"{CONFIG}/bird.ctl",
            "-P",
            f"{CONFIG}/bird.pid",
        ),
    )
    flags = (
        "-t",
        "toml",
        "-f",
        f"{CONFIG}/gobgpd.conf",
        "--pprof-disable",
        "--api-hosts=127.0.0.1:50051",
    )
    gobgpd = Daemon("gobgpd", (f"{ROOT}/usr/bin/gobgpd", *flags))
    # GoBGP leaves the kernel to others, and Debian's does not understand Debian's zebra: components/bgp hears its best
    # paths over iBGP, and tells it the connected networks.
    paths = (f"--config={CONFIG}/fib.yaml", f"--control={CONFIG}/fib.ctl")
    fib_daemon = Daemon("fib", main="kubewire.components.bgp.main:main", args=paths)
    return {"bird": (bird,), "frr": (zebra, bgpd), "gobgp": (gobgpd, fib_daemon)}[kind]


def _frr(name: str, *more: str) -> Daemon:
    paths = [
        "-f",
        f"{CONFIG}/{name}.conf",
        "-i",
        f"{CONFIG}/{name}.pid",
        "-z",
        f"{CONFIG}/zserv.api",
        "--vty_socket",
        CONFIG,
    ]
    flags = ["-u", "root", "-g", "root", "-A", "127.0.0.1", "-P", "0", "--log", "stdout", *more]
    # Its group is made when the package is installed, and is asked for whatever the flags say.
    with_group = f'mount --bind {CONFIG}/group /etc/group && exec "$0" "$@"'
    return Daemon(
        name,
        (
            "unshare",
            "--mount",
            "sh",
            "-c",
            with_group,
            f"{ROOT}/usr/lib/frr/{name}",
            *paths,
            *flags,
        ),
    )


def files(kind: str, router: Router) -> dict[str, bytes]:
    """Path -> content on its host."""
    texts = {
        "bird": {"bird.conf": bird},
        "frr": {"zebra.conf": zebra, "bgpd.conf": bgpd},
        "gobgp": {"gobgpd.conf": gobgpd, "fib.yaml": fib},
    }[kind]
    found = {f"{CONFIG}/{name}": text(router).encode() for name, text in texts.items()}
    return found | ({f"{CONFIG}/group": _GROUP} if kind == "frr" else {})


def bird(router: Router) -> str:
    """bird.conf of BIRD 2 (https://bird.network.cz/?get_doc&f=bird-3.html)."""
    lines = [
        "log stderr all;",
        f"router id {router.machine.address};",
        "protocol device { scan time 1; }",
        "protocol direct { ipv4; }",
        "protocol kernel { merge paths on; ipv4 { import none; export where source = RTS_BGP; }; }",
        "template bgp session {",
        f"  local as {router.number};",
        f"  hold time {_FAST};",
        "  connect delay time 1; connect retry time 1; error wait time 1, 2;",
        "  ipv4 { import all; export where source ~ [RTS_DEVICE, RTS_BGP]; next hop self; };",
        "}",
    ]
    for position, (address, number) in enumerate(router.neighbours):
        before = sum(other == number for _, other in router.neighbours[:position])
        name = f"as{number}" + (f"_{before + 1}" if before else "")
        lines.append(f"protocol bgp {name} from session {{ neighbor {address} as {number}; }}")
    for number, nodes in enumerate(router.nodes, 1):
        suffix = "" if number == 1 else str(number)
        lines += [
            f"protocol bgp nodes{suffix} from session {{ neighbor range {nodes} external;"
            f' dynamic name "node{suffix and suffix + "_"}";',
            "  ipv4 {",
            "    import all; next hop self;",
            "    export filter { if source !~ [RTS_DEVICE, RTS_BGP] then reject;",
            f"      bgp_path.delete({NODES_AS}); accept; }};",
            "  };",
            "}",
        ]
    return "\n".join(lines) + "\n"


def zebra(router: Router) -> str:
    """zebra.conf: FRR's hand on the kernel (https://docs.frrouting.org/en/latest/zebra.html)."""
    return f"hostname {router.machine.name}\nlog stdout\nip forwarding\n"


def bgpd(router: Router) -> str:
    """bgpd.conf of FRR (https://docs.frrouting.org/en/latest/bgp.html)."""
    lines = [
        f"hostname {router.machine.name}",
        "log stdout",
        f"router bgp {router.number}",
        f" bgp router-id {router.machine.address}",
        " no bgp ebgp-requires-policy",
        " no bgp network import-check",
        " bgp bestpath as-path multipath-relax",
        f" timers bgp 1 {_FAST}",
    ]
    for address, number in router.neighbours:
        lines += [f" neighbor {address} remote-as {number}", *_quick(address)]
    if router.nodes:
        lines += [
            " neighbor nodes peer-group",
            " neighbor nodes remote-as external",
            *_quick("nodes"),
            *(f" bgp listen range {network} peer-group nodes" for network in router.nodes),
        ]
    lines += [" address-family ipv4 unicast", "  redistribute connected"]
    if router.nodes:
        lines.append("  neighbor nodes as-override")
    return "\n".join([*lines, " exit-address-family", "exit", ""])


def _quick(neighbour: str) -> list[str]:
    return [
        f" neighbor {neighbour} advertisement-interval 0",
        f" neighbor {neighbour} timers connect 1",
    ]


def gobgpd(router: Router) -> str:
    """gobgpd.conf (https://github.com/osrg/gobgp/blob/master/docs/sources/configuration.md)."""
    lines = [
        "[global.config]",
        f"  as = {router.number}",
        f'  router-id = "{router.machine.address}"',
        "[global.use-multiple-paths.config]",
        "  enabled = true",
    ]
    timers = [
        f"    hold-time = {_FAST}",
        "    keepalive-interval = 1",
        "    connect-retry = 1",
        "    idle-hold-time-after-reset = 1",
    ]
    for address, number in (*router.neighbours, (_LOOPBACK, router.number)):
        lines += [
            "[[neighbors]]",
            "  [neighbors.config]",
            f'    neighbor-address = "{address}"',
            f"    peer-as = {number}",
            # It tells no path to a peer whose AS is in it, whatever it would write in its place: the other rack must
            # not see the nodes' AS. Nodes of one rack are not told of each other; their default route serves.
            *(
                ['    remove-private-as = "all"']
                if router.nodes and number != router.number
                else []
            ),
            "  [neighbors.timers.config]",
            *timers,
        ]
    if router.nodes:
        lines += [
            "[[peer-groups]]",
            "  [peer-groups.config]",
            '    peer-group-name = "nodes"',
            f"    peer-as = {NODES_AS}",
            "  [peer-groups.as-path-options.config]",
            "    replace-peer-as = true",
            "  [peer-groups.timers.config]",
            *timers,
        ]
    for network in router.nodes:
        lines += [
            "[[dynamic-neighbors]]",
            "  [dynamic-neighbors.config]",
            f'    prefix = "{network}"',
            '    peer-group = "nodes"',
        ]
    return "\n".join(lines) + "\n"


def fib(router: Router) -> str:
    """components/bgp's file beside GoBGP."""
    networks = [
        (ipaddress.ip_interface(address).network, bare(address))
        for address in _addresses(router.machine)
    ]
    document = {
        "localAS": router.number,
        "routerID": _other_identifier(router.machine),
        "listen": [],
        "connectRetry": 1,
        "announce": [{"prefix": str(network), "nextHop": address} for network, address in networks],
        "peers": [
            {
                "name": "gobgpd",
                "address": _LOOPBACK,
                "localAddress": _LOOPBACK,
                "remoteAS": router.number,
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _other_identifier(machine: Machine) -> str:
    """A BGP identifier that is not GoBGP's, which is the machine's address (RFC 6286 section
    2.1)."""
    if len(machine.interfaces) > 1:
        return bare(machine.interfaces[1].address)
    return str(ipaddress.IPv4Address(int(ipaddress.IPv4Address(machine.address)) ^ (1 << 31)))
