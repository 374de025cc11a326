"""weave-net: what weaver, kube-utils and launch.sh do on a node. The kernel and the ring follow the mesh.

Devices, rules and addresses stay when weave-net ends, so pods keep their connections; the next weave-net takes
them over.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from aiohttp import web

from kubewire.components.kernel import iproute, ipset, iptables
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.files import replace
from kubewire.components.kernel.iptables import Ruleset
from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.nodeconditions import network_available
from kubewire.components.kubeapi.resources import NODES, SECRETS, KubeObject
from kubewire.components.networks.weave import api, dataplane, install, kernel, status, wire
from kubewire.components.networks.weave.allocator import Allocator, Message, Setup
from kubewire.components.networks.weave.dataplane import Device
from kubewire.components.networks.weave.mesh import Connection, Mesh, Timing
from kubewire.components.networks.weave.overlay import FASTDP, SLEEVE, Overlay
from kubewire.components.networks.weave.peerlist import NAMESPACE, PeerList
from kubewire.components.networks.weave.ring import RingConflict
from kubewire.components.networks.weave.security import Security
from kubewire.components.networks.weave.status import ConnectionLine
from kubewire.components.networks.weave.store import Store
from kubewire.components.networks.weave.topology import Link, Peer, Topology
from kubewire.components.networks.weave.wire import WireError

log = logging.getLogger("weave-net")
_MAC = re.compile("[0-9a-f]{2}(?::[0-9a-f]{2}){5}")

#: The bridge's own address belongs to this "container".
EXPOSE = "weave:expose"
_PASSING = (CommandError, TimeoutError, OSError, ApiError)
_GATHER, _GATHER_LINKS, _INTRODUCE, _RETRY, _RESYNC, _MOST_HOPS = 0.02, 0.1, 1.0, 5.0, 10.0, 8


@dataclass(frozen=True)
class Options:
    """Flags of weaver, and what launch.sh finds out (main.py). init: consensus=N, seed=PEER,PEER or observer."""

    kubeconfig: str
    nodename: str
    interface: str
    range: IPv4Network
    default_subnet: IPv4Network
    init: str
    name: str
    port: int = 6783
    http_addr: str = "127.0.0.1:6784"
    status_addr: str = "0.0.0.0:6782"
    db_prefix: str = "/var/lib/weave/weave-net"
    mtu: int = dataplane.DEFAULT_MTU
    conn_limit: int = 200
    fastdp: bool = True
    password_secret: str = ""
    cni_conf_dir: str = install.DEFAULT_CONF_DIR
    cni_bin_dir: str = install.DEFAULT_BIN_DIR
    timing: Timing = field(default_factory=Timing)
    #: Seconds between two ticks of the allocator, and two of the periodic gossip.
    tick: float = 5.0
    gossip: float = 30.0

    @property
    def quorum(self) -> int:
        """More than half of the peers that launch.sh counted; 0 for an observer."""
        kind, _, value = self.init.partition("=")
        return int(value or "1") // 2 + 1 if kind == "consensus" else 0

    @property
    def seed(self) -> tuple[str, ...]:
        kind, _, value = self.init.partition("=")
        return tuple(value.split(",")) if kind == "seed" and value else ()


class Agent:
    """One node's weave-net. run() until cancelled."""

    def __init__(self, options: Options, client: Client) -> None:
        self.options, self._client = options, client
        uid = random.getrandbits(63)
        self.topology = Topology(Peer(options.name, options.nodename, uid))
        self.allocator = Allocator(
            Setup(options.name, uid, options.nodename, options.range, options.quorum, self.topology.knows)
        )
        self.mesh = Mesh(
            options.name, options.nodename, uid, options.port, self, limit=options.conn_limit, timing=options.timing
        )
        self.default_subnet = options.default_subnet
        self._security: Security | None = None
        self._overlay = Overlay(options.name, options.timing, self._connections_changed, fastdp=options.fastdp)
        self._heartbeats: set[tuple[str, str]] = set()
        self._store = Store(options.db_prefix)
        self._peers = PeerList(client, options.name, options.nodename)
        self._nodes = Informer(client, NODES, handler=self._node_changed, transform=_slim)
        self._kernel_changed, self._nodes_changed = asyncio.Event(), asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._links_to_tell = False
        self._news_of: set[str] = set()
        self._own_ranges: object = None
        self._rules: Ruleset | None = None
        self._flood: list[str] | None = None
        self._slow: set[str] = set()
        self._listening = False

    async def run(self) -> None:
        """Raises OSError or CommandError if the agent cannot start."""
        options = self.options
        address = await kernel.interface(options.interface)
        await _until_there(lambda: self._client.list(NODES))
        if options.password_secret:
            await self._take_password(await self._read_password())
        await self._restore()
        device = Device(options.name, options.interface, address, options.mtu)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            stack.callback(self._overlay.close)
            self._overlay.listen()
            tasks.create_task(self._overlay.run())
            tasks.create_task(self._follow_kernel(device))
            tasks.create_task(self.mesh.run())
            tasks.create_task(self._serve())
            tasks.create_task(self._tick())
            tasks.create_task(self._gossip())
            tasks.create_task(self._nodes.run())
            await wait_synced(self._nodes)
            self._set_targets()
            tasks.create_task(self._start())

    # --- start

    async def _read_password(self) -> str:
        """Upstream's DaemonSet takes WEAVE_PASSWORD from this Secret."""
        name = self.options.password_secret
        secret = await _until_there(lambda: self._client.get(SECRETS, name, NAMESPACE))
        return base64.b64decode(secret["data"][name]).decode()

    async def _take_password(self, password: str) -> None:
        self.mesh.password = password
        if self.options.fastdp:
            self._security = Security(self.options.name)
            await self._security.reset()

    async def _restore(self) -> None:
        saved = self._store.load()
        if saved is not None and await _until_there(self._peers.is_listed) and self.allocator.restore(saved):
            log.info("Initialising with persisted data")
        elif self.options.seed:
            log.info("Initialising with supplied IPAM seed")
            self.allocator.seed(self.options.seed)
        else:
            log.info("Initialising via deferred consensus" if self.options.quorum else "Initialising as observer")

    async def _start(self) -> None:
        """launch.sh's post_start_actions: list of peers, address of the bridge, plugins, the node's condition."""
        options = self.options
        await self._registered()
        await _until_there(self._peers.add_own)
        address = await self.allocate(EXPOSE, self.default_subnet)
        cidr = f"{IPv4Address(address)}/{self.default_subnet.prefixlen}"
        await _until_there(lambda: kernel.expose(cidr))
        install.install_plugins(options.cni_bin_dir)
        path = Path(options.cni_conf_dir, install.CONFLIST_NAME)
        replace(path, install.conflist(options.mtu, options.http_addr), 0o644)
        log.info("Installed CNI plugins and %s", install.CONFLIST_NAME)
        await _until_there(self._set_network_available)
        while True:
            self._nodes_changed.clear()
            await _until_there(lambda: self._peers.reclaim(self._node_names, self.takeover))
            await self._nodes_changed.wait()

    async def _registered(self) -> None:
        while self._nodes.get(self.options.nodename) is None:
            self._nodes_changed.clear()
            await self._nodes_changed.wait()

    async def _node_names(self) -> set[str]:
        return {node["metadata"]["name"] for node in (await self._client.list(NODES)).items}

    async def _set_network_available(self) -> None:
        patch = network_available("WeaveIsUp", "Weave pod has set this")
        name = self.options.nodename
        await self._client.patch(NODES, name, patch, subresource="status", content_type=STRATEGIC_MERGE_PATCH)

    # --- nodes are the peers to dial

    def _node_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is None or new is None:
            self._nodes_changed.set()
        self._set_targets()

    def _set_targets(self) -> None:
        others = (node for node in self._nodes.store.values() if node["metadata"]["name"] != self.options.nodename)
        self.mesh.set_targets(address for node in others if (address := node_address(node)))

    # --- what the mesh tells

    def connected(self, connection: Connection) -> None:
        if not _MAC.fullmatch(connection.peer):  # heartbeats are addressed with it
            raise WireError(f"{connection.peer!r} is no peer's name")
        log.info("->[%s|%s(%s)]: connection added", connection.address, connection.peer, connection.hello.nickname)
        self._overlay.begin(connection)
        if self._security is not None:
            self._security.begin(connection)
        else:
            connection.secured = True
        self._connections_changed()
        connection.send(wire.TOPOLOGY, _topology([self.topology.own]))
        connection.send(wire.IPAM, _json(self.allocator.encode()))
        # In a full mesh every peer announces itself; peers outside it are announced once they are known.
        asyncio.get_running_loop().call_later(_INTRODUCE, self._introduce, connection)

    def disconnected(self, connection: Connection) -> None:
        log.info("->[%s|%s(%s)]: connection deleted", connection.address, connection.peer, connection.hello.nickname)
        self._overlay.end(connection)
        if self._security is not None:
            self._security.end(connection)
        self._connections_changed()

    def received(self, connection: Connection, kind: int, body: bytes) -> None:
        try:
            self._received(connection, kind, body)
        except (RingConflict, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise WireError(str(error)) from None
        finally:
            self._flush()

    def _received(self, connection: Connection, kind: int, body: bytes) -> None:
        if kind == wire.SECURITY_ASSOCIATION and self._security is not None:
            self._security.received(connection, body)
            self._kernel_changed.set()
        elif kind in (wire.FAST_HEARD, wire.SLEEVE_HEARD):
            self._overlay.heard(connection, kind)
        elif kind == wire.TOPOLOGY:
            if news := self.topology.merge(Peer.decode(one) for one in json.loads(body)):
                self.mesh.broadcast(wire.TOPOLOGY, _topology(news), self._have_it(connection.peer))
                self.allocator.retry = True  # a new peer may have free addresses
        elif kind == wire.IPAM:
            self.allocator.receive(connection.peer, json.loads(body))
        elif kind == wire.UNICAST:
            self._route(json.loads(body))

    def _have_it(self, sender: str) -> set[str]:
        """The peers that already have a broadcast; a full mesh never relays."""
        return {sender, *self.topology.neighbours(sender)} if sender else set()

    def _introduce(self, connection: Connection) -> None:
        connection.send(wire.TOPOLOGY, _topology(self.topology.unknown_to(connection.peer)))

    def _route(self, message: dict[str, Any]) -> None:
        if not isinstance(message["to"], str) or type(message["hops"]) is not int:
            raise TypeError("to and hops of a message for another peer")
        if message["to"] == self.options.name:
            self.allocator.receive(message["from"], message["body"])
        elif message["hops"] < _MOST_HOPS:
            again = _json({**message, "hops": message["hops"] + 1})
            self.mesh.send(self.topology.next_hop(message["to"]), wire.UNICAST, again)

    def _connections_changed(self) -> None:
        links = [Link(one.peer, one.address, one.outbound, one.established) for one in self.mesh.connections.values()]
        if self.topology.set_links(links) and not self._links_to_tell:
            self._links_to_tell = True
            asyncio.get_running_loop().call_later(_GATHER_LINKS, self._tell_links)
        self.allocator.retry = True
        self._kernel_changed.set()
        self._flush()

    def _tell_links(self) -> None:
        """Connections come in bursts; one message announces all of them."""
        self._links_to_tell = False
        self.mesh.broadcast(wire.TOPOLOGY, _topology([self.topology.own]))

    # --- addresses

    async def allocate(self, container: str, subnet: IPv4Network) -> int:
        return await self._until(lambda: self.allocator.allocate(container, subnet))

    async def claim(self, container: str, address: int) -> None:
        await self._until(lambda: 0 if self.allocator.claim(container, address) else None)

    def lookup(self, container: str, subnet: IPv4Network) -> list[int]:
        return self.allocator.lookup(container, subnet)

    def containers(self) -> list[str]:
        return sorted(name for name in self.allocator.owned if not name.startswith("weave:"))

    def release(self, container: str) -> None:
        self.allocator.release(container)
        self._flush()

    def free(self, container: str, address: int) -> None:
        self.allocator.free(container, address)
        self._flush()

    def takeover(self, peer: str) -> int:
        taken = self.allocator.takeover(peer)
        self._flush()
        return taken

    def shutdown(self) -> None:
        self.allocator.shutdown()
        self._flush()

    async def _until(self, attempt: Callable[[], int | None]) -> int:
        """Repeats attempt whenever the allocator has received something. Raises what attempt raises."""
        while True:
            try:
                result = attempt()
            finally:
                self._flush()
            if result is not None:
                return result
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def _flush(self) -> None:
        """Saves the allocator's state, sends its messages, and wakes waiting requests if they may succeed now."""
        if self.allocator.dirty:
            self._store.save(self.allocator.saved())
            if self.allocator.own_ranges() != self._own_ranges:
                self._kernel_changed.set()
        for message in self.allocator.sent():
            self._say(message)
        if self.allocator.retry:
            self.allocator.retry = False
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _say(self, message: Message) -> None:
        if not message.to:
            if not self._news_of:
                asyncio.get_running_loop().call_later(_GATHER, self._tell_news)
            self._news_of.add(message.heard_from)
            return
        body = {"from": self.options.name, "to": message.to, "hops": 0, "body": message.body}
        hop = message.to if message.to in self.mesh.connections else self.topology.next_hop(message.to)
        self.mesh.send(hop, wire.UNICAST, _json(body))

    def _tell_news(self) -> None:
        """Sends the allocator's state to the peers for which any part of it is new."""
        told = set.intersection(*(self._have_it(sender) for sender in self._news_of))
        self._news_of = set()
        self.mesh.broadcast(wire.IPAM, _json(self.allocator.encode()), told)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.options.tick * random.uniform(0.5, 1.5))  # not all at once
            self.allocator.tick()
            self._flush()

    async def _gossip(self) -> None:
        """Repeats the full state to a few peers, in case a message was lost (mesh: log2 of the number of peers)."""
        while True:
            await asyncio.sleep(self.options.gossip)
            some = list(self.mesh.connections.values())
            for connection in random.sample(some, min(len(some), 1 + int(math.log2(len(some) + 1)))):
                connection.send(wire.TOPOLOGY, _topology(self.topology.peers()))
                connection.send(wire.IPAM, _json(self.allocator.encode()))

    # --- the kernel

    async def _follow_kernel(self, device: Device) -> None:
        while True:
            self._kernel_changed.clear()
            pause = _RESYNC
            try:
                await self._reconcile(device)
            except _PASSING as error:
                log.error("%s", error)
                self._rules = self._flood = self._own_ranges = None
                pause = _RETRY
            try:
                async with asyncio.timeout(pause):
                    await self._kernel_changed.wait()
            except TimeoutError:  # look at the kernel itself again
                self._flood = self._rules = None
            await asyncio.sleep(_GATHER)

    async def _reconcile(self, device: Device) -> None:
        """Raises CommandError, TimeoutError, OSError. Flooding to a departing peer ends before its encryption does."""
        if self._flood is None:
            await self._look_at_devices(device)
        own = self.allocator.own_ranges()
        if own != self._own_ranges:
            await ipset.restore(dataplane.own_set(own))
            self._own_ranges = own
        await self._set_flood(self._fast_paths())
        security = self._security
        rules = dataplane.rules(self.default_subnet, security.incoming() if security else None)
        if rules != self._rules:
            await iptables.ensure(rules)
            self._rules = rules
        await self._set_sleeve(device)
        if security is not None:
            await security.apply()
        await self._set_heartbeats()

    async def _look_at_devices(self, device: Device) -> None:
        fastdp = self.options.fastdp
        if await kernel.ensure_devices(device, fastdp=fastdp):
            await self._expose_again()
            self._listening, self._heartbeats = False, set()
        if fastdp and not self._listening:
            self._overlay.devices_made()
            self._listening = True
        self._flood = await kernel.flood()

    async def _set_flood(self, peers: list[str]) -> None:
        now, self._flood = self._flood or [], None
        if set(now) != set(peers):
            await kernel.set_flood(now, peers)
        self._flood = peers

    async def _set_heartbeats(self) -> None:
        """Adds the FDB entry of each peer before anything else uses it, and sends the first heartbeat at once."""
        if not self.options.fastdp:
            return
        connections = [one for one in self.mesh.connections.values() if one.secured]
        wanted, now = {(one.peer, one.ip) for one in connections}, self._heartbeats
        if wanted != now:
            self._heartbeats = set()
            await iproute.batch("bridge", dataplane.heartbeat_difference(now, wanted))
            self._heartbeats = wanted
        for connection in connections:
            if not connection.established:
                self._overlay.hail(connection)

    async def _set_sleeve(self, device: Device) -> None:
        """Keeps the veth for datagrams while a peer needs it, and forgets MACs that VXLAN reaches now."""
        slow = {one.peer for one in self.mesh.connections.values() if one.way == SLEEVE}
        if not slow and not self._slow:
            return
        for peer in self._slow - slow:
            await kernel.forget_behind_veth(self._overlay.macs.forget(peer))
        if slow and await kernel.ensure_veth(device):
            self._overlay.pcap_made()
        elif not slow:
            self._overlay.pcap_removed()
            await kernel.remove_veth()
        self._slow = slow

    async def _expose_again(self) -> None:
        """Restores the bridge's address, if it had one, after the bridge was recreated."""
        for address in self.allocator.lookup(EXPOSE, self.default_subnet):
            await kernel.expose(f"{IPv4Address(address)}/{self.default_subnet.prefixlen}")

    def _fast_paths(self) -> list[str]:
        return sorted({one.ip for one in self.mesh.connections.values() if one.way == FASTDP})

    # --- HTTP

    async def _serve(self) -> None:
        """Until cancelled. Raises OSError when a port is taken."""
        runners = []
        try:
            for where, reading in ((self.options.http_addr, False), (self.options.status_addr, True)):
                if not where:
                    continue
                host, _, port = where.rpartition(":")
                runner = web.AppRunner(
                    api.application(self, reading=reading), access_log=None, handler_cancellation=True
                )
                await runner.setup()
                runners.append(runner)
                await web.TCPSite(runner, host, int(port), shutdown_timeout=0.1).start()
            await asyncio.Event().wait()
        finally:
            for runner in runners:
                await runner.cleanup()

    def report(self, what: str) -> str:
        lines = self._connection_lines()
        if what == "peers":
            return status.peers(self.topology.peers())
        if what == "connections":
            return "".join(f"{line}\n" for line in lines)
        if what == "targets":
            return "".join(f"{address}\n" for address in sorted(self.mesh.targets))
        if what == "ipam":
            return status.ipam(self.allocator)
        return status.status(
            self.allocator,
            self.topology.peers(),
            lines,
            encrypted=bool(self.mesh.password),
            targets=len(self.mesh.targets),
            waiting=len(self._waiters),
            subnet=str(self.default_subnet),
        )

    def _connection_lines(self) -> list[ConnectionLine]:
        sealed = "encrypted   " if self.mesh.password else ""
        lines = [
            ConnectionLine(
                one.outbound,
                one.address,
                "established" if one.established else "pending",
                f"{sealed}{one.way} {one.peer}({one.hello.nickname})",
                f"mtu={self.options.mtu}",
            )
            for one in sorted(self.mesh.connections.values(), key=lambda one: one.address)
        ]
        there = {one.ip for one in self.mesh.connections.values()}
        for address, target in sorted(self.mesh.targets.items()):
            if address not in there:
                lines.append(ConnectionLine(True, f"{address}:{self.options.port}", target.state, target.info))
        return lines


def node_address(node: KubeObject) -> str:
    """The node's IPv4 InternalIP, else its ExternalIP; "" if it has neither."""
    found = {
        entry["type"]: entry["address"]
        for entry in node.get("status", {}).get("addresses") or ()
        if ":" not in entry["address"]
    }
    return found.get("InternalIP") or found.get("ExternalIP") or ""


def _slim(node: KubeObject) -> KubeObject:
    """The fields of a Node that this agent reads."""
    metadata = {key: node["metadata"][key] for key in ("name", "uid", "resourceVersion") if key in node["metadata"]}
    return {"metadata": metadata, "status": {"addresses": node.get("status", {}).get("addresses") or []}}


def _topology(peers: Iterable[Peer]) -> bytes:
    return _json([peer.encode() for peer in peers])


def _json(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


async def _until_there(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Retries until it succeeds: the API server may still be starting, or the kernel be busy."""
    delay = 0.02
    while True:
        try:
            return await ask()
        except _PASSING as error:
            log.debug("%s", error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, _RETRY)
