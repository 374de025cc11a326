"""kubernetes: Services, endpoints and pods as names (https://coredns.io/plugins/kubernetes/)."""

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
from kubewire.components.coredns.plugin import Fallthrough, Next, Setup, Zones, longest_zone, zones_of
from kubewire.components.coredns.plugins import parsing
from kubewire.components.coredns.plugins.kubernetes import lookup
from kubewire.components.coredns.plugins.kubernetes.index import Index, trim
from kubewire.components.coredns.plugins.kubernetes.lookup import NoSuchName, Options, Target
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NAMESPACES, PODS, SERVICES

log = logging.getLogger("coredns")
_DEFAULT_TTL, _VERSION_TTL, _MAX_TTL = 5, 28800, 3600
#: CNAMEs may lead to CNAMEs; so many are followed.
_MAX_DEPTH = 8
_REVERSE = (".in-addr.arpa.", ".ip6.arpa.", "in-addr.arpa.", "ip6.arpa.")


@dataclass
class Settings:
    zones: Zones
    options: Options = field(default_factory=Options)
    ttl: int = _DEFAULT_TTL
    fallthrough: Fallthrough = field(default_factory=Fallthrough)
    label_selector: str = ""
    kubeconfig: str = ""
    endpoints: bool = True

    @property
    def primary_zone(self) -> str:
        """The zone that addresses are reversed into: the first that is no reverse zone."""
        return next((zone for zone in self.zones if not zone.endswith(_REVERSE)), "cluster.local.")


class Kubernetes:
    """Answers from the index; run() feeds it."""

    name = "kubernetes"

    def __init__(self, setup: Setup, settings: Settings) -> None:
        self._settings, self._resolve = settings, setup.resolve
        self.index = Index()
        self.synced = False
        self._local_ips: list[str] = []

    def ready(self) -> bool:
        return self.synced

    async def run(self) -> None:
        """Until cancelled. An unreachable API server is waited for, as is one that goes away."""
        settings, index = self._settings, self.index
        try:
            client = Client.from_kubeconfig(settings.kubeconfig) if settings.kubeconfig else Client.in_cluster()
        except KubeconfigError as error:
            raise RuntimeError(f"plugin/kubernetes: {error}") from error
        selected: dict[str, Any] = {"label_selector": settings.label_selector, "transform": trim}
        informers = [
            Informer(client, NAMESPACES, handler=index.namespace_changed, transform=trim),
            Informer(client, SERVICES, handler=index.service_changed, **selected),
        ]
        if settings.endpoints:
            informers.append(Informer(client, ENDPOINTSLICES, handler=index.slice_changed, **selected))
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
        """An empty answer says that the name has no record of this type. Raises NoSuchName."""
        name, qtype = request.name, request.qtype
        if name == f"dns-version.{zone}":
            version = RR(name, TXT, ttl=_VERSION_TTL, rdata=TXTRecord(lookup.DNS_VERSION))
            return _authoritative([version] if qtype == TXT else [])
        if name == zone and qtype in (SOA, NS):
            return self._apex(zone, qtype)
        if name == f"ns.dns.{zone}":
            found = [Target(ip, 0, name) for _, ip in lookup.name_servers(self.index, self._local_ips, zone)]
            return _authoritative(self._address_records(name, found, qtype))
        if ip := reverse_address(name):
            names = lookup.reverse(self.index, ip, self._settings.primary_zone, self._settings.options)
            if not names:
                raise NoSuchName(name)
            return _authoritative([self._record(name, PTR, PTRRecord(to)) for to in names] if qtype == PTR else [])
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

    def _record(self, name: str, rtype: int, data: object) -> RR:
        return RR(name, rtype, ttl=self._settings.ttl, rdata=data)

    def _address_records(self, name: str, targets: list[Target], qtype: int) -> list[RR]:
        family = {A: 4, AAAA: 6}.get(qtype)
        kind = ARecord if family == 4 else AAAARecord
        hosts = dict.fromkeys(target.host for target in targets if target.family == family)
        return [self._record(name, qtype, kind(host)) for host in hosts]

    async def _alias(self, request: Request, host: str) -> Response:
        """ExternalName: the CNAME, and what the whole server finds behind it."""
        records = [self._record(request.name, CNAME, CNAMERecord(host))]
        if request.qtype != CNAME and request.depth < _MAX_DEPTH:
            asked = replace(question(host, request.qtype), transport="tcp", depth=request.depth + 1)
            records += (await self._resolve(asked)).answer
        return _authoritative(records)

    async def _services(self, name: str, targets: list[Target]) -> Response:
        """SRV with equal weights that add up to 100, and the addresses of their targets."""
        numbered = [target for target in targets if target.port >= 0 and (target.port or not target.family)]
        weight = max(1, 100 // len(numbered)) if numbered else 100
        records, extra = {}, {}
        for target in numbered:
            owner = target.name if target.family else target.host
            records[owner, target.port] = self._record(name, SRV, SRVRecord(0, weight, target.port, owner))
            if target.family:
                kind, data = (A, ARecord) if target.family == 4 else (AAAA, AAAARecord)
                extra[owner, target.host] = self._record(owner, kind, data(target.host))
        return replace(_authoritative(list(records.values())), additional=tuple(extra.values()))

    def _apex(self, zone: str, qtype: int) -> Response:
        if qtype == SOA:
            return _authoritative([self._soa(zone)])
        servers = lookup.name_servers(self.index, self._local_ips, zone)
        names = dict.fromkeys(name for name, _ in servers)
        extra = [self._record(name, A if address_family(ip) == 4 else AAAA, _address(ip)) for name, ip in servers]
        records = [self._record(zone, NS, NSRecord(name)) for name in names]
        return replace(_authoritative(records), additional=tuple(extra))

    def _soa(self, zone: str) -> RR:
        times = (self.index.changed, 7200, 1800, 86400, self._settings.ttl)
        return self._record(zone, SOA, SOARecord(f"ns.dns.{zone}", f"hostmaster.{zone}", times))

    def _denial(self, zone: str, rcode: int) -> Response:
        """NXDOMAIN or NODATA: the SOA tells how long it may be remembered (RFC 2308)."""
        return Response(rcode, authority=(self._soa(zone),), authoritative=True, plugin=self.name)


def _address(ip: str) -> ARecord | AAAARecord:
    return ARecord(ip) if address_family(ip) == 4 else AAAARecord(ip)


def _authoritative(records: list[RR]) -> Response:
    return Response(answer=tuple(records), authoritative=True, plugin="kubernetes")


def local_addresses() -> list[str]:
    """This pod's own IPv4 addresses without loopback, from the routing table's local entries."""
    found, last = set(), ""
    try:
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        text = line.strip()
        if text.startswith("|--"):
            last = text[4:]
        elif text == "/32 host LOCAL" and not last.startswith("127."):
            found.add(last)
    return sorted(found)


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
                item.fail("wrong value for pods: " + mode + ",  must be one of: disabled, verified, insecure")
            settings.options = replace(settings.options, pods=mode)
        case "namespaces":
            names = frozenset(parsing.some(item))
            settings.options = replace(settings.options, namespaces=settings.options.namespaces | names)
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
