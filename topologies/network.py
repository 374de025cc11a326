"""Builds a plan as a Mininet network: Topo, hosts with private directories, Linux bridges as
switches.

It runs inside a lab's sandbox, as root of the sandbox's own network namespace.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import tempfile
import termios
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mininet.link import Intf, TCIntf
from mininet.link import Link as MininetLink
from mininet.net import Mininet
from mininet.node import Host, Node
from mininet.nodelib import LinuxBridge
from mininet.topo import Topo

from kubewire.topologies.description import Link
from kubewire.topologies.plan import PRIVATE_DIRECTORIES, Machine, TopologyPlan

_FORWARDING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
#: Routers distribute flows over equal routes by addresses and ports, as fabrics do.
_ROUTER_SYSCTLS = _FORWARDING | {
    "net/ipv4/fib_multipath_hash_policy": "1",
    "net/ipv6/fib_multipath_hash_policy": "1",
}
#: kubeadm's preflight checks demand these on a node. bridge-nf is per network namespace since Linux
#: 5.3.
_NODE_SYSCTLS = _FORWARDING | {
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
#: IPv6 addresses are static, as in the plan. No router is solicited, and no address is tentative
#: for a second (duplicate address detection, RFC 4862 section 5.4), not even those of bridges that
#: a CNI plugin creates later.
_STATIC_IPV6 = {
    "net/ipv6/conf/*/accept_dad": "0",
    "net/ipv6/conf/*/accept_ra": "0",
    "net/ipv6/conf/*/router_solicitations": "0",
}


#: Seconds that one command on a host may take. It takes milliseconds; an emulated processor on a
#: busy machine takes seconds.
_PATIENCE = 60.0


class CommandFailed(Exception):
    """A shell command on a host printed an error or did not end: host, command and output."""

    def __init__(self, host: str, command: str, output: str) -> None:
        super().__init__(f"{host}: {command}\n{output}")
        self.host = host
        self.command = command
        self.output = output


class _Shell(Node):  # type: ignore[misc]
    """A Mininet node whose shell takes commands of any length, and which notices if the shell ends,
    does not start, or does not end a command.

    Mininet itself keeps the other end of the terminal open, and would wait for ever for a shell
    that is gone.
    """

    _heard = ""
    _due = 0.0

    def startShell(self, mnopts: str | None = None) -> None:
        """Node.startShell. Raises CommandFailed if the shell does not start."""
        self._due = time.monotonic() + _PATIENCE
        super().startShell(mnopts)

    def _popen(self, cmd: list[str], **params: Any) -> Any:
        is_shell = self.slave is not None and params.get("stdin") == self.slave
        if is_shell:
            _pass_bytes(self.slave)
        process = super()._popen(cmd, **params)
        if is_shell:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(
                null, self.slave, inheritable=False
            )  # not closed, because Node.cleanup() closes it
            os.close(null)
            os.set_blocking(self.master, False)
        return process

    @contextmanager
    def _there(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if (
                error.errno != errno.EIO
            ):  # a terminal's master returns EIO when its other end is closed
                raise
            raise self._failed(f"its shell ended with exit code {self.shell.wait()}") from error

    def _failed(self, reason: str) -> CommandFailed:
        command = self.lastCmd or shlex.join(self.shell.args)
        return CommandFailed(self.name, command, f"{self._heard.strip()}\n{reason}".strip())

    def _await(self, event: int) -> None:
        """Wait until the shell's terminal can be read or written."""
        poll = select.poll()
        poll.register(self.master, event)
        left = max(self._due - time.monotonic(), 0.0)
        if not poll.poll(left * 1000):
            raise self._failed(f"it did not end within {_PATIENCE:g} s")

    def waitReadable(self, timeoutms: float | None = None) -> Any:
        """Node.waitReadable. Without a time it waits until the command is due, and raises
        CommandFailed then."""
        if timeoutms is None and not self.readbuf:
            self._await(select.POLLIN)
        return super().waitReadable(timeoutms)

    def read(self, size: int = 1024) -> str:
        """Node.read. Raises CommandFailed if the shell has ended, or the command is overdue."""
        with self._there():
            if len(self.readbuf) < size:
                self._await(select.POLLIN)
            data: str = super().read(size)
        self._heard = (self._heard + data)[-1024:]
        return data

    def write(self, data: str) -> None:
        """Node.write of a new command. Raises CommandFailed if the shell has ended, or does not
        take it."""
        self._heard = ""
        self._due = time.monotonic() + _PATIENCE
        rest = data.encode()
        with self._there():
            while rest:
                self._await(select.POLLOUT)
                rest = rest[os.write(self.master, rest) :]

    def run(self, command: str) -> str:
        """Runs a shell command that prints nothing if it works. Raises CommandFailed with its
        output."""
        output: str = self.cmd(command)
        if output.strip():
            raise CommandFailed(self.name, command, output.strip())
        return output

    def batch(self, lines: Sequence[str]) -> None:
        """Runs ip(8) with a line for each command. Raises CommandFailed with its output."""
        self.run("printf '%s\\n' " + " ".join(map(shlex.quote, lines)) + " | ip -batch -")


