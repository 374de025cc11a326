"""One probe's thresholds as a state machine without clock or I/O (upstream: pkg/kubelet/prober/worker.go).

verdict before the first result: readiness False, liveness True, startup none
N results in a row of one kind (successThreshold / failureThreshold) -> the verdict changes
a failed liveness or startup probe is on hold until there is a new container
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

#: The verdict before any threshold is reached; None: no verdict.
INITIAL: dict[str, bool | None] = {"readiness": False, "liveness": True, "startup": None}


@dataclass(frozen=True)
class ProbeSpec:
    """A Probe with Kubernetes' defaults. Seconds, and numbers of results in a row."""

    kind: str
    handler: Mapping[str, Any]
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_period: int | None = None

    @classmethod
    def of(cls, kind: str, probe: Mapping[str, Any]) -> ProbeSpec:
        return cls(
            kind,
            probe,
            probe.get("initialDelaySeconds") or 0.0,
            probe.get("periodSeconds") or 10.0,
            probe.get("timeoutSeconds") or 1.0,
            probe.get("successThreshold") or 1,
            probe.get("failureThreshold") or 3,
            probe.get("terminationGracePeriodSeconds"),
        )


@dataclass(frozen=True)
class ProbeState:
    """verdict is what the rest of the kubelet sees."""

    verdict: bool | None
    last: bool | None = None
    run: int = 0
    on_hold: bool = False


def begin(spec: ProbeSpec) -> ProbeState:
    """For a new container."""
    return ProbeState(INITIAL[spec.kind])


def observe(spec: ProbeSpec, state: ProbeState, success: bool) -> ProbeState:
    """After one result."""
    if state.on_hold:
        return state
    run = state.run + 1 if state.last == success else 1
    counted = replace(state, last=success, run=run)
    if run < (spec.success_threshold if success else spec.failure_threshold):
        return counted
    if not success and spec.kind != "readiness":
        return ProbeState(False, success, 0, on_hold=True)
    return replace(counted, verdict=success)
