"""os-ken's speaker behind a small interface: a configuration goes in, events come out.

os-ken has one core for a process, so there is one Speaker. It runs on threads of its own; events are handed to the
caller's function on those threads.
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
#: Between two tries to accept a connection when the process is out of descriptors.
_ACCEPT_PAUSE_S = 0.1
CEASE, ADMINISTRATIVE_SHUTDOWN = 6, 2  # RFC 4486
#: To and from whom os-ken has no next hop yet; it puts the session's address in its place.
_NO_NEXT_HOP = {4: "0.0.0.0", 6: "::"}


class SpeakerError(RuntimeError):
    """os-ken does not do what it was asked: the process must end, as after Failed, which may come before or after."""


@dataclass(frozen=True)
class PeerUp:
    """keeps_forwarding: after a restart it still has the routes that it had announced (RFC 4724's F bit)."""

    peer: str
    keeps_forwarding: bool = False


@dataclass(frozen=True)
class PeerDown:
    """restart_time: seconds in which the peer may come back with its routes; 0: it is gone."""

    peer: str
    restart_time: int = 0


@dataclass(frozen=True)
class EndOfRib:
    """The peer has sent all that it has."""

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
    """A thread of os-ken's has died by a fault. Its sessions could stay up without it, so the process must end."""

    what: str


Event = PeerUp | PeerDown | Learned | Withdrawn | EndOfRib | Failed


class Speaker:
    """Sessions and announcements follow the last applied configuration.

    Every method raises SpeakerError when os-ken fails, or has failed before.
    restarting: its kernel still has the routes of a run before, which peers are told (RFC 4724, 4.1), until set False.
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
        # Threads inherit being daemons from the one that starts them: the process need not wait for them in the end.
        with self._os_ken():
            self._in_daemon_thread(self._start, configuration)

    def _failed(self, what: str) -> None:
        self._cause = what
        self._report(Failed(what))

    @contextlib.contextmanager
    def _os_ken(self) -> Iterator[None]:
        """What os-ken raises becomes a SpeakerError. When a thread of its has died, that is told instead: it is the
        cause, and the exception here only says that the rest of os-ken has stopped.
        """
        try:
            yield
        except Exception as error:
            raise SpeakerError(self._cause or f"os-ken failed: {error!r}") from error

    def _start(self, configuration: Configuration) -> None:
        cluster = {"cluster_id": configuration.cluster_id} if configuration.cluster_id else {}
        BGPSpeaker(configuration.local_as, configuration.router_id, bgp_server_port=0, **cluster)
        # os-ken takes no less than 10 s here, which is longer than a lab waits.
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
        if peer is not None:  # its OPEN was not read yet
            self._notified.add(peer.ip_address)

    def _up(self, peer: Any) -> None:
        address = peer.ip_address
        self._notified.discard(address)
        self._restart_times[address], keeps_forwarding = osken.restart_capability(peer)
        self._report(PeerUp(address, keeps_forwarding))

    def _down(self, peer: Any) -> None:
        """Without a word it may be restarting."""
        address = peer.ip_address
        wanted = self._configuration.peer(address)
        keep = wanted is not None and wanted.restart_time and address not in self._notified
        restart_time = self._restart_times.get(address, 0) if keep else 0
        if not restart_time:
            peer.adj_rib_in.clear()  # os-ken keeps it for ever; a restarted peer may still withdraw what it has in it
        self._report(PeerDown(address, restart_time))

    def _listen(self, address: str) -> None:
        """os-ken would listen on the first address only, and set no MD5 key on threads."""
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
        """For ever: what is wrong with one connection ends that one."""
        while True:
            try:
                sock, peer = listening.accept()
            except OSError as error:
                log.warning("cannot accept connections: %s", error.strerror)
                self._ended.wait(_ACCEPT_PAUSE_S)  # EMFILE lasts until others close theirs
                continue
            try:
                CORE_MANAGER.get_core_service().start_protocol(sock)
            except Exception as error:
                log.warning("%s: the connection ends before its OPEN: %s", peer[0], error)
                sock.close()

    def apply(self, configuration: Configuration) -> None:
        """From the configuration before to this one. A changed peer's session is ended and begun anew.

        local AS, router id, cluster id and listening addresses stay those of the start.
        """
        with self._os_ken():
            self._apply(configuration)

    def _apply(self, configuration: Configuration) -> None:
        before = self._configuration
        for peer in before.peers:
            if configuration.peer(peer.address) != peer:
                self._remove(peer)
        for announcement in before.announce:
            if announcement.prefix not in {one.prefix for one in configuration.announce}:
                self._originate(announcement, withdraw=True)
        for announcement in configuration.announce:
            if announcement not in before.announce:
                self._originate(announcement)
        for peer in configuration.peers:
            if before.peer(peer.address) != peer:
                self._in_daemon_thread(self._add, peer)
        self._configuration = configuration

    def _in_daemon_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        """Raises what work raises."""
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
            neighbors.CONNECT_MODE: neighbors.CONNECT_MODE_PASSIVE if peer.passive else neighbors.CONNECT_MODE_BOTH,
            neighbors.IS_ROUTE_REFLECTOR_CLIENT: peer.route_reflector_client,
            neighbors.IS_NEXT_HOP_SELF: peer.next_hop_self,
            neighbors.PASSWORD: peer.password or None,
            neighbors.CAP_MBGP_IPV4: version == 4,
            neighbors.CAP_MBGP_IPV6: version == 6,
            neighbors.CAP_FOUR_OCTET_AS_NUMBER: True,
            neighbors.IN_FILTER: [_OsKenFilter(peer.imports, family) for family in (Ipv4Path, Ipv6Path)],
            neighbors.OUT_FILTER: [_OsKenFilter(peer.exports, family) for family in (Ipv4Path, Ipv6Path)],
        }
        if peer.local_address:
            settings[neighbors.LOCAL_ADDRESS] = peer.local_address
        # api.call would fail: it logs settings as a set, and filters are a list.
        configuration = neighbors.NeighborConf(**settings)
        configuration._settings[neighbors.HOLD_TIME] = peer.hold_time  # os-ken takes no less than 10 s
        if peer.restart_time:
            osken.offer_restart(configuration, peer.restart_time, version, lambda: self.restarting)
        CORE_MANAGER.neighbors_conf.add_neighbor_conf(configuration)

    def _remove(self, peer: Peer) -> None:
        one = self._os_ken_peer(peer.address)
        if one is not None:
            one._neigh_conf._settings[neighbors.ENABLED] = False
            one._connect_retry_event.clear()
            self._cease(one)
        if peer.password and (listening := self._listening.get(osken.family(peer.address))):
            osken.set_md5_key(listening, peer.address, "")
        CORE_MANAGER.neighbors_conf.remove_neighbor_conf(peer.address)
        self._report(PeerDown(peer.address))

    def _os_ken_peer(self, address: str) -> Any:
        return CORE_MANAGER.get_core_service().peer_manager.get_by_addr(address)

    def _cease(self, one: Any) -> None:
        """Tell the peer, then end the connection: os-ken's receiving thread sees that and drops the routes."""
        self._notified.add(one.ip_address)
        if protocol := one.protocol:
            protocol._send_with_lock(bgp.BGPNotification(CEASE, ADMINISTRATIVE_SHUTDOWN))
            shut(protocol._socket)

    def drop(self, address: str) -> None:
        """The link to a peer is gone: end the session now, not when the hold timer does."""
        with self._os_ken():
            one = self._os_ken_peer(address)
            if one is not None and (protocol := one.protocol):
                self._notified.add(address)
                shut(protocol._socket)

    def stop(self) -> None:
        """Every peer gets a Cease (RFC 4271, 8.2.2, ManualStop)."""
        with self._os_ken():
            for peer in self._configuration.peers:
                if (one := self._os_ken_peer(peer.address)) is not None:
                    one._neigh_conf._settings[neighbors.ENABLED] = False
                    self._cease(one)

    def state(self, address: str) -> str:
        """RFC 4271's name of a session's state."""
        with self._os_ken():
            one = self._os_ken_peer(address)
            return str(one.state.bgp_state) if one is not None else "Idle"

    def _originate(self, announcement: Announcement, withdraw: bool = False) -> None:
        prefix = announcement.prefix
        path_class, nlri_class = (Ipv4Path, bgp.IPAddrPrefix) if prefix.version == 4 else (Ipv6Path, bgp.IP6AddrPrefix)
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
    """A filter of ours where os-ken wants one of its own, for one address family."""

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
