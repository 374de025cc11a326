"""The proxy modes in one list; a mode is one folder and one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from kubewire.components.kernel.command import CommandError
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.iptables.backend import IptablesBackend
from kubewire.components.kube_proxy.ipvs import support
from kubewire.components.kube_proxy.ipvs.backend import IpvsBackend
from kubewire.components.kube_proxy.ipvs.support import UnsupportedError
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.nftables.backend import NftablesBackend
from kubewire.components.kube_proxy.state.model import State


class Backend(Protocol):
    """One IP family's dataplane in this network namespace."""

    async def sync(self, state: State, *, full: bool) -> None:
        """Make the kernel's rules those of state; full trusts nothing written before. Raises on failure."""

    async def intact(self) -> bool:
        """False when somebody else removed the rules."""

    async def cleanup(self) -> None:
        """Remove everything this backend ever made. Idempotent."""


class BackendFactory(Protocol):
    def __call__(
        self, family: str, config: KubeProxyConfiguration, metrics: Metrics, *, localhost_node_ports: bool
    ) -> Backend: ...


BACKENDS: Mapping[str, BackendFactory] = {
    "iptables": IptablesBackend,
    "nftables": NftablesBackend,
    "ipvs": IpvsBackend,
}
#: They share chains: starting in one leaves the other's alone, as upstream does.
IPTABLES_BASED = ("iptables", "ipvs")
#: What a backend raises when the kernel (NetlinkError is an OSError) or its tool refused.
ERRORS = (CommandError, OSError, UnsupportedError)


async def check(config: KubeProxyConfiguration) -> None:
    """Raises UnsupportedError when the kernel cannot serve the mode."""
    if config.effective_mode == "ipvs":
        await support.check(config.ipvs.scheduler)
