"""The thresholds of a probe as a state machine, without clock or I/O (upstream:
pkg/kubelet/prober/worker.go).

The verdict before the first result is False for readiness, True for liveness and none for startup.
It changes after N equal results in a row, where N is successThreshold or failureThreshold. A failed
liveness or startup probe then stays on hold until the container is started again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Probe

#: The verdict before a threshold is reached; None: no verdict.
INITIAL: dict[str, bool | None] = {"readiness": False, "liveness": True, "startup": None}


@dataclass(frozen=True)
class ProbeSpec:
    """A Probe with Kubernetes' defaults. Times are in seconds; thresholds count equal results."""

    kind: str
    handler: Probe
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_period: int | None = None

    @classmethod
    def of(cls, kind: str, probe: Probe) -> ProbeSpec:
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
    """verdict: what the rest of the kubelet sees. run: the number of results equal to last."""

    verdict: bool | None
    last: bool | None = None
    run: int = 0
    on_hold: bool = False


def begin(spec: ProbeSpec) -> ProbeState:
    """The state for a new container."""
    return ProbeState(INITIAL[spec.kind])


def observe(spec: ProbeSpec, state: ProbeState, success: bool) -> ProbeState:
    """The state after another result."""
    if state.on_hold:
        return state
    run = state.run + 1 if state.last == success else 1
    counted = replace(state, last=success, run=run)
    if run < (spec.success_threshold if success else spec.failure_threshold):
        return counted
    if not success and spec.kind != "readiness":
        return ProbeState(False, success, 0, on_hold=True)
    return replace(counted, verdict=success)
