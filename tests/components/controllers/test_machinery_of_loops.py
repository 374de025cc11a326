"""Flags, the list of controllers, indexes, reading one's own writes, namespace conditions, health endpoint."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import pytest

from kubewire.components.base import health
from kubewire.components.controllers import flags
from kubewire.components.controllers.deployment.plan import REVISION, revision_of
from kubewire.components.controllers.discovery import Discovered
from kubewire.components.controllers.job.indexes import INDEX, index_of
from kubewire.components.controllers.meta import int_or_percent
from kubewire.components.controllers.namespaces.deletion import Outcome, conditions_of, deletion_order
from kubewire.components.controllers.registry import CONTROLLERS, enabled
from kubewire.components.controllers.sharedinformers import Index, orphans_in, owner_values
from kubewire.components.controllers.writes import PATIENCE, Writes
from kubewire.components.kubeapi.resources import DEPLOYMENTS, NODES, PODS, SERVICES
from tests.components.controllers.objects import NOW, at, pod, workload
from tests.existing import existing


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["*"], list(CONTROLLERS)),
        (["*", "-job"], [name for name in CONTROLLERS if name != "job-controller"]),
        (["deployment", "replicaset-controller"], ["deployment-controller", "replicaset-controller"]),
        (["-deployment"], []),
        ([], []),
    ],
)
def test_which_controllers_run(names, expected):
    assert enabled(names) == expected


def test_flags_are_upstreams():
    options = flags.parse(
        [
            "--kubeconfig=k",
            "--allocate-node-cidrs=true",
            "--cluster-cidr=10.244.0.0/16,fd00::/56",
            "--node-cidr-mask-size-ipv4=25",
            "--node-monitor-grace-period=1m30s",
        ]
    )
    assert [str(network) for network in options.cluster_cidrs] == ["10.244.0.0/16", "fd00::/56"]
    assert (options.mask_size_ipv4, options.mask_size_ipv6) == (25, 64)
    assert options.node_monitor_grace_period == 90.0
    assert options.max_endpoints_per_slice == 100


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "--kubeconfig"),
        (["--kubeconfig=k", "--controllers=nonsense"], '"nonsense" is not in the list of known controllers'),
        (["--kubeconfig=k", "--allocate-node-cidrs"], "--cluster-cidr must be set"),
        (["--kubeconfig=k", "--cluster-cidr=10.0.0.1/8"], "invalid CIDR address"),
        (["--kubeconfig=k", "--cluster-cidr=10.0.0.0/8,10.1.0.0/16"], "at most one CIDR of each IP family"),
        (["--kubeconfig=k", "--allocate-node-cidrs", "--cluster-cidr=10.0.0.0/25"], "does not fit the cluster CIDR"),
        (
            ["--kubeconfig=k", "--cluster-cidr=10.0.0.0/16,fd00::/56", "--node-cidr-mask-size=24"],
            "usage of --node-cidr-mask-size is not allowed with dual-stack clusters",
        ),
        (
            [
                "--kubeconfig=k",
                "--cluster-cidr=10.0.0.0/16",
                "--node-cidr-mask-size=24",
                "--node-cidr-mask-size-ipv4=25",
            ],
            "is not allowed if --node-cidr-mask-size is set",
        ),
        (
            ["--kubeconfig=k", "--cluster-cidr=fd00::/56", "--node-cidr-mask-size-ipv4=25"],
            "usage of --node-cidr-mask-size-ipv4 is not allowed for a single-stack IPv6 cluster",
        ),
        (
            ["--kubeconfig=k", "--cluster-cidr=10.0.0.0/16", "--node-cidr-mask-size-ipv6=64"],
            "usage of --node-cidr-mask-size-ipv6 is not allowed for a single-stack IPv4 cluster",
        ),
        (["--kubeconfig=k", "--node-monitor-period=fast"], 'invalid duration "fast"'),
    ],
)
def test_wrong_flags_are_refused_with_a_reason(argv, text, capsys):
    with pytest.raises(SystemExit) as refused:
        flags.parse(argv, list(CONTROLLERS))
    assert refused.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "total", "up", "expected"),
    [("25%", 10, True, 3), ("25%", 10, False, 2), (4, 10, True, 4), (None, 10, True, 0), ("7%", 100, True, 7)],
)
def test_int_or_percent(value, total, up, expected):
    assert int_or_percent(value, total, round_up=up) == expected


def test_an_index_follows_adoption_and_deletion():
    index = Index(owner_values)
    replicaset = workload("ReplicaSet")
    orphan, owned = pod("p"), pod("p", owner=replicaset)
    index.handle(None, orphan)
    assert index.get(orphans_in("default")) == [orphan]
    index.handle(orphan, owned)
    assert index.get(orphans_in("default")) == []
    assert index.get("uid-web") == [owned]
    index.handle(orphan, None)
    assert index.get("uid-web") == []


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_key_waits_until_the_informer_has_seen_what_was_written():
    seen, clock = {PODS: 5}, Clock()
    store: dict[Any, Any] = {}
    writes = Writes(seen.get, lambda _, key: store.get(key), clock)
    assert writes.caught_up("k")
    writes.written("k", PODS, {"metadata": {"namespace": "a", "name": "p", "resourceVersion": "9"}})
    assert not writes.caught_up("k")
    assert writes.caught_up("other")
    seen[PODS] = 9
    assert writes.caught_up("k")


def test_a_deletion_is_seen_when_the_object_is_going_gone_or_another():
    store = {("a", "p"): {"metadata": {"uid": "1"}}}
    writes = Writes(lambda _: 1, lambda _, key: store.get(key), Clock())
    for after in ({"uid": "1", "deletionTimestamp": "now"}, {"uid": "2"}, None):
        store["a", "p"] = {"metadata": {"uid": "1"}}
        writes.deleted("k", PODS, ("a", "p"), "1")
        assert not writes.caught_up("k")
        if after is None:
            del store["a", "p"]
        else:
            store["a", "p"] = {"metadata": after}
        assert writes.caught_up("k")


def test_patience_ends():
    clock = Clock()
    writes = Writes(lambda _: 1, lambda _resource, _key: None, clock)
    writes.written("k", PODS, {"metadata": {"name": "p", "resourceVersion": "9"}})
    clock.now = PATIENCE + 1
    assert writes.caught_up("k")


def test_namespace_conditions_name_what_is_left():
    outcome = Outcome({"pods.": 2, "widgets.example.com": 1}, {"example.com/keep": 1})
    conditions = {item["type"]: item for item in conditions_of(outcome, [], NOW)}
    left = conditions["NamespaceContentRemaining"]
    assert (left["status"], left["reason"]) == ("True", "SomeResourcesRemain")
    assert left["message"] == (
        "Some resources are remaining: pods. has 2 resource instances, widgets.example.com has 1 resource instances"
    )
    held = conditions["NamespaceFinalizersRemaining"]
    assert held["message"].endswith("example.com/keep in 1 resource instances")
    assert conditions["NamespaceDeletionDiscoveryFailure"]["status"] == "False"


def test_a_condition_keeps_its_time_until_its_status_changes():
    before = conditions_of(Outcome({"pods.": 2}, {}), [], NOW)
    same = conditions_of(Outcome({"pods.": 1}, {}), before, at(60))
    done = {item["type"]: item for item in conditions_of(Outcome({}, {}), same, at(60))}
    assert same[3]["lastTransitionTime"] == before[3]["lastTransitionTime"]
    assert done["NamespaceContentRemaining"]["lastTransitionTime"] != before[3]["lastTransitionTime"]


def test_health_and_metrics_are_served():
    async def scenario():
        server = existing(await health.serve("127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]

        def get(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.read().decode()

        found = [await asyncio.to_thread(get, path) for path in ("/healthz", "/metrics")]
        server.close()
        return found

    ok, metrics = asyncio.run(scenario())
    assert ok == "ok"
    assert "process_cpu_seconds_total" in metrics


@pytest.mark.parametrize("text", ["\u00b2", "9" * 5000, "-1", "1.5", ""])
def test_an_annotation_that_is_no_number_stops_no_controller(text):
    """Whoever may write an object writes its annotations; str.isdigit() takes what int() does not."""
    annotated: Any = {"metadata": {"name": "x", "annotations": {REVISION: text, INDEX: text}}}
    assert revision_of(annotated) == 0
    assert index_of(annotated) is None


def test_the_pods_of_a_namespace_go_first():
    able = frozenset({"list", "delete"})
    order = deletion_order(Discovered({SERVICES: able, DEPLOYMENTS: able, PODS: able, NODES: able}))
    assert order == [PODS, SERVICES, DEPLOYMENTS]
