"""flannel's iptables rules: masquerading of what leaves the pod network, and forwarding of what stays in it.

The path, as data. A packet meets FLANNEL-POSTRTG after kube-proxy's KUBE-POSTROUTING (nat, POSTROUTING) and
FLANNEL-FWD in filter, FORWARD
(https://github.com/flannel-io/flannel/blob/master/pkg/trafficmngr/iptables/iptables.go).
"""

from __future__ import annotations

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.kernel.nfnetlink.xtables import (
    ACCEPT,
    RETURN,
    Comment,
    Destination,
    Jump,
    Mark,
    Masquerade,
    Rule,
    Source,
)
from kubewire.components.networks.flannel.netconf import Network

#: What kube-proxy marks to be masqueraded by KUBE-POSTROUTING; masquerading it twice is a known kernel trap.
KUBE_PROXY_MARK = 0x4000
_MASQ, _FORWARD = Comment("flanneld masq"), Comment("flanneld forward")


def masquerade(network: Network, subnet: Network, *, random_fully: bool = True) -> Ruleset:
    """nat: pod to pod stays as it is, also when it comes from outside to this node's pods; the rest that leaves
    the pod network, or enters it from this node, gets this node's address."""
    name, pods, here = "FLANNEL-POSTRTG", str(network), str(subnet)
    multicast = "224.0.0.0/4" if network.version == 4 else "ff00::/8"
    snat = Masquerade(random_fully)
    rules = (
        Rule((Mark(KUBE_PROXY_MARK, KUBE_PROXY_MARK), _MASQ), RETURN),
        Rule((Source(here), Destination(pods), _MASQ), RETURN),
        Rule((Source(pods), Destination(here), _MASQ), RETURN),
        Rule((Source(pods, negated=True), Destination(here), _MASQ), RETURN),
        Rule((Source(pods), Destination(multicast, negated=True), _MASQ), snat),
        Rule((Source(pods, negated=True), Destination(pods), _MASQ), snat),
    )
    return Ruleset((Chain("nat", name, rules),), (Lead("nat", "POSTROUTING", (Rule((_MASQ,), Jump(name)),)),))


def forward(network: Network) -> Ruleset:
    """filter: a FORWARD policy of DROP does not cut off the pods."""
    name, pods = "FLANNEL-FWD", str(network)
    rules = (Rule((Source(pods), _FORWARD), ACCEPT), Rule((Destination(pods), _FORWARD), ACCEPT))
    return Ruleset((Chain("filter", name, rules),), (Lead("filter", "FORWARD", (Rule((_FORWARD,), Jump(name)),)),))
