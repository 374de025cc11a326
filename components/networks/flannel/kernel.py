"""Reads flannel's part of the node: the outer interface, the VXLAN device, and the entries flannel
owns."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kubewire.components.kernel import forwarding as kernel
from kubewire.components.kernel import vxlan
from kubewire.components.kernel.command import CommandError, run
from kubewire.components.kernel.forwarding import Forwarding, Route
from kubewire.components.kernel.iproute import query
from kubewire.components.kernel.vxlan import VxlanDevice
from kubewire.components.networks.flannel.device import Link
from kubewire.components.networks.flannel.netconf import Network

log = logging.getLogger(__name__)


class LinkError(Exception):
    """No interface matches the options. The text is upstream's."""


_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _networks(entry: dict[str, Any], version: int) -> list[_Interface]:
    """The interface's addresses of a family. A link-local address cannot be the target of a routed
    packet."""
    return [ipaddress.ip_interface(address) for address in vxlan.addresses(entry, version)]


async def outer_link(
    interfaces: Sequence[str] = (),
    patterns: Sequence[str] = (),
    reachable: str = "",
    version: int = 4,
) -> Link:
    """Finds the interface for traffic between nodes: by name or address, by regular expression on
    both, by the route to an address, else by the default route. Raises LinkError or CommandError.
    """
    flag = f"-{version}"
    links = {entry["ifname"]: entry for entry in await query("ip", flag, "address", "show")}
    for wanted in interfaces:
        for name, entry in links.items():
            if wanted == name or any(
                wanted == str(address.ip) for address in _networks(entry, version)
            ):
                return _link(entry, version, wanted)
    for pattern in patterns:
        for name, entry in links.items():
            if re.search(pattern, name) or any(
                re.search(pattern, str(own.ip)) for own in _networks(entry, version)
            ):
                return _link(entry, version)
    if interfaces or patterns:
        asked = ", ".join((*interfaces, *patterns))
        raise LinkError(
            f"failed to find interface to use that matches the interfaces and/or regexes provided: {asked}"
        )
    asked_for = ("route", "get", reachable) if reachable else ("route", "show", "default")
    for route in await query("ip", flag, *asked_for):
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
    """The device as it is, with its addresses of a family; None if it does not exist. Raises
    LinkError if the name belongs to a device of another kind."""
    found = await vxlan.read(name, version)
    if found is not None and found.kind != "vxlan":
        raise LinkError(f"{name} exists and is not a vxlan device")
    return found


async def forwarding(network: Network, *, outer: str, overlay: str = "") -> Forwarding:
    """The entries that flannel owns: all entries of the overlay device, and on the outer interface
    the routes via a next hop to destinations in the flannel network. Raises CommandError."""
    routes = await kernel.routes(network.version, "dev", outer)
    found = Forwarding()
    if overlay:
        routes += await kernel.routes(network.version, "dev", overlay)
        found = await kernel.tunnel(overlay, network.version)
    return found | Forwarding(frozenset(route for route in routes if _ours(route, network)))


def _ours(route: Route, network: Network) -> bool:
    try:
        return bool(route.hops) and within(ipaddress.ip_network(route.destination), network)
    except ValueError:  # "default"
        return False


async def leave_bridge(name: str, subnets: Sequence[Network]) -> None:
    """Removes the gateway addresses of these subnets from the bridge of the pods, if it exists.

    With them, the bridge plugin refuses every pod of another subnet ("already has an IP address
    different from"). It adds the address of the new subnet itself.
    """
    if not name or not Path("/sys/class/net", name).exists():
        return
    for subnet in subnets:
        address = f"{subnet.network_address + 1}/{subnet.prefixlen}"
        try:
            await run(["ip", "addr", "del", address, "dev", name])
        except CommandError as error:
            log.info("%s", error)


def within(inner: Network, outer: Network) -> bool:
    """Tells whether inner is a part of outer or equal to it. False for another family."""
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def write_sysctl(path: str, value: str) -> None:
    """Writes /proc/sys/PATH. If the kernel does not have it, that is logged at debug level."""
    try:
        Path("/proc/sys", path).write_text(value)
    except OSError as error:
        log.debug("sysctl %s: %s", path, error)
