"""The node's rules and routes as text: ipamd's hostNetwork, and what the plugin adds for each pod. Pure.

(amazon-vpc-cni-k8s: pkg/networkutils/network.go; cmd/routed-eni-cni-plugin/driver/driver.go)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from components.aws_vpc_cni.pool import Eni

MARK = "0x80/0x80"
MARK_PRIORITY, TO_POD_PRIORITY, FROM_POD_PRIORITY = 1024, 512, 1536


def eni_setup(eni: Eni, mtu: int) -> list[str]:
    """`ip -batch`: a secondary interface with its own routing table."""
    network = ipaddress.IPv4Network(eni.subnet)
    gateway = network[1]
    return [
        f"link set dev {eni.device} mtu {mtu} up",
        f"address replace {eni.primary}/{network.prefixlen} dev {eni.device}",
        # The subnet is main's first interface; this one is reached by the tables' routes alone.
        f"route flush table main {network} dev {eni.device}",
        f"route replace {gateway} dev {eni.device} scope link table {eni.table}",
        f"route replace default via {gateway} dev {eni.device} table {eni.table}",
    ]


def nat(vpc: str, primary: str, *, external_snat: bool = False) -> str:
    """`iptables-restore --noflush`: our chains anew, nat and mangle."""
    lines = [
        "*nat",
        ":AWS-SNAT-CHAIN-0 - [0:0]",
        ":AWS-CONNMARK-CHAIN-0 - [0:0]",
        f'-A AWS-SNAT-CHAIN-0 -d {vpc} -m comment --comment "AWS SNAT CHAIN" -j RETURN',
        f'-A AWS-CONNMARK-CHAIN-0 -d {vpc} -m comment --comment "AWS CONNMARK CHAIN, VPC CIDR" -j RETURN',
    ]
    if not external_snat:
        lines += [
            '-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL '
            f"-j SNAT --to-source {primary} --random-fully",
            f'-A AWS-CONNMARK-CHAIN-0 -m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark {MARK}',
        ]
    return "".join(f"{line}\n" for line in [*lines, "COMMIT"])


def jumps(interface: str) -> tuple[tuple[str, str], ...]:
    """Rules of built-in chains, which others write to as well: (table, rule). interface: the primary one."""
    return (
        ("nat", 'POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0'),
        ("nat", 'PREROUTING -i eni+ -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0'),
        (
            "nat",
            'PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80',
        ),
        (
            "mangle",
            f'PREROUTING -i {interface} -m comment --comment "AWS, primary ENI" -m addrtype --dst-type LOCAL '
            f"--limit-iface-in -j CONNMARK --set-xmark {MARK}",
        ),
        (
            "mangle",
            'PREROUTING -i eni+ -m comment --comment "AWS, primary ENI" '
            "-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",
        ),
    )


def mark_rule() -> str:
    """What was marked leaves by main: replies to the node's own address, and what is translated to it."""
    return f"rule add fwmark {MARK} lookup main priority {MARK_PRIORITY}"


def missing_rules(wanted: Iterable[tuple[str, int, str]], there: Iterable[tuple[str, int, str]]) -> list[str]:
    """`ip -batch` lines. A rule: ("from" or "to" and an address, priority, table)."""
    known = set(there)
    return [
        f"rule add {who} lookup {table} priority {priority}"
        for who, priority, table in wanted
        if (who, priority, table) not in known
    ]
