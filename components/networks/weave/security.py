"""The encrypted fast path to each peer: computes the security associations and installs them in the
kernel."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from kubewire.components.base import jsontext
from kubewire.components.kernel import iproute
from kubewire.components.networks.weave import ipsec, wire
from kubewire.components.networks.weave.ipsec import Association
from kubewire.components.networks.weave.mesh import Connection
from kubewire.components.networks.weave.wire import WireError

_NONCE_SIZE = 32
#: Lower SPIs are reserved (RFC 4303 section 2.1).
_LOWEST_SPI = 0x100


@dataclass
class Path:
    """Both directions to a peer. outgoing: set when the peer has sent its SPI. told: the peer has
    been sent ours."""

    connection: Connection
    incoming: Association
    nonce: bytes
    outgoing: Association | None = None
    told: bool = False


class Security:
    """The associations with all peers. Exists only on a node with a password."""

    def __init__(self, own_peer: str) -> None:
        self._own_peer = own_peer
        self._paths: dict[Connection, Path] = {}
        self._installed: set[tuple[Association, bool]] = set()

    def begin(self, connection: Connection) -> None:
        nonce = secrets.token_bytes(_NONCE_SIZE)
        spi = _LOWEST_SPI + secrets.randbelow(2**32 - _LOWEST_SPI)
        key = ipsec.key(connection.session.key, nonce, self._own_peer)
        incoming = Association(connection.ip, connection.local_address, spi, key)
        self._paths[connection] = Path(connection, incoming, nonce)

    def end(self, connection: Connection) -> None:
        self._paths.pop(connection, None)

    def received(self, connection: Connection, body: bytes) -> None:
        """Handles the peer's SPI and nonce. Raises WireError."""
        try:
            said = jsontext.parse_object(body)
            key = ipsec.key(connection.session.key, bytes.fromhex(said["nonce"]), connection.peer)
            outgoing = Association(connection.local_address, connection.ip, _spi(said["spi"]), key)
        except (ValueError, KeyError, TypeError):
            raise WireError("not a security association") from None
        if path := self._paths.get(connection):
            path.outgoing = outgoing

    def incoming(self) -> list[Association]:
        return [path.incoming for path in self._paths.values()]

    async def reset(self) -> None:
        """Deletes what an earlier process left. Raises CommandError."""
        await iproute.batch("ip", "xfrm policy flush\nxfrm state flush proto esp\n", force=False)
        self._installed = set()

    async def apply(self) -> None:
        """Installs and removes associations, and tells peers about them. A peer is secured when
        both directions exist. Raises CommandError."""
        paths = list(self._paths.values())
        wanted = {(path.incoming, False) for path in paths}
        wanted |= {(path.outgoing, True) for path in paths if path.outgoing is not None}
        still_sent_to = {association.destination for association, outgoing in wanted if outgoing}
        lines = []
        for association, outgoing in sorted(self._installed - wanted):
            if outgoing and association.destination not in still_sent_to:
                lines.append(ipsec.remove_policy(association))
            lines.append(ipsec.remove(association))
        await iproute.batch("ip", "".join(lines))
        self._installed &= wanted
        for association, outgoing in sorted(wanted - self._installed):
            await iproute.batch("ip", ipsec.install(association, outgoing=outgoing), force=False)
            self._installed.add((association, outgoing))
        for path in paths:
            self._tell(path)

    def _tell(self, path: Path) -> None:
        if not path.told:
            said = {"spi": path.incoming.spi, "nonce": path.nonce.hex()}
            path.connection.send(wire.SECURITY_ASSOCIATION, json.dumps(said).encode())
            path.told = True
        if path.outgoing is not None and (path.outgoing, True) in self._installed:
            path.connection.secured = True


def _spi(value: object) -> int:
    """A SPI has 32 bits, and the lowest values are reserved (RFC 4303, 2.1). Raises ValueError."""
    if type(value) is not int or not _LOWEST_SPI <= value < 2**32:
        raise ValueError(f"{value!r} is no SPI")
    return value
