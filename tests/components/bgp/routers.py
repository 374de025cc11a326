"""BIRD 2, FRR and GoBGP of lab/bringup/router_packages.py.

Their daemons run in a test's namespaces, in the foreground, with every file in a folder of the test.
"""

import asyncio
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

from kubewire.components.kernel import command
from kubewire.lab.bringup import router_packages

ROOT = router_packages.directory()


@functools.cache
def unpacked():
    """Whether they are there; no where they cannot be had (no Debian, no network)."""
    try:
        return router_packages.ensure() == ROOT
    except router_packages.NoRouters:
        return False


def environment():
    return os.environ | router_packages.environment(ROOT)


class Router:
    """address and AS, and its neighbours as (address, AS, options); announce: prefixes."""

    def __init__(
        self,
        host,
        asn,
        neighbours,
        announce=(),
        *,
        password="",
        hold=90,
        reflect=False,
        passive=True,
        community="",
        graceful=False,
    ):
        self.host, self.asn, self.neighbours, self.announce = host, asn, neighbours, announce
        self.password, self.hold, self.reflect, self.passive, self.community = (
            password,
            hold,
            reflect,
            passive,
            community,
        )
        self.graceful = graceful
        self.folder = Path(f"/tmp/{type(self).__name__.lower()}-{host.name}")
        self.folder.mkdir()
        self.log = self.folder / "log"
        self.process: Any = None

    def config(self) -> str:
        raise NotImplementedError

    def program(self, config: Path) -> list[str]:
        raise NotImplementedError

    async def start(self):
        config = self.folder / "conf"
        config.write_text(self.config())
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.host.argv(*self.program(config)), stdout=log, stderr=log, env=environment()
            )
        return self

    async def kill(self):
        self.process.kill()
        await self.process.wait()

    async def ask(self, *argv):
        done = await command.run(self.host.argv(*argv), env=environment(), timeout=10)
        return done.stdout.decode()


class Bird(Router):
    def config(self):
        lines = [f"router id {self.host.address};", "protocol device {}", "protocol direct { disabled; }"]
        own = " ".join(
            f"route {prefix} blackhole {{ bgp_community.add(({self.community})); }};"
            if self.community
            else f"route {prefix} blackhole;"
            for prefix in self.announce
        )
        lines.append(f"protocol static own {{ ipv4; {own} }}")
        for number, (address, asn) in enumerate(self.neighbours):
            lines.append(
                f"protocol bgp peer{number} {{ local {self.host.address} as {self.asn}; neighbor {address} as {asn}; direct;"
                f" hold time {self.hold}; connect retry time 1; connect delay time 1; error wait time 1, 2;"
                + (f' password "{self.password}";' if self.password else "")
                + (" rr client;" if self.reflect else "")
                + (" passive on;" if self.passive else "")
                + (" graceful restart on;" if self.graceful else "")
                + " ipv4 { import all; export where source ~ [RTS_STATIC, RTS_BGP]; "
                + ("" if self.reflect else "next hop self;")
                + " }; }"
            )
        return "\n".join(lines) + "\n"

    def program(self, config):
        return [f"{ROOT}/usr/sbin/bird", "-f", "-c", config, "-s", self.folder / "ctl", "-P", self.folder / "pid"]

    async def birdc(self, text):
        return await self.ask(f"{ROOT}/usr/sbin/birdcl", "-s", str(self.folder / "ctl"), *text.split())

    async def is_up(self, number=0):
        return "Established" in await self.birdc(f"show protocols peer{number}")

    async def routes(self):
        """prefix -> its paths' next hops, of what peers sent."""
        text = await self.birdc("show route all where source = RTS_BGP")
        found: dict[str, Any] = {}
        for line in text.splitlines():
            if match := re.match(r"(\d\S+/\d+)", line):
                prefix = match[1]
            if match := re.search(r"BGP.next_hop: (\S+)", line):
                found.setdefault(prefix, set()).add(match[1])
        return found

    async def communities(self, prefix):
        found = re.search(r"BGP.community: (.*)", await self.birdc(f"show route all {prefix}"))
        return sorted(found[1].strip("() ").replace(",", ":").split(") (")) if found else []

    async def withdraw(self):
        await self.birdc("disable own")


