"""The node's rules and routes as text: ipamd's hostNetwork, and what the plugin adds for each pod. Pure.

(amazon-vpc-cni-k8s: pkg/networkutils/network.go; cmd/routed-eni-cni-plugin/driver/driver.go)
"""

from __future__ import annotations

import ipaddress

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.networks.aws_vpc_cni.pool import Eni

MARK = "0x80/0x80"
MARK_PRIORITY = 1024


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


def rules(vpc: str, primary: str, interface: str, *, external_snat: bool = False) -> Ruleset:
    """primary, interface: address and name of the node's first interface."""
    snat = [f'-d {vpc} -m comment --comment "AWS SNAT CHAIN" -j RETURN']
    connmark = [f'-d {vpc} -m comment --comment "AWS CONNMARK CHAIN, VPC CIDR" -j RETURN']
    if not external_snat:
        snat.append(
            '! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL '
            f"-j SNAT --to-source {primary} --random-fully"
        )
        connmark.append(f'-m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark {MARK}')
    chains = (
        Chain("nat", "AWS-SNAT-CHAIN-0", tuple(snat)),
        Chain("nat", "AWS-CONNMARK-CHAIN-0", tuple(connmark)),
    )
    return Ruleset(chains, _leads(interface))


def _leads(interface: str) -> tuple[Lead, ...]:
    """Rules of built-in chains, which others write to as well."""
    restore = "-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80"
    return (
        Lead("nat", "POSTROUTING", ('-m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0',)),
        Lead(
            "nat",
            "PREROUTING",
            (
                '-i eni+ -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0',
                f'-m comment --comment "AWS, CONNMARK" {restore}',
            ),
        ),
        Lead(
            "mangle",
            "PREROUTING",
            (
                f'-i {interface} -m comment --comment "AWS, primary ENI" -m addrtype --dst-type LOCAL '
                f"--limit-iface-in -j CONNMARK --set-xmark {MARK}",
                f'-i eni+ -m comment --comment "AWS, primary ENI" {restore}',
            ),
        ),
    )


def mark_rule() -> str:
    """What was marked leaves by main: replies to the node's own address, and what is translated to it."""
    return f"rule add fwmark {MARK} lookup main priority {MARK_PRIORITY}"
