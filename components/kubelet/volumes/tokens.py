"""Service account tokens for projected volumes, from the TokenRequest API.

As in upstream's pkg/kubelet/token, a token is renewed after 80 % of its lifetime, or after a day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import SERVICEACCOUNTS
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.volumes.payload import MountProblem, TokenRequest

if TYPE_CHECKING:
    from kubewire.components.kubeapi import types
    from kubewire.components.kubeapi.types import Pod

_ONE_DAY = 86400.0
_LIFE_SHARE = 0.8


@dataclass(frozen=True)
class _Held:
    token: str
    renew_at: float


class TokenCache:
    """Holds a token per pod, audience and lifetime."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._held: dict[tuple[str, str, int], _Held] = {}

    async def fetch(self, pod: Pod, request: TokenRequest) -> str:
        """A token that need not be renewed yet. Raises MountProblem if the first request fails."""
        key = (pods.uid(pod), request.audience, request.expiration_seconds)
        held = self._held.get(key)
        if held is None or self._clock() >= held.renew_at:
            try:
                held = await self._request(pod, request)
                self._held[key] = held
            except ApiError as error:
                if held is None:
                    raise MountProblem(f"failed to fetch token: {error}") from error
        return held.token

    def held(self, pod: Pod, request: TokenRequest) -> str:
        """The token that fetch() returned last."""
        return self._held[pods.uid(pod), request.audience, request.expiration_seconds].token

    def renew_at(self, uid: str) -> float | None:
        """When the first of the pod's tokens must be renewed (seconds since 1970), if any."""
        times = (held.renew_at for key, held in self._held.items() if key[0] == uid)
        return min(times, default=None)

    def forget(self, uid: str) -> None:
        for key in [key for key in self._held if key[0] == uid]:
            del self._held[key]

    async def _request(self, pod: Pod, request: TokenRequest) -> _Held:
        account = pod["spec"].get("serviceAccountName") or "default"
        body: types.TokenRequest = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [request.audience] if request.audience else [],
                "expirationSeconds": request.expiration_seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pods.name(pod),
                    "uid": pods.uid(pod),
                },
            },
        }
        path = SERVICEACCOUNTS.path(pods.namespace(pod), account, "token")
        answer: types.TokenRequest = orjson.loads(
            await self._client.request("POST", path, body=body)
        )
        status = answer["status"]
        now = self._clock()
        life = pods.parse_time(status["expirationTimestamp"]).timestamp() - now
        return _Held(status["token"], now + min(life * _LIFE_SHARE, _ONE_DAY))
