"""The packet's way through kube-proxy's chains as tables, and the names of the per-Service chains.

    nat     PREROUTING, OUTPUT -> KUBE-SERVICES -> KUBE-SVC-x / KUBE-EXT-x / KUBE-FW-x -> KUBE-SEP-x (DNAT)
                                  KUBE-SERVICES (last) -> KUBE-NODEPORTS -> KUBE-EXT-x -> KUBE-SVC-x | KUBE-SVL-x
            POSTROUTING        -> KUBE-POSTROUTING (MASQUERADE what KUBE-MARK-MASQ marked)
    filter  INPUT, FORWARD, OUTPUT -> reject, drop and accept

Names, comments and order are upstream's (pkg/proxy/iptables/proxier.go, v1.36).
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from kubewire.components.kernel.nfnetlink import xtables
from kubewire.components.kernel.nfnetlink.iptables import Append
from kubewire.components.kernel.nfnetlink.xtables import Rule

SERVICES = "KUBE-SERVICES"
EXTERNAL_SERVICES = "KUBE-EXTERNAL-SERVICES"
NODEPORTS = "KUBE-NODEPORTS"
POSTROUTING = "KUBE-POSTROUTING"
MARK_MASQ = "KUBE-MARK-MASQ"
FORWARD = "KUBE-FORWARD"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
CANARY = "KUBE-PROXY-CANARY"
#: The kubelet makes this one too and owns it: never removed by us.
KUBELET_FIREWALL = "KUBE-FIREWALL"

#: Filled anew by every sync; declaring a chain in a restore flushes it.
BASE_CHAINS: dict[str, tuple[str, ...]] = {
    "filter": (SERVICES, EXTERNAL_SERVICES, FORWARD, NODEPORTS, PROXY_FIREWALL),
    "nat": (SERVICES, NODEPORTS, POSTROUTING, MARK_MASQ),
}
#: Empty chains whose disappearance tells that someone flushed the rules.
CANARY_TABLES = ("mangle", "nat", "filter")


class Jump(NamedTuple):
    """Leads from a built-in chain to one of ours."""

    table: str
    source: str
    target: str
    comment: str
    matches: tuple[xtables.Match, ...] = ()

    @property
    def rule(self) -> Rule:
        comment = (xtables.Comment(self.comment),) if self.comment else ()
        return Rule((*self.matches, *comment), xtables.Jump(self.target))


def heads(table: str, jumps: Iterable[Jump]) -> list[Append]:
    """The jumps of a table, to be put at the heads of their chains."""
    return [Append(jump.source, jump.rule) for jump in jumps if jump.table == table]


_NEW = (xtables.ConnectionState(("NEW",)),)
#: Each is put at the head of its chain when it is not there, so the last of a chain ends up first.
JUMPS = (
    Jump(
        "filter", "INPUT", EXTERNAL_SERVICES, "kubernetes externally-visible service portals", _NEW
    ),
    Jump(
        "filter",
        "FORWARD",
        EXTERNAL_SERVICES,
        "kubernetes externally-visible service portals",
        _NEW,
    ),
    Jump("filter", "INPUT", NODEPORTS, "kubernetes health check service ports"),
    Jump("filter", "FORWARD", SERVICES, "kubernetes service portals", _NEW),
    Jump("filter", "OUTPUT", SERVICES, "kubernetes service portals", _NEW),
    Jump("filter", "FORWARD", FORWARD, "kubernetes forwarding rules"),
    Jump("filter", "INPUT", PROXY_FIREWALL, "kubernetes load balancer firewall", _NEW),
    Jump("filter", "OUTPUT", PROXY_FIREWALL, "kubernetes load balancer firewall", _NEW),
    Jump("filter", "FORWARD", PROXY_FIREWALL, "kubernetes load balancer firewall", _NEW),
    Jump("nat", "OUTPUT", SERVICES, "kubernetes service portals"),
    Jump("nat", "PREROUTING", SERVICES, "kubernetes service portals"),
    Jump("nat", "POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
)
KUBELET_JUMPS = (
    Jump("filter", "INPUT", KUBELET_FIREWALL, ""),
    Jump("filter", "OUTPUT", KUBELET_FIREWALL, ""),
)

_SERVICE_CHAINS = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-XLB-")


def is_service_chain(name: str) -> bool:
    """Ours to remove when no Service needs it (KUBE-XLB- is from before v1.24)."""
    return name.startswith(_SERVICE_CHAINS)


@lru_cache(maxsize=4096)
def digest(text: str) -> str:
    """Sixteen letters: chain names must stay below 29 characters."""
    return b32encode(hashlib.sha256(text.encode()).digest()[:10]).decode()


def service_digest(name: str, protocol: str) -> str:
    """What follows KUBE-SVC-, KUBE-SVL-, KUBE-EXT- and KUBE-FW-; name is `ns/name:port`, protocol
    lower case."""
    return digest(name + protocol)


def endpoint_chain(name: str, protocol: str, endpoint: str) -> str:
    """endpoint is `ip:port` or `[ip]:port`."""
    return f"KUBE-SEP-{digest(name + protocol + endpoint)}"
