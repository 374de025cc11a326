"""Restart back-off per container: 10 s, doubled on each start up to 5 min, forgotten 10 min after the last
(KEP-4603 tells the history; upstream: flowcontrol.Backoff in kuberuntime).

Pure: callers give the clock, so that a test needs no waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BackoffPolicy:
    """Seconds."""

    initial: float = 10.0
    maximum: float = 300.0

    @property
    def forget_after(self) -> float:
        """Without another failure for twice the maximum the count starts anew."""
        return 2 * self.maximum


DEFAULT_BACKOFF = BackoffPolicy()


@dataclass(frozen=True)
class Backoff:
    """One container's delay (seconds) and when it was last raised."""

    delay: float = 0.0
    raised_at: float = 0.0

    def raised(self, policy: BackoffPolicy, now: float) -> Backoff:
        """After one more start."""
        if not self.delay or now - self.raised_at > policy.forget_after:
            return Backoff(policy.initial, now)
        return replace(self, delay=min(self.delay * 2, policy.maximum), raised_at=now)

    def ready_at(self, policy: BackoffPolicy, failed_at: float) -> float:
        """When what failed at failed_at may be tried again: at once when it had held for long before."""
        if not self.delay or failed_at - self.raised_at > policy.forget_after:
            return failed_at
        return failed_at + self.delay
