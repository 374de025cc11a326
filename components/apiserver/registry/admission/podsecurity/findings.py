"""What a check finds, and the phrases that the checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Metadata = Mapping[str, Any]
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Why a check forbids a pod; the detail names containers and values."""

    reason: str
    detail: str = ""

    def text(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


#: None allows the pod.
Check = Callable[[Metadata, Spec], Finding | None]


def containers(spec: Spec) -> Iterator[Spec]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def security(holder: Spec) -> Mapping[str, Any]:
    """The security context of a pod's spec or of a container."""
    return holder.get("securityContext") or {}


def quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def numbered(noun: str, items: Iterable[str]) -> str:
    """`container "a"`, or `containers "a", "b"`."""
    names = list(items)
    return f"{plural(noun, names)} {quoted(names)}"


def plural(noun: str, items: Iterable[Any]) -> str:
    return noun if len(list(items)) == 1 else f"{noun}s"


def has_user_namespace(spec: Spec) -> bool:
    """Whether root in the pod is not root on the node."""
    return spec.get("hostUsers") is False


def is_windows(spec: Spec) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"
