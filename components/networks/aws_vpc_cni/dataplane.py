"""The node's rules and routes as text: ipamd's host network, and what the plugin adds for each pod.
Pure.

Linux routes by destination, but in a VPC the outgoing interface must follow from the source: the
VPC drops a packet that an interface sends from an address of another interface. Policy routing
(rules before the main table) does this:

    512   to POD                 lookup main      a packet for a pod goes to its veth, whatever its source is
    1024  fwmark 0x80/0x80       lookup main      by the first interface: replies, and translated connections
    1535  to RANGE               lookup main      AWS_EXTERNAL_SERVICE_CIDRS: by the first interface
    1536  from POD               lookup N + 1     a pod with an address of ethN leaves by ethN

Traffic to the VPC keeps the pod's address. Other traffic is translated to the node's primary
address, which an internet gateway knows, and therefore must leave by the first interface: the
connmark 0x80 is set at the first packet, before routing, and restored on every later one. The same
mark makes the reply to a NodePort connection, which came in by eth0 and went to a pod of another
interface, leave by eth0 again.

(amazon-vpc-cni-k8s: pkg/networkutils/network.go; cmd/routed-eni-cni-plugin/driver/driver.go)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.networks.aws_vpc_cni.environment import Configuration
from kubewire.components.networks.aws_vpc_cni.pool import Eni

MARK = "0x80/0x80"
MARK_PRIORITY = 1024
EXTERNAL_PRIORITY = 1535


def eni_setup(eni: Eni, mtu: int) -> list[str]:
    """`ip -batch` input for a secondary interface with its own routing table."""
    network = ipaddress.IPv4Network(eni.subnet)
    gateway = network[1]
    return [
        f"link set dev {eni.device} mtu {mtu} up",
        f"address replace {eni.primary}/{network.prefixlen} dev {eni.device}",
        # In main the subnet belongs to the first interface; only this interface's table leads to
        # this one.
        f"route flush table main {network} dev {eni.device}",
        f"route replace {gateway} dev {eni.device} scope link table {eni.table}",
        f"route replace default via {gateway} dev {eni.device} table {eni.table}",
    ]


_EVERYWHERE = "0.0.0.0/0"
_RANDOM = {"prng": " --random-fully", "hashrandom": " --random", "none": ""}


def rules(vpc: str, primary: str, interface: str, wanted: Configuration) -> Ruleset:
    """primary, interface: the address and the name of the node's first interface."""
    snat = [f'-d {vpc} -m comment --comment "AWS SNAT CHAIN" -j RETURN']
    connmark = [_unmarked(vpc)]
    if not wanted.external_snat:
        snat += [_untranslated(excluded) for excluded in wanted.excluded]
        connmark += [_unmarked(excluded) for excluded in wanted.excluded]
        snat.append(
            '! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL '
            f"-j SNAT --to-source {primary}{_RANDOM[wanted.randomize]}",
        )
        connmark.append(f'-m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark {MARK}')
    chains = (
        Chain("nat", "AWS-SNAT-CHAIN-0", tuple(snat)),
        Chain("nat", "AWS-CONNMARK-CHAIN-0", tuple(connmark)),
    )
    return Ruleset(chains, _leads(interface, wanted))


def _to(destination: str) -> str:
    """iptables-save prints no match of all addresses."""
    return "" if destination == _EVERYWHERE else f"-d {destination} "


def _untranslated(excluded: str) -> str:
    return f'{_to(excluded)}-m comment --comment "AWS SNAT CHAIN EXCLUSION" -j RETURN'


def _unmarked(destination: str) -> str:
    return f'{_to(destination)}-m comment --comment "AWS CONNMARK CHAIN, VPC CIDR" -j RETURN'


def _leads(interface: str, wanted: Configuration) -> tuple[Lead, ...]:
    """The rules in built-in chains, which other programs write to as well."""
    restore = "-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80"
    pods = f"-i {wanted.veth_prefix}+"
    node_ports = (
        f'-i {interface} -m comment --comment "AWS, primary ENI" -m addrtype --dst-type LOCAL '
        f"--limit-iface-in -j CONNMARK --set-xmark {MARK}"
    )
    mangle: tuple[str, ...] = (node_ports,) if wanted.node_ports else ()
    if wanted.node_ports or not wanted.external_snat:
        mangle += (f'{pods} -m comment --comment "AWS, primary ENI" {restore}',)
    return (
        Lead("nat", "POSTROUTING", ('-m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0',)),
        Lead(
            "nat",
            "PREROUTING",
            (
                f'{pods} -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0',
                f'-m comment --comment "AWS, CONNMARK" {restore}',
            ),
        ),
        Lead("mangle", "PREROUTING", mangle),
    )


def external_rules(ranges: Iterable[str], stale: int) -> list[str]:
    """`ip -batch` input. stale: the number of such rules that are there."""
    return [f"rule delete priority {EXTERNAL_PRIORITY}"] * stale + [
        f"rule add to {destination} lookup main priority {EXTERNAL_PRIORITY}"
        for destination in ranges
    ]


def mark_rule() -> str:
    """The rule for marked packets: they leave by main, that is by the first interface."""
    return f"rule add fwmark {MARK} lookup main priority {MARK_PRIORITY}"
