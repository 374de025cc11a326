"""A peer's IP address management: consensus, ring and own addresses together. Pure: what it has to say is in `outbox`.

Nothing here waits. allocate() and claim() answer None or False when something has to come first (consensus, space from
another peer); who asked asks again when `retry` says so. (github.com/weaveworks/weave, ipam/allocator.go.)
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
    """The address cannot be had; the text is upstream's."""


@dataclass(frozen=True)
class Message:
    """to "": to everybody. heard_from: whose news it is; his neighbours have it from him."""

    body: dict[str, Any]
    to: str = ""
    heard_from: str = ""


@dataclass(frozen=True)
class Setup:
    """quorum 0: an observer, which waits for a ring and takes no part in making it. is_known: reachable now."""

    name: str
    uid: int
    nickname: str
    universe: IPv4Network
    quorum: int
    is_known: Callable[[str], bool] = lambda _: True
    chance: random.Random = field(default_factory=random.Random)


class Allocator:
    """owned: container -> addresses. dirty: what is persisted has changed since saved() was last asked."""

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

    # --- what containers ask for

    def allocate(self, container: str, subnet: IPv4Network) -> int | None:
        """The address it has, or a new one; None: later. Raises Denied."""
        within = space.hosts_of(subnet)
        if found := self.lookup(container, subnet):
            return found[0]
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
        """This address; False: later. Raises Denied."""
        text = str(IPv4Address(address))
        holder = next((one for one, addresses in self.owned.items() if address in addresses), "")
        if holder == container:
            return True
        if holder:
            raise Denied(f"address {text} is already owned by {holder}")
        if address not in self.ring.universe:
            self._take(container, address)  # not ours to judge
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
        """All that it has. Raises Denied when that is nothing."""
        found = self.owned.pop(container, [])
        if not found:
            raise Denied(f"Delete: no addresses for {container}")
        self._changed()
        return found

    def free(self, container: str, address: int) -> None:
        """One address. Raises Denied."""
        if address not in self.owned.get(container, ()):
            raise Denied(f"Free: address {IPv4Address(address)} not found for {container}")
        self.owned[container].remove(address)
        if not self.owned[container]:
            del self.owned[container]
        self._changed()

    def active(self) -> int:
        """Addresses in use here."""
        return len(self._used())

    # --- what peers say

    def receive(self, sender: str, body: dict[str, Any]) -> None:
        """Raises RingConflict, ValueError, KeyError, TypeError: the connection is of no use."""
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

    # --- time passes

    def tick(self) -> None:
        """Every few seconds: what may have been lost is said again."""
        self._asked.clear()
        if self.awaiting_consensus and self.paxos is not None:
            self.paxos.propose()
            self.broadcast()
        elif self.ring.is_empty and self.paxos is None:
            self.broadcast()
        self.retry = True

    # --- peers that are gone

    def takeover(self, peer: str) -> int:
        """`weave rmpeer`: its parts become ours. How many addresses came. peer: name or nickname."""
        name = next((one for one, nickname in self.nicknames.items() if nickname == peer), peer)
        if name == self.setup.name:
            log.warning("attempt to take over range from ourself")
            return 0
        taken = self.ring.transfer(name, self.setup.name)
        if taken:
            self._ring_changed()
            self.broadcast()
        return sum(part.size for part in taken)

    def shutdown(self) -> None:
        """`weave reset`: what is ours becomes another's."""
        others = sorted(self.ring.peers() - {self.setup.name})
        heir = next(filter(self.setup.is_known, others), others[0] if others else "")
        if heir:
            self.owned.clear()
            self.ring.transfer(self.setup.name, heir)
            self._ring_changed()
            self.broadcast()

    # --- inside

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
            self.broadcast()  # who waits for space may ask us now

    def _free(self) -> int:
        """As we have last said."""
        return sum(entry.free for entry in self.ring.entries if entry.peer == self.setup.name)

    def _ring_changed(self) -> None:
        self.awaiting_consensus = False
        self.retry = True
        self._changed()

    def _establish(self) -> None:
        """The first ring is needed now."""
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
        """The first ring, of these peers (--ipalloc-init seed=, or what was agreed on)."""
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
        """Say all that we know to everybody; once is enough for what is still in the outbox."""
        message = Message({}, heard_from=heard_from)
        if message not in self.outbox and Message({}) not in self.outbox:
            self.outbox.append(message)

    def _send(self, to: str, body: dict[str, Any]) -> None:
        self.outbox.append(Message(body, to))

    def sent(self) -> list[Message]:
        """Empties the outbox; broadcasts say what is known now."""
        messages = self.outbox
        self.outbox = []
        return [message if message.to else replace(message, body=self.encode()) for message in messages]

    def encode(self) -> dict[str, Any]:
        """Paxos is of interest only until there is a ring."""
        body: dict[str, Any] = {"kind": GOSSIP, "nicknames": self.nicknames}
        if not self.ring.is_empty:
            return body | {"ring": self.ring.encode()}
        return body | ({"paxos": self.paxos.encode()} if self.paxos is not None else {})

    def display(self, peer: str) -> str:
        nickname = self.nicknames.get(peer)
        return f"{peer}({nickname})" if nickname else peer

    # --- what is kept over a restart

    def saved(self) -> dict[str, Any]:
        self.dirty = False
        return {
            "peername": self.setup.name,
            "ring": self.ring.encode(),
            "ownedAddresses": self.owned,
        }

    def restore(self, data: dict[str, Any]) -> bool:
        """Whether it is ours and of this range; else it is forgotten."""
        try:
            ring = Ring.decode(data["ring"], self.setup.name)
            if data["peername"] != self.setup.name or ring.universe != self.ring.universe or ring.is_empty:
                return False
            owned = {container: list(addresses) for container, addresses in data["ownedAddresses"].items()}
        except (KeyError, TypeError, AttributeError, RingConflict):
            return False
        self.ring = ring
        self.owned = owned
        return True
