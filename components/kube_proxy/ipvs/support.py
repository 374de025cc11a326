"""Whether this kernel can serve IPVS mode, found out as upstream does (CanUseIPVSProxier): by
trying."""

from __future__ import annotations

import re

from kubewire.components.kernel.command import CommandError
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.ipvs import servers
from kubewire.components.kube_proxy.ipvs.applier import run
from kubewire.components.kube_proxy.ipvs.rules import DEFAULT_SCHEDULER
from kubewire.components.kube_proxy.ipvs.servers import Key, VirtualServer
from kubewire.components.kube_proxy.state.model import IPV4, IPV6

_OLDEST_IPSET = (6, 0)
#: An address that nobody has (TEST-NET-2, RFC 5737).
_PROBE = Key("tcp", "198.51.100.0", 20000)


class UnsupportedError(Exception):
    """Reads as upstream's sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(f"can't use the IPVS proxier: {why}")


async def check(config: KubeProxyConfiguration) -> None:
    """Raises UnsupportedError. Adds a virtual server and takes it away again, unless one has the
    scheduler."""
    await _check_ipset()
    scheduler = config.ipvs.scheduler or DEFAULT_SCHEDULER
    try:
        saved = await run(["ipvsadm", "-Sn"])
    except FileNotFoundError as error:
        raise UnsupportedError(str(error)) from error
    except CommandError as error:
        raise UnsupportedError("Ipvs not supported by the kernel") from error
    known = [server for family in (IPV4, IPV6) for server in servers.parse(saved, family).values()]
    if any(server.scheduler == scheduler for server in known):
        return
    try:
        await run(
            ["ipvsadm", "-R"], f"-A {_PROBE.service} {VirtualServer(scheduler, 0, {}).options}\n"
        )
        await run(["ipvsadm", "-R"], f"-D {_PROBE.service}\n")
    except CommandError as error:
        raise UnsupportedError(error.said) from error


async def _check_ipset() -> None:
    try:
        said = await run(["ipset", "--version"])
    except FileNotFoundError as error:
        raise UnsupportedError(f"error getting ipset version, error: {error}") from error
    except CommandError as error:
        raise UnsupportedError(f"error getting ipset version, error: {error.said}") from error
    found = re.search(r"v(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < _OLDEST_IPSET:
        version = found[0] if found else said.strip()
        raise UnsupportedError(f"ipset version: {version} is less than min required version: 6.0")
