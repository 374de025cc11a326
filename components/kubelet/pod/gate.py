"""Admits pods to the node, one after the other, and makes room for critical ones.

One at a time, because two decisions that do not see each other could give the same resources away
twice. Upstream's sync loop decides in turn for the same reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.pod.admission import Rejection, rejections
from kubewire.components.kubelet.pod.preemption import PreemptionError, is_critical, victims
from kubewire.components.kubelet.status.generate import Override

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node, Pod

log = logging.getLogger(__name__)
_PREEMPTED = Override(
    "Preempting",
    "Preempted in order to admit critical pod",
    disruption="Pod was preempted by Kubelet to accommodate a critical pod.",
)


class Admitted(Protocol):
    """A pod that the node has admitted. preempt() ends it and returns when its containers have
    ended."""

    @property
    def pod(self) -> Pod: ...

    async def preempt(self, why: Override) -> None: ...


class NodeObject(Protocol):
    """The Node object as it was last read. read() reads it again."""

    @property
    def node(self) -> Node: ...

    async def read(self) -> None: ...


class Gate:
    """admitted: the pods that the node has admitted and that have not ended. preempted(resource)
    counts a pod that was ended for want of the resource."""

    def __init__(
        self,
        registration: NodeObject,
        allocatable: Mapping[str, str],
        admitted: Callable[[], Iterable[Admitted]],
        preempted: Callable[[str], None],
    ) -> None:
        self._registration = registration
        self._allocatable = allocatable
        self._admitted = admitted
        self._preempted = preempted
        self._turn = asyncio.Lock()

    async def admit(self, pod: Pod) -> Rejection | None:
        """Why this node cannot take the pod, or None. Returns when there is room for it."""
        async with self._turn:
            found = self._rejections(pod)
            if any(rejection.of_node for rejection in found):
                await self._registration.read()
                found = self._rejections(pod)
            if found and is_critical(pod):
                return await self._make_room(pod, found)
            return found[0] if found else None

    def _rejections(self, pod: Pod) -> list[Rejection]:
        others = [other.pod for other in self._admitted()]
        return rejections(pod, others, self._registration.node, self._allocatable)

    async def _make_room(self, pod: Pod, found: list[Rejection]) -> Rejection | None:
        """Ends other pods if resources are all that is missing."""
        hard = [rejection for rejection in found if not rejection.missing]
        if hard:
            return hard[0]
        missing = dict(rejection.missing for rejection in found if rejection.missing)
        admitted = {pods.uid(other.pod): other for other in self._admitted()}
        try:
            chosen = victims(pod, [other.pod for other in admitted.values()], missing)
        except PreemptionError as error:
            text = "Unexpected error while attempting to recover from admission failure"
            why = f"preemption: error finding a set of pods to preempt: {error}"
            return Rejection("UnexpectedAdmissionError", f"{text}: {why}")
        for victim in chosen:
            log.info("pod %s ends for %s", pods.full_name(victim), pods.full_name(pod))
            await admitted[pods.uid(victim)].preempt(_PREEMPTED)
            self._preempted(next(iter(missing)))
        return None
