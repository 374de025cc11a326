"""Each controller under its own ServiceAccount, which has the rights of its ClusterRole alone
(--use-service-account-credentials; controllermanager's client builder).

The process's own user may read everything, for the informers, and may make these accounts and their
tokens. It is known by its client certificate, and a certificate goes before a token. So the
controllers share connections without a certificate and put their tokens into each request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp
import orjson

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import SERVICEACCOUNTS

NAMESPACE = "kube-system"
_LIFETIME = 3600
#: The part of a token's lifetime after which it is renewed.
_RENEWED = 0.8
_UNAUTHORIZED = 401

#: Controller -> its account, where that has another name (the client names of
#: cmd/kube-controller-manager/app).
_ACCOUNTS = {
    "certificatesigningrequest-approving-controller": "certificate-controller",
    "certificatesigningrequest-cleaner-controller": "certificate-controller",
    "certificatesigningrequest-signing-controller": "certificate-controller",
    "daemonset-controller": "daemon-set-controller",
    "endpoints-controller": "endpoint-controller",
    "endpointslice-mirroring-controller": "endpointslicemirroring-controller",
    "garbage-collector-controller": "generic-garbage-collector",
    "horizontal-pod-autoscaler-controller": "horizontal-pod-autoscaler",
    "node-ipam-controller": "node-controller",
    "node-lifecycle-controller": "node-controller",
    "persistentvolume-binder-controller": "persistent-volume-binder",
    "persistentvolume-expander-controller": "expand-controller",
    "persistentvolume-protection-controller": "pv-protection-controller",
    "persistentvolumeclaim-protection-controller": "pvc-protection-controller",
    "pod-garbage-collector-controller": "pod-garbage-collector",
    "replicationcontroller-controller": "replication-controller",
    "resourceclaim-controller": "resource-claim-controller",
    "root-ca-certificate-publisher-controller": "root-ca-cert-publisher",
    "service-cidr-controller": "service-cidrs-controller",
    "serviceaccount-controller": "service-account-controller",
    "taint-eviction-controller": "node-controller",
}


def account_of(controller: str) -> str:
    """The name of a controller's ServiceAccount in kube-system."""
    return _ACCOUNTS.get(controller, controller)


class AccountClient(Client):
    """A client with the token of an account, which it gets when it first needs one."""

    def __init__(self, root: Client, connections: Client, account: str) -> None:
        super().__init__(connections.credentials)
        self._root = root
        self._connections = connections
        self._account = account
        self._token = ""
        self._renew_at = 0.0
        self._renewal = asyncio.Lock()

    def session(self) -> aiohttp.ClientSession:
        return self._connections.session()

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> bytes:
        """The same as Client.request(), under the account."""

        async def send() -> bytes:
            await self._authenticate()
            return await super(AccountClient, self).request(
                method, path, params=params, body=body, headers=headers, timeout=timeout
            )

        try:
            return await send()
        except ApiError as error:
            if error.status != _UNAUTHORIZED:
                raise
            # The account was deleted, and its tokens with it.
            self._renew_at = 0.0
            return await send()

    async def _authenticate(self) -> None:
        async with self._renewal:
            if time.monotonic() >= self._renew_at:
                self._token = await self._new_token()
                self._renew_at = time.monotonic() + _RENEWED * _LIFETIME

    async def _new_token(self) -> str:
        path = SERVICEACCOUNTS.path(NAMESPACE, self._account, "token")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _LIFETIME},
        }
        try:
            raw = await self._root.request("POST", path, body=request)
        except ApiError as error:
            if error.status != 404:
                raise
            await self._create_account()
            raw = await self._root.request("POST", path, body=request)
        return str(orjson.loads(raw)["status"]["token"])

    async def _create_account(self) -> None:
        body = {"metadata": {"name": self._account, "namespace": NAMESPACE}}
        try:
            await self._root.request("POST", SERVICEACCOUNTS.path(NAMESPACE), body=body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


class Identities:
    """The clients of all controllers; close() ends their connections."""

    def __init__(self, root: Client, *, own: bool) -> None:
        """own: each controller has its account; otherwise all use root."""
        self._root = root
        self._own = own
        self._clients: dict[str, Client] = {}
        credentials = replace(root.credentials, certificate=b"", key=b"", token="", token_file="")
        self._connections = Client(credentials, user_agent="kube-controller-manager")

    def client(self, controller: str) -> Client:
        if not self._own:
            return self._root
        account = account_of(controller)
        if account not in self._clients:
            self._clients[account] = AccountClient(self._root, self._connections, account)
        return self._clients[account]

    async def close(self) -> None:
        await self._connections.close()
