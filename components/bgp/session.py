"""One connection with a peer: received messages are checked, and a fault ends this connection only.

The class is os-ken's protocol class with its receiving side replaced. The connection's own thread
ends it, for whatever reason, sends the matching NOTIFICATION, and logs the reason once with the
peer's address.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from typing import Any

from os_ken.lib.packet import bgp
from os_ken.services.protocols.bgp import constants
from os_ken.services.protocols.bgp.speaker import BgpProtocol, BgpProtocolException

from kubewire.components.bgp import messages
from kubewire.components.bgp.messages import ProtocolError

log = logging.getLogger(__name__)

#: RFC 4271, 8: the time in which a peer must send its OPEN.
OPEN_WAIT_S = 240
#: RFC 9687, 5: a peer that does not read for this long is given up.
SEND_HOLD_S = 480
#: How long remaining data of a peer is read, so that its kernel delivers the NOTIFICATION before
#: the reset.
_LINGER_S = 1.0
_HOLD_TIMER_EXPIRED = 4
_CEASE = 6
_COLLISION = 7  # RFC 4486
#: How many different faults of a peer's UPDATEs are logged in a session.
_LOGGED_PROBLEMS = 20


class Connection(BgpProtocol):  # type: ignore[misc]
    """A session, from its TCP connection on. Its thread runs _run()."""

    #: Peer's address -> its incoming connection that has not sent an OPEN; a newer connection ends
    #: it, as in FRR.
    _incoming: dict[str, Connection] = {}
    _incoming_lock = threading.Lock()
    #: Only one connection of a peer begins or ends at a time. os-ken sets Idle before the old
    #: connection is gone, and OpenConfirm before the new one is registered; in between a peer could
    #: stay in OpenConfirm without a connection.
    _transition = threading.RLock()

    def __init__(
        self, sock: socket.socket, signal_bus: Any, is_reactive_conn: bool = False
    ) -> None:
        super().__init__(sock, signal_bus, is_reactive_conn=is_reactive_conn)
        self._told: set[str] = set()
        self._recv_buff: bytes = b""

    @property
    def address(self) -> str:
        return str(self._remotename[0])

    def _run(self, peer: Any) -> None:
        self._peer = peer
        if self.is_reactive:
            self._replace_older()
        reason = "failed"
        try:
            reason = self._converse()
        except Exception:
            # A bug: only this connection ends, and the traceback shows the place.
            log.exception("%s: the session ends because of an internal error", self.address)
            self._notify(_CEASE, 0)
        finally:
            self._opened()
            self.connection_lost(reason)

    def _replace_older(self) -> None:
        with self._incoming_lock:
            older = self._incoming.get(self.address)
            self._incoming[self.address] = self
        if older is not None:
            shut(older._socket)

    def _converse(self) -> str:
        """Runs until the connection ends; returns the reason."""
        try:
            _timeout(self._socket, socket.SO_SNDTIMEO, SEND_HOLD_S)
            _timeout(self._socket, socket.SO_RCVTIMEO, OPEN_WAIT_S)
            self._send_open()
            while self._peer is not None:
                data = self._socket.recv(65536)
                if not data:
                    return "closed by the peer"
                if not self._received(data):
                    return "NOTIFICATION received"
        except ProtocolError as error:
            return self._end(error.code, error.subcode, str(error), error.data)
        except bgp.BgpExc as error:
            data = error.data if isinstance(error.data, bytes) else b""
            return self._end(
                error.CODE,
                error.SUB_CODE,
                f"{error} (NOTIFICATION {error.CODE}/{error.SUB_CODE})",
                data,
            )
        except BlockingIOError:
            return self._end(
                _HOLD_TIMER_EXPIRED,
                0,
                f"no OPEN within {OPEN_WAIT_S} s (NOTIFICATION 4/0)",
            )
        except BgpProtocolException as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)
        return "ended by us"

    def _send_open(self) -> None:
        """Replaces os-ken's connection_made(), for a peer that may be gone by then."""
        peer = self._peer
        self.sent_open_msg = peer.create_open_msg()
        self._holdtime = self.sent_open_msg.hold_time
        self.state = constants.BGP_FSM_OPEN_SENT
        if not self.is_reactive:
            peer.state.bgp_state = self.state
        self.send(self.sent_open_msg)

    def _send_with_lock(self, msg: Any) -> None:
        """May be called by any thread. If sending fails, the connection is shut down, and its own
        thread notices that in recv(2). If it was ended here, as in os-ken, that thread would go on
        learning routes of an ended session."""
        with self._sendlock:
            try:
                self._socket.sendall(msg.serialize())
            except OSError:
                shut(self._socket)

    def _end(self, code: int, subcode: int, what: str, data: bytes = b"") -> str:
        level = logging.INFO if (code, subcode) == (_CEASE, _COLLISION) else logging.WARNING
        log.log(level, "%s: the session ends: %s", self.address, what)
        self._notify(code, subcode, data)
        return what

    def _received(self, data: bytes) -> bool:
        """Returns False if the session has ended. Raises ProtocolError, BgpExc."""
        self._recv_buff += data
        while True:
            whole, self._recv_buff = messages.split(self._recv_buff)
            if whole is None:
                return True
            kind = whole[messages.HEADER - 1]
            accepted = [bgp.BGPMessage.parser(octets)[0] for octets in self._accepted(kind, whole)]
            if kind == messages.OPEN:
                self._take_open(*accepted)
                continue
            for message in accepted:
                self._handle_msg(message)
            if kind == messages.NOTIFICATION:
                return False

    def _take_open(self, message: Any) -> None:
        """Raises ProtocolError, BgpExc."""
        with self._transition:
            if self._peer is None:
                return
            if self._peer.protocol is not None:  # RFC 4271, 6.8: the existing connection stays
                raise ProtocolError(_CEASE, _COLLISION, "there is another connection")
            if (
                not self._peer.is_ebgp_peer()
                and message.bgp_identifier == self.sent_open_msg.bgp_identifier
            ):
                raise ProtocolError(
                    2,
                    3,
                    f"its BGP identifier {message.bgp_identifier} is ours",
                )  # RFC 6286, 2.3
            self._peer.bgp_identifier = message.bgp_identifier
            self._handle_msg(message)
        self._opened()
        _timeout(self._socket, socket.SO_RCVTIMEO, 0)
        if message.hold_time == 0:  # os-ken would not send the KEEPALIVE that the peer waits for
            self._send_keepalive()

    def _opened(self) -> None:
        with self._incoming_lock:
            if self._incoming.get(self.address) is self:
                del self._incoming[self.address]

    def _accepted(self, kind: int, whole: bytes) -> tuple[bytes, ...]:
        """The messages to process for a received one. Raises ProtocolError."""
        peer = self._peer
        if kind == messages.NOTIFICATION or peer is None:
            return (whole,) if peer is not None else ()
        established = self._is_bound and peer.state.bgp_state == constants.BGP_FSM_ESTABLISHED
        if kind == messages.OPEN and self.state == constants.BGP_FSM_OPEN_SENT:
            return (messages.accepted_open(whole),)
        if kind == messages.KEEPALIVE and self.state != constants.BGP_FSM_OPEN_SENT:
            return (whole,)
        if kind in (messages.OPEN, messages.KEEPALIVE) or not established:
            # RFC 6608: the subcodes for OpenSent, OpenConfirm and Established.
            subcode = 3 if established else 1 if self.state == constants.BGP_FSM_OPEN_SENT else 2
            raise ProtocolError(
                5,
                subcode,
                f"a message of type {kind} in the state {peer.state.bgp_state}",
            )
        if kind == messages.ROUTE_REFRESH:
            afi, demarcation, safi = struct.unpack_from("!HBB", whole, messages.HEADER)
            known = (afi, safi) in (
                messages.IPV4_UNICAST,
                messages.IPV6_UNICAST,
            ) and demarcation <= 2
            return (whole,) if known else ()  # RFC 2918, 4; RFC 7313, 5
        settled = messages.Session(self.is_four_octet_as_number_cap_valid(), peer.is_ebgp_peer())
        accepted = messages.accepted_update(whole, settled)
        for problem in accepted.problems:
            self._tell(problem)
        return accepted.messages

    def _tell(self, problem: str) -> None:
        if problem not in self._told and len(self._told) < _LOGGED_PROBLEMS:
            self._told.add(problem)
            log.warning("%s: UPDATE: %s", self.address, problem)

    def _notify(self, code: int, subcode: int, data: bytes = b"") -> None:
        """Sends a NOTIFICATION and waits for the end (RFC 4271, 6). Runs in the connection's own
        thread."""
        self.send_notification(code, subcode, data)
        try:
            self._socket.settimeout(_LINGER_S)
            for _ in range(16):
                if not self._socket.recv(65536):
                    break
        except OSError:
            pass  # the connection has ended

    def send_notification(self, code: int, subcode: int, data: bytes = b"") -> None:
        """May be called by any thread: it also ends a recv() or sendall() that waits on this
        connection."""
        if self._sendlock.acquire(timeout=_LINGER_S):
            try:
                _timeout(self._socket, socket.SO_SNDTIMEO, 1)
                self._socket.sendall(bgp.BGPNotification(code, subcode, data).serialize())
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the connection has ended
            finally:
                self._sendlock.release()
        if (
            self._peer is not None and code != _HOLD_TIMER_EXPIRED
        ):  # a silent peer may be restarting (RFC 4724, 4.2)
            self._signal_bus.bgp_notification_sent(self._peer, None)
        if not self.started:
            self._socket.close()

    def stop(self) -> None:
        """close(2) alone would leave the thread waiting in recv(2), and the peer without a FIN."""
        shut(self._socket)
        super().stop()

    def connection_lost(self, reason: str) -> None:
        """Resets the peer's state only as far as this connection has set it."""
        with self._transition:
            peer = self._peer
            self._peer = None
            if peer is not None:
                self._leave(peer, reason)

    def _leave(self, peer: Any, reason: str) -> None:
        connecting = peer.state.bgp_state in (
            constants.BGP_FSM_CONNECT,
            constants.BGP_FSM_OPEN_SENT,
        )
        if peer.protocol is self or (peer.protocol is None and connecting and not self.is_reactive):
            peer.connection_lost(reason)
        shut(self._socket)

    def _expired(self) -> None:
        if self.started:  # os-ken's timers continue after the session's end
            log.warning(
                "%s: the session ends: nothing heard for %s s (NOTIFICATION 4/0)",
                self.address,
                self._holdtime,
            )
            self.send_notification(_HOLD_TIMER_EXPIRED, 0)
            shut(self._socket)

    def _send_keepalive(self) -> None:
        try:
            super()._send_keepalive()
        except BgpProtocolException:
            pass  # the connection has ended


def shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the connection has ended


def _timeout(sock: socket.socket, option: int, seconds: int) -> None:
    """Sets a timeout for one direction (socket(7)), which settimeout() cannot. 0: no timeout."""
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", seconds, 0))
