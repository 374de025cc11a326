"""What the policy compiler costs: a full compile, and single changes (no lab).

    PYTHONPATH=src:. .venv/bin/python benchmarks/policies.py [POLICIES [PODS [CHANGES]]]

The cluster has a namespace for every 100 pods. A policy selects one of ten applications of its
namespace and has two rules with two peers each: an application of its own namespace, one of the
namespaces of a team, and networks; half of the policies have egress rules and named ports too. A
change is one of: a pod's label, address or end, a new pod, a policy's peer, a new or deleted
policy, a namespace's label.
"""

from __future__ import annotations

import gc
import random
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from measure import machine, percentile

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.model import ObjectKey

Object = dict[str, Any]

_PODS_PER_NAMESPACE = 100
_APPLICATIONS = 10
_TEAMS = 5


class Cluster:
    """The objects, and random changes of them."""

    def __init__(self, policies: int, pods: int) -> None:
        self.random = random.Random(12)
        self.namespaces = [f"ns-{n}" for n in range(max(1, pods // _PODS_PER_NAMESPACE))]
        self.pods = {n: self._pod(n, f"app-{n % _APPLICATIONS}") for n in range(pods)}
        self.policies = {n: self._policy(n) for n in range(policies)}

    def objects(self) -> list[Object]:
        spaces = [_namespace(name, n % _TEAMS) for n, name in enumerate(self.namespaces)]
        return [*spaces, *self.pods.values(), *self.policies.values()]

    def change(self) -> Callable[[Compiler], None]:
        """One change, ready to be applied."""
        kinds = [self._label, self._address, self._end, self._rule, self._replace, self._team]
        return self.random.choice(kinds)()

    def _pod(self, number: int, app: str, address: int | None = None) -> Object:
        host = number if address is None else address
        ports = [{"name": "web", "containerPort": 8000 + number % 3, "protocol": "TCP"}]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"pod-{number}",
                "namespace": self.namespaces[number % len(self.namespaces)],
                "labels": {"app": app, "pod-template-hash": f"h{number % 50}"},
            },
            "spec": {"nodeName": f"worker-{number % 20}", "containers": [{"ports": ports}]},
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": f"10.{244 + host // 65536}.{host // 256 % 256}.{host % 256}"}],
            },
        }

    def _policy(self, number: int, app: int | None = None) -> Object:
        own = number % _APPLICATIONS if app is None else app
        other, team = self.random.randrange(_APPLICATIONS), self.random.randrange(_TEAMS)
        block = {"cidr": "10.0.0.0/8", "except": [f"10.{number % 200}.0.0/16"]}
        peers = [
            {"podSelector": {"matchLabels": {"app": f"app-{other}"}}},
            {
                "namespaceSelector": {"matchLabels": {"team": f"team-{team}"}},
                "podSelector": {"matchLabels": {"app": f"app-{own}"}},
            },
        ]
        spec: Object = {
            "podSelector": {"matchLabels": {"app": f"app-{own}"}},
            "ingress": [
                {"from": peers, "ports": [{"port": 80}, {"port": "web"}]},
                {"from": [{"ipBlock": block}], "ports": [{"port": 443}]},
            ],
        }
        if number % 2:
            spec["egress"] = [{"to": peers, "ports": [{"port": "web"}]}, {"ports": [{"port": 53}]}]
        metadata = {
            "name": f"policy-{number}",
            "namespace": self.namespaces[number % len(self.namespaces)],
        }
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": spec,
        }

    def _label(self) -> Callable[[Compiler], None]:
        number = self.random.choice(list(self.pods))
        return self._put_pod(number, f"app-{self.random.randrange(_APPLICATIONS)}")

    def _address(self) -> Callable[[Compiler], None]:
        number = self.random.choice(list(self.pods))
        address = 100_000 + self.random.randrange(50_000)
        return self._put_pod(number, f"app-{number % _APPLICATIONS}", address)

    def _put_pod(
        self, number: int, app: str, address: int | None = None
    ) -> Callable[[Compiler], None]:
        pod = self.pods[number] = self._pod(number, app, address)
        return lambda compiler: compiler.apply(pod)

    def _end(self) -> Callable[[Compiler], None]:
        """A pod goes, and a new one comes in its place later."""
        number = self.random.choice(list(self.pods))
        metadata = self.pods.pop(number)["metadata"]
        self.pods[number] = self._pod(number, f"app-{number % _APPLICATIONS}")
        again, key = self.pods[number], ObjectKey("Pod", metadata["namespace"], metadata["name"])

        def replace(compiler: Compiler) -> None:
            compiler.delete(key)
            compiler.apply(again)

        return replace

    def _rule(self) -> Callable[[Compiler], None]:
        number = self.random.choice(list(self.policies))
        policy = self.policies[number] = self._policy(number)
        return lambda compiler: compiler.apply(policy)

    def _replace(self) -> Callable[[Compiler], None]:
        """A policy goes, and one for other pods comes in its place."""
        number = self.random.choice(list(self.policies))
        metadata = self.policies[number]["metadata"]
        policy = self.policies[number] = self._policy(number, self.random.randrange(_APPLICATIONS))
        key = ObjectKey("NetworkPolicy", metadata["namespace"], metadata["name"])

        def replace(compiler: Compiler) -> None:
            compiler.delete(key)
            compiler.apply(policy)

        return replace

    def _team(self) -> Callable[[Compiler], None]:
        """All pods of the namespace join other sets."""
        name = self.random.choice(self.namespaces)
        namespace = _namespace(name, self.random.randrange(_TEAMS))
        return lambda compiler: compiler.apply(namespace)


def _namespace(name: str, team: int) -> Object:
    labels = {"kubernetes.io/metadata.name": name, "team": f"team-{team}"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def main(policies: int = 1000, pods: int = 5000, changes: int = 2000) -> None:
    cluster = Cluster(policies, pods)
    objects = cluster.objects()
    print(machine())
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compiler = Compiler()
    full = Clock()
    for obj in objects:
        compiler.apply(obj)
    state, first = compiler.state, compiler.changes()
    wall, cpu = full.seconds()
    assert len(first.policies) == policies
    assert not compiler.problems
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    members = sum(map(len, state.members.values()))
    print(f"{policies} policies, {pods} pods: {len(state.sets)} sets with {members} members")
    print(f"full compile: {wall:.2f} s, of CPU {cpu:.2f} s; {memory:.0f} MiB more")
    taken = [_timed(cluster.change(), compiler) for _ in range(changes)]
    for name, values in zip(("one change", "... of CPU"), zip(*taken, strict=True), strict=True):
        ascending = [second * 1000 for second in sorted(values)]
        parts = ", ".join(f"p{part} {percentile(ascending, part):.2f} ms" for part in (50, 99, 100))
        print(f"{name}: {parts} ({changes} changes)")


class Clock:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """On the wall, and of CPU."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def _timed(change: Callable[[Compiler], None], compiler: Compiler) -> tuple[float, float]:
    clock = Clock()
    change(compiler)
    compiler.changes()
    return clock.seconds()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
