"""Image "pulls": the catalogue either has an image or it does not; back-off and texts as upstream's image manager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.kubelet.backoff import DEFAULT_BACKOFF, Backoff, BackoffPolicy
from kubewire.components.kubelet.images.catalogue import Catalogue, Image, InvalidImageName, Program, UnknownImage
from kubewire.components.kubelet.records import Waiting

#: (type, reason, message) of an event about the container.
Event = tuple[str, str, str]


@dataclass(frozen=True)
class Pulled:
    """image is None when the container has to wait, and waiting says why; retry_at in seconds since 1970."""

    image: Image | None
    events: tuple[Event, ...]
    waiting: Waiting | None = None
    retry_at: float = 0.0


class ImagePuller:
    """Remembers failures per pod and image."""

    def __init__(self, catalogue: Catalogue, policy: BackoffPolicy = DEFAULT_BACKOFF) -> None:
        self.catalogue, self._policy = catalogue, policy
        self._failures: dict[tuple[str, str], tuple[Backoff, str, float]] = {}

    def pull(self, uid: str, name: str, policy: str, now: float) -> Pulled:
        try:
            image = self.catalogue.find(name)
        except InvalidImageName as error:
            text = f'Failed to apply default image tag "{name}": {error}'
            events = (("Warning", "InspectFailed", text), ("Warning", "Failed", "Error: InvalidImageName"))
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
            events = (("Warning", "ErrImageNeverPull", text), ("Warning", "Failed", "Error: ErrImageNeverPull"))
            return Pulled(None, events, Waiting("ErrImageNeverPull", text), now + 10)
        backoff, _, failed_at = self._failures.get((uid, name), (Backoff(), "", 0.0))
        ready_at = backoff.ready_at(self._policy, failed_at)
        failure = f'Failed to pull image "{name}": {why}'
        if now < ready_at:
            text = f'Back-off pulling image "{name}"'
            events = (("Normal", "BackOff", text), ("Warning", "Failed", "Error: ImagePullBackOff"))
            return Pulled(None, events, Waiting("ImagePullBackOff", f"{text}: ErrImagePull: {why}"), ready_at)
        raised = backoff.raised(self._policy, now)
        self._failures[uid, name] = (raised, why, now)
        failures = (
            ("Normal", "Pulling", f'Pulling image "{name}"'),
            ("Warning", "Failed", failure),
            ("Warning", "Failed", "Error: ErrImagePull"),
        )
        # Soon again, to say ImagePullBackOff as upstream's next sync does.
        return Pulled(None, failures, Waiting("ErrImagePull", why), now + 2)

    def program(self, name: str, command: Sequence[str], args: Sequence[str] = ()) -> Program:
        """What an image runs with this command and args. Raises UnknownImage ("no command specified")."""
        return self.catalogue.resolve(name, command, args)
