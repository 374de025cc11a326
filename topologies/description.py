"""A topology as a user describes it: hosts, their interfaces, and switches.

It has the form of the key `topology` of a lab file. Addresses and routes may be left out;
addressing.py then chooses them. Everything here is data, and problems() says what cannot be built.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

#: Where a problem is: the keys that lead to it, from the topology down.
Where = tuple[str | int, ...]
Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
#: A device's name has at most 15 bytes (IFNAMSIZ of linux/if.h), and a node's label value 63.
_DEVICE = 15
_LABEL = 63


@dataclass(frozen=True, kw_only=True)
class Link:
    """The properties of a link. Both directions have them.

    bandwidth: Mbit/s. delay: how long a packet takes, such as "10ms". loss: the percentage of
    packets that are lost. mtu: the size in bytes of the largest IP packet. None and "": as the
    machine has it.
    """

    bandwidth: float | None = None
    delay: str = ""
    loss: float | None = None
    mtu: int | None = None

    def over(self, other: Link) -> Link:
        """These properties, and those of other where there are none."""
        return Link(**(other.given() | self.given()))

    def given(self) -> dict[str, Any]:
        """The properties that are set, by name."""
        properties = {item.name: getattr(self, item.name) for item in fields(Link)}
        return {name: value for name, value in properties.items() if value not in (None, "")}


#: A link as the machine has it.
PLAIN = Link()


@dataclass(frozen=True)
class Port(Link):
    """An interface of a host, with the properties of its link.

    to: a switch, or HOST:INTERFACE for a cable to another host. addresses: with prefix lengths.
    """

    to: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Switch(Link):
    """A learning Ethernet switch. to: other switches, with a link of these properties to each."""

    to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Host:
    """A machine.

    zone: a node's topology.kubernetes.io/zone. asn: a router's BGP number. routes: (destination,
    gateway or interface); None: computed.
    """

    role: Literal["control-plane", "worker", "router", "outside"] = "worker"
    zone: str = ""
    asn: int | None = None
    interfaces: tuple[tuple[str, Port], ...] = ()
    routes: tuple[tuple[str, str], ...] | None = None

    @property
    def is_node(self) -> bool:
        return self.role in ("control-plane", "worker")


@dataclass(frozen=True)
class Description:
    """hosts and switches by name, in the order in which they get addresses."""

    hosts: tuple[tuple[str, Host], ...] = ()
    switches: tuple[tuple[str, Switch], ...] = ()

    def ordered(self) -> Description:
        """With the control plane first, then the other nodes, then the rest."""
        rank = {"control-plane": 0, "worker": 1}
        return Description(
            tuple(sorted(self.hosts, key=lambda item: rank.get(item[1].role, 2))), self.switches
        )


def parse(hosts: Mapping[str, Any], switches: Mapping[str, Any]) -> Description:
    """From the mappings of a lab file, whose form the schema has checked."""
    return Description(
        tuple((name, _host(data or {})) for name, data in hosts.items()),
        tuple((name, _switch(data or {})) for name, data in switches.items()),
    ).ordered()


def _host(data: Mapping[str, Any]) -> Host:
    interfaces = tuple((name, _port(port)) for name, port in data.get("interfaces", {}).items())
    routes = None if data.get("routes") is None else tuple(data["routes"].items())
    return Host(**{**data, "interfaces": interfaces, "routes": routes})


def _port(data: str | Mapping[str, Any]) -> Port:
    if isinstance(data, str):
        return Port(data)
    return Port(**{**data, "addresses": tuple(data.get("addresses", ()))})


def _switch(data: Mapping[str, Any]) -> Switch:
    return Switch(**{**data, "to": tuple(data.get("to", ()))})


def as_dict(description: Description) -> dict[str, Any]:
    """The mappings of a lab file, without what is left at its default."""
    hosts = {name: _host_dict(host) for name, host in description.hosts}
    return {
        "hosts": hosts,
        "switches": {name: _switch_dict(switch) for name, switch in description.switches},
    }


def _host_dict(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {} if host.role == "worker" else {"role": host.role}
    found |= {name: value for name, value in (("zone", host.zone), ("asn", host.asn)) if value}
    found["interfaces"] = {name: _port_dict(port) for name, port in host.interfaces}
    if host.routes is not None:
        found["routes"] = dict(host.routes)
    return found


def _port_dict(port: Port) -> dict[str, Any]:
    addresses = {"addresses": list(port.addresses)} if port.addresses else {}
    return {"to": port.to, **addresses, **port.given()}


def _switch_dict(switch: Switch) -> dict[str, Any]:
    to = {"to": list(switch.to)} if switch.to else {}
    return {**to, **switch.given()}


def problems(description: Description) -> Iterator[tuple[Where, str]]:
    """What keeps a description from being built, with the keys that lead to it."""
    hosts = dict(description.hosts)
    switches = dict(description.switches)
    yield from _control_planes(description)
    for name, host in hosts.items():
        where: Where = ("hosts", name)
        yield from _name(where, name, _LABEL)
        if name in switches:
            yield where, "a switch has this name, too; take another one"
        if not host.interfaces:
            yield where, "has no interface; give it interfaces: {eth0: {to: SWITCH}}"
        if host.asn is not None and host.role != "router":
            yield (*where, "asn"), f"is for role: router, and {name} is a {host.role}"
        if host.zone and not host.is_node:
            yield (*where, "zone"), f"is for nodes, and {name} has role: {host.role}"
        for interface, port in host.interfaces:
            yield from _interface(hosts, switches, name, interface, port)
        yield from _routes(where, host)
    for name, switch in switches.items():
        yield from _name(("switches", name), name, _DEVICE)
        yield from _uplinks(switches, name, switch)
    yield from _twice(description)


def _control_planes(description: Description) -> Iterator[tuple[Where, str]]:
    found = [name for name, host in description.hosts if host.role == "control-plane"]
    if len(found) != 1:
        text = f"these have it: {', '.join(found)}" if found else "none has it"
        yield ("hosts",), f"one host needs role: control-plane, and {text}"


def _name(where: Where, name: str, longest: int) -> Iterator[tuple[Where, str]]:
    if not _NAME.fullmatch(name) or len(name) > longest:
        yield where, f"is not a name of lower-case letters, digits and '-' ({longest} at most)"


def _interface(
    hosts: Mapping[str, Host], switches: Mapping[str, Switch], host: str, interface: str, port: Port
) -> Iterator[tuple[Where, str]]:
    where: Where = ("hosts", host, "interfaces", interface)
    if (
        interface == "lo"
        or not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]*", interface)
        or len(interface) > _DEVICE
    ):
        yield (
            where,
            f"is not the name of a network interface, such as eth0 ({_DEVICE} letters at most)",
        )
    to = (*where, "to")
    if ":" in port.to:
        yield from _cable(hosts, to, f"{host}:{interface}", port.to)
    elif port.to not in switches:
        known = [
            *switches,
            *(f"{name}:{own}" for name, other in hosts.items() for own, _ in other.interfaces),
        ]
        hint = (
            " (a cable to a host is HOST:INTERFACE)"
            if port.to in hosts
            else _nearest(port.to, known)
        )
        yield to, f"there is no switch {port.to}{hint}; there are {', '.join(switches) or 'none'}"
    for number, address in enumerate(port.addresses):
        try:
            parsed = _parsed(address)
        except ValueError as error:
            yield (
                (*where, "addresses", number),
                f"{error}; write it with its prefix length, such as 172.18.0.2/16",
            )
            continue
        if parsed.network.num_addresses > 2 and parsed.ip == parsed.network.network_address:
            yield (
                (*where, "addresses", number),
                f"{address} is its network's own address; take one of its hosts'",
            )


def _parsed(address: str) -> Address:
    if "/" not in address:
        raise ValueError(f"{address} has no prefix length")
    return ipaddress.ip_interface(address)


def _cable(
    hosts: Mapping[str, Host], where: Where, own: str, to: str
) -> Iterator[tuple[Where, str]]:
    name, _, interface = to.partition(":")
    if to == own:
        yield where, "leads to itself"
        return
    other = dict(hosts[name].interfaces).get(interface) if name in hosts else None
    if other is None:
        known = [f"{host}:{one}" for host, of in hosts.items() for one, _ in of.interfaces]
        yield where, f"there is no interface {to}{_nearest(to, known)}"
    elif other.to != own:
        yield where, f"a cable has two ends, and {to} leads to {other.to}, not to {own}"


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, [*known], 1)
    return f" (did you mean {found[0]}?)" if found else ""


def _uplinks(
    switches: Mapping[str, Switch], name: str, switch: Switch
) -> Iterator[tuple[Where, str]]:
    for number, other in enumerate(switch.to):
        where: Where = ("switches", name, "to", number)
        if other not in switches:
            yield where, f"there is no switch {other}{_nearest(other, switches)}"
        elif other == name:
            yield where, "leads to itself"
        elif name in switches[other].to:
            yield where, f"{other} has a link to {name} already; name it at one end"
        elif other in switch.to[:number]:
            yield where, f"{other} is named twice; one link is enough between two switches"


def _routes(where: Where, host: Host) -> Iterator[tuple[Where, str]]:
    own = dict(host.interfaces)
    for destination, via in host.routes or ():
        at = (*where, "routes", destination)
        if destination != "default":
            try:
                ipaddress.ip_network(destination)
            except ValueError as error:
                yield at, f"{error}; a destination is default or a range such as 10.0.0.0/8"
        if via in own:
            continue
        try:
            gateway = ipaddress.ip_address(via)
        except ValueError:
            yield (
                at,
                f"{via} is neither an address nor an interface of this host ({', '.join(own)})",
            )
            continue
        networks = [network for port in own.values() for network in _networks(port.addresses)]
        # Addresses that are left out are chosen later.
        whole = all(port.addresses for port in own.values())
        if whole and not any(gateway in network for network in networks):
            text = f"{via} is in no network of this host ({', '.join(map(str, networks))})"
            yield at, f"{text}, and the kernel refuses such a gateway"


def _networks(addresses: Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for address in addresses:
        try:
            found.append(_parsed(address).network)
        except ValueError:
            continue  # told elsewhere
    return found


def _twice(description: Description) -> Iterator[tuple[Where, str]]:
    owners: dict[str, str] = {}
    for name, host in description.hosts:
        for interface, port in host.interfaces:
            own = f"{name}:{interface}"
            for number, address in enumerate(port.addresses):
                bare = address.partition("/")[0]
                first = owners.setdefault(bare, own)
                if first != own:
                    where: Where = ("hosts", name, "interfaces", interface, "addresses", number)
                    yield where, f"{bare} is {first}'s already"
