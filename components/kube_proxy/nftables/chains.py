"""The packet's way through table kube-proxy as tables, and the names of what Services own in it.

    prerouting, output  filter -110  -> firewall-check           loadBalancerSourceRanges, before DNAT
                        nat    -100  -> services                 which Service, which endpoint (DNAT)
    input                            -> nodeport-endpoints-check
    input, forward, output filter 0  -> service-endpoints-check  reject or drop what nobody here may answer
           forward, output filter 0  -> cluster-ips-check        what still goes to a ClusterIP has no Service port
    postrouting         nat     100  -> masquerading

Names, comments, priorities and order are upstream's (pkg/proxy/nftables/proxier.go, v1.36).
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from typing import NamedTuple

TABLE = "kube-proxy"
TABLE_COMMENT = "rules for kube-proxy"

SERVICES = "services"
MASQUERADING = "masquerading"
FIREWALL_CHECK = "firewall-check"
SERVICE_ENDPOINTS_CHECK = "service-endpoints-check"
NODEPORT_ENDPOINTS_CHECK = "nodeport-endpoints-check"
CLUSTER_IPS_CHECK = "cluster-ips-check"
REJECT = "reject-chain"
REJECT_COMMENT = "helper for @no-endpoint-services / @no-endpoint-nodeports"


class Hook(NamedTuple):
    """A chain the kernel calls."""

    chain: str
    type: str
    hook: str
    priority: int


_DNAT, _FILTER, _SNAT = -100, 0, 100
HOOKS = (
    Hook("filter-prerouting-pre-dnat", "filter", "prerouting", _DNAT - 10),
    Hook("filter-output-pre-dnat", "filter", "output", _DNAT - 10),
    Hook("filter-input", "filter", "input", _FILTER),
    Hook("filter-forward", "filter", "forward", _FILTER),
    Hook("filter-output", "filter", "output", _FILTER),
    Hook("nat-prerouting", "nat", "prerouting", _DNAT),
    Hook("nat-output", "nat", "output", _DNAT),
    Hook("nat-postrouting", "nat", "postrouting", _SNAT),
)


class Jump(NamedTuple):
    source: str
    target: str
    match: str = ""

    @property
    def rule(self) -> str:
        return f"{self.match} jump {self.target}".lstrip()


_NEW = "ct state new"
#: reject is refused in prerouting by kernels before 5.9, so the endpoint checks stand where it
#: always worked.
JUMPS = (
    Jump("filter-input", NODEPORT_ENDPOINTS_CHECK, _NEW),
    Jump("filter-input", SERVICE_ENDPOINTS_CHECK, _NEW),
    Jump("filter-forward", SERVICE_ENDPOINTS_CHECK, _NEW),
    Jump("filter-output", SERVICE_ENDPOINTS_CHECK, _NEW),
    Jump("filter-prerouting-pre-dnat", FIREWALL_CHECK, _NEW),
    Jump("filter-output-pre-dnat", FIREWALL_CHECK, _NEW),
    Jump("nat-output", SERVICES),
    Jump("nat-prerouting", SERVICES),
    Jump("nat-postrouting", MASQUERADING),
    Jump("filter-forward", CLUSTER_IPS_CHECK, _NEW),
    Jump("filter-output", CLUSTER_IPS_CHECK, _NEW),
)
#: Chains that are jumped to; reject-chain is gone to from map elements, for reject is no verdict.
SHARED = (*dict.fromkeys(jump.target for jump in JUMPS), REJECT)

CLUSTER_IPS = "cluster-ips"
HAIRPIN_CONNECTIONS = "hairpin-connections"
NODEPORT_IPS = "nodeport-ips"
SERVICE_IPS = "service-ips"
SERVICE_NODEPORTS = "service-nodeports"
NO_ENDPOINT_SERVICES = "no-endpoint-services"
NO_ENDPOINT_NODEPORTS = "no-endpoint-nodeports"
FIREWALL_IPS = "firewall-ips"


class Container(NamedTuple):
    """A set, or a map to verdicts. In type, ADDR stands for the family's address."""

    name: str
    type: str
    comment: str
    verdicts: bool = False


_TO_PORT, _PORT = "ADDR . inet_proto . inet_service", "inet_proto . inet_service"
CONTAINERS = (
    Container(CLUSTER_IPS, "ADDR", "Active ClusterIPs"),
    Container(HAIRPIN_CONNECTIONS, f"ADDR . {_TO_PORT}", "service hairpin connections"),
    Container(
        NO_ENDPOINT_SERVICES,
        _TO_PORT,
        "vmap to drop or reject packets to services with no endpoints",
        True,
    ),
    Container(
        NO_ENDPOINT_NODEPORTS,
        _PORT,
        "vmap to drop or reject packets to service nodeports with no endpoints",
        True,
    ),
    Container(
        FIREWALL_IPS, _TO_PORT, "destinations that are subject to LoadBalancerSourceRanges", True
    ),
    Container(SERVICE_IPS, _TO_PORT, "ClusterIP, ExternalIP and LoadBalancer IP traffic", True),
    Container(SERVICE_NODEPORTS, _PORT, "NodePort traffic", True),
)
#: Only there when NodePorts are served on some addresses of the node.
NODEPORT_IPS_CONTAINER = Container(NODEPORT_IPS, "ADDR", "IPs that accept NodePort traffic")

#: The kernel takes names of 255 bytes; upstream leaves 16 for what stands before.
_LONGEST_BASE = 240


def service_base(namespace: str, name: str, protocol: str, port: str) -> str:
    """What follows service-, local-, external- and firewall-; protocol in lower case."""
    return _hashed(f"{namespace}/{name}/{protocol}/{port}")


def endpoint_base(service: str, ip: str, port: int) -> str:
    """What follows endpoint- and affinity-. service is `ns/name/protocol/port`. A colon may not
    stand in a name."""
    return _hashed(f"{service}__{ip.replace(':', '.')}/{port}")


def _hashed(text: str) -> str:
    """The hash keeps names apart that are cut, and makes those of a Service's endpoints easy to
    tell."""
    # Five bytes are the first eight letters of the whole digest's base32.
    name = f"{b32encode(hashlib.sha256(text.encode()).digest()[:5]).decode()}-{text}"
    return name if len(name) <= _LONGEST_BASE else name[: _LONGEST_BASE - 3] + "..."


def is_service_chain(name: str) -> bool:
    """Chains of Services have a slash, the others have none."""
    return "/" in name


def is_affinity_set(name: str) -> bool:
    return name.startswith("affinity-")
