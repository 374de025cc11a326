"""iptables has two backends in the kernel, nf_tables and the older x_tables ("legacy"), each with
its own commands. Whoever uses another one than the rest of the node writes rules nobody else sees.
kube-proxy's image decides by what is there already (kubernetes-sigs/iptables-wrappers), and so do
we."""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from kubewire.components.kernel import iptables

NFT, LEGACY, DEFAULT = "nft", "legacy", ""
#: Chains of the kubelet that say which variant this node uses.
_HINT = re.compile(r"^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) ", re.MULTILINE)
_LEGACY_TABLES = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


def decide(nft: str, legacy: str) -> str:
    """From what both iptables-save commands print: the kubelet's hint, else where more rules are.
    Pure."""
    for name, text in ((NFT, nft), (LEGACY, legacy)):
        if _HINT.search(text):
            return name
    counts = [sum(line.startswith("-A") for line in text.splitlines()) for text in (nft, legacy)]
    if counts[0] == counts[1]:
        return DEFAULT
    return NFT if counts[0] > counts[1] else LEGACY


def is_nf_tables(chosen: str) -> bool:
    """Whether rules of the chosen variant are nf_tables'."""
    return iptables.is_nf_tables() if chosen == DEFAULT else chosen == NFT


async def choose(save: Callable[[str], Awaitable[str]]) -> str:
    """The variant of this network namespace; "" stands for the commands without a variant in their
    names.

    save(variant) is `iptables-VARIANT-save`. The usual case asks nothing: looking at legacy tables
    makes them."""
    default = str(Path(shutil.which("iptables") or "").resolve())
    if "legacy" not in default and not any(map(_has_lines, _LEGACY_TABLES)):
        return DEFAULT
    if not shutil.which("iptables-nft-save") or not shutil.which("iptables-legacy-save"):
        return DEFAULT
    return decide(await save(NFT), await save(LEGACY))


def _has_lines(path: str) -> bool:
    try:
        return bool(Path(path).read_text().strip())
    except OSError:
        return False
