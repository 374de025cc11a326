"""The iptables backend against the kernel's nf_tables."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from kubewire.components.kernel.nfnetlink.netlink import NfTablesSocket
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.iptables.backend import IptablesBackend
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.model import IPV4, State
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.test_nftables_rules import SVC1
from tests.components.kube_proxy.test_rules import CLUSTER_IP, NODE, THREE

pytestmark = pytest.mark.packet
CONFIG = KubeProxyConfiguration(cluster_cidr="10.244.0.0/16")


def _transactions() -> list[int]:
    """How many there are when a Service gets its first endpoints, and when it loses them."""
    state = State({SVC1: CLUSTER_IP}, {SVC1: ()}, NODE)
    backend = IptablesBackend(IPV4, CONFIG, Metrics(), localhost_node_ports=False)
    asyncio.run(backend.sync(state, full=True))
    found = []
    with NfTablesSocket() as kernel:
        for endpoints in (THREE, ()):
            before = kernel.generation()
            changed = replace(state, endpoints={SVC1: endpoints}, changed=frozenset({SVC1}))
            asyncio.run(backend.sync(changed, full=False))
            found.append(kernel.generation() - before)
    return found


def test_the_filter_and_the_nat_table_change_at_once() -> None:
    """Between two transactions a packet is neither refused nor translated, and leaves for the ClusterIP."""
    assert scratch.run(lambda fabric: fabric.inside("node1", _transactions)) == [1, 1]
