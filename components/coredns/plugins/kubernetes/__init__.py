"""kubernetes: answers for the names of Services, endpoints and pods
(https://coredns.io/plugins/kubernetes/).

The plugin never asks the API server while it answers a query. Informers list and watch Namespaces,
Services and EndpointSlices and keep an index in memory (index.py); lookup.py turns a name into
targets by that index alone, and this module turns targets into records. Answers are therefore as
old as the last watch event, and they go on when the API server is away.

The rules come from the Kubernetes DNS specification:

- A Service with a ClusterIP has that address, a headless Service the addresses of its ready
  endpoints, and an ExternalName Service a CNAME.
- A name that exists but has no record of the type asked for is NODATA, not NXDOMAIN. Resolvers ask
  for A and AAAA in parallel, and an NXDOMAIN for one of them would hide the other.
- A name exists only if its namespace exists. Before the informers have synced, a missing name gets
  SERVFAIL: it may yet appear, and an NXDOMAIN could be cached.

Every denial carries the zone's SOA, whose last field is the time resolvers may cache it (RFC 2308).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dnslib import AAAA as AAAARecord
from dnslib import CNAME as CNAMERecord
from dnslib import NS as NSRecord
from dnslib import PTR as PTRRecord
from dnslib import RR
from dnslib import SOA as SOARecord
from dnslib import SRV as SRVRecord
from dnslib import TXT as TXTRecord
from dnslib import A as ARecord

from kubewire.components.coredns.addresses import address_family, reverse_address
from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import (
    AAAA,
    CNAME,
    NS,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    SOA,
    SRV,
    TXT,
    A,
    Request,
    Response,
)
from kubewire.components.coredns.message import question_for as question
from kubewire.components.coredns.plugin import (
    Fallthrough,
    Next,
    Setup,
    Zones,
    longest_zone,
    zones_of,
)
from kubewire.components.coredns.plugins import parsing
from kubewire.components.coredns.plugins.kubernetes import lookup
from kubewire.components.coredns.plugins.kubernetes.index import Index, trim
from kubewire.components.coredns.plugins.kubernetes.lookup import NoSuchName, Options, Target
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NAMESPACES, PODS, SERVICES

log = logging.getLogger("coredns")
_DEFAULT_TTL = 5
_VERSION_TTL = 28800
_MAX_TTL = 3600
#: An ExternalName may lead to another one; the plugin follows at most this many CNAMEs.
_MAX_DEPTH = 8
_REVERSE = (".in-addr.arpa.", ".ip6.arpa.", "in-addr.arpa.", "ip6.arpa.")


@dataclass
class Settings:
    """The plugin's properties. kubeconfig "": use the pod's ServiceAccount."""

    zones: Zones
    options: Options = field(default_factory=Options)
    ttl: int = _DEFAULT_TTL
    fallthrough: Fallthrough = field(default_factory=Fallthrough)
    label_selector: str = ""
    kubeconfig: str = ""
    endpoints: bool = True

    @property
    def primary_zone(self) -> str:
        """The zone of the names in PTR records: the first zone that is not a reverse zone."""
        return next((zone for zone in self.zones if not zone.endswith(_REVERSE)), "cluster.local.")


class Kubernetes:
    """serve() answers from the index, which run() keeps up to date."""

    name = "kubernetes"

    def __init__(self, setup: Setup, settings: Settings) -> None:
        self._settings = settings
        self._resolve = setup.resolve
        self.index = Index()
        self.synced = False
        self._local_ips: list[str] = []

    def ready(self) -> bool:
        return self.synced

    async def run(self) -> None:
        """Runs the informers until it is cancelled; they retry while the API server is unreachable.

        Raises RuntimeError when the kubeconfig cannot be used.
        """
        settings = self._settings
        index = self.index
        try:
            path = settings.kubeconfig
            client = Client.from_kubeconfig(path) if path else Client.in_cluster()
        except KubeconfigError as error:
            raise RuntimeError(f"plugin/kubernetes: {error}") from error
        options: dict[str, Any] = {"label_selector": settings.label_selector, "transform": trim}
        informers: list[Informer[Any]] = [
            Informer(client, NAMESPACES, handler=index.namespace_changed, transform=trim),
            Informer(client, SERVICES, handler=index.service_changed, **options),
        ]
        if settings.endpoints:
            informers.append(
                Informer(client, ENDPOINTSLICES, handler=index.slice_changed, **options)
            )
        if settings.options.pods == lookup.PODS_VERIFIED:
            informers.append(Informer(client, PODS, handler=index.pod_changed, transform=trim))
        async with client, asyncio.TaskGroup() as tasks:
            for informer in informers:
                tasks.create_task(informer.run())
            for informer in informers:
                await informer.synced.wait()
            self._local_ips = local_addresses()
            self.synced = True

    async def serve(self, request: Request, following: Next) -> Response:
        zone = longest_zone(request.name, self._settings.zones)
        if not zone:
            return await following(request)
        try:
            response = await self._answer(request, zone)
        except NoSuchName:
            if self._settings.fallthrough.through(request.name):
                return await following(request)
            if not self.synced:
                return self._denial(zone, SERVFAIL)
            return self._denial(zone, NXDOMAIN)
        return response if response.answer else self._denial(zone, 0)

    async def _answer(self, request: Request, zone: str) -> Response:
        """Answers a name of the zone; an empty answer is NODATA. Raises NoSuchName."""
        name = request.name
        qtype = request.qtype
        if name == f"dns-version.{zone}":
            version = RR(name, TXT, ttl=_VERSION_TTL, rdata=TXTRecord(lookup.DNS_VERSION))
            return _authoritative([version] if qtype == TXT else [])
        if name == zone and qtype in (SOA, NS):
            return self._apex(zone, qtype)
        if name == f"ns.dns.{zone}":
            servers = lookup.name_servers(self.index, self._local_ips, zone)
            own = [Target(ip, 0, name) for _, ip in servers]
            return _authoritative(self._address_records(name, own, qtype))
        if ip := reverse_address(name):
            return self._pointers(name, ip, qtype)
        if zone.endswith(_REVERSE):
            if name == zone:
                return _authoritative([])
            raise NoSuchName(name)
        targets = lookup.find(self.index, name, zone, self._settings.options)
        if qtype == SRV:
            return await self._services(name, targets)
        if qtype in (A, AAAA, CNAME) and targets and not targets[0].family:
            return await self._alias(request, targets[0].host)
        return _authoritative(self._address_records(name, targets, qtype))

    def _pointers(self, name: str, ip: str, qtype: int) -> Response:
        """The PTR records of an address. Raises NoSuchName."""
        settings = self._settings
        names = lookup.reverse(self.index, ip, settings.primary_zone, settings.options)
        if not names:
            raise NoSuchName(name)
        records = [self._record(name, PTR, PTRRecord(to)) for to in names] if qtype == PTR else []
        return _authoritative(records)

    def _record(self, name: str, rtype: int, data: object) -> RR:
        return RR(name, rtype, ttl=self._settings.ttl, rdata=data)

    def _address_records(self, name: str, targets: list[Target], qtype: int) -> list[RR]:
        family = {A: 4, AAAA: 6}.get(qtype)
        kind = ARecord if family == 4 else AAAARecord
        hosts = dict.fromkeys(target.host for target in targets if target.family == family)
        return [self._record(name, qtype, kind(host)) for host in hosts]

    async def _alias(self, request: Request, host: str) -> Response:
        """The CNAME of an ExternalName Service, and the records of its target.

        The whole server answers for the target: it may lie in the cluster's zone or outside.
        """
        records = [self._record(request.name, CNAME, CNAMERecord(host))]
        if request.qtype != CNAME and request.depth < _MAX_DEPTH:
            depth = request.depth + 1
            target = replace(question(host, request.qtype), transport="tcp", depth=depth)
            records += (await self._resolve(target)).answer
        return _authoritative(records)

    async def _services(self, name: str, targets: list[Target]) -> Response:
        """SRV records that share a weight of 100 equally, and the addresses of their targets."""
        numbered = [target for target in targets if _has_port(target)]
        weight = max(1, 100 // len(numbered)) if numbered else 100
        records = {}
        extra = {}
        for target in numbered:
            owner = target.name if target.family else target.host
            records[owner, target.port] = self._record(
                name,
                SRV,
                SRVRecord(0, weight, target.port, owner),
            )
            if target.family:
                kind, data = (A, ARecord) if target.family == 4 else (AAAA, AAAARecord)
                extra[owner, target.host] = self._record(owner, kind, data(target.host))
        return replace(_authoritative(list(records.values())), additional=tuple(extra.values()))

    def _apex(self, zone: str, qtype: int) -> Response:
        if qtype == SOA:
            return _authoritative([self._soa(zone)])
        servers = lookup.name_servers(self.index, self._local_ips, zone)
        names = dict.fromkeys(name for name, _ in servers)
        extra = [self._address_record(name, ip) for name, ip in servers]
        records = [self._record(zone, NS, NSRecord(name)) for name in names]
        return replace(_authoritative(records), additional=tuple(extra))

    def _address_record(self, name: str, ip: str) -> RR:
        if address_family(ip) == 4:
            return self._record(name, A, ARecord(ip))
        return self._record(name, AAAA, AAAARecord(ip))

    def _soa(self, zone: str) -> RR:
        times = (self.index.changed, 7200, 1800, 86400, self._settings.ttl)
        return self._record(zone, SOA, SOARecord(f"ns.dns.{zone}", f"hostmaster.{zone}", times))

    def _denial(self, zone: str, rcode: int) -> Response:
        """A response without records; its SOA says how long it may be cached (RFC 2308)."""
        return Response(rcode, authority=(self._soa(zone),), authoritative=True, plugin=self.name)


def _has_port(target: Target) -> bool:
    """Whether an SRV record can point to the target; that of an ExternalName has port 0."""
    return target.port >= 0 and bool(target.port or not target.family)


def _authoritative(records: list[RR]) -> Response:
    return Response(answer=tuple(records), authoritative=True, plugin="kubernetes")


def local_addresses() -> list[str]:
    """This pod's IPv4 addresses except loopback, from the local entries of the routing table."""
    addresses = set()
    last = ""
    try:
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        text = line.strip()
        if text.startswith("|--"):
            last = text[4:]
        elif text == "/32 host LOCAL" and not last.startswith("127."):
            addresses.add(last)
    return sorted(addresses)


