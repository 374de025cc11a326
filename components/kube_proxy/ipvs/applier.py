"""The places that run ipvsadm, ipset and ip; each knows one kernel interface, none knows why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kubewire.components.kernel import command, iproute
from kubewire.components.kernel.command import CommandError
from kubewire.components.kube_proxy.ipvs import servers, sets
from kubewire.components.kube_proxy.ipvs.servers import Key, VirtualServer
from kubewire.components.kube_proxy.state.objects import family_of

DEVICE = "kube-ipvs0"
#: There once the kernel has ip_vs, also as a module that nobody loaded yet.
_IP_VS = Path("/proc/net/ip_vs")
_SECONDS = 600


async def run(argv: list[str], stdin: str = "") -> str:
    """Standard output. `ipvsadm -R` and `ip -batch` go on after a line they could not take and may
    end well all the same, so whatever is said on standard error is a failure. Raises CommandError,
    OSError."""
    done = await command.run(argv, stdin=stdin.encode(), timeout=_SECONDS)
    if done.returncode or done.stderr.strip():
        raise CommandError(done, stdin.encode())
    return done.stdout.decode()


class Ipvsadm:
    """The virtual servers of one family in the network namespace this process is in."""

    def __init__(self, family: str) -> None:
        self._family = family

    @staticmethod
    def loaded() -> bool:
        return _IP_VS.exists()

    async def table(self) -> dict[Key, VirtualServer]:
        return servers.parse(await run(["ipvsadm", "-Sn"]), self._family)

    async def connections(self) -> dict[tuple[Key, str], int]:
        return servers.parse_connections(await run(["ipvsadm", "-Ln"]))

    async def restore(self, lines: Iterable[str]) -> None:
        if text := servers.text(lines):
            await run(["ipvsadm", "-R"], text)

    async def set_timeouts(self, tcp: float, tcp_fin: float, udp: float) -> None:
        """Seconds; 0 leaves one as it is."""
        await run(["ipvsadm", "--set", *(str(int(seconds)) for seconds in (tcp, tcp_fin, udp))])


class Ipset:
    """kube-proxy's sets of one family."""

    def __init__(self, family: str) -> None:
        self._family = family

    async def entries(self) -> dict[str, frozenset[str]]:
        return sets.parse(await run(["ipset", "save"]), self._family)

    async def restore(self, lines: Iterable[str]) -> None:
        if text := servers.text(lines):
            await run(["ipset", "restore", "-exist"], text)


@dataclass(frozen=True)
class Addresses:
    """bound: on kube-ipvs0, None without it; others: on all other interfaces."""

    bound: frozenset[str] | None
    others: frozenset[str]


class Dummy:
    """kube-ipvs0, which stays down: its addresses are local all the same, and nobody answers ARP
    for it."""

    def __init__(self, family: str) -> None:
        self._family = family

    async def addresses(self) -> Addresses:
        links = await iproute.query("ip", "address", "show")
        found = {
            link["ifname"]: self._usable(link.get("addr_info") or ())
            for link in links
            if "ifname" in link
        }
        bound = found.pop(DEVICE, None)
        return Addresses(bound, frozenset().union(*found.values()))

    async def create(self) -> None:
        """The other family may be quicker."""
        try:
            await run(["ip", "link", "add", DEVICE, "type", "dummy"])
        except CommandError:
            if not await self.exists():
                raise

    async def change(self, add: Iterable[str] = (), delete: Iterable[str] = ()) -> None:
        lines = [f"address add {self._host(ip)} dev {DEVICE}" for ip in sorted(add)]
        lines += [f"address del {self._host(ip)} dev {DEVICE}" for ip in sorted(delete)]
        if lines:
            await run(["ip", "-batch", "-"], servers.text(lines))

    async def delete(self) -> None:
        if await self.exists():
            await run(["ip", "link", "delete", DEVICE])

    @staticmethod
    async def exists() -> bool:
        return Path("/sys/class/net", DEVICE).exists() or DEVICE in await run(
            ["ip", "-brief", "link"]
        )

    def _usable(self, listed: Iterable[dict[str, object]]) -> frozenset[str]:
        """Loopback is not served, and link-local addresses are everywhere the same."""
        parsed = [ip_address(str(item["local"])) for item in listed if "local" in item]
        usable = (
            ip for ip in parsed if not ip.is_loopback and not (ip.version == 6 and ip.is_link_local)
        )
        return frozenset(str(ip) for ip in usable if family_of(str(ip)) == self._family)

    def _host(self, ip: str) -> str:
        return f"{ip}/{128 if ':' in ip else 32}"
