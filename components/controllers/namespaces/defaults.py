"""Gives every namespace a ServiceAccount `default` and a ConfigMap `kube-root-ca.crt`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Create, Update
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import (
    CONFIGMAPS,
    NAMESPACES,
    SERVICEACCOUNTS,
)

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ConfigMap,
        Namespace,
        ObjectMeta,
        PartialObjectMetadata,
        ServiceAccount,
    )

ROOT_CA_CONFIGMAP = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "
    "endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across "
    "distributions of "
    "Kubernetes clusters."
)


def is_open(namespace: Namespace | None) -> bool:
    """Whether objects can still be created in the namespace."""
    return namespace is not None and not namespace["metadata"].get("deletionTimestamp")


def default_serviceaccount(namespace: str) -> ServiceAccount:
    metadata: ObjectMeta = {"name": "default", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def root_ca_configmap(namespace: str, certificates: str) -> ConfigMap:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ROOT_CA_CONFIGMAP,
            "namespace": namespace,
            "annotations": {"kubernetes.io/description": _DESCRIPTION},
        },
        "data": {"ca.crt": certificates},
    }


class _DefaultsController(KeyedController):
    """Creates one named object in each namespace; keys are ("", namespace)."""

    name = ""

    def _enqueue_namespace(
        self, old: PartialObjectMetadata | None, new: PartialObjectMetadata | None
    ) -> None:
        obj = new or old or {}
        if obj["metadata"]["name"] == self.name:
            self.queue.add(("", obj["metadata"]["namespace"]))

    async def make(self, key: Key, create: Create) -> None:
        try:
            await self.apply(key, [create])
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


class ServiceAccountController(_DefaultsController):
    component = "serviceaccount-controller"
    name = "default"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.follow(NAMESPACES, self.enqueue)
        self.accounts = self.follow(SERVICEACCOUNTS, self._enqueue_namespace)

    async def sync(self, key: Key) -> None:
        if is_open(self.namespaces.store.get(key)) and self.accounts.get(self.name, key[1]) is None:
            await self.make(key, Create(SERVICEACCOUNTS, default_serviceaccount(key[1])))


class RootCaPublisher(_DefaultsController):
    component = "root-ca-certificate-publisher"
    name = ROOT_CA_CONFIGMAP

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.follow(NAMESPACES, self.enqueue)
        self.configmaps = self.follow(CONFIGMAPS, self._enqueue_namespace)
        self.certificates = ""

    async def run(self) -> None:
        path = self.context.options.root_ca_file
        self.certificates = await asyncio.to_thread(Path(path).read_text) if path else ""
        await super().run()

    async def sync(self, key: Key) -> None:
        if not self.certificates or not is_open(self.namespaces.store.get(key)):
            return
        wanted = root_ca_configmap(key[1], self.certificates)
        standing = self.configmaps.get(self.name, key[1])
        if standing is None:
            await self.make(key, Create(CONFIGMAPS, wanted))
        elif standing.get("data") != wanted["data"]:
            await self.apply(key, [Update(CONFIGMAPS, {**standing, "data": wanted["data"]})])
