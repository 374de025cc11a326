"""weave-net: what weaver, kube-utils and launch.sh do on a node. The kernel and the ring follow the
mesh.

The agent connects the parts and passes on what the mesh reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.informer import wait_synced
from kubewire.components.networks.weave import api, kernel, status, wire
from kubewire.components.networks.weave.addresses import Addresses
from kubewire.components.networks.weave.allocator import Allocator, Setup
from kubewire.components.networks.weave.datapath import Datapath
from kubewire.components.networks.weave.dataplane import Device
from kubewire.components.networks.weave.gossip import Gossip
from kubewire.components.networks.weave.launch import Launch
from kubewire.components.networks.weave.mesh import Connection, Mesh
from kubewire.components.networks.weave.options import Options
from kubewire.components.networks.weave.overlay import Overlay
from kubewire.components.networks.weave.ring import RingConflict
from kubewire.components.networks.weave.security import Security
from kubewire.components.networks.weave.store import Store
from kubewire.components.networks.weave.topology import Link, Peer, Topology
from kubewire.components.networks.weave.wire import WireError

log = logging.getLogger("weave-net")
_MAC = re.compile("[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


class Agent:
    """One node's weave-net. run() until cancelled."""

    def __init__(self, options: Options, client: Client) -> None:
        self._options = options
        uid = random.getrandbits(63)
        self._topology = Topology(Peer(options.name, options.nodename, uid))
        self._allocator = Allocator(
            Setup(
                options.name,
                uid,
                options.nodename,
                options.range,
                options.quorum,
                self._topology.knows,
            )
        )
        self._mesh = Mesh(
            options.name,
            options.nodename,
            uid,
            options.port,
            self,
            limit=options.conn_limit,
            timing=options.timing,
        )
        self._overlay = Overlay(
            options.name, options.timing, self._connections_changed, fastdp=options.fastdp
        )
        self._gossip = Gossip(
            options.name, self._topology, self._allocator, self._mesh, options.gossip
        )
        self._datapath = Datapath(options, self._allocator, self._mesh, self._overlay)
        self._store = Store(options.db_prefix)
        self._addresses = Addresses(
            self._allocator,
            self._store,
            self._gossip.say,
            self._datapath.allocator_saved,
            options.tick,
        )
        self._launch = Launch(options, client, self._allocator, self._mesh, self._addresses)

    async def run(self) -> None:
        """Raises OSError or CommandError if the agent cannot start."""
        options, launch = self._options, self._launch
        address = await kernel.interface(options.interface)
        await launch.api_server()
        if options.password_secret:
            await self._take_password(await launch.read_password())
        await launch.restore(self._store)
        device = Device(options.name, options.interface, address, options.mtu)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            stack.callback(self._overlay.close)
            self._overlay.listen()
            tasks.create_task(self._overlay.run())
            tasks.create_task(self._datapath.follow(device))
            tasks.create_task(self._mesh.run())
            tasks.create_task(self._serve())
            tasks.create_task(self._addresses.tick())
            tasks.create_task(self._gossip.run())
            tasks.create_task(launch.nodes.run())
            await wait_synced(launch.nodes)
            launch.set_targets()
            tasks.create_task(launch.finish())

    async def _take_password(self, password: str) -> None:
        self._mesh.password = password
        if self._options.fastdp:
            self._datapath.security = Security(self._options.name)
            await self._datapath.security.reset()

    def connected(self, connection: Connection) -> None:
        """The mesh has a new connection. Raises WireError if the peer's name is not a MAC
        address."""
        if not _MAC.fullmatch(connection.peer):  # heartbeats are addressed with it
            raise WireError(f"{connection.peer!r} is no peer's name")
        log.info(
            "->[%s|%s(%s)]: connection added",
            connection.address,
            connection.peer,
            connection.hello.nickname,
        )
        self._overlay.begin(connection)
        if self._datapath.security is not None:
            self._datapath.security.begin(connection)
        else:
            connection.secured = True
        self._connections_changed()
        self._gossip.greet(connection)

    def disconnected(self, connection: Connection) -> None:
        """The mesh has lost a connection."""
        log.info(
            "->[%s|%s(%s)]: connection deleted",
            connection.address,
            connection.peer,
            connection.hello.nickname,
        )
        self._overlay.end(connection)
        if self._datapath.security is not None:
            self._datapath.security.end(connection)
        self._connections_changed()

    def received(self, connection: Connection, kind: int, body: bytes) -> None:
        """The mesh has received a message. Raises WireError if it is malformed or contradicts the
        ring."""
        try:
            self._received(connection, kind, body)
        except (
            RingConflict,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise WireError(str(error)) from None
        finally:
            self._addresses.flush()

    def _received(self, connection: Connection, kind: int, body: bytes) -> None:
        if kind == wire.SECURITY_ASSOCIATION and self._datapath.security is not None:
            self._datapath.security.received(connection, body)
            self._datapath.update()
        elif kind in (wire.FAST_HEARD, wire.SLEEVE_HEARD):
            self._overlay.heard(connection, kind)
        else:
            self._gossip.received(connection, kind, body)

    def _connections_changed(self) -> None:
        links = [
            Link(one.peer, one.address, one.outbound, one.established)
            for one in self._mesh.connections.values()
        ]
        if self._topology.set_links(links):
            self._gossip.links_changed()
        self._allocator.retry = True
        self._datapath.update()
        self._addresses.flush()

    async def _serve(self) -> None:
        """Serves the HTTP API until cancelled. Raises OSError if a port is in use."""
        subnet = self._options.default_subnet
        sites = [
            (self._options.http_addr, api.application(self._addresses, subnet, self._report)),
            (self._options.status_addr, api.reports(self._report)),
        ]
        await api.serve([site for site in sites if site[0]])

    def _report(self, what: str) -> str:
        """`weave status WHAT`."""
        lines = status.connections(self._mesh, self._options.port, self._options.mtu)
        if what == "peers":
            return status.peers(self._topology.peers())
        if what == "connections":
            return "".join(f"{line}\n" for line in lines)
        if what == "targets":
            return "".join(f"{address}\n" for address in sorted(self._mesh.targets))
        if what == "ipam":
            return status.ipam(self._allocator)
        return status.status(
            self._allocator,
            self._topology.peers(),
            lines,
            encrypted=bool(self._mesh.password),
            targets=len(self._mesh.targets),
            waiting=self._addresses.waiting,
            subnet=str(self._options.default_subnet),
        )
