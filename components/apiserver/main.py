"""Builds and starts the API server
(https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from kubewire.components.apiserver import openapi, options
from kubewire.components.apiserver.access import modes
from kubewire.components.apiserver.access.attributes import Attributes
from kubewire.components.apiserver.cel.authorization import Question
from kubewire.components.apiserver.crd.customresources import STORAGE as CUSTOMRESOURCEDEFINITIONS
from kubewire.components.apiserver.crd.customresources import Definitions
from kubewire.components.apiserver.http.aggregation.aggregator import Aggregator
from kubewire.components.apiserver.http.authentication import Authenticator, load_token_file
from kubewire.components.apiserver.http.connect import Connector
from kubewire.components.apiserver.http.discovery import group_versions
from kubewire.components.apiserver.http.documents import Documents
from kubewire.components.apiserver.http.endpoints import Endpoints
from kubewire.components.apiserver.http.metrics import Metrics
from kubewire.components.apiserver.http.server import ApiServer
from kubewire.components.apiserver.http.tokens import ServiceAccountTokens
from kubewire.components.apiserver.kinds import KINDS
from kubewire.components.apiserver.openapi import structural
from kubewire.components.apiserver.options import Options
from kubewire.components.apiserver.registry import bootstrappolicy
from kubewire.components.apiserver.registry.addressbook import AddressBook
from kubewire.components.apiserver.registry.admission.certificate_signers import (
    CertificateApproval,
    CertificateSigning,
)
from kubewire.components.apiserver.registry.admission.chain import Admission
from kubewire.components.apiserver.registry.admission.decoding import Decoder
from kubewire.components.apiserver.registry.admission.plugin import Plugin
from kubewire.components.apiserver.registry.admission.policies.mutating import (
    MutatingAdmissionPolicy,
)
from kubewire.components.apiserver.registry.admission.policies.typechecking import TypeChecks
from kubewire.components.apiserver.registry.admission.policies.validating import (
    ValidatingAdmissionPolicy,
)
from kubewire.components.apiserver.registry.admission.role_escalation import RoleEscalation
from kubewire.components.apiserver.registry.admission.webhooks.client import WebhookClient
from kubewire.components.apiserver.registry.admission.webhooks.dispatching import (
    MutatingAdmissionWebhook,
    ValidatingAdmissionWebhook,
)
from kubewire.components.apiserver.registry.bootstrap import Bootstrap
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.decoding import Decoding
from kubewire.components.apiserver.registry.fieldownership import OwnershipTracker
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.store import Key, Store, StoreError
from kubewire.components.base import tls
from kubewire.components.base.daemon import termination

log = logging.getLogger(__name__)
#: Objects and requests have no cycles, so collections find little, but look at every stored object.
#: With Python's own thresholds (700, 10, 10) they take some 5 percent of the time of writes.
_COLLECTIONS = (5_000, 20, 50)
#: The claims of a token that name objects, and the resources of these objects.
_BOUND_OBJECTS = (("serviceaccount", "serviceaccounts"), ("pod", "pods"), ("secret", "secrets"))


def main(argv: list[str]) -> int:
    """Runs until SIGTERM or SIGINT. Returns 0 then, and 1 with the reason on stderr if it cannot
    start.
    """
    settings = options.parse(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if settings.verbosity >= 4 else logging.INFO,
        format="%(asctime)s.%(msecs)03d %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        options.check(settings)
        return asyncio.run(_run(settings))
    except (StoreError, OSError, ValueError) as error:
        print(f"apiserver: {error}", file=sys.stderr)
        return 1


async def _run(settings: Options) -> int:
    tls.small_buffers()
    sockets = _listening(settings)
    store = Store(settings.storage_path)
    try:
        server, bootstrap, definitions, book = build(settings, store, sockets[0].getsockname()[1])
        definitions.start()
        bootstrap.reconcile()
        if modes.RBAC in settings.authorization_modes:
            bootstrappolicy.reconcile(store)
        book.start()
        bootstrap.keep()
        server.aggregator.start()
        # Everything loaded so far lives until the end, so garbage collection can skip it.
        gc.freeze()
        gc.set_threshold(*_COLLECTIONS)
        await server.serve(sockets)
        log.info(
            "serving on %s",
            ", ".join(str(listener.getsockname()[:2]) for listener in sockets),
        )
        await _until_signal()
        await server.close()
    finally:
        store.close()
    return 0


async def _until_signal() -> None:
    stop = termination()
    await stop.wait()


def _listening(settings: Options) -> list[socket.socket]:
    sockets = [socket.socket(fileno=number) for number in settings.listen_fds]
    if settings.secure_port:
        family = socket.AF_INET6 if ":" in settings.bind_address else socket.AF_INET
        own = socket.socket(family, socket.SOCK_STREAM)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind((settings.bind_address, settings.secure_port))
        except OSError as error:
            place = f"{settings.bind_address}:{settings.secure_port}"
            raise OSError(f"--secure-port: {place}: {error.strerror}") from error
        sockets.insert(0, own)
    if not sockets:
        raise ValueError("nothing to listen on: give --secure-port or --listen-fd")
    for listener in sockets:
        listener.listen(1024)
        listener.setblocking(False)
    return sockets


def build(
    settings: Options,
    store: Store,
    port: int,
) -> tuple[ApiServer, Bootstrap, Definitions, AddressBook]:
    """Connects the parts; default/kubernetes leads to --secure-port, or to port if that is not
    set.
    """
    catalog = Catalog.of(KINDS)
    client = WebhookClient(store)
    authorizer = modes.authorizers(settings.authorization_modes, store)
    allocator = _allocator(settings)
    registry = Registry(
        store,
        catalog,
        Admission(
            store,
            allocator,
            outside=(
                *_outside(store, catalog, client, authorizer),
                RoleEscalation(store, authorizer),
                CertificateApproval(store, authorizer),
                CertificateSigning(store, authorizer),
            ),
        ),
        Decoding(openapi),
        OwnershipTracker(openapi.list_map_keys),
    )
    tokens = ServiceAccountTokens(
        settings.service_account_issuer,
        settings.api_audiences,
        settings.service_account_signing_key_file,
        settings.service_account_key_files,
        lambda claims: _bound_objects_exist(store, claims),
    )
    definitions = Definitions(registry, catalog, client)
    metrics = Metrics(lambda: [(name, store.count(name)) for name in store.resources()])
    port = settings.secure_port or port
    advertised = f"[{settings.advertised}]" if ":" in settings.advertised else settings.advertised
    authority = f"{advertised}:{port}"
    documents = Documents(
        catalog,
        KINDS,
        definitions.established,
        openapi,
        tokens,
        metrics,
        authority,
        settings.service_account_issuer,
    )
    static = load_token_file(settings.token_auth_file) if settings.token_auth_file else {}
    server = ApiServer(
        authorizer,
        catalog,
        Endpoints(registry, tokens, openapi.merge_key, openapi.list_map_keys),
        Connector(
            registry,
            settings.kubelet_client_certificate,
            settings.kubelet_client_key,
            settings.kubelet_certificate_authority,
        ),
        Aggregator(registry, settings.proxy_client_cert_file, settings.proxy_client_key_file),
        Authenticator(static, tokens, anonymous=settings.anonymous_auth),
        documents,
        metrics,
        _tls(settings),
    )
    bootstrap = Bootstrap(
        registry,
        catalog,
        settings.advertised,
        port,
        settings.service_cluster_ip_range,
        settings.trust(),
        [
            (group, version)
            for group, versions in group_versions(catalog).items()
            for version in versions
        ],
    )
    return server, bootstrap, definitions, AddressBook.of(registry, catalog, allocator)


def _outside(
    store: Store, catalog: Catalog, client: WebhookClient, authorizer: modes.Union
) -> tuple[Plugin, ...]:
    """The plugins of admission that ask other programs, in upstream's order."""
    decode = Decoder(openapi)
    decide = partial(_answer, authorizer)
    TypeChecks(store, catalog, partial(_schema_of, store))
    return (
        MutatingAdmissionPolicy(store, catalog, decide, decode, openapi.list_map_keys),
        MutatingAdmissionWebhook(store, catalog, decide, client, decode),
        ValidatingAdmissionPolicy(store, catalog, decide),
        ValidatingAdmissionWebhook(store, catalog, decide, client),
    )


