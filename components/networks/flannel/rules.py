"""flannel's iptables rules: masquerading of what leaves the pod network, and forwarding of what stays in it.

The path, as data. A packet meets FLANNEL-POSTRTG after kube-proxy's KUBE-POSTROUTING (nat, POSTROUTING) and
FLANNEL-FWD in filter, FORWARD
(https://github.com/flannel-io/flannel/blob/master/pkg/trafficmngr/iptables/iptables.go).
"""

from __future__ import annotations

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.networks.flannel.netconf import Network

#: What kube-proxy marks to be masqueraded by KUBE-POSTROUTING; masquerading it twice is a known kernel trap.
KUBE_PROXY_MARK = "0x4000/0x4000"
_MASQ = '-m comment --comment "flanneld masq"'
_FORWARD = '-m comment --comment "flanneld forward"'


def masquerade(network: Network, subnet: Network, *, random_fully: bool = True) -> Ruleset:
    """nat: pod to pod stays as it is, also when it comes from outside to this node's pods; the rest that leaves
    the pod network, or enters it from this node, gets this node's address."""
    multicast = "224.0.0.0/4" if network.version == 4 else "ff00::/8"
    target = "-j MASQUERADE" + (" --random-fully" if random_fully else "")
    rules = (
        f"-m mark --mark {KUBE_PROXY_MARK} {_MASQ} -j RETURN",
        f"-s {subnet} -d {network} {_MASQ} -j RETURN",
        f"-s {network} -d {subnet} {_MASQ} -j RETURN",
        f"! -s {network} -d {subnet} {_MASQ} -j RETURN",
        f"-s {network} ! -d {multicast} {_MASQ} {target}",
        f"! -s {network} -d {network} {_MASQ} {target}",
    )
    name = "FLANNEL-POSTRTG"
    return Ruleset(
        (Chain("nat", name, rules),),
        (Lead("nat", "POSTROUTING", (f"{_MASQ} -j {name}",)),),
    )


def forward(network: Network) -> Ruleset:
    """filter: a FORWARD policy of DROP does not cut off the pods."""
    name = "FLANNEL-FWD"
    rules = (f"-s {network} {_FORWARD} -j ACCEPT", f"-d {network} {_FORWARD} -j ACCEPT")
    return Ruleset(
        (Chain("filter", name, rules),),
        (Lead("filter", "FORWARD", (f"{_FORWARD} -j {name}",)),),
    )
