"""The kubelet's chains are in the kernel of a node, in both families, and come back after a flush."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from kubewire.components.kernel import iptables
from kubewire.components.kubelet import chains, firewall
from tests.scratch import isolated

pytestmark = pytest.mark.packet


def saved(version: int) -> str:
    program = "iptables-save" if version == 4 else "ip6tables-save"
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def until(is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def flushed_and_kept() -> tuple[str, str]:
    """What is there after the start, and after somebody has flushed the rules of IPv4."""
    firewall._LOOK_SECONDS = 0.05
    threading.Thread(target=asyncio.run, args=(firewall.keep(),), daemon=True).start()
    until(lambda: "KUBE-KUBELET-CANARY" in saved(6))
    first = saved(4)
    subprocess.run("iptables -F && iptables -X", shell=True, check=True)
    until(lambda: "-A OUTPUT -j KUBE-FIREWALL" in saved(4))
    return first, saved(4)


def test_they_are_made_and_come_back() -> None:
    first, second = isolated(flushed_and_kept)
    for text in (first, second):
        assert text.count("-j KUBE-FIREWALL") == 2
        assert '-m comment --comment "block incoming localnet connections"' in text
        assert ":KUBE-IPTABLES-HINT - [0:0]" in text
    assert first.count(":KUBE-KUBELET-CANARY") == 3


def both_families_once() -> str:
    async def twice() -> str:
        for _ in range(2):
            for version in (4, 6):
                await iptables.ensure(chains.rules(version), version)
        return saved(6)

    return asyncio.run(twice())


def test_ipv6_has_the_chain_without_a_rule() -> None:
    text = isolated(both_families_once)
    assert ":KUBE-FIREWALL - [0:0]" in text and "-A KUBE-FIREWALL" not in text
    assert text.count("-j KUBE-FIREWALL") == 2
