"""What a proxy mode implements, and the implementations of modes.py."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from kubewire.components.kernel.command import CommandError
from kubewire.components.kube_proxy import modes
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.ipvs.support import UnsupportedError
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.modes import MODES
from kubewire.components.kube_proxy.state.model import State


class Backend(Protocol):
    """One IP family's dataplane in this network namespace."""

    async def sync(self, state: State, *, full: bool) -> None:
        """Make the kernel's rules those of state; full trusts nothing written before. Raises on
        failure."""

    async def intact(self) -> bool:
        """False when somebody else removed the rules."""

    async def cleanup(self) -> None:
        """Remove everything this backend ever made. Idempotent."""


class BackendFactory(Protocol):
    def __call__(
        self,
        family: str,
        config: KubeProxyConfiguration,
        metrics: Metrics,
        *,
        localhost_node_ports: bool,
    ) -> Backend: ...


def _named(name: str) -> Any:
    """What "package.module:name" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


BACKENDS: Mapping[str, BackendFactory] = {mode.name: _named(mode.backend) for mode in MODES}
#: What a backend raises when the kernel (NetlinkError is an OSError) or its tool refused.
ERRORS = (CommandError, OSError, UnsupportedError)


async def check(config: KubeProxyConfiguration) -> None:
    """Raises UnsupportedError when the kernel cannot serve the mode."""
    mode = modes.of(config.effective_mode)
    if mode.check:
        await _named(mode.check)(config)