def _pass_bytes(terminal: int) -> None:
    """Make a terminal hand over what is typed at once. One that collects lines takes 4,095 bytes of
    a line and drops the rest with its end, so that the shell would wait for ever (termios(3))."""
    attributes = termios.tcgetattr(terminal)
    attributes[3] &= ~termios.ICANON
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


def private_table(directories: Sequence[str], shared: Sequence[str]) -> list[str]:
    """fstab(5): a tmpfs on each directory, then binds of the shared folders, held open as
    descriptors 60, 61, ..."""
    modes = {"/tmp": "1777"}
    lines = [
        f"node-private {path} tmpfs nodev,mode={modes.get(path, '755')} 0 0" for path in directories
    ]
    for descriptor, path in enumerate(shared, start=60):
        if not Path(path).is_dir():
            continue
        lines.append(f"/proc/self/fd/{descriptor}/. {_escaped(path)} none bind,X-mount.mkdir 0 0")
    return lines


def bind_files(shared: Sequence[str]) -> str:
    """Shell commands that bind the shared files, for which mount(8) makes no mount point."""
    commands = ""
    for descriptor, path in enumerate(shared, start=60):
        if Path(path).is_dir():
            continue
        target = shlex.quote(path)
        commands += f"mkdir -p {shlex.quote(str(Path(path).parent))}; : > {target}; "
        commands += f"mount -n -c --bind /proc/self/fd/{descriptor} {target}; "
    return commands


def _escaped(path: str) -> str:
    return "".join(
        f"\\{ord(character):03o}" if character in " \t\n\\" else character for character in path
    )


class MachineHost(_Shell, Host):  # type: ignore[misc]
    """A Mininet host that is configured from its plan by two shell commands instead of a dozen."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        shared: Sequence[str] = (),
        directories: Sequence[str] = (),
        **params: Any,
    ) -> None:
        self.machine = machine
        self._shared = tuple(shared)
        private = [*PRIVATE_DIRECTORIES, *directories] if machine.is_node else ["/run", "/tmp"]
        super().__init__(name, privateDirs=private, **params)

    def mountPrivateDirs(self) -> None:
        """Runs one mount(8) with a table of all directories, instead of two programs for each."""
        # Shared paths below the new mounts (the lab's state directory) are kept open while they are
        # covered.
        held = [
            (descriptor, shlex.quote(path))
            for descriptor, path in enumerate(self._shared, start=60)
        ]
        hold = "".join(f"exec {descriptor}<{path}; " for descriptor, path in held)
        release = "".join(f"exec {descriptor}<&-; " for descriptor, _ in held)
        # mount(8) accepts only a regular file as its table.
        with tempfile.NamedTemporaryFile("w", prefix="fstab-") as table:
            table.write("\n".join([*private_table(self.privateDirs, self._shared), ""]))
            table.flush()
            self.run(
                f"{hold}mkdir -p {' '.join(self.privateDirs)}; mount -n -c -a -T {shlex.quote(table.name)}; "
                f"{bind_files(self._shared)}{release}mkdir -p /run/netns /run/lock",
            )

    def configDefault(self, **_: Any) -> None:
        """Sets addresses, routes and sysctls of the plan. Links are plugged in before."""
        self._set(_STATIC_IPV6 if self._has_ipv6 else {})
        lines = ["link set lo up"]
        for interface in self.machine.interfaces:
            lines += [_add_address(address, interface.name) for address in interface.addresses]
            lines.append(f"link set {interface.name} up")
        own = {interface.name for interface in self.machine.interfaces}
        for destination, via in self.machine.routes:
            lines.append(f"route add {destination} {'dev' if via in own else 'via'} {via}")
        self.batch(lines)
        if self.machine.is_node:
            self._set(_NODE_SYSCTLS)
        elif self.machine.role == "router":
            # Each has a different seed (Linux 6.11): with equal seeds a second router would use
            # half of its routes.
            seed = str(zlib.crc32(self.name.encode()))
            self._set(_ROUTER_SYSCTLS | {"net/ipv4/fib_multipath_hash_seed": seed})

    @property
    def _has_ipv6(self) -> bool:
        return any(
            ":" in address
            for interface in self.machine.interfaces
            for address in interface.addresses
        )

    def _set(self, sysctls: Mapping[str, str]) -> None:
        writes = [
            f"for f in /proc/sys/{key}; do [ ! -e $f ] || echo {value} >$f; done"
            for key, value in sysctls.items()
        ]
        if writes:
            self.run("; ".join(writes))


def _add_address(address: str, interface: str) -> str:
    return f"addr add {address} dev {interface}" + (" nodad" if ":" in address else "")


class Bridge(_Shell, LinuxBridge):  # type: ignore[misc]
    """A Linux bridge whose ports are added by one `ip -batch`. It runs the spanning tree protocol
    (IEEE 802.1D) only if the plan has a loop, because ports wait before they forward."""

    def start(self, _controllers: Any) -> None:
        ports = [interface.name for interface in self.intfList() if interface.name != "lo"]
        # The shortest times that the kernel takes, in hundredths of a second: a port listens and
        # learns for 2 s each before it forwards.
        stp = " stp_state 1 forward_delay 200 hello_time 100 max_age 600" if self.stp else ""
        lines = [
            f"link add name {self.name} type bridge mcast_snooping 0{stp}",
            f"link set {self.name} up",
        ]
        for port in ports:
            lines.append(f"link set {port} master {self.name} up")
        self.batch(lines)

    @classmethod
    def setup(cls) -> None:
        """LinuxBridge's own check warns about bridge-nf, which the sandbox has already switched
        off."""


class _PlannedIntf(Intf):  # type: ignore[misc]
    """An interface that MachineHost.configDefault or Bridge.start brings up, together with others
    in one batch."""

    def isUp(self, setUp: bool = False) -> bool:
        """Intf.isUp without an ifconfig for each interface."""
        return setUp or super().isUp()


class ShapedIntf(TCIntf):  # type: ignore[misc]
    """An interface with the properties of its link. Where TCIntf would log an error of tc(8) and
    go on, it raises CommandFailed."""

    def config(self, mtu: int | None = None, bw: float | None = None, **params: Any) -> Any:
        """TCIntf.config. mtu: bytes."""
        if mtu is not None:
            self.node.run(f"ip link set dev {self.name} mtu {mtu}")
        if bw is None and not params.keys() & {"delay", "loss"}:
            return Intf.config(self, **params)
        return super().config(bw=bw, **params)

    def tc(self, cmd: str, tc: str = "tc") -> str:
        command = cmd % (tc, self)
        if " qdisc show " in command:
            shown: str = self.cmd(command)
            return shown
        return str(self.node.run(command))


class PlainLink(MininetLink):  # type: ignore[misc]
    """A veth pair. The host's configuration brings up one end, the bridge the other."""


