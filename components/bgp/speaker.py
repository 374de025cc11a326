"""os-ken's speaker behind a small interface: a configuration goes in, events come out.

A BGP speaker keeps one TCP session with each peer. Both ends announce their routes once, then only
changes; a session that ends takes all its routes with it. So the interface is asymmetric: apply()
says what sessions and announcements shall exist, and may be repeated with any other configuration,
while everything that peers do is reported as an event (PeerUp, Learned, Withdrawn, PeerDown). The
difference between two configurations is computed here, so an unchanged peer keeps its session, and
with it the traffic on its routes.

os-ken has one core for each process, so there can be one Speaker only. It runs on its own threads,
and calls the caller's function on them; the daemon passes the events to its event loop. What must
always hold: when os-ken fails, or one of its threads dies, the process ends, because sessions
without a working thread look alive and lose packets (SpeakerError, Failed).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from os_ken.lib.packet import bgp
from os_ken.services.protocols.bgp.bgpspeaker import BGPSpeaker
from os_ken.services.protocols.bgp.core_manager import CORE_MANAGER
from os_ken.services.protocols.bgp.info_base.base import PrefixFilter
from os_ken.services.protocols.bgp.info_base.ipv4 import Ipv4Path
from os_ken.services.protocols.bgp.info_base.ipv6 import Ipv6Path
from os_ken.services.protocols.bgp.rtconf import neighbors
from os_ken.services.protocols.bgp.signals.emit import BgpSignalBus

from kubewire.components.bgp import osken
from kubewire.components.bgp.config import Announcement, Configuration, Filter, Peer, Prefix
from kubewire.components.bgp.rib import DEFAULT_LOCAL_PREF, Route
from kubewire.components.bgp.session import shut

log = logging.getLogger(__name__)

BGP_PORT = 179
#: The pause between attempts to accept when the process has no free descriptor.
_ACCEPT_PAUSE_S = 0.1
CEASE, ADMINISTRATIVE_SHUTDOWN = 6, 2  # RFC 4486
#: os-ken's value for "no next hop": it inserts the session's own address.
_NO_NEXT_HOP = {4: "0.0.0.0", 6: "::"}


class SpeakerError(RuntimeError):
    """os-ken cannot do what it was asked. The process must end, as after Failed, which may come
    before or after it."""


@dataclass(frozen=True)
class PeerUp:
    """keeps_forwarding: a restarted peer still forwards along its earlier routes (RFC 4724's F
    bit)."""

    peer: str
    keeps_forwarding: bool = False


@dataclass(frozen=True)
class PeerDown:
    """restart_time: for how many seconds the peer's routes stay; 0: they are deleted."""

    peer: str
    restart_time: int = 0


@dataclass(frozen=True)
class EndOfRib:
    """The peer has sent all its routes."""

    peer: str


@dataclass(frozen=True)
class Learned:
    route: Route


@dataclass(frozen=True)
class Withdrawn:
    peer: str
    prefix: Prefix


@dataclass(frozen=True)
class Failed:
    """A thread of os-ken has died. Sessions could stay up without it, so the process must end."""

    what: str


Event = PeerUp | PeerDown | Learned | Withdrawn | EndOfRib | Failed


