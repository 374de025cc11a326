"""The kernel settings kube-proxy makes, only when the network namespace is the node's own: a
process that shares the machine's namespace (PID 1's) must not change the machine."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from kubewire.components.kube_proxy import modes
from kubewire.components.kube_proxy.configuration.config import (
    ConntrackSettings,
    KubeProxyConfiguration,
)

log = logging.getLogger(__name__)


def own_network_namespace() -> bool:
    """Whether PID 1 of our pid namespace lives in another network namespace (unreadable counts as
    other)."""
    try:
        return Path("/proc/self/ns/net").readlink() != Path("/proc/1/ns/net").readlink()
    except OSError:
        return True


def prepare(config: KubeProxyConfiguration) -> bool:
    """All of it; returns whether NodePorts on localhost will work (they need route_localnet)."""
    if not own_network_namespace():
        log.warning(
            "this is the machine's own network namespace: sysctls are left alone, no NodePorts on localhost"
        )
        return False
    apply(config)
    if config.effective_mode == "ipvs":
        require(of_ipvs(config))
    if (
        not modes.of(config.effective_mode).localhost_node_ports
        or not config.iptables.localhost_node_ports
    ):
        return False
    return write("net.ipv4.conf.all.route_localnet", 1)


def wanted(config: KubeProxyConfiguration, cpus: int) -> dict[str, int]:
    """sysctl name -> value; 0 in the configuration leaves the kernel's value. Pure."""
    tracking = config.conntrack
    values = {
        "net.netfilter.nf_conntrack_max": _conntrack_max(tracking, cpus),
        "net.netfilter.nf_conntrack_tcp_timeout_established": int(tracking.tcp_established_timeout),
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait": int(tracking.tcp_close_wait_timeout),
        "net.netfilter.nf_conntrack_udp_timeout": int(tracking.udp_timeout),
        "net.netfilter.nf_conntrack_udp_timeout_stream": int(tracking.udp_stream_timeout),
        "net.netfilter.nf_conntrack_tcp_be_liberal": int(tracking.tcp_be_liberal),
    }
    return {name: value for name, value in values.items() if value > 0}


def _conntrack_max(tracking: ConntrackSettings, cpus: int) -> int:
    if tracking.max_per_core <= 0:
        return 0
    return max(tracking.max_per_core * cpus, tracking.min)


def of_ipvs(config: KubeProxyConfiguration, release: str = "") -> dict[str, int]:
    """What IPVS mode cannot do without, by the kernel's release ("6.1.0-13-amd64"; this one's if
    not given)."""
    major, minor = (int(number) for number in re.findall(r"\d+", release or os.uname().release)[:2])
    values = {"net.ipv4.vs.conntrack": 1}
    if (4, 1) <= (major, minor) < (5, 9):
        # Later kernels do right by themselves, earlier ones know only 1 (kubernetes issue 93297).
        values["net.ipv4.vs.conn_reuse_mode"] = 0
    values |= {
        "net.ipv4.vs.expire_nodest_conn": 1,
        "net.ipv4.vs.expire_quiescent_template": 1,
        "net.ipv4.ip_forward": 1,
    }
    if config.ipvs.strict_arp:
        # Nobody shall learn a Service's address from a node that has it on kube-ipvs0.
        values |= {"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.arp_announce": 2}
    return values


def require(values: Mapping[str, int]) -> None:
    """Raises OSError with upstream's sentence when one cannot be set."""
    for name, value in values.items():
        if not write(name, value):
            raise OSError(f"can't set sysctl {name.replace('.', '/')} to {value}")


def apply(config: KubeProxyConfiguration) -> None:
    """What the namespace does not allow (nf_conntrack_max belongs to the first one) is left, and
    logged."""
    for name, value in wanted(config, os.cpu_count() or 1).items():
        write(name, value)


def write(name: str, value: int) -> bool:
    """True when the value stands."""
    path = Path("/proc/sys", *name.split("."))
    try:
        if int(path.read_text()) != value:
            path.write_text(str(value))
    except (OSError, ValueError) as error:
        log.debug("sysctl %s=%d: %s", name, value, error)
        return False
    return True