def setup(setup: Setup) -> Kubernetes:
    line = setup.lines[0]
    try:
        settings = Settings(zones_of(line.args, setup.zones))
    except ValueError as error:
        line.fail(str(error))
    settings.fallthrough = Fallthrough()
    for item in line.block:
        _property(settings, item)
    plugin = Kubernetes(setup, settings)
    setup.readiness[f"kubernetes@{setup.server}"] = plugin
    return plugin


def _property(settings: Settings, item: Line) -> None:
    match item.name:
        case "pods":
            mode = parsing.one(item)
            if mode not in (lookup.PODS_DISABLED, lookup.PODS_INSECURE, lookup.PODS_VERIFIED):
                choices = "disabled, verified, insecure"
                item.fail(f"wrong value for pods: {mode},  must be one of: {choices}")
            settings.options = replace(settings.options, pods=mode)
        case "namespaces":
            names = frozenset(parsing.some(item))
            settings.options = replace(
                settings.options,
                namespaces=settings.options.namespaces | names,
            )
        case "endpoint_pod_names":
            parsing.none(item)
            settings.options = replace(settings.options, endpoint_pod_names=True)
        case "ignore":
            if item.args != ("empty_service",):
                item.fail(f"unable to parse ignore value: '{' '.join(item.args)}'")
            settings.options = replace(settings.options, ignore_empty_service=True)
        case "ttl":
            settings.ttl = parsing.number(item, parsing.one(item))
            if not 0 <= settings.ttl <= _MAX_TTL:
                item.fail(f"ttl must be in range [0, {_MAX_TTL}]: {settings.ttl}")
        case "fallthrough":
            settings.fallthrough = Fallthrough.parse(item)
        case "labels":
            settings.label_selector = " ".join(parsing.some(item))
        case "noendpoints":
            parsing.none(item)
            settings.endpoints = False
        case "kubeconfig":
            settings.kubeconfig = parsing.some(item)[0]
        case "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight" | "startup_timeout":
            parsing.one(item)
        case _:
            parsing.unknown(item)
