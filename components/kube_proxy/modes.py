"""The proxy modes: what everything outside of a mode's own folder needs to know of it.

A mode is a folder with a backend, and an entry in MODES. kube-proxy itself, the lab file's schema
and its checks, `kubewire doctor` and the command line read this list, so this module imports no
backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """name: as in KubeProxyConfiguration. backend: the class that implements backends.Backend, as
    "package.module:Class".

    check: an async function of the configuration that raises backends.UnsupportedError if the
    kernel cannot serve the mode, or "". sections: those of KubeProxyConfiguration that it reads,
    its own first. uses_iptables: it shares chains with the other modes that do. node_ports: the
    default of nodePortAddresses. localhost_node_ports: whether it can serve NodePorts on 127.0.0.1.
    watches_service_cidrs: whether its rules depend on the Services' ranges.

    requires: features of the kernel beyond what every lab needs, by the names of
    components/kernel/features.py. modules: kernel modules that nothing else loads.
    needs_host_users: why a lab needs the first user namespace, or "". show: a command that prints
    its rules.
    """

    name: str
    backend: str
    sections: tuple[str, ...]
    show: str
    check: str = ""
    uses_iptables: bool = False
    node_ports: tuple[str, ...] = ()
    localhost_node_ports: bool = False
    watches_service_cidrs: bool = False
    requires: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    needs_host_users: str = ""


_HERE = __package__
#: The default comes first.
MODES = (
    Mode(
        "iptables",
        f"{_HERE}.iptables.backend:IptablesBackend",
        sections=("iptables",),
        show="iptables-save",
        uses_iptables=True,
        localhost_node_ports=True,
    ),
    Mode(
        "nftables",
        f"{_HERE}.nftables.backend:NftablesBackend",
        sections=("nftables",),
        show="nft list table ip kube-proxy",
        # Upstream's platformApplyDefaults.
        node_ports=("primary",),
        watches_service_cidrs=True,
    ),
    Mode(
        "ipvs",
        f"{_HERE}.ipvs.backend:IpvsBackend",
        sections=("ipvs", "iptables"),
        show="ipvsadm -Ln",
        check=f"{_HERE}.ipvs.support:check",
        uses_iptables=True,
        requires=("ip_vs", "dummy", "ipset"),
        modules=("ip_vs",),
        # GENL_ADMIN_PERM in net/netfilter/ipvs/ip_vs_ctl.c.
        needs_host_users="the kernel lets only the first user namespace configure IPVS",
    ),
)
DEFAULT_MODE = MODES[0].name


def find(name: str) -> Mode | None:
    """The mode of this name; None for one that there is not, such as "none" of a lab file."""
    return next((mode for mode in MODES if mode.name == name), None)


def of(name: str) -> Mode:
    """The mode of this name. Raises KeyError."""
    found = find(name)
    if found is None:
        raise KeyError(
            f"no proxy mode {name!r}; there are {', '.join(mode.name for mode in MODES)}"
        )
    return found


def reading(section: str) -> Iterator[str]:
    """The modes that read a section of KubeProxyConfiguration."""
    return (mode.name for mode in MODES if section in mode.sections)