class Speaker:
    """Sessions and announcements follow the last applied configuration.

    Every method raises SpeakerError if os-ken fails, or has failed before. restarting: the kernel
    still has routes of an earlier process, which peers are told (RFC 4724, 4.1), until it is set to
    False.
    """

    def __init__(
        self,
        configuration: Configuration,
        report: Callable[[Event], None],
        *,
        restarting: bool = False,
    ) -> None:
        osken.install()
        self._report = report
        self._cause = ""
        osken.on_failure(self._failed)
        self.restarting = restarting
        self._notified: set[str] = set()
        self._ended = threading.Event()
        self._restart_times: dict[str, int] = {}
        self._configuration = Configuration(configuration.local_as, configuration.router_id)
        self._listening: dict[socket.AddressFamily, socket.socket] = {}
        # A thread inherits the daemon flag of its creator; the process must not wait for these
        # threads at its end.
        with self._os_ken():
            self._in_daemon_thread(self._start, configuration)

    def _failed(self, what: str) -> None:
        self._cause = what
        self._report(Failed(what))

    @contextlib.contextmanager
    def _os_ken(self) -> Iterator[None]:
        """Turns os-ken's exceptions into SpeakerError. If one of its threads has died, the error
        names that cause: the exception here only shows that the rest of os-ken has stopped.
        """
        try:
            yield
        except Exception as error:
            raise SpeakerError(self._cause or f"os-ken failed: {error!r}") from error

    def _start(self, configuration: Configuration) -> None:
        cluster = {"cluster_id": configuration.cluster_id} if configuration.cluster_id else {}
        BGPSpeaker(configuration.local_as, configuration.router_id, bgp_server_port=0, **cluster)
        # os-ken accepts no value below 10 s here, which is longer than a lab waits.
        CORE_MANAGER.common_conf._settings["bgp_conn_retry_time"] = configuration.connect_retry
        bus = CORE_MANAGER.get_core_service()._signal_bus
        bus.register_listener(BgpSignalBus.BGP_ADJ_UP, lambda _, info: self._up(info["peer"]))
        bus.register_listener(BgpSignalBus.BGP_ADJ_DOWN, lambda _, info: self._down(info["peer"]))
        osken.on_notification(self._notification)
        osken.on_end_of_rib(lambda peer: self._report(EndOfRib(peer.ip_address)))
        bus.register_listener(
            BgpSignalBus.BGP_ADJ_RIB_IN_CHANGED,
            lambda _, info: self._received(info["peer"], info["received_route"]),
        )
        for address in configuration.listen:
            self._listen(address)

    def _notification(self, peer: Any) -> None:
        if peer is not None:  # None before its OPEN was read
            self._notified.add(peer.ip_address)

    def _up(self, peer: Any) -> None:
        address = peer.ip_address
        self._notified.discard(address)
        self._restart_times[address], keeps_forwarding = osken.restart_capability(peer)
        self._report(PeerUp(address, keeps_forwarding))

    def _down(self, peer: Any) -> None:
        """A peer that disappears without a NOTIFICATION may be restarting."""
        address = peer.ip_address
        wanted = self._configuration.peer(address)
        keep = wanted is not None and wanted.restart_time and address not in self._notified
        restart_time = self._restart_times.get(address, 0) if keep else 0
        if not restart_time:
            peer.adj_rib_in.clear()  # os-ken keeps it for ever; after a restart the peer may still withdraw from it
        self._report(PeerDown(address, restart_time))

    def _listen(self, address: str) -> None:
        """Listens on every address; os-ken listens on the first only, and sets no MD5 key on
        threads."""
        family = osken.family(address)
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, BGP_PORT))
            sock.listen(64)
        except OSError as error:
            log.warning("not listening on %s port %d: %s", address, BGP_PORT, error)
            return
        self._listening[family] = sock
        threading.Thread(target=self._accept, args=(sock,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        """Accepts for ever; an error with one connection ends that connection only."""
        while True:
            try:
                sock, peer = listening.accept()
            except OSError as error:
                log.warning("cannot accept connections: %s", error.strerror)
                self._ended.wait(_ACCEPT_PAUSE_S)  # EMFILE lasts until other connections are closed
                continue
            try:
                CORE_MANAGER.get_core_service().start_protocol(sock)
            except Exception as error:
                log.warning("%s: the connection ends before its OPEN: %s", peer[0], error)
                sock.close()

    def apply(self, configuration: Configuration) -> None:
        """Changes from the previous configuration to this one. A changed peer's session is ended
        and started again.

        Local AS, router id, cluster id and listening addresses stay as they were at the start.
        """
        with self._os_ken():
            self._apply(configuration)

    def _apply(self, configuration: Configuration) -> None:
        before = self._configuration
        for peer in before.peers:
            if configuration.peer(peer.address) != peer:
                self._remove(peer)
        for announcement in before.announce:
            if announcement.prefix not in {kept.prefix for kept in configuration.announce}:
                self._originate(announcement, withdraw=True)
        for announcement in configuration.announce:
            if announcement not in before.announce:
                self._originate(announcement)
        for peer in configuration.peers:
            if before.peer(peer.address) != peer:
                self._in_daemon_thread(self._add, peer)
        self._configuration = configuration

    def _in_daemon_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        """Runs work in a daemon thread, so that threads started by it are daemons too. Raises its
        exception."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def _add(self, peer: Peer) -> None:
        if peer.password and (listening := self._listening.get(osken.family(peer.address))):
            osken.set_md5_key(listening, peer.address, peer.password)
        version = ipaddress.ip_address(peer.address).version
        settings: dict[str, Any] = {
            neighbors.IP_ADDRESS: peer.address,
            neighbors.REMOTE_AS: peer.remote_as,
            neighbors.CONNECT_MODE: neighbors.CONNECT_MODE_PASSIVE
            if peer.passive
            else neighbors.CONNECT_MODE_BOTH,
            neighbors.IS_ROUTE_REFLECTOR_CLIENT: peer.route_reflector_client,
            neighbors.IS_NEXT_HOP_SELF: peer.next_hop_self,
            neighbors.PASSWORD: peer.password or None,
            neighbors.CAP_MBGP_IPV4: version == 4,
            neighbors.CAP_MBGP_IPV6: version == 6,
            neighbors.CAP_FOUR_OCTET_AS_NUMBER: True,
            neighbors.IN_FILTER: [
                _OsKenFilter(peer.imports, family) for family in (Ipv4Path, Ipv6Path)
            ],
            neighbors.OUT_FILTER: [
                _OsKenFilter(peer.exports, family) for family in (Ipv4Path, Ipv6Path)
            ],
        }
        if peer.local_address:
            settings[neighbors.LOCAL_ADDRESS] = peer.local_address
        # api.call would fail: it logs the settings as a set, and filters are a list, which is not
        # hashable.
        configuration = neighbors.NeighborConf(**settings)
        configuration._settings[neighbors.HOLD_TIME] = (
            peer.hold_time
        )  # os-ken accepts no value below 10 s
        if peer.restart_time:
            osken.offer_restart(configuration, peer.restart_time, version, lambda: self.restarting)
        CORE_MANAGER.neighbors_conf.add_neighbor_conf(configuration)

    def _remove(self, peer: Peer) -> None:
        neighbour = self._os_ken_peer(peer.address)
        if neighbour is not None:
            neighbour._neigh_conf._settings[neighbors.ENABLED] = False
            neighbour._connect_retry_event.clear()
            self._cease(neighbour)
        if peer.password and (listening := self._listening.get(osken.family(peer.address))):
            osken.set_md5_key(listening, peer.address, "")
        CORE_MANAGER.neighbors_conf.remove_neighbor_conf(peer.address)
        self._report(PeerDown(peer.address))

    def _os_ken_peer(self, address: str) -> Any:
        return CORE_MANAGER.get_core_service().peer_manager.get_by_addr(address)

    def _cease(self, neighbour: Any) -> None:
        """Sends a Cease, then ends the connection. os-ken's receiving thread notices that and
        deletes the routes."""
        self._notified.add(neighbour.ip_address)
        if protocol := neighbour.protocol:
            protocol._send_with_lock(bgp.BGPNotification(CEASE, ADMINISTRATIVE_SHUTDOWN))
            shut(protocol._socket)

    def drop(self, address: str) -> None:
        """Ends the session at once because the link to the peer is down; the hold timer would take
        longer."""
        with self._os_ken():
            neighbour = self._os_ken_peer(address)
            if neighbour is not None and (protocol := neighbour.protocol):
                self._notified.add(address)
                shut(protocol._socket)

    def stop(self) -> None:
        """Sends a Cease to every peer (RFC 4271, 8.2.2, ManualStop)."""
        with self._os_ken():
            for peer in self._configuration.peers:
                if (neighbour := self._os_ken_peer(peer.address)) is not None:
                    neighbour._neigh_conf._settings[neighbors.ENABLED] = False
                    self._cease(neighbour)

    def state(self, address: str) -> str:
        """The session's state, named as in RFC 4271."""
        with self._os_ken():
            neighbour = self._os_ken_peer(address)
            return str(neighbour.state.bgp_state) if neighbour is not None else "Idle"

    def _originate(self, announcement: Announcement, withdraw: bool = False) -> None:
        prefix = announcement.prefix
        path_class, nlri_class = (
            (Ipv4Path, bgp.IPAddrPrefix) if prefix.version == 4 else (Ipv6Path, bgp.IP6AddrPrefix)
        )
        nlri = nlri_class(prefix.prefixlen, str(prefix.network_address))
        attributes: OrderedDict[int, Any] = OrderedDict()
        attributes[bgp.BGP_ATTR_TYPE_ORIGIN] = bgp.BGPPathAttributeOrigin(bgp.BGP_ATTR_ORIGIN_IGP)
        attributes[bgp.BGP_ATTR_TYPE_AS_PATH] = bgp.BGPPathAttributeAsPath([])
        if announcement.communities:
            attributes[bgp.BGP_ATTR_TYPE_COMMUNITIES] = bgp.BGPPathAttributeCommunities(
                list(announcement.communities),
            )
        next_hop = announcement.next_hop or _NO_NEXT_HOP[prefix.version]
        path = path_class(None, nlri, 0, pattrs=attributes, nexthop=next_hop, is_withdraw=withdraw)
        CORE_MANAGER.get_core_service().table_manager.learn_path(path)

    def _received(self, peer: Any, received: Any) -> None:
        path = received.path
        prefix = ipaddress.ip_network(f"{path.nlri.addr}/{path.nlri.length}", strict=False)
        if path.is_withdraw or received.filtered:
            self._report(Withdrawn(peer.ip_address, prefix))
        else:
            self._report(Learned(_route(prefix, peer, path)))


def _route(prefix: Prefix, peer: Any, path: Any) -> Route:
    attributes = path.pathattr_map

    def value(kind: int, default: int) -> int:
        return int(attributes[kind].value) if kind in attributes else default

    segments = attributes[bgp.BGP_ATTR_TYPE_AS_PATH].path_seg_list
    communities = attributes.get(bgp.BGP_ATTR_TYPE_COMMUNITIES)
    return Route(
        prefix=prefix,
        peer=peer.ip_address,
        next_hop=str(path.nexthop),
        as_path=tuple(number for segment in segments for number in segment),
        internal=not peer.is_ebgp_peer(),
        local_pref=value(bgp.BGP_ATTR_TYPE_LOCAL_PREF, DEFAULT_LOCAL_PREF),
        med=value(bgp.BGP_ATTR_TYPE_MULTI_EXIT_DISC, 0),
        origin=value(bgp.BGP_ATTR_TYPE_ORIGIN, 2),
        communities=tuple(communities.communities) if communities else (),
    )


class _OsKenFilter(PrefixFilter):  # type: ignore[misc]
    """A Filter as os-ken's class of filters, for one address family."""

    def __init__(self, wanted: Filter, path_class: type) -> None:
        super().__init__("0.0.0.0/0", PrefixFilter.POLICY_DENY)
        self._wanted = wanted
        self._path_class = path_class
        self.ROUTE_FAMILY = path_class.ROUTE_FAMILY  # type: ignore[attr-defined]

    def evaluate(self, path: Any) -> tuple[int, bool]:
        prefix = ipaddress.ip_network(f"{path.nlri.addr}/{path.nlri.length}", strict=False)
        return PrefixFilter.POLICY_DENY, not self._wanted.accepts(prefix)

    def clone(self) -> _OsKenFilter:
        return _OsKenFilter(self._wanted, self._path_class)
