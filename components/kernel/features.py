"""Finds out by trying what a kernel can do for a lab: FEATURES is the list, works() tries one.

Each feature is tried in a fresh network namespace of a child process, which disappears with it.
`kubewire doctor` tests a machine's own kernel; in a virtual machine
`python -m kubewire.components.kernel.features` prints all results as a JSON object.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubewire.components.kernel import namespaces as ns


@dataclass(frozen=True)
class Feature:
    """command: succeeds if the kernel has it. needed: there is no lab without it. without: what a
    lab then lacks."""

    command: str
    needed: bool = False
    without: str = ""


#: Only a hanging command takes this long. In an emulated processor on a busy machine the first ESP
#: association, for which the kernel tests its ciphers, has taken more than ten seconds.
_HANGS_S = 120.0
_BPF_PROBE = Path(__file__).resolve().with_name("bpf_probe.py")
_LINK = "ip link add x0 type veth peer name x1"

#: A scenario may require any of these; scenario.schema.json has the same names.
FEATURES: dict[str, Feature] = {
    "veth": Feature(_LINK, True),
    "bridge": Feature("ip link add x0 type bridge", True),
    "vxlan": Feature(
        "ip link add x0 type vxlan id 1 dstport 8472",
        without="cni.backend: vxlan (use host-gw)",
    ),
    "iptables": Feature(
        "iptables -t nat -A OUTPUT -m statistic --mode random --probability 0.5 -j ACCEPT",
        True,
    ),
    "ipv6": Feature(
        "ip address add fd00::1/128 dev lo && ip6tables -t nat -A POSTROUTING -j MASQUERADE",
        without="network.ipFamily other than ipv4",
    ),
    "nftables": Feature(
        # The expressions in kube-proxy's rules, which not every kernel with nf_tables has.
        "nft 'add table ip t; add chain ip t c { type nat hook postrouting priority 100 ; }; add chain ip t r; "
        "add rule ip t c fib saddr type local masquerade fully-random; add chain ip t d; add rule ip t r reject; "
        "add rule ip t d meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { 0 : 10.0.0.1 . 80 }'",
        without="kubeProxy.mode: nftables (its rules need nft_numgen, nft_reject, nft_fib and nft_masq)",
    ),
    "ipset": Feature("ipset create s hash:ip,port", without="ipset-based policy and IPVS"),
    "nfqueue": Feature(
        "iptables -t mangle -A POSTROUTING -m owner --uid-owner 0 -j NFQUEUE --queue-num 100 --queue-bypass && "
        "ipset create s hash:ip",
        without="policy.engine: kube-network-policies",
    ),
    "conntrack": Feature("conntrack -L", True),
    "bridge netfilter": Feature(
        "test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
        True,
        "(module br_netfilter; kubewire up loads it as root)",
    ),
    "tbf": Feature(
        f"{_LINK} && tc qdisc add dev x0 root tbf rate 1mbit burst 15000 latency 1ms",
        without="topology.links.bandwidth",
    ),
    "netem": Feature(
        f"{_LINK} && tc qdisc add dev x0 root netem delay 1ms",
        without="delay, loss and reordering on links",
    ),
    "dummy": Feature("ip link add x0 type dummy", without="kube-ipvs0"),
    "ip_vs": Feature(
        "test -e /proc/net/ip_vs || modprobe -n ip_vs",
        without="kubeProxy.mode: ipvs",
    ),
    "openvswitch": Feature(
        "genl ctrl get name ovs_datapath | grep -q ovs",
        without="Open vSwitch datapaths",
    ),
    "wireguard": Feature("ip link add x0 type wireguard", without="encrypted node-to-node links"),
    "esp": Feature(
        "ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x100 mode transport replay-window 128 flag esn "
        f"aead 'rfc4106(gcm(aes))' 0x{'01' * 36} 128 && iptables -A INPUT -p esp -m esp --espspi 256 -j ACCEPT && "
        "iptables -A OUTPUT -m policy --dir out --pol none -j ACCEPT && "
        "iptables -t mangle -A OUTPUT -j MARK --set-xmark 0x20000/0x20000",
        without="cni.backend: fastdp-encrypted (weave)",
    ),
    "ipip": Feature(
        "ip link add x0 type ipip local 10.0.0.1 remote 10.0.0.2",
        without="IP-in-IP overlays",
    ),
    "geneve": Feature("ip link add x0 type geneve id 1 remote 10.0.0.1", without="Geneve overlays"),
    "vrf": Feature("ip link add x0 type vrf table 10", without="VRFs"),
    "bpf": Feature(f"python3 {shlex.quote(str(_BPF_PROBE))}", without="eBPF datapaths"),
    "tun": Feature("ip tuntap add dev x0 mode tun", without="userspace tunnels"),
}

#: Depends not on the kernel but on how it was booted: the clock of a UML kernel that skips idle
#: time (vm/kernels/uml.py).
VIRTUAL_TIME = "virtual time"


def has_virtual_time() -> bool:
    """True if idle time is skipped: user-mode Linux with time-travel=inf-cpu."""
    return "time-travel=" in Path("/proc/cmdline").read_text()


def works(feature: str) -> bool:
    """Tries a feature. Raises LookupError if it does not exist."""
    if feature not in FEATURES:
        raise LookupError(f"no kernel feature {feature!r}; there are {', '.join(FEATURES)}")
    return in_child(lambda: _try(FEATURES[feature].command))


def in_child(action: Callable[[], None]) -> bool:
    """Returns whether action succeeds in a child process, which then ends."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except (OSError, subprocess.SubprocessError):
            pass
        finally:  # this copy of the caller must not continue in any case
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def isolate(flags: int) -> None:
    """Enters new namespaces (CLONE_NEW* flags); without root first a new user namespace. Raises
    OSError."""
    if os.geteuid() != 0:
        uid = os.geteuid()
        gid = os.getegid()
        ns.unshare(ns.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    ns.unshare(flags)


def _try(command: str) -> None:
    isolate(ns.CLONE_NEWNET | ns.CLONE_NEWNS)
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("tmpfs", "/run", "tmpfs")  # xtables.lock
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=_HANGS_S)


def main() -> int:
    json.dump(
        {"release": os.uname().release, "features": {name: works(name) for name in FEATURES}},
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
