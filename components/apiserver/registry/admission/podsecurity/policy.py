"""The levels and versions of a policy, and which checks they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.kinds.fielderrors import invalid
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.registry.admission.podsecurity.findings import (
    Finding,
    Metadata,
    Spec,
)

PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
LEVELS = ("privileged", "baseline", "restricted")
_NEWEST = 36
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Level:
    """A level with its version; minor is None for the latest."""

    name: str = "privileged"
    minor: int | None = None

    def __str__(self) -> str:
        return f"{self.name}:{'latest' if self.minor is None else f'v1.{self.minor}'}"

    def findings(self, metadata: Metadata, spec: Spec) -> list[Finding]:
        """What the level forbids about a pod."""
        if self.name == "privileged":
            return []
        from kubewire.components.apiserver.registry.admission.podsecurity.checks import checks

        minor = _NEWEST if self.minor is None else min(self.minor, _NEWEST)
        found = (check(metadata, spec) for check in checks(self.name, minor))
        return [finding for finding in found if finding is not None]

    def is_stricter_than(self, other: Level) -> bool:
        return LEVELS.index(self.name) > LEVELS.index(other.name)


@dataclass(frozen=True)
class Policy:
    """The levels that a namespace's labels name; without labels everything is allowed."""

    enforce: Level = Level()
    audit: Level = Level()
    warn: Level = Level()

    @property
    def is_idle(self) -> bool:
        return self is _IDLE or self == _IDLE

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Policy:
        """Reads the labels; an unknown level counts as restricted, as it does upstream."""
        labels = namespace["metadata"].get("labels") or {}
        if not any(key.startswith(PREFIX) for key in labels):
            return _IDLE
        enforce, audit, warn = (_level(labels, mode) for mode in MODES)
        return cls(enforce, audit, warn)


_IDLE = Policy()


def _level(labels: Mapping[str, str], mode: str) -> Level:
    name = labels.get(PREFIX + mode, "privileged")
    if name == "privileged":
        return Level()
    version = _VERSION.fullmatch(labels.get(f"{PREFIX}{mode}-version", "latest"))
    return Level(name if name in LEVELS else "restricted", int(version[1]) if version else None)


def label_errors(labels: Mapping[str, str]) -> list[FieldError]:
    """The errors of the labels of a namespace."""
    errors = []
    for mode in MODES:
        level = labels.get(PREFIX + mode)
        if level is not None and level not in LEVELS:
            text = f"must be one of {', '.join(LEVELS)}"
            errors.append(invalid(f"metadata.labels[{PREFIX}{mode}]", level, text))
        version = labels.get(f"{PREFIX}{mode}-version")
        if version is not None and version != "latest" and not _VERSION.fullmatch(version):
            text = 'must be "latest" or "v1.x"'
            errors.append(invalid(f"metadata.labels[{PREFIX}{mode}-version]", version, text))
    return errors
