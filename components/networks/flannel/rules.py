"""flannel's iptables rules: masquerade traffic that leaves the pod network, accept traffic inside
it.

A pod's address is unknown outside the cluster, so a packet to the outside needs the node's address:
nat POSTROUTING is the only hook where the source may still change and the outgoing interface is
known. Between pods nothing may change, because Kubernetes promises that a pod sees the address
under which its peer sees itself. Forwarding must be accepted explicitly, because Docker and others
set FORWARD's policy to DROP.

    nat     POSTROUTING -> FLANNEL-POSTRTG    after kube-proxy's KUBE-POSTROUTING
    filter  FORWARD     -> FLANNEL-FWD        after kube-proxy's KUBE-FORWARD

(https://github.com/flannel-io/flannel/blob/master/pkg/trafficmngr/iptables/iptables.go)
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

#: kube-proxy's mark for packets that KUBE-POSTROUTING masquerades. Masquerading a packet twice is a
#: known source of kernel bugs, so flannel leaves these alone.
KUBE_PROXY_MARK = 0x4000
_MASQ = Comment("flanneld masq")
_FORWARD = Comment("flanneld forward")


def masquerade(network: Network, subnet: Network, *, random_fully: bool = True) -> Ruleset:
    """nat: packets between pods, and packets from outside to this node's pods, keep their source.
    Other packets that leave the pod network, or enter it from this node, get this node's address.
    """
    name = "FLANNEL-POSTRTG"
    pods = str(network)
    here = str(subnet)
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
    return Ruleset(
        (Chain("nat", name, rules),),
        (Lead("nat", "POSTROUTING", (Rule((_MASQ,), Jump(name)),)),),
    )


def forward(network: Network) -> Ruleset:
    """filter: pods stay connected although FORWARD's policy is DROP."""
    name = "FLANNEL-FWD"
    pods = str(network)
    rules = (
        Rule((Source(pods), _FORWARD), ACCEPT),
        Rule((Destination(pods), _FORWARD), ACCEPT),
    )
    return Ruleset(
        (Chain("filter", name, rules),),
        (Lead("filter", "FORWARD", (Rule((_FORWARD,), Jump(name)),)),),
    )
