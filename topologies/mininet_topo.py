"""A Mininet Topo as a description.

Mininet's hosts with one link become nodes, the first of them the control plane; those with more
links become routers. A Topo can say otherwise: addHost(name, role="outside"), and also zone and
asn. Of the parameters that Mininet knows, ip, defaultRoute, bw, delay, loss and the names of
interfaces count; an interface without a name is ethN, where N is Mininet's port number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mininet.topo import Topo
from mininet.util import splitArgs

#: What addLink takes beside the two nodes -> the key of a lab file.
_LINK = {"bw": "bandwidth", "delay": "delay", "loss": "loss", "mtu": "mtu"}
#: What Mininet itself puts there, and what changes nothing here.
_IGNORED = {"node1", "node2", "port1", "port2", "cls", "cls1", "cls2", "use_htb", "use_tbf", "fast"}
_NAMES = ("intfName", "params")


class TopoError(ValueError):
    """Says what in the file or the Topo cannot be used."""


def instance(scope: Mapping[str, Any], text: str) -> Topo:
    """What `mn --custom FILE --topo TEXT` would build. scope: the names that the file defines.

    text: a name of the file's dictionary topos, or a class, and arguments after commas. Raises
    TopoError, and whatever the class raises.
    """
    name, args, kwargs = splitArgs(text)
    topos = {
        key: value
        for key, value in scope.items()
        if isinstance(value, type) and issubclass(value, Topo)
    }
    topos = {key: value for key, value in topos.items() if value is not Topo} | dict(
        scope.get("topos") or {}
    )
    if name not in topos:
        known = f"the file has {', '.join(sorted(topos))}" if topos else "the file has none"
        raise TopoError(f"there is no Topo {name}; {known}")
    made = topos[name](*args, **kwargs)
    if not isinstance(made, Topo):
        raise TopoError(f"{name} makes a {type(made).__name__}, which is no mininet.topo.Topo")
    return made


def mapping(topo: Topo) -> dict[str, Any]:
    """hosts and switches in the form of a lab file. Raises TopoError."""
    hosts: dict[str, dict[str, Any]] = {name: {} for name in topo.hosts()}
    interfaces: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in hosts}
    switches: dict[str, dict[str, Any]] = {name: {} for name in topo.switches()}
    for one, other, info in topo.links(withInfo=True):
        ends = [_end(one, info), _end(other, info)]
        shaped = dict(_shape(f"{one}-{other}", info))
        if one in switches and other in switches:
            _join(switches, one, other, shaped)
            continue
        for (name, interface, own), (peer, theirs, _) in (ends, ends[::-1]):
            if name in hosts:
                to = peer if peer in switches else f"{peer}:{theirs}"
                addresses = {"addresses": [own["ip"]]} if own.get("ip") else {}
                interfaces[name][interface] = {"to": to, **addresses, **shaped}
    for name, host in hosts.items():
        host |= _host(name, topo.nodeInfo(name), interfaces[name])
    if not any(host["role"] == "control-plane" for host in hosts.values()):
        first = next((host for host in hosts.values() if host["role"] == "worker"), None)
        if first is None:
            raise TopoError(
                "it has no host with one link, so no node; give one role='control-plane'"
            )
        first["role"] = "control-plane"
    return {"hosts": hosts, "switches": switches}


def _end(name: str, info: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """Host or switch, interface, and parameters of one end."""
    number = 1 if info["node1"] == name else 2
    return (
        name,
        info.get(f"intfName{number}") or f"eth{info[f'port{number}']}",
        info.get(f"params{number}") or {},
    )


def _shape(link: str, info: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in info.items():
        if key in _LINK and value is not None:
            yield _LINK[key], value
        elif key not in _LINK and key not in _IGNORED and not key.startswith(_NAMES):
            raise TopoError(
                f"link {link}: {key} is not possible here; a link has {', '.join(_LINK)}"
            )


def _join(
    switches: dict[str, dict[str, Any]], one: str, other: str, shaped: Mapping[str, Any]
) -> None:
    """A switch's links have the same properties; the other end may hold one that differs."""
    for first, second in ((one, other), (other, one)):
        own = {key: value for key, value in switches[first].items() if key != "to"}
        if "to" not in switches[first] or own == shaped:
            switches[first] |= {"to": [*switches[first].get("to", ()), second], **shaped}
            return
    raise TopoError(
        f"links {one}-{other}: the links of a switch to others differ more than a lab file can say"
    )


def _host(
    name: str, info: Mapping[str, Any], interfaces: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    role = info.get("role") or ("router" if len(interfaces) > 1 else "worker")
    host: dict[str, Any] = {"role": role, "interfaces": interfaces}
    host |= {key: info[key] for key in ("zone", "asn") if info.get(key)}
    first = next(iter(interfaces.values()), None)
    if first is not None and info.get("ip") and "addresses" not in first:
        first["addresses"] = [info["ip"]]
    if route := info.get("defaultRoute"):
        words = route.split()
        if "via" not in words[:-1]:
            raise TopoError(f"{name}: defaultRoute={route!r}: give it as 'via ADDRESS'")
        host["routes"] = {"default": words[words.index("via") + 1]}
    return host
