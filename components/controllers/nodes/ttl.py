"""How long kubelets may cache Secrets and ConfigMaps, by the size of the cluster
(k8s.io/kubernetes/pkg/controller/ttl).

Each node has the time in an annotation. The sizes at which it changes overlap, so that a node that
joins and leaves does not change all others each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Patch
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key, annotations_of
from kubewire.components.kubeapi.resources import NODES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node

ANNOTATION = "node.alpha.kubernetes.io/ttl"
#: The fewest and most nodes of each step, and its seconds.
_STEPS = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 1 << 31, 300))


def next_step(step: int, nodes: int) -> int:
    """The step for a cluster of so many nodes that was at this step before."""
    while nodes > _STEPS[step][1]:
        step += 1
    while nodes < _STEPS[step][0]:
        step -= 1
    return step


def seconds_of(step: int) -> int:
    return _STEPS[step][2]


class TtlController(KeyedController):
    component = "ttl-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.step = 0
        self.nodes = self.follow(NODES, self._on_node)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        step = next_step(self.step, len(self.nodes.store))
        if step != self.step:
            self.step = step
            for key in self.nodes.store:
                self.queue.add(key)
        if new is not None:
            self.enqueue(old, new)

    async def sync(self, key: Key) -> None:
        node = self.nodes.store.get(key)
        wanted = str(seconds_of(self.step))
        if node is None or annotations_of(node).get(ANNOTATION) == wanted:
            return
        patch = {"metadata": {"annotations": {ANNOTATION: wanted}}}
        await self.apply(key, [Patch(NODES, "", key[1], patch)])
