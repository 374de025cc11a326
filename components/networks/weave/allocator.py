"""A peer's IP address management: consensus, ring and its own addresses. Pure: messages to send are
in `outbox`.

No function here waits. allocate() and claim() return None or False when something must happen first
(consensus, or space from another peer); the caller repeats the call when `retry` is set.
(github.com/weaveworks/weave, ipam/allocator.go.)
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from kubewire.components.base import jsontext
from kubewire.components.networks.weave import paxos, space
from kubewire.components.networks.weave.ring import Ring, RingConflict
from kubewire.components.networks.weave.space import Range

log = logging.getLogger("weave-net")

GOSSIP = "gossip"
SPACE_REQUEST = "space-request"
SPACE_DENIED = "space-denied"


class Denied(Exception):
    """The address cannot be assigned. The text is upstream's."""


@dataclass(frozen=True)
class Message:
    """to "": to all peers. heard_from: the peer that sent the news; its neighbours already know
    it."""

    body: dict[str, Any]
    to: str = ""
    heard_from: str = ""


@dataclass(frozen=True)
class Setup:
    """quorum 0: an observer, which waits for a ring and does not vote on it. is_known: the peer is
    reachable now."""

    name: str
    uid: int
    nickname: str
    universe: IPv4Network
    quorum: int
    is_known: Callable[[str], bool] = lambda _: True
    chance: random.Random = field(default_factory=random.Random)


