"""flannel's iptables rules: masquerading of what leaves the pod network, and forwarding of what stays in it.

The path, as data. A packet meets FLANNEL-POSTRTG after kube-proxy's KUBE-POSTROUTING (nat, POSTROUTING) and
FLANNEL-FWD in filter, FORWARD
(https://github.com/flannel-io/flannel/blob/master/pkg/trafficmngr/iptables/iptables.go).
"""

from __future__ import annotations

import logging
import shutil
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from components.flannel.netconf import Network
from components.kernel import command

log = logging.getLogger(__name__)

#: What kube-proxy marks to be masqueraded by KUBE-POSTROUTING; masquerading it twice is a known kernel trap.
KUBE_PROXY_MARK = "0x4000/0x4000"
_MASQ = '-m comment --comment "flanneld masq"'
_FORWARD = '-m comment --comment "flanneld forward"'


@dataclass(frozen=True)
class Chain:
    """One chain of ours: the jump that leads to it and its rules, each as iptables-save prints it."""

    table: str
    name: str
    jump: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Ruleset:
    """Rules of the kernel by table: `-A CHAIN ...` lines in order, and the names of the chains."""

    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    chains: dict[str, frozenset[str]] = field(default_factory=dict)


def masquerade(network: Network, subnet: Network, *, random_fully: bool = True) -> Chain:
    """nat: pod to pod stays as it is, also when it comes from outside to this node's pods; the rest that leaves
    the pod network, or enters it from this node, gets this node's address."""
    multicast = "224.0.0.0/4" if network.version == 4 else "ff00::/8"
    target = "-j MASQUERADE" + (" --random-fully" if random_fully else "")
    specs = (
        f"-m mark --mark {KUBE_PROXY_MARK} {_MASQ} -j RETURN",
        f"-s {subnet} -d {network} {_MASQ} -j RETURN",
        f"-s {network} -d {subnet} {_MASQ} -j RETURN",
        f"! -s {network} -d {subnet} {_MASQ} -j RETURN",
        f"-s {network} ! -d {multicast} {_MASQ} {target}",
        f"! -s {network} -d {network} {_MASQ} {target}",
    )
    name = "FLANNEL-POSTRTG"
    return Chain("nat", name, f"-A POSTROUTING {_MASQ} -j {name}", tuple(f"-A {name} {spec}" for spec in specs))


def forward(network: Network) -> Chain:
    """filter: a FORWARD policy of DROP does not cut off the pods."""
    name = "FLANNEL-FWD"
    rules = (f"-A {name} -s {network} {_FORWARD} -j ACCEPT", f"-A {name} -d {network} {_FORWARD} -j ACCEPT")
    return Chain("filter", name, f"-A FORWARD {_FORWARD} -j {name}", rules)


def parse(saved: str) -> Ruleset:
    """The text of iptables-save."""
    rules: dict[str, list[str]] = {}
    chains: dict[str, set[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
            rules[table], chains[table] = [], set()
        elif line.startswith(":"):
            chains[table].add(line[1:].split(" ", 1)[0])
        elif line.startswith("-A "):
            rules[table].append(line)
    return Ruleset(
        {name: tuple(lines) for name, lines in rules.items()},
        {name: frozenset(names) for name, names in chains.items()},
    )


def transaction(chains: Iterable[Chain], current: Ruleset) -> str:
    """Input of `iptables-restore --noflush` that sets right what differs; "" when nothing does.

    A chain is rewritten as a whole. Its jump is appended when it is missing, and doubles are deleted.
    """
    tables: dict[str, list[str]] = {}
    for chain in chains:
        have = current.rules.get(chain.table, ())
        jumps = have.count(chain.jump)
        own = tuple(rule for rule in have if rule.startswith(f"-A {chain.name} "))
        if jumps == 1 and own == chain.rules:
            continue
        doubles = ["-D" + chain.jump[2:]] * max(jumps - 1, 0)
        missing = [chain.jump] if jumps == 0 else []
        # Naming a chain with --noflush makes it, or empties it, within the transaction.
        tables.setdefault(chain.table, []).extend([f":{chain.name} - [0:0]", *chain.rules, *doubles, *missing])
    return "".join(
        f"*{table}\n" + "".join(f"{line}\n" for line in lines) + "COMMIT\n" for table, lines in tables.items()
    )


async def ensure(chains: Iterable[Chain], version: int = 4) -> bool:
    """Bring the kernel to the chains of a family; True when something had to change. Raises CommandError."""
    program = "iptables" if version == 4 else "ip6tables"
    saved = await command.run([f"{program}-save"], timeout=30, check=True)
    text = transaction(chains, parse(saved.stdout.decode()))
    if text:
        restore = [f"{program}-restore", "--wait", "5", "--noflush"]
        await command.run(restore, stdin=text.encode(), timeout=30, check=True)
    return bool(text)


_NETLINK_NETFILTER, _NFNL_SUBSYS_NFTABLES, _NFT_MSG_GETGEN = 12, 10, 16
_NLM_F_REQUEST = 1
_GENERATION_ATTRIBUTE = 1  # NFTA_GEN_ID, 32 bits, network order


def generation() -> int | None:
    """The number of the last nf_tables transaction in this network namespace; None where it cannot be had.

    iptables-nft changes it with every change, so an unchanged number means unchanged rules: one message instead
    of an iptables-save every few seconds on each of a hundred nodes (iptables-legacy must always look).
    """
    header = struct.pack("=IHHII", 20, _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETGEN, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as nl:
            nl.settimeout(1)
            nl.send(header + struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))
            answer = nl.recv(4096)
    except OSError:
        return None
    if len(answer) < 28:
        return None
    _, kind = struct.unpack_from("=IH", answer)
    _, attribute = struct.unpack_from("=HH", answer, 20)
    if kind >> 8 != _NFNL_SUBSYS_NFTABLES or attribute != _GENERATION_ATTRIBUTE:
        return None
    (value,) = struct.unpack_from(">I", answer, 24)
    return int(value)


def is_nf_tables() -> bool:
    """Do the iptables commands write to nf_tables (Debian's default)?"""
    found = shutil.which("iptables-restore")
    return found is not None and "nft" in Path(found).resolve().name
