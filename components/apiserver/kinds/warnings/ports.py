"""Warnings about the ports of a pod's containers (pkg/api/pod/warnings.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Port = Mapping[str, Any]


def port_warnings(containers: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """About ports that several containers, given with their paths, have in common."""
    warnings = []
    seen: dict[tuple[int, str], list[tuple[str, Port]]] = {}
    for path, container in containers:
        for index, port in enumerate(container.get("ports") or ()):
            at = f"{path}.ports[{index}]"
            if port.get("hostIP") and not port.get("hostPort"):
                warnings.append(f"{at}: hostIP set without hostPort: {_go(port)}")
            key = (port.get("containerPort", 0), port.get("protocol", ""))
            others = seen.setdefault(key, [])
            for other_path, other in others:
                if text := _conflict(port, other):
                    warnings.append(f"{at}: {text} port definition with {other_path}")
            others.append((at, port))
    return warnings


def _conflict(port: Port, other: Port) -> str:
    address, other_address = port.get("hostIP", ""), other.get("hostIP", "")
    number, other_number = port.get("hostPort", 0), other.get("hostPort", 0)
    if (address, number) == (other_address, other_number):
        return "duplicate"
    if not number or not other_number:
        return "overlapping"
    if number == other_number and bool(address) != bool(other_address):
        return "dangerously ambiguous"
    return ""


def _go(port: Port) -> str:
    """As Go prints the struct."""
    fields = (
        ("Name", port.get("name", "")),
        ("HostPort", port.get("hostPort", 0)),
        ("ContainerPort", port.get("containerPort", 0)),
        ("Protocol", port.get("protocol", "")),
        ("HostIP", port.get("hostIP", "")),
    )
    return "{" + " ".join(f"{name}:{value}" for name, value in fields) + "}"