class PlanTopo(Topo):  # type: ignore[misc]
    """A TopologyPlan as a Mininet Topo."""

    def build(
        self,
        plan: TopologyPlan | None = None,
        shared: Sequence[str] = (),
        directories: Sequence[str] = (),
        **_: Any,
    ) -> None:
        assert plan is not None
        for number, switch in enumerate(plan.switches, start=1):
            self.addSwitch(switch, dpid=f"{number:x}", stp=plan.spanning_tree)
        for machine in plan.machines:
            self.addHost(machine.name, machine=machine, shared=shared, directories=directories)
        for machine in plan.machines:
            for interface in machine.interfaces:
                if interface.switch:
                    names = {"intfName1": interface.name, "intfName2": interface.port}
                    self.addLink(
                        machine.name, interface.switch, **names, **_options(interface.link)
                    )
        for hosts, ends, link in _cables(plan):
            self.addLink(*hosts, intfName1=ends[0], intfName2=ends[1], **_options(link))
        for trunk in plan.trunks:
            ports = {"intfName1": trunk.ports[0], "intfName2": trunk.ports[1]}
            self.addLink(trunk.first, trunk.second, **ports, **_options(trunk.link))


def _cables(plan: TopologyPlan) -> Iterator[tuple[tuple[str, str], tuple[str, str], Link]]:
    """Hosts, interfaces and link of each cable between two hosts, once."""
    for machine in plan.machines:
        for interface in machine.interfaces:
            other, _, theirs = interface.peer.partition(":")
            if interface.peer and (machine.name, interface.name) < (other, theirs):
                yield (machine.name, other), (interface.name, theirs), interface.link


def _options(link: Link) -> dict[str, Any]:
    """The arguments of Topo.addLink. Queueing disciplines shape outgoing packets, so both ends of a
    link have them: tbf, which every kernel has and which segments GSO packets, above netem(8)."""
    shaped: dict[str, Any] = {}
    if link.bandwidth is not None:
        shaped |= {"bw": link.bandwidth, "use_tbf": True}
    if link.delay:
        shaped["delay"] = link.delay
    if link.loss:
        shaped["loss"] = link.loss
    if link.mtu is not None:
        shaped["mtu"] = link.mtu
    return {"cls1": ShapedIntf, "cls2": ShapedIntf, **shaped} if shaped else {}


def build(plan: TopologyPlan, *shared: str, directories: Sequence[str] = ()) -> Mininet:
    """Builds and starts the network. shared: directories that every host sees although its own /run
    or /tmp covers them. directories: private directories of every node besides PRIVATE_DIRECTORIES.
    Raises CommandFailed if a command on a host prints anything."""
    # Mininet.init() would raise sysctls of the whole machine (fs.file-max, kernel.pty.max ...), so
    # it is skipped.
    Mininet.inited = True
    network = Mininet(
        topo=PlanTopo(plan=plan, shared=shared, directories=directories),
        host=MachineHost,
        switch=Bridge,
        link=PlainLink,
        intf=_PlannedIntf,
        controller=None,
        build=False,
    )
    network.build()
    network.start()
    return network
