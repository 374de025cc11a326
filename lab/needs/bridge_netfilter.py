"""br_netfilter: what makes iptables see packets between two ports of a node's bridge. A module on most machines,
loaded by nobody until somebody asks (kubeadm's users are told to: modprobe br_netfilter).

Loaded, it would filter the machine's own bridges too, which it did not before; so it is switched off there at once.
New network namespaces start with it on, whatever the machine's own has (net/bridge/br_netfilter_hooks.c).
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


def ensure(switches: Path = _SWITCHES, load: Callable[[], bool] = _modprobe, *, root: bool | None = None) -> bool:
    """Load the module where it is not, as root; True when it is there now. Nothing else of the machine changes."""
    if switches.is_dir():
        return True
    if not (os.geteuid() == 0 if root is None else root) or not load():
        return False
    for family in ("ip", "ip6", "arp"):
        (switches / f"bridge-nf-call-{family}tables").write_text("0")
    return True