class Allocator:
    """owned: container -> addresses. dirty: the persisted state has changed since saved() was last
    called."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.ring = Ring(space.range_of(setup.universe), setup.name)
        self.paxos = paxos.Node(setup.name, setup.uid, setup.quorum) if setup.quorum else None
        self.awaiting_consensus = False
        self.owned: dict[str, list[int]] = {}
        self.nicknames = {setup.name: setup.nickname}
        self.outbox: list[Message] = []
        self.retry = self.dirty = False
        self._asked: set[str] = set()
        self._denied: dict[int, str] = {}

    def allocate(self, container: str, subnet: IPv4Network) -> int | None:
        """The container's address, or a new one; None: try later. Raises Denied."""
        within = space.hosts_of(subnet)
        if held := self.lookup(container, subnet):
            return held[0]
        if within.intersection(self.ring.universe) is None:
            raise Denied(f"range {subnet} out of bounds: {self.setup.universe}")
        if self.ring.is_empty:
            self._establish()
            return None if self.ring.is_empty else self.allocate(container, subnet)
        gap = next(space.gaps(self._own_ranges(), self._used(), within), None)
        if gap is None:
            self._ask_for_space(within)
            return None
        self._take(container, gap.start)
        return gap.start

    def claim(self, container: str, address: int) -> bool:
        """Assigns a certain address; False: try later. Raises Denied."""
        text = str(IPv4Address(address))
        holder = next((name for name, addresses in self.owned.items() if address in addresses), "")
        if holder == container:
            return True
        if holder:
            raise Denied(f"address {text} is already owned by {holder}")
        if address not in self.ring.universe:
            self._take(container, address)  # outside the range: IPAM does not decide about it
            return True
        if self.ring.is_empty:
            self._establish()
            if self.ring.is_empty:
                return False
        owner = self.ring.owner(address)
        if owner != self.setup.name:
            if self._denied.pop(address, "") == owner or not self.setup.is_known(owner):
                raise Denied(f"address {text} is owned by other peer {self.display(owner)}")
            self._send(owner, {"kind": SPACE_REQUEST, "range": [address, address + 1]})
            return False
        self._take(container, address)
        return True

    def lookup(self, container: str, subnet: IPv4Network) -> list[int]:
        within = space.hosts_of(subnet)
        return [address for address in self.owned.get(container, ()) if address in within]

    def release(self, container: str) -> list[int]:
        """Frees all addresses of a container. Raises Denied if it has none."""
        freed = self.owned.pop(container, [])
        if not freed:
            raise Denied(f"Delete: no addresses for {container}")
        self._changed()
        return freed

    def free(self, container: str, address: int) -> None:
        """Frees one address. Raises Denied."""
        if address not in self.owned.get(container, ()):
            raise Denied(f"Free: address {IPv4Address(address)} not found for {container}")
        self.owned[container].remove(address)
        if not self.owned[container]:
            del self.owned[container]
        self._changed()

    def active(self) -> int:
        """The number of addresses in use on this peer."""
        return len(self._used())

    def receive(self, sender: str, body: dict[str, Any]) -> None:
        """Handles a message. Raises RingConflict, ValueError, KeyError or TypeError: then the
        connection is useless."""
        if not isinstance(body, dict) or not isinstance(sender, str):
            raise TypeError("a message of IPAM is an object from a peer")
        self._asked.discard(sender)
        kind = body["kind"]
        if kind == SPACE_REQUEST:
            if not self.ring.is_empty:
                self._donate(Range(*jsontext.typed(body["range"], int, int)), sender)
        elif kind == GOSSIP:
            self._gossip(sender, body)
        elif kind == SPACE_DENIED:
            start, end = jsontext.typed(body["range"], int, int)
            if end - start == 1:
                self._denied[start] = sender
            self.retry = True

    def _gossip(self, sender: str, body: dict[str, Any]) -> None:
        nicknames = jsontext.text_map(body["nicknames"])
        self.nicknames |= nicknames
        if body.get("ring") is not None:
            if self.ring.merge(Ring.decode(body["ring"], self.setup.name), self._has_allocations):
                self._ring_changed()
                self.broadcast(heard_from=sender)
        elif not self.ring.is_empty:
            self._send(sender, self.encode())
        elif body.get("paxos") and self.paxos is not None:
            news = self.paxos.update(paxos.decode(body["paxos"]))
            if self.paxos.think():
                self.broadcast()
            elif news:
                self.broadcast(heard_from=sender)
            self._begin_if_agreed()
        elif self.paxos is not None:
            self._establish()  # an observer needs a ring

    def _donate(self, wanted: Range, to: str) -> None:
        given = space.donation(self._own_ranges(), self._used(), wanted)
        if given is None:
            self._send(to, {"kind": SPACE_DENIED, "range": list(wanted)})
        else:
            log.info("Giving range %s to %s", given, self.display(to))
            self.ring.grant(given, to)
            self._changed()
        self._send(to, self.encode())
        if given is not None:
            self.broadcast()

    def tick(self) -> None:
        """Every few seconds: repeats messages that may have been lost."""
        self._asked.clear()
        if self.awaiting_consensus and self.paxos is not None:
            self.paxos.propose()
            self.broadcast()
        elif self.ring.is_empty and self.paxos is None:
            self.broadcast()
        self.retry = True

    def takeover(self, peer: str) -> int:
        """`weave rmpeer`: takes over a dead peer's parts and returns their size. peer: its name or
        nickname."""
        name = next((name for name, nickname in self.nicknames.items() if nickname == peer), peer)
        if name == self.setup.name:
            log.warning("attempt to take over range from ourself")
            return 0
        taken = self.ring.transfer(name, self.setup.name)
        if taken:
            self._ring_changed()
            self.broadcast()
        return sum(part.size for part in taken)

    def shutdown(self) -> None:
        """`weave reset`: transfers all own parts to another peer."""
        others = sorted(self.ring.peers() - {self.setup.name})
        heir = next(filter(self.setup.is_known, others), others[0] if others else "")
        if heir:
            self.owned.clear()
            self.ring.transfer(self.setup.name, heir)
            self._ring_changed()
            self.broadcast()

    def _own_ranges(self) -> list[Range]:
        return self.ring.owned_by(self.setup.name)

    def own_ranges(self) -> list[Range]:
        return space.joined(self._own_ranges())

    def _used(self) -> list[int]:
        return sorted(address for addresses in self.owned.values() for address in addresses)

    def _has_allocations(self, part: Range) -> bool:
        return any(address in part for address in self._used())

    def _take(self, container: str, address: int) -> None:
        self.owned.setdefault(container, []).append(address)
        self._changed()

    def _changed(self) -> None:
        self.dirty = True
        used = self._used()
        hosts = space.hosts_of(self.setup.universe)
        had_none = not self._free()
        self.ring.report_free(lambda part: sum(gap.size for gap in space.gaps([part], used, hosts)))
        if had_none and self._free():
            self.broadcast()  # peers that wait for space may ask this one now

    def _free(self) -> int:
        """The number of free addresses that this peer last reported."""
        return sum(entry.free for entry in self.ring.entries if entry.peer == self.setup.name)

    def _ring_changed(self) -> None:
        self.awaiting_consensus = False
        self.retry = True
        self._changed()

    def _establish(self) -> None:
        """Starts to agree on the first ring, because an address is needed now."""
        if self.awaiting_consensus:
            return
        self.awaiting_consensus = True
        if self.paxos is not None:
            self.paxos.propose()
        self.broadcast()
        self._begin_if_agreed()

    def _begin_if_agreed(self) -> None:
        if self.paxos is not None and (names := self.paxos.consensus()) is not None:
            self.seed(names)

    def seed(self, names: tuple[str, ...]) -> None:
        """Makes the first ring of these peers (--ipalloc-init seed=, or the result of Paxos)."""
        log.info("Paxos consensus: %s", " ".join(map(self.display, names)))
        self.ring.claim(sorted(set(names)))
        self._ring_changed()
        self.broadcast()

    def _ask_for_space(self, within: Range) -> None:
        donors = self.ring.peers_to_ask(within, self.setup.chance)
        donor = next(filter(self.setup.is_known, donors), "")
        if donor and donor not in self._asked:
            self._asked.add(donor)
            log.info("Decided to ask peer %s for space in range %s", self.display(donor), within)
            self._send(donor, {"kind": SPACE_REQUEST, "range": list(within)})

    def broadcast(self, heard_from: str = "") -> None:
        """Queues the whole state for all peers, unless that is already queued."""
        message = Message({}, heard_from=heard_from)
        if message not in self.outbox and Message({}) not in self.outbox:
            self.outbox.append(message)

    def _send(self, to: str, body: dict[str, Any]) -> None:
        self.outbox.append(Message(body, to))

    def sent(self) -> list[Message]:
        """Empties the outbox. Broadcasts carry the state of now, not of when they were queued."""
        messages = self.outbox
        self.outbox = []
        return [
            message if message.to else replace(message, body=self.encode()) for message in messages
        ]

    def encode(self) -> dict[str, Any]:
        """The state for a message. Paxos is included only until there is a ring."""
        body: dict[str, Any] = {"kind": GOSSIP, "nicknames": self.nicknames}
        if not self.ring.is_empty:
            return body | {"ring": self.ring.encode()}
        return body | ({"paxos": self.paxos.encode()} if self.paxos is not None else {})

    def display(self, peer: str) -> str:
        nickname = self.nicknames.get(peer)
        return f"{peer}({nickname})" if nickname else peer

    def saved(self) -> dict[str, Any]:
        self.dirty = False
        return {
            "peername": self.setup.name,
            "ring": self.ring.encode(),
            "ownedAddresses": self.owned,
        }

    def restore(self, data: dict[str, Any]) -> bool:
        """Returns False, and keeps nothing, if the data is another peer's or of another range."""
        try:
            ring = Ring.decode(data["ring"], self.setup.name)
            if (
                data["peername"] != self.setup.name
                or ring.universe != self.ring.universe
                or ring.is_empty
            ):
                return False
            owned = {
                container: list(addresses)
                for container, addresses in data["ownedAddresses"].items()
            }
        except (KeyError, TypeError, AttributeError, RingConflict):
            return False
        self.ring = ring
        self.owned = owned
        return True
