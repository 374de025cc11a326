"""Loads ip_vs, the kernel's load balancer, which kube-proxy's mode ipvs programs. In most kernels
it is a module that nothing loads by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from kubewire.components.kube_proxy import modes
from kubewire.scenarios.engine.file.spec import LabSpec

_TABLE = Path("/proc/net/ip_vs")


def _modprobe() -> None:
    subprocess.run(["modprobe", "ip_vs"], capture_output=True)


def ensure(
    spec: LabSpec,
    table: Path = _TABLE,
    load: Callable[[], None] = _modprobe,
) -> None:
    """For a lab in mode ipvs, load the module, as root, if it is not loaded. kernel_needs has
    checked that the kernel can."""
    mode = modes.find(spec.kubeProxy.mode)
    if mode is None or "ip_vs" not in mode.modules:
        return
    if not table.exists() and os.geteuid() == 0:
        load()
