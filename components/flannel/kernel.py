"""The thin applier: reads links, routes, neighbours and FDB entries with `ip -json` and `bridge -json`, and
applies batches. One process per batch; no netlink library is held in the memory of a hundred agents."""

from __future__ import annotations

import ipaddress
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.flannel.device import Link, VxlanDevice
from components.flannel.forwarding import Commands, FdbEntry, Forwarding, Neighbour, Route
from components.flannel.netconf import Network
from components.kernel import command

log = logging.getLogger(__name__)


class LinkError(Exception):
    """No interface as asked for; upstream's text."""


async def _query(*argv: str) -> list[dict[str, Any]]:
    """The JSON of an ip or bridge command. Raises CommandError."""
    completed = await command.run(argv, timeout=10, check=True)
    answer: list[dict[str, Any]] = json.loads(completed.stdout or b"[]")
    return [entry for entry in answer if entry]


async def batch(program: str, text: str) -> None:
    """Run commands in one process; every line is tried. Raises CommandError with the lines that failed."""
    if text:
        log.debug("%s -batch:\n%s", program, text)
        await command.run([program, "-force", "-batch", "-"], stdin=text.encode(), timeout=30, check=True)


async def apply(commands: Commands) -> None:
    """Raises CommandError after everything was tried."""
    failed: list[command.CommandError] = []
    for program, text in (("bridge", commands.fdb_set), ("ip", commands.ip), ("bridge", commands.fdb_delete)):
        try:
            await batch(program, text)
        except command.CommandError as error:
            failed.append(error)
    if failed:
        raise failed[0]


_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _networks(entry: dict[str, Any], version: int) -> list[_Interface]:
    """Its addresses of a family; link-local ones reach nobody who is routed to."""
    family = "inet" if version == 4 else "inet6"
    found = [
        ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}")
        for info in entry.get("addr_info", ())
        if info.get("family") == family and "local" in info
    ]
    return [address for address in found if version == 4 or not address.ip.is_link_local]


async def outer_link(
    interfaces: Sequence[str] = (), patterns: Sequence[str] = (), reachable: str = "", version: int = 4
) -> Link:
    """The interface for traffic between nodes: by name or address, by regular expression on both, as the one
    towards an address, else the default route's. Raises LinkError or CommandError."""
    flag = f"-{version}"
    links = {entry["ifname"]: entry for entry in await _query("ip", "-json", flag, "address", "show")}
    for wanted in interfaces:
        for name, entry in links.items():
            if wanted == name or any(wanted == str(address.ip) for address in _networks(entry, version)):
                return _link(entry, version, wanted)
    for pattern in patterns:
        for name, entry in links.items():
            if re.search(pattern, name) or any(re.search(pattern, str(own.ip)) for own in _networks(entry, version)):
                return _link(entry, version)
    if interfaces or patterns:
        asked = ", ".join((*interfaces, *patterns))
        raise LinkError(f"failed to find interface to use that matches the interfaces and/or regexes provided: {asked}")
    query = ("route", "get", reachable) if reachable else ("route", "show", "default")
    for route in await _query("ip", "-json", flag, *query):
        if route.get("dev") in links:
            return _link(links[route["dev"]], version)
    which = "interface" if version == 4 else "v6 interface"
    raise LinkError(f"failed to get default {which}: unable to find default route")


def _link(entry: dict[str, Any], version: int, wanted: str = "") -> Link:
    own = _networks(entry, version)
    if not own:
        raise LinkError(f"failed to find IPv{version} address for interface {entry['ifname']}")
    chosen = next((address for address in own if str(address.ip) == wanted), own[0])
    return Link(entry["ifname"], entry["mtu"], chosen.ip, tuple(address.network for address in own))


async def vxlan_device(name: str, version: int = 4) -> VxlanDevice | None:
    """The device as it is, with its addresses of a family; None when there is none. Raises LinkError when name is
    something else."""
    completed = await command.run(["ip", "-json", "-details", "address", "show", "dev", name], timeout=10)
    found = [entry for entry in json.loads(completed.stdout or b"[]") if entry]
    if completed.returncode != 0 or not found:
        return None
    entry = found[0]
    info = entry.get("linkinfo", {})
    data = info.get("info_data", {})
    if info.get("info_kind") != "vxlan":
        raise LinkError(f"{name} exists and is not a vxlan device")
    return VxlanDevice(
        name=name,
        vni=data.get("id", 0),
        port=data.get("port", 0),
        mtu=entry["mtu"],
        local=data.get("local" if version == 4 else "local6", ""),
        link=data.get("link", ""),
        mac=entry["address"],
        learning=bool(data.get("learning")),
        gbp=bool(data.get("gbp")),
        addresses=tuple(f"{own.ip}/{own.network.prefixlen}" for own in _networks(entry, version)),
        up="UP" in entry.get("flags", ()),
    )


async def forwarding(network: Network, *, outer: str, overlay: str = "") -> Forwarding:
    """What the kernel has now and flannel answers for: all of the overlay device's entries, and on the outer
    interface the routes with a next hop into the flannel network. Raises CommandError."""
    flag = f"-{network.version}"
    routes = [_route(entry, outer) for entry in await _query("ip", "-json", flag, "route", "show", "dev", outer)]
    neighbours: list[Neighbour] = []
    fdb: list[FdbEntry] = []
    if overlay:
        routes += [
            _route(entry, overlay) for entry in await _query("ip", "-json", flag, "route", "show", "dev", overlay)
        ]
        neighbours = [
            Neighbour(entry["dst"], entry["lladdr"], overlay)
            for entry in await _query("ip", "-json", flag, "neigh", "show", "dev", overlay, "nud", "permanent")
            if "lladdr" in entry
        ]
        fdb = [
            FdbEntry(entry["mac"], entry["dst"], overlay)
            for entry in await _query("bridge", "-json", "fdb", "show", "dev", overlay)
            if "dst" in entry and entry.get("state") == "permanent"
        ]
    return Forwarding(
        frozenset(route for route in routes if route is not None and _ours(route, network)),
        frozenset(neighbours),
        frozenset(fdb),
    )


def _route(entry: dict[str, Any], device: str) -> Route | None:
    if "gateway" not in entry:
        return None
    destination = entry["dst"]
    if destination != "default" and "/" not in destination:
        destination = str(ipaddress.ip_network(destination))  # of one host, printed without its length
    return Route(destination, entry["gateway"], device, "onlink" in entry.get("flags", ()))


def _ours(route: Route, network: Network) -> bool:
    try:
        return within(ipaddress.ip_network(route.destination), network)
    except ValueError:  # "default"
        return False


def within(inner: Network, outer: Network) -> bool:
    """Is inner a part of outer, or all of it? Not of another family."""
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def write_sysctl(path: str, value: str) -> None:
    """Set /proc/sys/PATH; a kernel without it is logged at debug level."""
    try:
        Path("/proc/sys", path).write_text(value)
    except OSError as error:
        log.debug("sysctl %s: %s", path, error)