class Frr(Router):
    def config(self):
        lines = [
            f"router bgp {self.asn}",
            f" bgp router-id {self.host.address}",
            " no bgp ebgp-requires-policy",
            " no bgp network import-check",
            f" timers bgp {max(self.hold // 3, 1)} {self.hold}",
        ]
        for address, asn in self.neighbours:
            lines += [
                f" neighbor {address} remote-as {asn}",
                f" neighbor {address} advertisement-interval 0",
                f" neighbor {address} timers connect 1",
            ]
            if self.password:
                lines.append(f" neighbor {address} password {self.password}")
            if self.passive:
                lines.append(f" neighbor {address} passive")
            if self.graceful:
                lines.append(f" neighbor {address} graceful-restart")
        lines.append(" address-family ipv4 unicast")
        mark = " route-map mark" if self.community else ""
        lines += [f"  network {prefix}{mark}" for prefix in self.announce]
        for address, _ in self.neighbours if self.reflect else ():
            lines.append(f"  neighbor {address} route-reflector-client")
        lines += [" exit-address-family", "exit"]
        if self.community:
            lines += ["route-map mark permit 10", f" set community {self.community.replace(',', ':')}", "exit"]
        return "\n".join(lines) + "\n"

    def program(self, config):
        return [
            f"{ROOT}/usr/lib/frr/bgpd",
            "-f",
            config,
            "-Z",
            "-n",
            "-S",
            "-i",
            self.folder / "pid",
            "--vty_socket",
            self.folder,
            "-A",
            "127.0.0.1",
            "-P",
            "0",
            "--log",
            "stdout",
            "--moduledir",
            f"{ROOT}/usr/lib/x86_64-linux-gnu/frr/modules",
        ]

    async def vty(self, *lines):
        """As vtysh does, which would want PAM: a command ends with NUL, an answer with three and a status byte."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "bgpd.vty"))
        answer = b""
        for line in ("enable", *lines):
            writer.write(line.encode() + b"\0")
            answer = await reader.readuntil(b"\0\0\0")
            await reader.readexactly(1)
        writer.close()
        return answer[:-3].decode()

    async def is_up(self, number=0):
        text = await self.vty("show bgp summary json")
        peers = json.loads(text or "{}").get("ipv4Unicast", {}).get("peers", {})
        return peers.get(self.neighbours[number][0], {}).get("state") == "Established"

    async def routes(self):
        table = json.loads(await self.vty("show bgp ipv4 unicast json") or "{}").get("routes", {})
        return {
            prefix: {hop["ip"] for path in paths for hop in path["nexthops"]}
            for prefix, paths in table.items()
            if any(path.get("path") or path["pathFrom"] == "internal" for path in paths)
        }

    async def communities(self, prefix):
        (path, *_) = json.loads(await self.vty(f"show bgp ipv4 unicast {prefix} json"))["paths"]
        return sorted(path.get("community", {}).get("list", []))

    async def withdraw(self):
        family = ["configure terminal", f"router bgp {self.asn}", "address-family ipv4 unicast"]
        await self.vty(*family, *(f"no network {prefix}" for prefix in self.announce))


class GoBgp(Router):
    def config(self):
        lines = ["[global.config]", f" as = {self.asn}", f' router-id = "{self.host.address}"']
        for address, asn in self.neighbours:
            lines += ["[[neighbors]]", " [neighbors.config]", f'  neighbor-address = "{address}"', f"  peer-as = {asn}"]
            if self.password:
                lines.append(f'  auth-password = "{self.password}"')
            lines += [
                " [neighbors.timers.config]",
                f"  hold-time = {self.hold}",
                f"  keepalive-interval = {max(self.hold // 3, 1)}",
                "  connect-retry = 1",
            ]
            if self.passive:
                lines += [" [neighbors.transport.config]", "  passive-mode = true"]
            if self.graceful:
                lines += [" [neighbors.graceful-restart.config]", "  enabled = true", "  restart-time = 120"]
                lines += [
                    " [[neighbors.afi-safis]]",
                    "  [neighbors.afi-safis.config]",
                    '   afi-safi-name = "ipv4-unicast"',
                ]
                lines += ["  [neighbors.afi-safis.mp-graceful-restart.config]", "   enabled = true"]
            if self.reflect:
                lines += [
                    " [neighbors.route-reflector.config]",
                    "  route-reflector-client = true",
                    f'  route-reflector-cluster-id = "{self.host.address}"',
                ]
        return "\n".join(lines) + "\n"

    def program(self, config):
        return [
            f"{ROOT}/usr/bin/gobgpd",
            "-t",
            "toml",
            "-f",
            config,
            "--pprof-disable",
            "--api-hosts",
            "127.0.0.1:50051",
        ]

    async def gobgp(self, text):
        return await self.ask(f"{ROOT}/usr/bin/gobgp", *text.split())

    async def start(self):
        await super().start()

        async def answers():
            return "Router-ID" in await self.gobgp("global")

        deadline = asyncio.get_running_loop().time() + 10
        while not await answers():
            assert asyncio.get_running_loop().time() < deadline, self.log.read_text()
        for prefix in self.announce:
            await self.gobgp(
                f"global rib add {prefix} community {self.community.replace(',', ':')}"
                if self.community
                else f"global rib add {prefix}"
            )
        return self

    async def is_up(self, number=0):
        return "BGP state = ESTABLISHED" in await self.gobgp(f"neighbor {self.neighbours[number][0]}")

    async def routes(self):
        table = json.loads(await self.gobgp("global rib -j") or "{}") or {}
        return {
            prefix: {hop for path in paths for hop in _hops(path)}
            for prefix, paths in table.items()
            if any(path.get("source-id") not in (None, "<nil>", "") and "neighbor-ip" in path for path in paths)
        }

    async def communities(self, prefix):
        table = json.loads(await self.gobgp("global rib -j") or "{}")
        numbers = [
            number
            for path in table[prefix]
            for attribute in path["attrs"]
            if attribute["type"] == 8
            for number in attribute["communities"]
        ]
        return sorted(f"{number >> 16}:{number & 0xFFFF}" for number in numbers)

    async def withdraw(self):
        for prefix in self.announce:
            await self.gobgp(f"global rib del {prefix}")


def _hops(path):
    return [attribute["nexthop"] for attribute in path["attrs"] if attribute["type"] == 3]
