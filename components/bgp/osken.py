"""Repairs of os-ken 4.2.2's BGP that make it safe on threads, its default since eventlet was
retired.

os-ken was written for eventlet, where a switch to other code happens only at a wait. On threads it
can happen between any two instructions, and that exposes four faults. All were found by reading its
source. install() repairs them in place before a speaker is created, because the classes are created
deep inside os-ken and cannot be passed in:

- Queues (linked lists) are filled and emptied by different threads, and a wake-up between "empty"
  and "wait" is lost, so that an update stays unsent until the next one: _Queue, _AutoReset.
- A table is written by a thread for each peer and by the processor: one lock is taken around each
  of them.
- hub.Event can miss a set(): threading.Event replaces it.
- A connect cannot time out, demands a source port with a source address, and MD5 keys must be
  bytes: _connect_tcp.

os-ken's receiving side also trusts what peers send; session.Connection replaces it. A thread that
sends to a peer survives that peer's faults (_sending). The death of any other thread is reported,
because the rest would continue without it, with sessions that look established and no longer
process routes.

The version of os-ken is pinned: every repair depends on the code it replaces.
"""

from __future__ import annotations

import collections
import functools
import logging
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from os_ken.lib import hub
from os_ken.lib.packet import bgp
from os_ken.services.protocols.bgp import base, constants, core, peer, processor
from os_ken.services.protocols.bgp.core_managers import peer_manager, table_manager
from os_ken.services.protocols.bgp.info_base import base as info_base
from os_ken.services.protocols.bgp.model import OutgoingRoute, SentRoute
from os_ken.services.protocols.bgp.signals.emit import BgpSignalBus

from kubewire.components.bgp import messages, osken_routes
from kubewire.components.bgp.session import Connection, shut

log = logging.getLogger(__name__)

TCP_MD5SIG = 14  # linux/tcp.h
#: Less than connect(2)'s two minutes, so that a peer that comes back is found soon.
CONNECT_TIMEOUT_S = 5.0

_tables = threading.RLock()


class _AutoReset:
    """An event that a wait consumes: unlike "empty? then clear and wait", it cannot lose a
    set()."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)

    def set(self) -> None:
        self._permits.release()

    def clear(self) -> None:
        """Does nothing: wait() clears."""

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        taken = self._permits.acquire(timeout=timeout)
        while self._permits.acquire(blocking=False):
            pass
        return taken


class _Queue:
    """Replaces os-ken's circular list by a deque, whose operations at both ends are atomic."""

    def __init__(self) -> None:
        self._items: collections.deque[Any] = collections.deque()
        self.append = self._items.append
        self.prepend = self._items.appendleft

    def pop_first(self) -> Any:
        try:
            return self._items.popleft()
        except IndexError:
            return None


def _sink_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any) -> None:
        original(self)
        self.outgoing_msg_event = _AutoReset()

    return init


def _processor_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.dest_que_evt = _AutoReset()

    return init


