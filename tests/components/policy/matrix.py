"""The form of a truth table: policies, and who then reaches whom, written down by hand.

Nine pods take part, a, b and c in each of the namespaces x, y and z, as in upstream's end-to-end
tests of NetworkPolicy. Each serves the ports 80 and 81 by TCP and UDP, and asks every other one.
Before the first step there are no policies, and everything is allowed.

An expected matrix is text. A line is a source, or several by `*`, and one character for each
destination: xa xb xc, ya yb yc, za zb zc. `.` is allowed, `X` is denied. Of the lines whose source
matches the first counts. What a pod sends to itself is not looked at, and may say anything.

    80/TCP 81/TCP
    x/b   ... ... ...
    *     X.. ... ...
    *
    *     X.. ... ...

A line of ports stands in front of the lines that hold for these ports; of several matrices the
first that covers the port counts. `*` is every port, and may be left out if it is the only one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tests.components.policy.objects import Object

NAMESPACES = ("x", "y", "z")
PODS = tuple(f"{namespace}/{name}" for namespace in NAMESPACES for name in "abc")
#: (port, protocol)
PORTS = ((80, "TCP"), (81, "TCP"), (80, "UDP"), (81, "UDP"))
#: The names of the ports in each namespace. `web` is another number in y than in x, and of another
#: protocol in z.
PORT_NAMES: Mapping[str, Mapping[tuple[int, str], str]] = {
    "x": {(80, "TCP"): "web", (81, "TCP"): "alt", (80, "UDP"): "u-web", (81, "UDP"): "u-alt"},
    "y": {(80, "TCP"): "alt", (81, "TCP"): "web", (80, "UDP"): "u-alt", (81, "UDP"): "u-web"},
    "z": {(80, "TCP"): "t-80", (81, "TCP"): "t-81", (80, "UDP"): "web", (81, "UDP"): "u-81"},
}
#: The labels of each pod and namespace, beside those that Kubernetes adds.
POD_LABELS: Mapping[str, Mapping[str, str]] = {pod: {"pod": pod[-1]} for pod in PODS}
NAMESPACE_LABELS: Mapping[str, Mapping[str, str]] = {name: {"ns": name} for name in NAMESPACES}


@dataclass(frozen=True)
class Step:
    """What is done, and what then holds. apply: policies; `{x/a}` in a string is the pod's address
    as a CIDR, `{all}` the CIDR of all addresses. delete: policies as `kind namespace/name`.
    pod_labels, namespace_labels: all labels that one has from now on, beside those of Kubernetes."""

    expected: str
    apply: tuple[Object, ...] = ()
    delete: tuple[str, ...] = ()
    pod_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    namespace_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def allowed(self, source: str, destination: str, port: int, protocol: str) -> bool:
        return self.rows(port, protocol)[PODS.index(source)][PODS.index(destination)] == "." or source == destination

    def rows(self, port: int, protocol: str) -> list[str]:
        """The nine lines of nine characters for a port."""
        for ports, lines in _blocks(self.expected):
            if ports == ["*"] or f"{port}/{protocol}" in ports:
                return [_row(source, lines) for source in PODS]
        raise ValueError(f"no matrix covers {port}/{protocol}")

    def policies(self, addresses: Mapping[str, str]) -> list[Object]:
        """What to apply, with the addresses that the pods really have."""
        return [_filled(policy, addresses) for policy in self.apply]


@dataclass(frozen=True)
class Case:
    """requires: what an engine must know for it, beside NetworkPolicy."""

    id: str
    steps: tuple[Step, ...]
    requires: frozenset[str] = frozenset()


def case(name: str, expected: str, *policies: Object, requires: str = "") -> Case:
    """A case of one step."""
    return Case(name, (Step(expected, apply=policies),), frozenset(requires.split()))


def _blocks(text: str) -> Iterator[tuple[list[str], list[tuple[str, str]]]]:
    ports, lines = ["*"], list[tuple[str, str]]()
    for words in map(str.split, filter(str.strip, text.splitlines())):
        if len(words) == 4 and set("".join(words[1:])) <= {".", "X"}:
            lines.append((words[0], "".join(words[1:])))
            continue
        if lines:
            yield ports, lines
        ports, lines = words, []
    yield ports, lines


def _row(source: str, lines: list[tuple[str, str]]) -> str:
    for pattern, row in lines:
        if fnmatchcase(source, pattern):
            if len(row) != len(PODS):
                raise ValueError(f"{pattern} {row}: must have {len(PODS)} characters")
            return row
    raise ValueError(f"no line is about {source}")


def _filled(value: Any, addresses: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, addresses) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, addresses) for one in value]
    if not (isinstance(value, str) and value.startswith("{")):
        return value
    if value == "{all}":
        six = any(":" in address for address in addresses.values())
        return "::/0" if six else "0.0.0.0/0"
    return str(ipaddress.ip_network(addresses[value.strip("{}")]))


# The words of which the tables are made


def policy(name: str, select: Object | None = None, **spec: Any) -> Object:
    """name: `namespace/name`."""
    namespace, _, short = name.partition("/")
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": short, "namespace": namespace},
        "spec": {"podSelector": select if select is not None else {}, **spec},
    }


def labels(**wanted: str) -> Object:
    return {"matchLabels": wanted}


def key(name: str, operator: str, *values: str) -> Object:
    """A selector of one expression."""
    expression = {"key": name, "operator": operator, **({"values": list(values)} if values else {})}
    return {"matchExpressions": [expression]}


def pods(selector: Object) -> Object:
    return {"podSelector": selector}


def spaces(selector: Object) -> Object:
    return {"namespaceSelector": selector}


def block(cidr: str, *excepted: str) -> Object:
    return {"ipBlock": {"cidr": cidr, **({"except": list(excepted)} if excepted else {})}}


def port(number: int | str, protocol: str | None = None, end: int | None = None) -> Object:
    found: Object = {"port": number}
    if protocol:
        found["protocol"] = protocol
    return found | ({"endPort": end} if end else {})


A, B, C = (labels(pod=name) for name in "abc")
X, Y, Z = (labels(ns=name) for name in "xyz")
EGRESS = ["Egress"]
BOTH = ["Ingress", "Egress"]
