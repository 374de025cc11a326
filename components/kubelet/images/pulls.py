"""Image "pulls": nothing is downloaded; the catalogue has an image or it does not.

Events, reasons and back-off are those of upstream's image manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.kubelet.backoff import DEFAULT_BACKOFF, Backoff, BackoffPolicy
from kubewire.components.kubelet.images.catalogue import (
    Catalogue,
    Image,
    InvalidImageName,
    Program,
    UnknownImage,
)
from kubewire.components.kubelet.records import Waiting

#: (type, reason, message) of an event about the container.
Event = tuple[str, str, str]


@dataclass(frozen=True)
class Pulled:
    """The result of a pull. image: None if the container has to wait; waiting then says why, and
    retry_at when to try again (seconds since 1970)."""

    image: Image | None
    events: tuple[Event, ...]
    waiting: Waiting | None = None
    retry_at: float = 0.0


class ImagePuller:
    """Looks images up and remembers failures per pod and image."""

    def __init__(self, catalogue: Catalogue, policy: BackoffPolicy = DEFAULT_BACKOFF) -> None:
        self.catalogue = catalogue
        self._policy = policy
        self._failures: dict[tuple[str, str], tuple[Backoff, str, float]] = {}

    def pull(self, uid: str, name: str, policy: str, now: float) -> Pulled:
        try:
            image = self.catalogue.find(name)
        except InvalidImageName as error:
            text = f'Failed to apply default image tag "{name}": {error}'
            events = (
                ("Warning", "InspectFailed", text),
                ("Warning", "Failed", "Error: InvalidImageName"),
            )
            return Pulled(None, events, Waiting("InvalidImageName", text), now + 10)
        except UnknownImage as error:
            return self._missing(uid, name, policy, str(error.args[0]), now)
        self._failures.pop((uid, name), None)
        text = f'Container image "{name}" already present on machine and can be accessed by the pod'
        return Pulled(image, (("Normal", "Pulled", text),))

    def forget(self, uid: str) -> None:
        for key in [key for key in self._failures if key[0] == uid]:
            del self._failures[key]

    def _missing(self, uid: str, name: str, policy: str, why: str, now: float) -> Pulled:
        if policy == "Never":
            text = f'Container image "{name}" is not present with pull policy of Never'
            events = (
                ("Warning", "ErrImageNeverPull", text),
                ("Warning", "Failed", "Error: ErrImageNeverPull"),
            )
            return Pulled(None, events, Waiting("ErrImageNeverPull", text), now + 10)
        backoff, _, failed_at = self._failures.get((uid, name), (Backoff(), "", 0.0))
        ready_at = backoff.ready_at(self._policy, failed_at)
        failure = f'Failed to pull image "{name}": {why}'
        if now < ready_at:
            text = f'Back-off pulling image "{name}"'
            events = (("Normal", "BackOff", text), ("Warning", "Failed", "Error: ImagePullBackOff"))
            waiting = Waiting("ImagePullBackOff", f"{text}: ErrImagePull: {why}")
            return Pulled(None, events, waiting, ready_at)
        raised = backoff.raised(self._policy, now)
        self._failures[uid, name] = (raised, why, now)
        failures = (
            ("Normal", "Pulling", f'Pulling image "{name}"'),
            ("Warning", "Failed", failure),
            ("Warning", "Failed", "Error: ErrImagePull"),
        )
        # Retry soon, because upstream's next sync then reports ImagePullBackOff.
        return Pulled(None, failures, Waiting("ErrImagePull", why), now + 2)

    def program(self, name: str, command: Sequence[str], args: Sequence[str] = ()) -> Program:
        """The program of an image with command and args. Raises UnknownImage without a command."""
        return self.catalogue.resolve(name, command, args)