def _locked(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _tables:
            return original(*args, **kwargs)

    return call


def set_md5_key(sock: socket.socket, address: str, key: str) -> None:
    """Signs segments to and from address (TCP_MD5SIG of tcp(7), RFC 2385). Raises OSError."""
    if sock.family == socket.AF_INET:
        packed = struct.pack(
            "=H2s4s120x",
            socket.AF_INET,
            b"",
            socket.inet_pton(socket.AF_INET, address),
        )
    else:
        packed = struct.pack(
            "=H2s4s16s104x",
            socket.AF_INET6,
            b"",
            b"",
            socket.inet_pton(socket.AF_INET6, address),
        )
    data = key.encode()
    sock.setsockopt(
        socket.IPPROTO_TCP,
        TCP_MD5SIG,
        packed + struct.pack("=2xH4x80s", len(data), data),
    )


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _connect_tcp(
    self: Any, peer_addr: tuple[str, int], conn_handler: Callable[..., Any], **_: Any
) -> socket.socket:
    """Replaces Activity._connect_tcp. Uses the peer's password and local address."""
    configuration = self._neigh_conf
    sock = socket.socket(family(peer_addr[0]), socket.SOCK_STREAM)
    try:
        if configuration.host_bind_ip:
            sock.bind((configuration.host_bind_ip, 0))
        if configuration.password:
            set_md5_key(sock, peer_addr[0], configuration.password)
        sock.settimeout(CONNECT_TIMEOUT_S)
        sock.connect(peer_addr)
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    self._asso_socket_map[f"connection to {peer_addr[0]}"] = sock
    self._spawn(f"connected to {peer_addr[0]}", _begin, self, conn_handler, sock)
    return sock


def _resend_sent(self: Any, route_family: Any, neighbour: Any) -> None:
    """Replaces PeerManager.resend_sent, which fails for a peer without a configured MED: the answer
    to RFC 2918."""
    for destination in self._table_manager.get_global_table_by_route_family(route_family).values():
        for sent in destination.sent_routes or ():
            if sent.sent_peer is neighbour:
                neighbour.enque_outgoing_msg(OutgoingRoute(sent.path, for_route_refresh=True))


def _new_best_path(self: Any, new_best_path: Any) -> None:
    """Replaces NonVrfPathProcessingMixin._new_best_path.

    That one withdraws the old path from every peer after it has announced the new one, so peers end
    up with none (RFC 4271, 3.1: a new route replaces the old one by itself), and does not withdraw
    it from peers that the new path is not for.
    """
    self._best_path = new_best_path
    before = dict(self._sent_routes)
    self._core_service.peer_manager.comm_new_best_to_bgp_peers(new_best_path)
    for neighbour, sent in before.items():
        if self._sent_routes.get(neighbour) is sent:  # the new path was not announced to it
            self.withdraw_if_sent_to(neighbour)


def _noting_what_is_sent(original: Callable[..., None]) -> Callable[..., None]:
    """Wraps Sink.enque_outgoing_msg: a route counts as sent once it is in the queue.

    os-ken records it when its thread sends it. It then does not withdraw a route that is still
    queued, and records a route as sent that was withdrawn meanwhile.
    """

    @functools.wraps(original)
    def enqueue(self: Any, message: Any) -> None:
        is_route = isinstance(message, OutgoingRoute) and isinstance(self, peer.Peer)
        if is_route and not message.path.is_withdraw and not message.for_route_refresh:
            with _tables:
                manager = self._core_service.table_manager
                table = manager.get_global_table_by_route_family(message.path.route_family)
                table.insert_sent_route(SentRoute(message.path, self, False))
        original(self, message)

    return enqueue


class _NotKept(dict[str, Any]):
    """Replaces os-ken's Adj-RIB-Out, which keeps every prefix for ever, for a change of filters.
    Here a peer is restarted when its filters change, so nothing is kept."""

    def __setitem__(self, prefix: str, sent: Any) -> None:
        pass


def _peer_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._adj_rib_out = _NotKept()

    return init


def _has_matching_leftmost(self: Any, remote_as: int) -> bool:
    """Replaces BGPPathAttributeAsPath.has_matching_leftmost, which fails for a path that begins
    with an AS_SET: a set has no order, so it has no leftmost AS (RFC 4271, 4.3)."""
    first = next(iter(self.value), None)
    return isinstance(first, list) and first[:1] == [remote_as]


def _reflecting(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps Peer._construct_update: routes that a reflector passes on within its AS are marked
    (osken_routes.reflect), its own routes and those of other ASes are not. os-ken decides by the
    receiver instead."""

    @functools.wraps(original)
    def construct(self: Any, route: Any) -> Any:
        self.is_constructing = True
        try:
            update = original(self, route)
        finally:
            self.is_constructing = False
        source = route.path.source
        within = (
            isinstance(source, peer.Peer)
            and source.remote_as == self.remote_as == self._core_service.asn
        )
        if within and not route.path.is_withdraw:
            osken_routes.reflect(update, route.path, self._common_conf.cluster_id)
        return update

    return construct


def _writing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps Peer._construct_update: if an UPDATE is longer than RFC 4271 allows, or cannot be
    encoded, the route that it replaces is withdrawn, as BIRD does. A route of one peer must not end
    the sessions with other peers."""

    @functools.wraps(original)
    def construct(self: Any, route: Any) -> Any:
        try:
            written = _Written(original(self, route).serialize())
        except Exception as error:
            problem = f"cannot be written: {error!r}"
        else:
            if len(written.data) <= messages.LARGEST:
                return written
            problem = f"makes an UPDATE of {len(written.data)} bytes"
        log.warning("%s: %s is not announced: it %s", self.ip_address, route.path.nlri_str, problem)
        return original(self, OutgoingRoute(route.path.clone(for_withdrawal=True)))

    return construct


class _Written:
    """A message that is already serialized."""

    type = bgp.BGP_MSG_UPDATE

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data


def _is_route_reflector_client(self: Any) -> bool:
    return self._neigh_conf.is_route_reflector_client and not getattr(
        self,
        "is_constructing",
        False,
    )


def _begin(self: Any, conn_handler: Callable[..., Any], sock: socket.socket) -> None:
    """If the connection ends before it is a session, the peer is tried again."""
    try:
        conn_handler(sock)
    except Exception as error:
        log.warning("%s: the connection ends before its OPEN: %s", self.ip_address, error)
        sock.close()
        if self.state.bgp_state == constants.BGP_FSM_CONNECT:
            self.state.bgp_state = constants.BGP_FSM_ACTIVE


def _sending(original: Callable[..., None]) -> Callable[..., None]:
    """The loop of the thread that sends to a peer: an UPDATE that cannot be made or sent ends the
    session."""

    @functools.wraps(original)
    def send(self: Any) -> None:
        while True:
            try:
                original(self)
            except Exception as error:
                protocol = self._protocol
                if protocol is not None and protocol.started:
                    log.error("%s: the session ends: cannot send: %r", self.ip_address, error)
                    shut(protocol._socket)

    return send


_failure: list[Callable[[str], None]] = []


def on_failure(report: Callable[[str], None]) -> None:
    """Registers report(what), which is called when a thread has died by an exception."""
    _failure.append(report)


def _died(arguments: threading.ExceptHookArgs) -> None:
    if issubclass(arguments.exc_type, SystemExit):
        return
    name = arguments.thread.name if arguments.thread else "a thread"
    log.error(
        "%s died",
        name,
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),  # type: ignore[arg-type]
    )
    for report in _failure:
        report(f"{name} died: {arguments.exc_value!r}")


#: RFC 4724's R (of the capability) and F (of an address family).
_RESTARTED = 0x8
_FORWARDING = 0x80
_UNICAST = 1
_end_of_rib: list[Callable[[Any], None]] = []
_notification: list[Callable[[Any], None]] = []


def offer_restart(
    configuration: Any, seconds: int, version: int, restarting: Callable[[], bool]
) -> None:
    """Adds the graceful restart capability to OPENs to this neighbour. os-ken can encode it but
    never sends it."""
    original = configuration.get_configured_capabilities
    family_number = 1 if version == 4 else 2

    def capabilities() -> Any:
        # F is always set: a new daemon leaves the kernel's routes alone until its peers have sent
        # theirs.
        tuples = [(family_number, _UNICAST, _FORWARDING)]
        flags = _RESTARTED if restarting() else 0
        offered = bgp.BGPOptParamCapabilityGracefulRestart(flags=flags, time=seconds, tuples=tuples)
        return original() | {bgp.BGP_CAP_GRACEFUL_RESTART: [offered]}

    configuration.get_configured_capabilities = capabilities


def restart_capability(neighbour: Any) -> tuple[int, bool]:
    """From a peer's OPEN: its restart time (0 if it only helps others), and whether it has kept
    forwarding."""
    for capability in neighbour.protocol.recv_open_msg.opt_param:
        if capability.cap_code == bgp.BGP_CAP_GRACEFUL_RESTART:
            # os-ken reads beyond the end of this capability.
            families = capability.tuples[: (capability.cap_length - 2) // 4]
            return capability.time if families else 0, all(
                flags & _FORWARDING for _, _, flags in families
            )
    return 0, False


def on_end_of_rib(report: Callable[[Any], None]) -> None:
    """Registers report(peer), which is called for each End-of-RIB marker (RFC 4724, 2)."""
    _end_of_rib.append(report)


def on_notification(report: Callable[[Any], None]) -> None:
    """Registers report(peer), called for each NOTIFICATION sent or received. os-ken's own signal
    reaches no listener."""
    _notification.append(report)


def _notified(_: Any, neighbour: Any, __: Any) -> None:
    for report in _notification:
        report(neighbour)


def _is_end_of_rib(message: Any) -> bool:
    if message.nlri or message.withdrawn_routes:
        return False
    attributes = message.path_attributes
    return not attributes or (
        len(attributes) == 1
        and attributes[0].type == bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI
        and not attributes[0].withdrawn_routes
    )


def _handling_updates(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def handle(self: Any, message: Any) -> None:
        if _is_end_of_rib(message):
            for report in _end_of_rib:
                report(self)
            return
        self._extract_and_reconstruct_as_path(message)
        original(
            self,
            osken_routes.withdrawing(message)
            if osken_routes.is_unusable(self, message)
            else message,
        )

    return handle


def _sending_first_updates(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def send(self: Any) -> None:
        original(self)
        if self.is_mpbgp_cap_valid(bgp.RF_IPv4_UC):
            self.enque_outgoing_msg(bgp.BGPUpdate())
        if self.is_mpbgp_cap_valid(bgp.RF_IPv6_UC):
            nothing = bgp.BGPPathAttributeMpUnreachNLRI(bgp.RF_IPv6_UC.afi, bgp.RF_IPv6_UC.safi, [])
            self.enque_outgoing_msg(bgp.BGPUpdate(path_attributes=[nothing]))

    return send


def install() -> None:
    """Applies the repairs, once for a process."""
    if base.Sink.OutgoingMsgList is _Queue:
        return
    hub.Event = threading.Event
    hub.HubThread.run = (
        threading.Thread.run
    )  # os-ken's run() logs the error and continues without the thread
    threading.excepthook = _died
    core.CoreService.protocol = Connection
    # messages.py has rewritten all paths with four octets.
    bgp.BGPPathAttributeAsPath._is_valid_16bit_as_path = classmethod(lambda _cls, _value: False)
    bgp.BGPPathAttributeAsPath.has_matching_leftmost = _has_matching_leftmost
    peer.Peer._process_outgoing_msg_list = _sending(peer.Peer._process_outgoing_msg_list)
    base.Sink.OutgoingMsgList = _Queue
    base.Sink.__init__ = _sink_init(base.Sink.__init__)
    peer.Peer.__init__ = _peer_init(peer.Peer.__init__)
    peer.Peer._connect_tcp = _connect_tcp
    peer_manager.PeerManager.resend_sent = _resend_sent
    table_manager.TableCoreManager.remember_sent_route = lambda _self, _sent: (
        None
    )  # see _noting_what_is_sent
    info_base.NonVrfPathProcessingMixin._new_best_path = _new_best_path
    destination = info_base.Destination
    destination.add_new_path = osken_routes.add_new_path
    destination.add_withdraw = osken_routes.add_withdraw
    destination.remove_old_paths_from_source = osken_routes.remove_old_paths_from_source(
        destination.remove_old_paths_from_source,
    )
    base.Sink.enque_outgoing_msg = _noting_what_is_sent(base.Sink.enque_outgoing_msg)
    peer.Peer.is_route_reflector_client = property(_is_route_reflector_client)
    peer.Peer._construct_update = _writing(_reflecting(peer.Peer._construct_update))
    peer.Peer._is_looped_path_attrs = lambda _self, _message: False  # see _handling_updates
    peer.Peer._handle_update_msg = _handling_updates(peer.Peer._handle_update_msg)
    peer.Peer._enqueue_init_updates = _sending_first_updates(peer.Peer._enqueue_init_updates)
    processor.BgpProcessor.__init__ = _processor_init(processor.BgpProcessor.__init__)
    BgpSignalBus.bgp_notification_received = BgpSignalBus.bgp_notification_sent = _notified
    for owner, names in (
        (processor.BgpProcessor, ("_process_dest", "_process_rtdest", "enqueue")),
        (table_manager.TableCoreManager, ("learn_path", "clean_stale_routes")),
        (peer.Peer, ("_construct_update", "comm_all_best_paths", "connection_lost")),
        (peer_manager.PeerManager, ("resend_sent",)),
    ):
        for name in names:
            setattr(owner, name, _locked(getattr(owner, name)))
