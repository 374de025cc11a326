"""The applier: plugs interfaces in, and makes the switches follow the model."""

from __future__ import annotations

import json

from kubewire.components.kernel import command
from kubewire.components.vpc import fabric
from kubewire.components.vpc.model import Interface, Vpc

_SECONDS = 20


def _run(argv: list[str], text: str = "") -> str:
    return command.run_blocking(
        argv,
        stdin=text.encode(),
        timeout=_SECONDS,
        check=True,
    ).stdout.decode()


def mac_of(pid: int, name: str) -> str:
    """The MAC of a node's interface. Raises CommandError, OSError."""
    shown = _run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-json", "link", "show", "dev", name],
    )
    return str(json.loads(shown)[0]["address"])


class Kernel:
    """Runs in the namespace of the switches. router: pid of the VPC router. Methods raise
    CommandError and OSError."""

    def __init__(self, router: int = 0) -> None:
        self._router = router
        self._routes = ""
        self._mapping = fabric.Mapping()
        self._rules = ""

    def answers_arp(self, port: str) -> None:
        """Makes the switch answer ARP requests that arrive at this port."""
        _run(["ip", "link", "set", "dev", port, "type", "bridge_slave", "proxy_arp", "on"])

    def pin(self, switch: str) -> None:
        """Fixes the bridge's MAC. Otherwise it takes the lowest MAC of its ports, and a change
        flushes its neighbours."""
        shown = json.loads(_run(["ip", "-json", "link", "show", "dev", switch]))
        _run(["ip", "link", "set", "dev", switch, "address", shown[0]["address"]])

    def plug(self, interface: Interface, pid: int) -> None:
        """Creates a new interface of a node. It is down, like a hot-plugged device."""
        port = interface.port
        switch = interface.subnet.switch
        lines = [
            f"link add {port} type veth peer name eth{interface.index} address {interface.mac} netns {pid}",
            f"link set {port} master {switch}",
            f"link set {port} up",
        ]
        _run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))
        self.answers_arp(port)

    def unplug(self, port: str) -> None:
        _run(["ip", "link", "delete", port])

    def apply(self, vpc: Vpc) -> None:
        """Applies rules before neighbours: an address is not answered for before its port may use
        it."""
        rules = fabric.rules(vpc)
        wanted = fabric.mapping(vpc)
        if rules != self._rules:
            _run(["nft", "-f", "-"], rules)
            self._rules = rules
        neighbours, fdb = fabric.difference(self._mapping, wanted)
        if fdb:
            _run(["bridge", "-batch", "-"], fdb)
        if neighbours:
            _run(["ip", "-force", "-batch", "-"], neighbours)
        self._mapping = wanted
        if (routes := fabric.routes(vpc)) != self._routes:
            _run(["nsenter", f"--net=/proc/{self._router}/ns/net", "ip", "-batch", "-"], routes)
            self._routes = routes