def _answer(authorizer: modes.Union, question: Question) -> tuple[bool, str]:
    """What the authorizer says to an expression."""
    return authorizer.explain(
        Attributes(
            question.user,
            question.verb,
            question.group,
            "" if question.path else "*",
            question.resource,
            question.subresource,
            question.namespace,
            question.name,
            question.path,
            question.equals,
        )
    )


def _schema_of(store: Store, served: Served) -> Mapping[str, Any] | None:
    """The schema of a resource's objects."""
    if not served.custom:
        return structural.of_kind(served.group, served.version, served.kind)
    from kubewire.components.apiserver.cel.schematypes import with_resource

    stored = store.get(Key(CUSTOMRESOURCEDEFINITIONS, "", f"{served.plural}.{served.group}"))
    for version in stored.obj["spec"]["versions"] if stored is not None else ():
        if version["name"] == served.version:
            return with_resource(version["schema"]["openAPIV3Schema"])
    return None


def _allocator(settings: Options) -> Any:
    from kubewire.components.apiserver.kinds.services.service_allocation import ServiceAllocator

    first, _, last = settings.service_node_port_range.partition("-")
    return ServiceAllocator(settings.service_cluster_ip_range.split(","), (int(first), int(last)))


def _tls(settings: Options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert_file, settings.tls_private_key_file)
    context.set_alpn_protocols(["http/1.1"])
    if settings.client_ca_file:
        context.load_verify_locations(settings.client_ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _bound_objects_exist(store: Store, claims: Mapping[str, Any]) -> bool:
    """Whether the account, pod and secret for which a token was issued still exist."""
    bound = claims["kubernetes.io"]
    namespace = bound.get("namespace", "")
    for claim, resource in _BOUND_OBJECTS:
        reference = bound.get(claim)
        if reference is None:
            continue
        stored = store.get(Key(resource, namespace, reference["name"]))
        if stored is None or stored.obj["metadata"]["uid"] != reference["uid"]:
            return False
    return True
