"""UDP has no end of a connection: an entry keeps sending to an endpoint that is gone, or past a Service
that had none when the first packet came. Such entries are deleted (upstream's pkg/proxy/conntrack)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

from components.kube_proxy.model import IPV4, Endpoints, ServicePort, ServicePortName, Services

log = logging.getLogger(__name__)


def stale_flows(
    old: tuple[Services, Endpoints], new: tuple[Services, Endpoints], family: str = IPV4
) -> list[list[str]]:
    """conntrack's arguments for each deletion that the step from old to new asks for. Pure, sorted."""
    return sorted([*base, *_family(family)] for base in _deletions(old, new))


def _deletions(old: tuple[Services, Endpoints], new: tuple[Services, Endpoints]) -> Iterator[list[str]]:
    (old_services, old_endpoints), (new_services, new_endpoints) = old, new
    for name in {**old_services, **new_services}:
        service = old_services.get(name) or new_services[name]
        if service.protocol != "udp":
            continue
        before = _usable(old_endpoints, name) if name in old_services else set()
        after = _usable(new_endpoints, name) if name in new_services else set()
        for ip in before - after:
            yield from ([*flow, "--dst-nat", ip] for flow in _flows(service))
        if after and not before:
            # Sent while nothing answered: the entry has no translation and would outlive the REJECT.
            yield from _flows(new_services[name])


def _usable(endpoints: Endpoints, name: ServicePortName) -> set[str]:
    # An address with several ports counts once: its flows are told apart by nothing that conntrack -D matches.
    return {ep.ip for ep in endpoints.get(name, ()) if ep.ready or (ep.serving and ep.terminating)}


def _flows(service: ServicePort) -> Iterator[list[str]]:
    for address in (service.cluster_ip, *service.external_ips, *service.load_balancer_ips):
        yield ["-D", "-p", "udp", "--orig-dst", address, "--orig-port-dst", str(service.port)]
    if service.node_port:
        yield ["-D", "-p", "udp", "--orig-port-dst", str(service.node_port)]


def _family(family: str) -> list[str]:
    return [] if family == IPV4 else ["-f", "ipv6"]


async def delete(flows: Iterable[list[str]]) -> None:
    """Failures are logged; that no entry matched (exit status 1, "0 flow entries") is the usual case."""
    for arguments in flows:
        try:
            process = await asyncio.create_subprocess_exec(
                "conntrack", *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
            )
        except FileNotFoundError:
            log.warning("conntrack is not installed: stale UDP flows stay until they time out")
            return
        _, err = await process.communicate()
        if process.returncode and b"0 flow entries" not in err:
            log.error("conntrack %s: %s", " ".join(arguments), err.decode(errors="replace").strip())
