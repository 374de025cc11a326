"""Loads br_netfilter, the kernel module that passes bridged packets through iptables.

Pods of one node are ports of one bridge. If a pod sends to a Service and kube-proxy redirects the
packet to a pod on the same node, the answer crosses only the bridge. Without the module, conntrack
does not see this answer and cannot translate its source back to the Service's address. On most
machines nothing loads the module by itself; kubeadm's documentation tells its users to.

As soon as the module is loaded it also filters the machine's own bridges, which were not filtered
before, so it is switched off for them at once. A new network namespace starts with it switched on,
independent of the machine's setting (net/bridge/br_netfilter_hooks.c).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

_SWITCHES = Path("/proc/sys/net/bridge")


def _modprobe() -> bool:
    try:
        return subprocess.run(["modprobe", "br_netfilter"], capture_output=True).returncode == 0
    except OSError:
        return False


def ensure(
    switches: Path = _SWITCHES,
    load: Callable[[], bool] = _modprobe,
    *,
    root: bool | None = None,
) -> bool:
    """Load the module, as root, if it is not loaded; returns whether it is loaded now. Changes
    nothing else on the machine."""
    if switches.is_dir():
        return True
    if not (os.geteuid() == 0 if root is None else root) or not load():
        return False
    for family in ("ip", "ip6", "arp"):
        (switches / f"bridge-nf-call-{family}tables").write_text("0")
    return True
