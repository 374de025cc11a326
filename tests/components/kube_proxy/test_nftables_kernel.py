"""The nftables backend against the kernel: partial syncs lead where a full one does, and it lives with what it finds."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kubewire.components.kernel.nfnetlink.netlink import NetlinkError
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.nftables import backend as backends
from kubewire.components.kube_proxy.nftables.applier import Nft
from kubewire.components.kube_proxy.nftables.backend import NftablesBackend
from kubewire.components.kube_proxy.nftables.plan import Plan, render
from kubewire.components.kube_proxy.nftables.rules import setup
from kubewire.components.kube_proxy.state.model import IPV4, IPV6, State
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.test_nftables_rules import CASES, NODE6, STICKY, SVC1, SVC2, some_services
from tests.components.kube_proxy.test_rules import CLUSTER_IP, NODE, NODE_PORT, THREE
from tests.scratch import isolated

CONFIG = KubeProxyConfiguration(mode="nftables", cluster_cidr="10.244.0.0/16")
STATE = State(
    {SVC1: STICKY, SVC2: replace(NODE_PORT, cluster_ip="172.30.0.42")},
    {SVC1: THREE, SVC2: THREE},
    NODE,
    service_cidrs=("172.30.0.0/16",),
)
Table = dict[str, Any]


def make() -> NftablesBackend:
    return NftablesBackend(IPV4, CONFIG, Metrics(), localhost_node_ports=False)


def sync(backend: NftablesBackend, state: State, *, full: bool = False) -> None:
    asyncio.run(backend.sync(state, full=full))


def nft(command: str) -> str:
    return subprocess.run(["nft", *command.split()], capture_output=True, text=True, check=True).stdout


def table() -> Table:
    """What the kernel has, without handles and order: chains with their rules, sets and maps with their elements.
    Chains of Services that are emptied and wait for their deletion are left out."""
    chains: Table = {}
    containers: Table = {}
    for item in json.loads(nft("--json --stateless list table ip kube-proxy"))["nftables"]:
        if chain := item.get("chain"):
            chains[chain["name"]] = [{key: value for key, value in chain.items() if key in ("type", "hook", "prio")}]
        if rule := item.get("rule"):
            chains[rule["chain"]].append((rule["expr"], rule.get("comment")))
        for kind in ("set", "map"):
            if found := item.get(kind):
                elements = sorted(json.dumps(element) for element in found.get("elem", ()))
                containers[found["name"]] = (found["type"], found.get("timeout"), elements)
    alive = {name: rules for name, rules in chains.items() if "/" not in name or len(rules) > 1}
    return {"chains": alive, "containers": containers}


def inside(work: Callable[[], Any]) -> Any:
    """work() in a network namespace of its own."""
    return scratch.run(lambda fabric: fabric.inside("node1", work))


def _many_steps() -> list[tuple[Table, Table]]:
    rng, pairs = random.Random(7), []
    backend = make()
    state = State(*some_services(rng), NODE)
    sync(backend, state, full=True)
    for _ in range(12):
        services, endpoints = some_services(rng)
        changed = frozenset(
            name
            for name in {*services, *state.services}
            if (services.get(name), endpoints.get(name)) != (state.services.get(name), state.endpoints.get(name))
        )
        state = State(services, endpoints, NODE, changed)
        sync(backend, state)
        partial = table()
        nft("delete table ip kube-proxy")
        sync(make(), state, full=True)
        pairs.append((partial, table()))
        # Go on from a table that was written at once: its restart, too, must make no difference.
        backend = make()
        sync(backend, state, full=True)
        pairs.append((partial, table()))
    return pairs


@pytest.mark.packet
def test_partial_syncs_and_restarts_lead_to_the_table_of_a_full_sync():
    for partial, whole in inside(_many_steps):
        assert partial == whole


def _stale(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    backend = make()
    sync(backend, STATE, full=True)
    fewer = replace(STATE, services={SVC1: STICKY}, changed=frozenset({SVC2}))
    sync(backend, fewer)
    seen["at once"] = nft("list chains ip")
    seen["elements"] = nft("list map ip kube-proxy service-ips")
    sync(backend, replace(fewer, changed=frozenset()))
    seen["too early"] = nft("list chains ip")
    monkeypatch.setattr(backends, "_STALE_SECONDS", 0.0)
    sync(backend, replace(fewer, changed=frozenset()))
    seen["later"] = nft("list chains ip")
    sync(backend, replace(STATE, changed=frozenset({SVC2})))
    seen["back"] = nft("list chains ip")
    return seen


@pytest.mark.packet
def test_chains_are_deleted_a_second_after_nothing_refers_to_them(monkeypatch):
    seen = inside(lambda: _stale(monkeypatch))
    assert "ns2/svc2" not in seen["elements"]
    assert [when for when, text in seen.items() if "service-42NFTM6N-ns2/svc2" in text] == [
        "at once",
        "too early",
        "back",
    ]


def _flushed() -> dict[str, Any]:
    seen: dict[str, Any] = {}
    nft("add table ip others")
    backend = make()
    seen["before"] = asyncio.run(backend.intact())
    sync(backend, STATE, full=True)
    seen["written"], written = asyncio.run(backend.intact()), table()
    nft("delete table ip kube-proxy")
    seen["deleted"] = asyncio.run(backend.intact())
    try:
        sync(backend, replace(STATE, endpoints={}, changed=frozenset(STATE.services)))
    except NetlinkError as error:
        seen["error"] = str(error)
    sync(backend, STATE, full=True)
    seen["the same again"] = table() == written
    asyncio.run(backend.cleanup())
    seen["tables"] = nft("list tables")
    asyncio.run(backend.cleanup())
    return seen


@pytest.mark.packet
def test_a_table_that_was_taken_away_is_noticed_and_written_again():
    seen = inside(_flushed)
    assert (seen["before"], seen["written"], seen["deleted"]) == (False, True, False)
    assert "No such file or directory" in seen["error"]
    assert "flush chain ip kube-proxy service-" in seen["error"], "the command at fault is shown"
    assert seen["the same again"]


@pytest.mark.packet
def test_cleanup_takes_our_table_alone_and_may_come_twice():
    assert inside(_flushed)["tables"] == "table ip others\n"


def _affinity_over_a_restart() -> tuple[str, str, str]:
    name = "affinity-P2GVATDV-ns1/svc1/tcp/p80__10.244.1.2/80"
    sync(make(), STATE, full=True)
    nft(f"add element ip kube-proxy {name} {{ 10.244.1.9 }}")
    sync(make(), STATE, full=True)
    kept = nft(f"list set ip kube-proxy {name}")
    other = replace(STATE, services={SVC1: replace(STICKY, sticky_seconds=60)})
    sync(make(), other, full=True)
    renewed = nft(f"list set ip kube-proxy {name}")
    sync(make(), replace(STATE, services={SVC1: CLUSTER_IP}), full=True)
    return kept, renewed, nft("list sets ip")


@pytest.mark.packet
def test_clients_stay_with_their_pods_over_a_restart_unless_the_timeout_is_another():
    kept, renewed, sets = inside(_affinity_over_a_restart)
    assert "10.244.1.9" in kept
    assert "timeout 3h" in kept
    assert "10.244.1.9" not in renewed
    assert "timeout 1m" in renewed
    assert "affinity-" not in sets


def _service_cidrs() -> tuple[str, str]:
    backend = make()
    sync(backend, replace(STATE, service_cidrs=()), full=True)
    before = nft("list chain ip kube-proxy cluster-ips-check")
    sync(
        backend, replace(STATE, service_cidrs=("172.30.0.0/16", "172.40.0.0/16", "fd00:96::/112"), changed=frozenset())
    )
    return before, nft("list chain ip kube-proxy cluster-ips-check")


@pytest.mark.packet
def test_a_new_service_cidr_is_taken_in_at_once():
    before, after = inside(_service_cidrs)
    assert "drop" not in before
    assert "ip daddr { 172.30.0.0/16, 172.40.0.0/16 } drop" in after


def _another_priority() -> tuple[Table, Table]:
    nft("add table ip kube-proxy")
    nft("add chain ip kube-proxy filter-input { type filter hook input priority -200 ; }")
    nft("add set ip kube-proxy nodeport-ips { type ipv4_addr ; }")
    sync(make(), STATE, full=True)
    found = table()
    nft("delete table ip kube-proxy")
    sync(make(), STATE, full=True)
    return found, table()


@pytest.mark.packet
def test_base_chains_of_another_release_are_replaced():
    found, fresh = inside(_another_priority)
    assert found == fresh


def _by_nft_and_by_messages(case: str) -> tuple[str, str]:
    services, endpoints, config = CASES[case]
    node = NODE6 if config.family == IPV6 else NODE
    subprocess.run(["nft", "-f", "-"], input=render(services, endpoints, node, config), text=True, check=True)
    by_nft = listed()
    nft("flush ruleset")
    change = Plan(config).whole(services, endpoints, node, None)
    asyncio.run(Nft(config.ip).load(list(setup(config)), list(change.statements())))
    return by_nft, listed()


def listed() -> str:
    """Elements of sets come in the kernel's order, which is not the same twice."""
    return "\n".join(sorted(re.split(r"\n|, ", nft("list ruleset").replace("elements = { ", "").replace(" }", ""))))


@pytest.mark.packet
@pytest.mark.parametrize("case", CASES)
def test_messages_leave_the_table_that_nft_leaves(case):
    by_nft, by_messages = isolated(_by_nft_and_by_messages, case)
    assert by_messages == by_nft
