"""The delay before a container that failed is started again (CrashLoopBackOff).

The delay is 10 seconds at first and doubles with each start, up to 5 minutes. It starts over once
10 minutes have passed without a further start (KEP-4603 tells the history; upstream:
flowcontrol.Backoff in kuberuntime).

Pure: the caller passes the time, so that a test does not have to wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BackoffPolicy:
    """The first and the longest delay, in seconds."""

    initial: float = 10.0
    maximum: float = 300.0

    @property
    def forget_after(self) -> float:
        """Seconds after which a delay that was not raised again is forgotten."""
        return 2 * self.maximum


DEFAULT_BACKOFF = BackoffPolicy()


@dataclass(frozen=True)
class Backoff:
    """A container's delay in seconds, and when it was last raised."""

    delay: float = 0.0
    raised_at: float = 0.0

    def raised(self, policy: BackoffPolicy, now: float) -> Backoff:
        """The state after one more start."""
        if not self.delay or now - self.raised_at > policy.forget_after:
            return Backoff(policy.initial, now)
        return replace(self, delay=min(self.delay * 2, policy.maximum), raised_at=now)

    def ready_at(self, policy: BackoffPolicy, failed_at: float) -> float:
        """When a container that failed at failed_at may start; at once if it ran long enough."""
        if not self.delay or failed_at - self.raised_at > policy.forget_after:
            return failed_at
        return failed_at + self.delay
