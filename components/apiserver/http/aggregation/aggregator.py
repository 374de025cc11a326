"""Follows the APIServices: registers the groups of custom resources, checks whether Services
answer, and passes requests on to them (kube-aggregator/pkg/apiserver)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from kubewire.components.apiserver import status
from kubewire.components.apiserver.crd.customresources import STORAGE as DEFINITIONS
from kubewire.components.apiserver.http.aggregation import availability
from kubewire.components.apiserver.http.aggregation.availability import Available
from kubewire.components.apiserver.http.aggregation.documents import discovered
from kubewire.components.apiserver.http.aggregation.identity import (
    AGGREGATOR,
    remote_headers,
    sent_on,
)
from kubewire.components.apiserver.http.discovery import CUSTOM_PRIORITY
from kubewire.components.apiserver.http.relaying import relay
from kubewire.components.apiserver.http.upgrade import (
    BUFFER,
    DIAL_SECONDS,
    BackendError,
    Hijacked,
    Target,
    read_answer,
    request_head,
    tunnel,
)
from kubewire.components.apiserver.kinds.cluster.apiservice import APISERVICES
from kubewire.components.apiserver.registry import deletion
from kubewire.components.apiserver.registry.catalog import Remote, Served
from kubewire.components.apiserver.registry.metadata import timestamp
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import WriteOptions
from kubewire.components.apiserver.serviceaccess import (
    ClusterResolver,
    Trust,
    Unroutable,
    cluster_address,
    failure_text,
    whole_body,
)
from kubewire.components.apiserver.store import Event, Key, Store
from kubewire.components.apiserver.users import User
from kubewire.components.kubeapi.resources import KubeObject

log = logging.getLogger(__name__)

_STORAGE = "apiservices.apiregistration.k8s.io"
_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE_NAME = "kubernetes.io/service-name"
_AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")
#: Seconds between two checks of a Service, and how long one may take.
_PERIOD = 30.0
_PATIENCE = 5.0
#: Seconds until the check after a failure, doubled by each further one.
_FIRST_RETRY = 1.0
_MOST_DISCOVERY = 4 * 1024 * 1024


@dataclass
class _Follower:
    """The checks of one APIService with a Service."""

    spec: KubeObject
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Aggregator:
    """find() says whether a path belongs to another server, and serve() asks that one."""

    def __init__(self, registry: Registry, certificate: str = "", key: str = "") -> None:
        self._registry = registry
        self._catalog = registry.catalog
        self._trust = Trust(certificate, key)
        self._session: aiohttp.ClientSession | None = None
        self._followers: dict[str, _Follower] = {}
        #: The names of APIServices with a Service, by group and version.
        self._names: dict[tuple[str, str], str] = {}
        self._resources: dict[str, tuple[KubeObject, ...]] = {}
        self._due = False

    def start(self) -> None:
        store = self._store
        self.reconcile()
        store.subscribe(_STORAGE, lambda event: self._ask())
        store.subscribe(DEFINITIONS, lambda event: self._ask())
        store.subscribe("services", self._on_service)
        store.subscribe(_SLICES, self._on_service)

    async def close(self) -> None:
        tasks = [item.task for item in self._followers.values() if item.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    @property
    def _store(self) -> Store:
        return self._registry.store

    def _served(self) -> Served:
        served = self._catalog.find(APISERVICES.group, APISERVICES.version, APISERVICES.plural)
        assert served is not None, "APIServices are built in"
        return served

    # Following the objects.

    def _ask(self) -> None:
        if not self._due:
            self._due = True
            # The write that caused the event completes first, and what follows from a
            # CustomResourceDefinition, too.
            asyncio.get_running_loop().call_soon(self._reconcile_due)

    def _reconcile_due(self) -> None:
        self._due = False
        self.reconcile()

    def _on_service(self, event: Event) -> None:
        if not self._followers:
            return
        key = event.stored.key
        labels = event.stored.obj["metadata"].get("labels") or {}
        name = labels.get(_SERVICE_NAME) if key.resource == _SLICES else key.name
        for follower in self._followers.values():
            service = follower.spec["service"]
            if (service["namespace"], service["name"]) == (key.namespace, name):
                follower.wake.set()

    def reconcile(self) -> None:
        """Brings the APIServices of this server and what is passed on up to date."""
        self._register_custom()
        remote: dict[str, KubeObject] = {}
        for stored in self._store.items(_STORAGE):
            if stored.obj["spec"].get("service"):
                remote[stored.key.name] = stored.obj
            else:
                self._write(stored.key.name, availability.LOCAL)
        for name in self._followers.keys() - remote.keys():
            task = self._followers.pop(name).task
            if task is not None:
                task.cancel()
            self._resources.pop(name, None)
        for name, obj in remote.items():
            self._follow(name, obj["spec"])
        self._names = {_version(obj): name for name, obj in remote.items()}
        self._show(remote)

    def _follow(self, name: str, spec: KubeObject) -> None:
        follower = self._followers.get(name)
        if follower is None:
            follower = self._followers[name] = _Follower(spec)
            follower.task = asyncio.create_task(self._check_for_ever(name, follower), name=name)
        elif follower.spec != spec:
            follower.spec = spec
            follower.wake.set()

    def _show(self, remote: Mapping[str, KubeObject]) -> None:
        """Puts the versions of other servers into discovery."""
        self._catalog.replace_remote({
            _version(obj): Remote(
                obj["spec"].get("groupPriorityMinimum") or 0,
                obj["spec"].get("versionPriority") or 0,
                self._resources.get(name, ()),
                availability.is_available(obj) and name in self._resources,
            )
            for name, obj in remote.items()
        })  # fmt: skip

    def _register_custom(self) -> None:
        """Keeps an APIService for each version of custom resources (autoregister_controller)."""
        custom = {(group, version) for group, version, _ in self._catalog.custom}
        wanted = {f"{version}.{group}": (group, version) for group, version in custom}
        served = self._served()
        for name, (group, version) in wanted.items():
            if self._store.get(Key(_STORAGE, "", name)) is None:
                self._attempt(served, name, _of_custom(group, version))
        for stored in self._store.items(_STORAGE):
            labels = stored.obj["metadata"].get("labels") or {}
            if labels.get(_AUTOMANAGED) == "true" and stored.key.name not in wanted:
                self._attempt(served, stored.key.name, None)

    def _attempt(self, served: Served, name: str, obj: KubeObject | None) -> None:
        """Creates the object, or deletes it if there is none."""
        try:
            if obj is None:
                deletion.delete(self._registry, served, "", name, deletion.DeleteOptions())
            else:
                self._registry.create(served, "", obj, _OPTIONS)
        except status.StatusError as error:
            log.error("cannot register APIService %s: %s", name, error)

    # Checking the Services.

    async def _check_for_ever(self, name: str, follower: _Follower) -> None:
        failures = 0
        while True:
            follower.wake.clear()
            try:
                available = await self._checked(name, follower.spec)
            except Exception:
                log.exception("cannot check APIService %s", name)
                available = None
            if available is not None:
                self._write(name, available)
            good = available is not None and available.status == "True"
            failures = 0 if good else failures + 1
            pause = _PERIOD if good else min(_FIRST_RETRY * 2 ** min(failures - 1, 8), _PERIOD)
            try:
                async with asyncio.timeout(pause):
                    await follower.wake.wait()
            except TimeoutError:
                continue

    async def _checked(self, name: str, spec: KubeObject) -> Available:
        reference = spec["service"]
        key = Key("services", reference["namespace"], reference["name"])
        service = self._store.get(key)
        slices = self._slices(key.namespace, key.name)
        refused = availability.of_service(
            reference, None if service is None else service.obj, slices
        )
        if refused is not None:
            return refused
        group, version = spec.get("group") or "", spec["version"]
        path = f"/apis/{group}/{version}"
        try:
            document = await self._document(spec, path)
        except (OSError, Unroutable) as error:
            return availability.failed_check(str(error))
        self._resources[name] = discovered(group, version, document.get("resources") or ())
        self._ask()
        return availability.PASSED

    def _slices(self, namespace: str, service: str) -> Iterator[KubeObject]:
        for stored in self._store.items(_SLICES):
            labels = stored.obj["metadata"].get("labels") or {}
            if (stored.key.namespace, labels.get(_SERVICE_NAME)) == (namespace, service):
                yield stored.obj

    async def _document(self, spec: KubeObject, path: str) -> KubeObject:
        """The discovery of a version; raises OSError with upstream's text, or Unroutable.

        As upstream, the check does not verify the certificate: it tells no secret, and requests
        of users do verify it. Each check opens a connection of its own, because one that is open
        already tells nothing of the Service's address.
        """
        url = _url(spec, path)
        shown = self._shown(spec, path)
        headers = remote_headers(AGGREGATOR)
        headers["Accept"] = "application/json"
        context = self._trust.context("", verify=False)
        try:
            async with (
                asyncio.timeout(_PATIENCE),
                self._new_session() as session,
                session.get(url, headers=headers, ssl=context, allow_redirects=False) as got,
            ):
                if not 200 <= got.status < 300:
                    bad = f"bad status from {shown}: {got.status}"
                    raise OSError(f"failing or missing response from {shown}: {bad}")
                document = orjson.loads(await whole_body(got, _MOST_DISCOVERY))
        except TimeoutError as error:
            late = f'Get "{shown}": context deadline exceeded'
            raise OSError(f"failing or missing response from {shown}: {late}") from error
        except aiohttp.ClientError as error:
            why = f'Get "{shown}": {failure_text(self._store, error, url)}'
            raise OSError(f"failing or missing response from {shown}: {why}") from error
        except ValueError:
            document = None
        return document if isinstance(document, dict) else {}

    def _shown(self, spec: KubeObject, path: str) -> str:
        """The URL as upstream's texts have it, with the address; raises Unroutable."""
        reference = spec["service"]
        port = reference.get("port") or 443
        host = cluster_address(self._store, reference["namespace"], reference["name"], port)
        return f"https://[{host}]:{port}{path}" if ":" in host else f"https://{host}:{port}{path}"

    def _write(self, name: str, available: Available) -> None:
        """Writes the condition, if it is another one."""
        stored = self._store.get(Key(_STORAGE, "", name))
        now = timestamp()
        if stored is None or availability.with_condition(stored.obj, available, now) is stored.obj:
            return
        try:
            self._registry.update(
                self._served(),
                "",
                name,
                lambda obj: availability.with_condition(obj, available, now),
                _OPTIONS,
                "status",
            )
        except status.StatusError as error:
            log.error("cannot write the status of APIService %s: %s", name, error)

    # Passing requests on.

    def find(self, path: str) -> KubeObject | None:
        """The APIService to whose Service a path leads, or None for this server's own paths."""
        if not self._names:
            return None
        parts = path.removeprefix("/openapi/v3").split("/", 4)
        if len(parts) < 4 or parts[1] != "apis":
            return None
        name = self._names.get((parts[2], parts[3]))
        stored = self._store.get(Key(_STORAGE, "", name)) if name is not None else None
        return stored.obj if stored is not None else None

    async def serve(
        self, request: web.BaseRequest, user: User, api_service: KubeObject
    ) -> web.StreamResponse:
        if not availability.is_available(api_service):
            return _unavailable("service unavailable")
        spec = api_service["spec"]
        url = _url(spec, request.rel_url.raw_path_qs)
        headers = sent_on(request.headers, user, request.remote)
        try:
            verify = not spec.get("insecureSkipTLSVerify")
            context = self._trust.context(spec.get("caBundle") or "", verify=verify)
            if request.headers.get("Upgrade"):
                for key in ("Connection", "Upgrade"):
                    headers[key] = request.headers.get(key, "")
                return await self._upgraded(request, spec, headers, context)
            body = await request.read() if request.body_exists else None
            async with self._opened().request(
                request.method, url, data=body, headers=headers, ssl=context, allow_redirects=False
            ) as answer:
                return await relay(request, answer, answer.headers)
        except Unroutable:
            return _unavailable("service unavailable")
        except aiohttp.ClientError as error:
            why = failure_text(self._store, error, url)
        except (OSError, ValueError, BackendError, asyncio.IncompleteReadError) as error:
            why = str(error) or type(error).__name__
        return _unavailable(f"error trying to reach service: {why}")

    async def _upgraded(
        self,
        request: web.BaseRequest,
        spec: KubeObject,
        headers: Mapping[str, str],
        context: ssl.SSLContext,
    ) -> web.StreamResponse:
        """Carries an upgraded connection, such as an exec of virtual machines."""
        reference = spec["service"]
        name, port = _host(spec), reference.get("port") or 443
        host = cluster_address(self._store, reference["namespace"], reference["name"], port)
        async with asyncio.timeout(DIAL_SECONDS):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=name, limit=BUFFER
            )
        try:
            target = Target("https", name, port, request.rel_url.raw_path_qs)
            writer.write(request_head(request.method, target, headers))
            head, refused = await read_answer(reader)
            if refused is not None:
                return refused
            await tunnel(request, head, reader, writer)
            return Hijacked()
        finally:
            writer.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        resolver = ClusterResolver(self._store)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=DIAL_SECONDS),
            auto_decompress=False,
            trust_env=False,
        )


def _version(api_service: KubeObject) -> tuple[str, str]:
    spec = api_service["spec"]
    return spec.get("group") or "", spec["version"]


def _host(spec: Mapping[str, Any]) -> str:
    """The name for which the certificate must be valid."""
    reference = spec["service"]
    return f"{reference['name']}.{reference['namespace']}.svc"


def _url(spec: Mapping[str, Any], path: str) -> URL:
    port = spec["service"].get("port") or 443
    return URL(f"https://{_host(spec)}:{port}{path}", encoded=True)


def _unavailable(text: str) -> web.Response:
    """Plain text, as upstream's: clients make a Status ServiceUnavailable of it."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=503, body=f"{text}\n".encode(), headers=headers)


def _of_custom(group: str, version: str) -> KubeObject:
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": CUSTOM_PRIORITY,
        "versionPriority": CUSTOM_PRIORITY // 10,
    }
    metadata = {"name": f"{version}.{group}", "labels": {_AUTOMANAGED: "true"}}
    return {"metadata": metadata, "spec": spec}
