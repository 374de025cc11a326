"""`kubewire doctor`: what this machine and its kernel can do for a lab, found out by trying.

Each kernel feature is tried in a fresh network namespace of a child process, which vanishes with it.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from components.machinery import namespaces as ns
from lab.machine import packages


@dataclass(frozen=True)
class Finding:
    """One line of the report. needed: a lab cannot run without it; otherwise without says what is missing then.

    cure: what to do where it does not work, if there is something.
    """

    name: str
    works: bool
    detail: str = ""
    needed: bool = False
    without: str = ""
    cure: str = ""


#: The Debian packages, in a checkout and where `pip install` puts them (setup.py).
_LISTINGS = (
    Path(__file__).parent.parent / "debian-packages.txt",
    Path(sysconfig.get_path("data"), "share/kubewire/debian-packages.txt"),
)

#: feature -> command that succeeds where the kernel has it, is it needed, and what a lab lacks otherwise.
#: A scenario may require any of them: scenario.schema.json has the same names.
FEATURES: dict[str, tuple[str, bool, str]] = {
    "veth": ("ip link add x0 type veth peer name x1", True, ""),
    "bridge": ("ip link add x0 type bridge", True, ""),
    "vxlan": ("ip link add x0 type vxlan id 1 dstport 8472", False, "cni.backend: vxlan (use host-gw)"),
    "iptables": ("iptables -t nat -A OUTPUT -m statistic --mode random --probability 0.5 -j ACCEPT", True, ""),
    "nftables": (
        # What kube-proxy's rules are made of, and not every kernel with nf_tables has.
        "nft 'add table ip t; add chain ip t c { type nat hook postrouting priority 100 ; }; add chain ip t r; "
        "add rule ip t c fib saddr type local masquerade fully-random; add chain ip t d; add rule ip t r reject; "
        "add rule ip t d meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { 0 : 10.0.0.1 . 80 }'",
        False,
        "kubeProxy.mode: nftables (its rules need nft_numgen, nft_reject, nft_fib and nft_masq)",
    ),
    "ipset": ("ipset create s hash:ip,port", False, "ipset-based policy and IPVS"),
    "conntrack": ("conntrack -L", True, ""),
    "bridge netfilter": (
        "test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
        True,
        "(module br_netfilter; kubewire up loads it as root)",
    ),
    "tbf": (
        "ip link add x0 type veth peer name x1 && tc qdisc add dev x0 root tbf rate 1mbit burst 15000 latency 1ms",
        False,
        "topology.links.bandwidth",
    ),
    "netem": (
        "ip link add x0 type veth peer name x1 && tc qdisc add dev x0 root netem delay 1ms",
        False,
        "delay, loss and reordering on links",
    ),
    "dummy": ("ip link add x0 type dummy", False, "kube-ipvs0"),
    "ip_vs": ("test -e /proc/net/ip_vs || modprobe -n ip_vs", False, "kubeProxy.mode: ipvs"),
    "openvswitch": ("test -d /sys/module/openvswitch || modprobe -n openvswitch", False, "Open vSwitch datapaths"),
    "wireguard": ("ip link add x0 type wireguard", False, "encrypted node-to-node links"),
    "ipip": ("ip link add x0 type ipip local 10.0.0.1 remote 10.0.0.2", False, "IP-in-IP overlays"),
    "geneve": ("ip link add x0 type geneve id 1 remote 10.0.0.1", False, "Geneve overlays"),
    "vrf": ("ip link add x0 type vrf table 10", False, "VRFs"),
    "bpf": (f"python3 {shlex.quote(str(Path(__file__).with_name('bpf_probe.py')))}", False, "eBPF datapaths"),
    "tun": ("ip tuntap add dev x0 mode tun", False, "userspace tunnels"),
}


def findings() -> dict[str, list[Finding]]:
    """Everything doctor looks at, by part, most basic first."""
    return {"machine": _machine(), "Debian packages": _tools(), "kernel": _kernel()}


def _machine() -> list[Finding]:
    root = os.geteuid() == 0
    yes = "root" if root else "ordinary user: labs run in a user namespace"
    found = [Finding("user", True, yes)]
    if not root:
        lacking = "in one, files of the machine owned by root are read-only in containers; no bpf, perhaps no tun"
        found.append(Finding("user namespaces", _in_child(lambda: ns.unshare(ns.CLONE_NEWUSER)), lacking, needed=True))
    flags = ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWCGROUP
    found.append(Finding("namespaces", _in_child(lambda: _isolate(flags)), "net mnt pid ipc uts cgroup", needed=True))
    found.append(Finding("overlayfs", "overlay" in Path("/proc/filesystems").read_text(), "", needed=True))
    return found


def _tools() -> list[Finding]:
    listing = next(filter(Path.exists, _LISTINGS), None)
    if listing is None:
        return []
    found = []
    for package, witness in packages(listing.read_text()):
        there = Path(witness).exists() if witness.startswith("/") else shutil.which(witness) is not None
        needed = package != "kubernetes-client"
        found.append(Finding(package, there, witness, needed, "kubewire kubectl", f"apt install {package}"))
    return found


def _kernel() -> list[Finding]:
    return [
        Finding(name, _in_child(lambda command=command: _try(command)), "", needed, without)  # type: ignore[misc]
        for name, (command, needed, without) in FEATURES.items()
    ]


def _isolate(flags: int) -> None:
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        ns.unshare(ns.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    ns.unshare(flags)


def _try(command: str) -> None:
    _isolate(ns.CLONE_NEWNET | ns.CLONE_NEWNS)
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("tmpfs", "/run", "tmpfs")  # xtables.lock
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=10)


def _in_child(action: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except (OSError, subprocess.SubprocessError):
            pass
        finally:  # whatever happens, this copy of the caller goes no further
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@functools.cache
def missing_feature(name: str) -> str:
    """Why a kernel feature that a scenario requires is not there; "" when it is. Raises LookupError for no feature."""
    if name not in FEATURES:
        raise LookupError(f"no kernel feature {name!r}; there are {', '.join(FEATURES)}")
    return "" if _in_child(lambda: _try(FEATURES[name][0])) else f"this kernel has no {name}{_perhaps()}"


def _perhaps() -> str:
    return "" if os.geteuid() == 0 else ", or not without root"


def show(*, as_json: bool = False) -> int:
    """Print the report; 1 when something a lab cannot do without is missing."""
    found = findings()
    if as_json:
        plain = [{"part": part} | asdict(finding) for part, of_it in found.items() for finding in of_it]
        print(json.dumps({"kernel": platform.release(), "findings": plain}, indent=1))
    else:
        print(f"kernel {platform.release()}, {os.cpu_count()} cores")
        for part, of_it in found.items():
            print("\n".join([part, *map(_line, of_it)]))
    return 1 if any(one.needed and not one.works for of_it in found.values() for one in of_it) else 0


def _line(finding: Finding) -> str:
    mark = "✓" if finding.works else "✗" if finding.needed else "-"
    text = finding.detail
    if not finding.works and finding.cure:
        why = "needed" if finding.needed else f"without it: no {finding.without}"
        text = f"missing: {finding.cure} ({why})"
    elif not finding.works:
        text = f"needed {finding.without}"
        if not finding.needed:
            text = f"not in this kernel{_perhaps()}; without it: {finding.without}"
    return f"  {mark} {finding.name:<27} {text}".rstrip()
