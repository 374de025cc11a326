"""Mistakes that people make in network policies, found in files alone."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.compiler.kinds import key_of, kind_of
from kubewire.components.policy.evaluator import Evaluator, Flow
from kubewire.components.policy.files import Found
from kubewire.components.policy.lint import written
from kubewire.components.policy.lint.checks import (
    BLOCK_OVER_PODS,
    DEFINED_TWICE,
    DUPLICATE,
    HOST_NETWORK,
    INVALID,
    NO_DNS,
    NO_SUCH_NAME,
    NO_SUCH_PORT,
    NOT_ENFORCED,
    PEER_SELECTS_NOTHING,
    SELECTS_NOTHING,
    SHADOWED,
    Check,
    Finding,
)
from kubewire.components.policy.model import (
    Action,
    Definition,
    Direction,
    Endpoint,
    EndpointKind,
    Match,
    ObjectKey,
    Policy,
    Rule,
    State,
)
from kubewire.components.policy.selectors import All

#: An address that is neither a pod's nor a node's: a cluster's DNS, as far as a rule can tell.
_DNS, _DNS_PORT = "203.0.113.53", 53


@dataclass(frozen=True)
class Cluster:
    """What is known of the cluster. engine, kinds: the policy engine and what it enforces; "" if no
    engine is known. ranges: of pods and Services."""

    engine: str = ""
    kinds: tuple[str, ...] = ()
    pod_range: str = "10.244.0.0/16"
    service_range: str = "10.96.0.0/12"


def lint(
    found: Sequence[Found], pods: Sequence[Mapping[str, Any]], cluster: Cluster
) -> list[Finding]:
    """pods: those of the files, with addresses. Without any pod nothing is said of what a selector
    finds."""
    compiler = Compiler()
    for obj in (*pods, *(one.obj for one in found if str(one.obj["kind"]) != "Pod")):
        if key_of(obj) is not None:
            compiler.apply(obj)
    findings = list(_repeated(found))
    for one in found:
        if kind_of(one.obj) is None:
            continue
        key = key_of(one.obj)
        assert key is not None
        looking = _Looking(one, key, compiler, list(pods), cluster)
        findings += looking.findings()
    return list(dict.fromkeys(findings))


def _repeated(found: Sequence[Found]) -> Iterator[Finding]:
    """Objects that are defined twice, and policies that say the same."""
    by_key: dict[ObjectKey, Found] = {}
    by_content: dict[str, ObjectKey] = {}
    for one in found:
        key = key_of(one.obj)
        if key is None:
            continue
        line = one.line_of("")
        if key in by_key:
            first = by_key[key]
            text = (
                f"also defined at {first.place}; of the two only the one that is applied last holds"
            )
            yield Finding(DEFINED_TWICE, one.file, key, "", text, line, one.text_at(line))
        elif kind_of(one.obj) is not None:
            content = json.dumps([key.kind, key.namespace, one.obj.get("spec")], sort_keys=True)
            if content in by_content:
                text = f"its spec is that of {by_content[content]}; one of the two suffices"
                yield Finding(DUPLICATE, one.file, key, "", text, line, one.text_at(line))
            by_content.setdefault(content, key)
        by_key.setdefault(key, one)


@dataclass(frozen=True)
class _Looking:
    """At one policy."""

    found: Found
    key: ObjectKey
    compiler: Compiler
    pods: list[Mapping[str, Any]]
    cluster: Cluster

    def findings(self) -> Iterator[Finding]:
        if problem := self.compiler.problems.get(self.key):
            yield self._finding(INVALID, "", problem)
        if self.cluster.engine and self.key.kind not in self.cluster.kinds:
            text = f"{self.cluster.engine} does not enforce a {self.key.kind}; it has no effect"
            yield self._finding(NOT_ENFORCED, "kind", text)
        policy = self.compiler.state.policies.get(self.key)
        if policy is None:
            return
        if self.pods:
            yield from self._subjects(policy)
            yield from self._dns(policy)
        for direction in Direction:
            for rule in policy.rules(direction):
                yield from self._rule(policy, direction, rule)
        yield from self._shadowed(policy)
        if self.key.kind == "NetworkPolicy":
            for check, where, text in written.mistakes(self.found.obj, self._has_name_label):
                yield self._finding(check, where, text)

    def _finding(self, check: Check, where: str, text: str) -> Finding:
        line = self.found.line_of(where)
        excerpt = self.found.text_at(line)
        return Finding(check, self.found.file, self.key, where, text, line, excerpt)

    @property
    def _state(self) -> State:
        return self.compiler.state

    def _selected(self, definition: Definition) -> list[Endpoint]:
        return [one for one in self._state.endpoints.values() if one.is_in(definition)]

    def _subjects(self, policy: Policy) -> Iterator[Finding]:
        if self._selected(policy.subjects):
            return
        if any(self._is_host_network(pod, policy.subjects) for pod in self.pods):
            text = "every pod that it selects is in its node's network, which policies do not see"
            yield self._finding(HOST_NETWORK, "spec.podSelector", text)
            return
        text = _nobody(policy.subjects)
        yield self._finding(SELECTS_NOTHING, "spec.podSelector", text)

    def _is_host_network(self, pod: Mapping[str, Any], definition: Definition) -> bool:
        metadata = pod["metadata"]
        return bool(
            (pod.get("spec") or {}).get("hostNetwork")
            and metadata.get("namespace") == definition.namespace
            and definition.selector.matches(metadata.get("labels") or {})
        )

    def _dns(self, policy: Policy) -> Iterator[Finding]:
        """Of the policies that isolate a pod for egress, the first one gets the finding."""
        if Direction.EGRESS not in policy.directions or policy.key.kind != "NetworkPolicy":
            return
        evaluator = Evaluator(self._state)
        silent = []
        for pod in self._selected(policy.subjects):
            isolating = [key for _, keys in self._state.applied[pod.key].egress for key in keys]
            if isolating[:1] == [policy.key] and not self._can_resolve(evaluator, pod):
                silent.append(pod.key.name)
        if silent:
            names = ", ".join(sorted(silent)[:3])
            text = (
                f"{names}: no policy allows egress to a DNS server on port 53, so names are not "
                "resolved; allow UDP and TCP 53 to the pods of kube-dns in kube-system"
            )
            yield self._finding(NO_DNS, "spec.egress", text)

    def _can_resolve(self, evaluator: Evaluator, pod: Endpoint) -> bool:
        """Whether a rule allows port 53 to anybody: to an address outside, or by its peers."""
        if not pod.addresses:
            return True
        if evaluator.verdict(Flow(pod.addresses[0], _DNS, "UDP", _DNS_PORT)).allowed:
            return True
        rules = (
            rule
            for _, keys in self._state.applied[pod.key].egress
            for key in keys
            for rule in self._state.policies[key].egress
        )
        return any(_covers_dns(rule) for rule in rules)

    def _rule(self, policy: Policy, direction: Direction, rule: Rule) -> Iterator[Finding]:
        where = str(rule.origin).partition(", ")[2].partition(" (")[0]
        where = f"spec.{where}"
        side = rule.match.source if direction is Direction.INGRESS else rule.match.destination
        for net in side.nets or ():
            yield from self._block(where, net)
        if not self.pods:
            return
        for name in side.sets:
            definition = self._state.sets[name].definition
            if not self._selected(definition):
                text = _nobody(definition)
                yield self._finding(PEER_SELECTS_NOTHING, where, text)
        if direction is Direction.INGRESS:
            yield from self._ports(policy, f"spec.ingress[{rule.origin.rule}].ports", rule)

    def _ports(self, policy: Policy, where: str, rule: Rule) -> Iterator[Finding]:
        """Of ingress rules: the selected pods are those that must have the ports."""
        subjects = self._selected(policy.subjects)
        declared = [port for pod in subjects for port in pod.ports]
        if not subjects:
            return
        match = rule.match
        for name in match.destination.port_sets:
            named = self._state.sets[name].named_port
            if named and not any(
                (port.name, port.protocol) == (named.name, named.protocol) for port in declared
            ):
                text = f"no selected pod has a {named.protocol} port {named.name!r}"
                yield self._finding(NO_SUCH_NAME, where, text)
        for ports in match.destination.ports:
            if declared and not any(
                port.protocol == match.protocol and ports.first <= port.number <= ports.last
                for port in declared
            ):
                known = ", ".join(sorted({f"{port.number}/{port.protocol}" for port in declared}))
                text = (
                    f"the selected pods declare {known}, not {ports}/{match.protocol}; policies see "
                    "the pod's port, not the Service's"
                )
                yield self._finding(NO_SUCH_PORT, where, text)

    def _shadowed(self, policy: Policy) -> Iterator[Finding]:
        """Rules behind one that takes all that they could. Those of NetworkPolicy only add up."""
        if self.key.kind == "NetworkPolicy":
            return
        for direction in Direction:
            final: dict[Match, Rule] = {}
            for rule in policy.rules(direction):
                earlier = final.get(Match()) or final.get(rule.match)
                if earlier is not None and earlier.origin.rule != rule.origin.rule:
                    text = f"{direction.value}[{earlier.origin.rule}] decides about all that it matches"
                    yield self._finding(
                        SHADOWED, f"spec.{direction.value}[{rule.origin.rule}]", text
                    )
                elif rule.action is not Action.LOG:
                    final.setdefault(rule.match, rule)

    def _has_name_label(self, name: str) -> bool:
        """Whether a namespace has the label `name`; True if nothing is known of namespaces."""
        return not self.pods or any(
            one.namespace_labels.get("name") == name
            for one in self._state.endpoints.values()
            if one.kind is EndpointKind.POD
        )

    def _block(self, where: str, net: str) -> Iterator[Finding]:
        network = ipaddress.ip_network(net)
        if network.prefixlen == 0:
            return
        for name, text in (
            ("pods", self.cluster.pod_range),
            ("Services", self.cluster.service_range),
        ):
            for part in text.split(","):
                known = ipaddress.ip_network(part)
                if known.version == network.version and known.overlaps(network):
                    advice = (
                        "select them by their labels, because addresses change"
                        if name == "pods"
                        else "policies see the pods behind a Service, never its address"
                    )
                    yield self._finding(
                        BLOCK_OVER_PODS,
                        where,
                        f"{net} covers addresses of {name} ({part}); {advice}",
                    )


def _covers_dns(rule: Rule) -> bool:
    match = rule.match
    ports = match.destination.ports
    named = bool(match.destination.port_sets) and not ports
    return match.protocol in {"", "UDP"} and (
        named or not ports or any(port.first <= _DNS_PORT <= port.last for port in ports)
    )


def _nobody(definition: Definition) -> str:
    if isinstance(definition.selector, All):
        return f"no pod of the files is in {_place(definition)}"
    return f"no pod of the files matches {definition.selector} in {_place(definition)}"


def _place(definition: Definition) -> str:
    if definition.namespace:
        return f"namespace {definition.namespace}"
    if definition.namespaces is None:
        return "any namespace"
    return f"namespaces with {definition.namespaces}"
