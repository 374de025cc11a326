"""What kube-network-policies writes, how it reads packets, and its flags."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from kubewire.components.kernel.iptables import transaction
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.kube_network_policies import packet, render
from kubewire.components.policy.engines.kube_network_policies.agent import Judge, Metrics
from kubewire.components.policy.engines.kube_network_policies.main import parse
from kubewire.components.policy.evaluator import Flow
from kubewire.components.policy.model import ICMP
from tests.components.policy import objects


def test_the_rules_are_those_of_the_golden_file(golden: Callable[[str, str], None]) -> None:
    texts = [
        transaction(render.ruleset(render.Options("n", fail_open=fail_open), version), {})
        for version in (4, 6)
        for fail_open in (True, False)
    ]
    golden("kube_network_policies/rules.txt", "".join(texts))


def test_only_the_nodes_pods_that_a_policy_selects_are_in_the_sets() -> None:
    compiler = Compiler()
    for obj in (
        objects.pod("here", addresses=["10.0.0.1", "fd00::1"], labels={"app": "a"}, node="n"),
        objects.pod("there", addresses=["10.0.0.2"], labels={"app": "a"}, node="m"),
        objects.pod("free", addresses=["10.0.0.3"], node="n"),
        objects.network_policy("p", podSelector={"matchLabels": {"app": "a"}}),
    ):
        compiler.apply(obj)
    (four,), (six,) = (render.sets(compiler.state, render.Options("n"), version) for version in (4, 6))
    assert (four.name, four.members) == ("podips-v4", ("10.0.0.1",))
    assert (six.name, six.members, six.kind) == ("podips-v6", ("fd00::1",), "hash:ip family inet6")


def ipv4(protocol: int, rest: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x46, 0, 24 + len(rest), 0, 0, 64, protocol, 0)
    return head + ip_address("10.0.0.1").packed + ip_address("10.0.0.2").packed + bytes(4) + rest


def ipv6(protocol: int, rest: bytes) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(rest), protocol, 64)
    return head + ip_address("fd00::1").packed + ip_address("fd00::2").packed + rest


PORTS = struct.pack(">HH", 1025, 80)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ipv4(6, PORTS), Flow("10.0.0.1", "10.0.0.2", "TCP", 80, 1025)),
        (ipv4(17, PORTS), Flow("10.0.0.1", "10.0.0.2", "UDP", 80, 1025)),
        (ipv4(132, PORTS), Flow("10.0.0.1", "10.0.0.2", "SCTP", 80, 1025)),
        (ipv4(1, b"\x08\x00"), Flow("10.0.0.1", "10.0.0.2", "ICMP", icmp=ICMP(8, 0))),
        (ipv4(50, b"...."), Flow("10.0.0.1", "10.0.0.2", "50")),
        (ipv6(6, PORTS), Flow("fd00::1", "fd00::2", "TCP", 80, 1025)),
        (ipv6(58, b"\x80\x00"), Flow("fd00::1", "fd00::2", "ICMPv6", icmp=ICMP(128, 0))),
        (ipv6(0, bytes([60, 0, *bytes(6), 6, 0, *bytes(6)]) + PORTS), Flow("fd00::1", "fd00::2", "TCP", 80, 1025)),
        (ipv6(44, bytes([17, 0, *bytes(6)]) + PORTS), Flow("fd00::1", "fd00::2", "UDP", 80, 1025)),
    ],
    ids=["TCP", "UDP", "SCTP", "ICMP", "ESP", "IPv6", "ICMPv6", "two extension headers", "a first fragment"],
)
def test_what_a_packet_asks(data: bytes, expected: Flow) -> None:
    assert packet.flow(data) == expected


@pytest.mark.parametrize("data", [b"", b"\x45" + bytes(10), ipv4(6, b""), ipv6(0, b"\x06"), b"\x10" + bytes(40)])
@pytest.mark.parametrize("fail_open", [True, False])
def test_what_cannot_be_read_passes_only_with_fail_open(data: bytes, fail_open: bool) -> None:
    with pytest.raises(packet.Unreadable):
        packet.flow(data)
    assert Judge(fail_open, Metrics()).accepts(data) is fail_open


def test_flags() -> None:
    options = parse(["--kubeconfig=k", "--hostname-override=n", "--fail-open=false", "--nfqueue-id=7"])
    assert options.render == render.Options("n", 7, fail_open=False)
    for wrong in ("--nfqueue-id=70000", "--fail-open=maybe"):
        with pytest.raises(SystemExit):
            parse(["--kubeconfig=k", wrong])
