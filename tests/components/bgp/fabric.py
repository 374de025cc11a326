"""A node with an uplink to each of several routers, each a network namespace of its own, inside a test's sandbox:

node eth1 10.0.1.1/24 ==== 10.0.1.2 router 1        node eth2 10.0.2.1/24 ==== 10.0.2.2 router 2   ...
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from kubewire.components.kernel import command
from tests.existing import existing


async def until(condition, what, timeout=15.0):
    """Wait for condition() (plain or async) to be true; a failure says what was waited for and who said what."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        value = await answer if asyncio.iscoroutine(answer) else answer
        if value:
            return value
        assert time.monotonic() < deadline, f"not after {timeout:g} s: {what}\n{logs()}"
        await asyncio.sleep(0.02)


def logs():
    found = [*Path("/tmp").glob("*/log"), *Path("/tmp").glob("*.log")]
    return "\n".join(f"--- {path}\n{path.read_text()[-3000:]}" for path in found)


class Host:
    """A namespace."""

    def __init__(self, name, address=""):
        self.name, self.address = name, address

    async def start(self):
        holder = await asyncio.create_subprocess_exec(
            "unshare", "--net", "sh", "-c", "echo ready && exec sleep 1000", stdout=asyncio.subprocess.PIPE
        )
        assert await existing(holder.stdout).readline() == b"ready\n"
        self.pid = holder.pid
        await self.sh("ip link set lo up")
        return self

    def argv(self, *argv):
        return ["nsenter", "-t", str(self.pid), "-n", *map(str, argv)]

    async def sh(self, text):
        return (await command.run(self.argv("sh", "-ec", text), check=True)).stdout.decode()

    async def kernel_routes(self):
        """prefix -> gateways, of the daemon's routes."""
        entries = json.loads(await self.sh("ip -json route show proto bird") or "[]")
        return {
            entry["dst"]: sorted(hop["gateway"] for hop in entry.get("nexthops", [entry])) for entry in entries if entry
        }


class Node(Host):
    """The host our daemon runs on."""

    async def start_daemon(self, config):
        self.config = Path(f"/tmp/{self.name}.yaml")
        self.control = Path(f"/tmp/{self.name}.ctl")
        self.log = Path(f"/tmp/{self.name}.log")
        self.configured = config
        self.config.write_text(json.dumps(config))
        with self.log.open("ab") as log:
            self.daemon = await asyncio.create_subprocess_exec(
                *self.argv(sys.executable, "-m", "kubewire.components.bgp", "--config", self.config, "--control", self.control),
                stderr=log,
            )  # fmt: skip
        return self

    async def ask(self, text):
        """An answer of the control socket; "" while nobody listens, or from a daemon that begins anew."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.control))
        except OSError:
            return ""
        try:
            writer.write(f"{text}\n".encode())
            return (await reader.read()).decode()
        except ConnectionError:
            return ""
        finally:
            writer.close()

    async def is_up(self, name):
        return any(
            line.split()[0] == name and " Established " in line
            for line in (await self.ask("show protocols")).splitlines()
        )

    async def reconfigure(self, config):
        self.config.write_text(json.dumps(config))
        assert await self.ask("configure") == "Reconfigured\n"


async def wire(node, host, number):
    """Uplink `number` of the node, ethN at both ends."""
    host.address = f"10.0.{number}.2"
    await command.run(
        ["ip", "link", "add", f"eth{number}", "netns", str(node.pid), "type", "veth", "peer", "name", f"eth{number}", "netns", str(host.pid)],
        check=True,
    )  # fmt: skip
    await node.sh(f"ip addr add 10.0.{number}.1/24 dev eth{number} && ip link set eth{number} up")
    await host.sh(f"ip addr add {host.address}/24 dev eth{number} && ip link set eth{number} up")


def configuration(peers, announce=("10.244.1.0/24",), **more):
    return {
        "localAS": 64512,
        "routerID": "10.0.1.1",
        "connectRetry": 1,
        "peers": peers,
        "announce": list(announce),
        **more,
    }
