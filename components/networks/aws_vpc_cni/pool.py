"""ipamd's datastore and warm pool: the node's addresses, their pods, and how many more are wanted.
Pure.

(amazon-vpc-cni-k8s: pkg/ipamd/datastore/data_store.go; docs/eni-and-ip-target.md,
docs/prefix-and-ip-target.md)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kubewire.components.base.golang import parse_bool

#: A released address is not assigned again for this long, because peers of its last pod may still
#: send to it.
COOLDOWN_S = 30.0
PREFIX_ADDRESSES = 16


class NoAddress(Exception):
    """No address is free. The text is upstream's."""


@dataclass(frozen=True)
class Targets:
    """The environment of aws-node. 0: not set."""

    warm_enis: int = 1
    warm_addresses: int = 0
    minimum_addresses: int = 0
    warm_prefixes: int = 1
    prefixes: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Targets:
        """Raises ValueError if a value is not a number or a boolean."""

        def number(name: str, default: int) -> int:
            return int(environment.get(name) or default)

        return cls(
            warm_enis=number("WARM_ENI_TARGET", 1),
            warm_addresses=number("WARM_IP_TARGET", 0),
            minimum_addresses=number("MINIMUM_IP_TARGET", 0),
            warm_prefixes=number("WARM_PREFIX_TARGET", 1),
            prefixes=parse_bool(environment.get("ENABLE_PREFIX_DELEGATION") or "false"),
        )

    @property
    def counts_addresses(self) -> bool:
        """WARM_IP_TARGET and MINIMUM_IP_TARGET replace the other targets."""
        return bool(self.warm_addresses or self.minimum_addresses)


@dataclass
class Eni:
    """index: its device number. addresses: those for pods, without the primary one. prefixes: their
    /28s, if any."""

    id: str
    index: int
    mac: str
    primary: str
    subnet: str
    addresses: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)

    @property
    def table(self) -> int:
        """The routing table of packets that leave by it. The first interface uses main."""
        return 254 if self.index == 0 else self.index + 1

    @property
    def device(self) -> str:
        return f"eth{self.index}"


@dataclass(frozen=True)
class Assignment:
    """An address and the sandbox that has it."""

    address: str
    index: int
    sandbox: str
    pod: str = ""
    namespace: str = ""


class Pool:
    """slots: places for addresses or prefixes on an interface, besides the primary. max_enis: the
    type's limit. cooldown: seconds until a released address may be assigned again."""

    def __init__(
        self, targets: Targets, max_enis: int, slots: int, cooldown: float = COOLDOWN_S
    ) -> None:
        self.targets = targets
        self.max_enis = max_enis
        self.slots = slots
        self._cooldown = cooldown
        self.enis: dict[str, Eni] = {}
        self.assigned: dict[str, Assignment] = {}
        self._released: dict[str, float] = {}

    def assign(self, sandbox: str, now: float, pod: str = "", namespace: str = "") -> Assignment:
        """Assigns a free address, or returns the sandbox's present one. Raises NoAddress."""
        for held in self.assigned.values():
            if held.sandbox == sandbox:
                return held
        for eni in sorted(self.enis.values(), key=lambda eni: eni.index):
            for address in eni.addresses:
                if address not in self.assigned and not self._is_cooling(address, now):
                    assignment = Assignment(address, eni.index, sandbox, pod, namespace)
                    self.assigned[address] = assignment
                    return assignment
        raise NoAddress("assignPodIPv4AddressUnsafe: no available IP addresses")

    def release(self, sandbox: str, now: float) -> Assignment | None:
        """Returns None if the sandbox has no address, which is not an error."""
        for address, held in self.assigned.items():
            if held.sandbox == sandbox:
                del self.assigned[address]
                self._released[address] = now
                return held
        return None

    def restore(self, assignments: Iterable[Assignment]) -> list[Assignment]:
        """After a restart: takes over and returns the assignments whose address the node still
        has."""
        known = {address for eni in self.enis.values() for address in eni.addresses}
        held = [assignment for assignment in assignments if assignment.address in known]
        self.assigned |= {assignment.address: assignment for assignment in held}
        return held

    def _is_cooling(self, address: str, now: float) -> bool:
        return now - self._released.get(address, now - self._cooldown) < self._cooldown

    @property
    def total(self) -> int:
        return sum(len(eni.addresses) for eni in self.enis.values())

    @property
    def available(self) -> int:
        """The number of unassigned addresses. Those that cool down count too, as upstream."""
        return self.total - len(self.assigned)

    def missing(self) -> int:
        """The number of addresses below WARM_IP_TARGET and MINIMUM_IP_TARGET; negative if there are
        too many."""
        wanted = max(
            len(self.assigned) + self.targets.warm_addresses,
            self.targets.minimum_addresses,
        )
        return wanted - self.total

    def wants_more(self) -> bool:
        """Tells whether the pool is below its targets (isDatastorePoolTooLow)."""
        if self.targets.counts_addresses:
            return self.missing() > 0
        if self.targets.prefixes:
            return self._free_prefixes() < self.targets.warm_prefixes
        per_eni = self.slots
        return self.available < per_eni * self.targets.warm_enis

    def _free_prefixes(self) -> int:
        return sum(
            not self._is_used(eni, prefix) for eni in self.enis.values() for prefix in eni.prefixes
        )

    def _is_used(self, eni: Eni, prefix: str) -> bool:
        network = ipaddress.IPv4Network(prefix)
        return any(
            ipaddress.IPv4Address(address) in network
            for address in self.assigned
            if address in eni.addresses
        )

    def room(self) -> list[tuple[Eni, int]]:
        """(interface, number of free slots) for each interface with free slots."""
        rooms = []
        for eni in sorted(self.enis.values(), key=lambda eni: eni.index):
            used = len(eni.prefixes) if self.targets.prefixes else len(eni.addresses)
            if used < self.slots:
                rooms.append((eni, self.slots - used))
        return rooms

    def ask(self, places: int) -> int:
        """The number of addresses or prefixes to ask for, given the number of free slots."""
        if self.targets.prefixes:
            if self.targets.counts_addresses:
                return min(places, -(-max(self.missing(), 1) // PREFIX_ADDRESSES))
            return min(places, max(self.targets.warm_prefixes - self._free_prefixes(), 1))
        return min(places, max(self.missing(), 1)) if self.targets.counts_addresses else places

    def can_attach(self) -> bool:
        return len(self.enis) < self.max_enis

    def next_index(self) -> int:
        used = {eni.index for eni in self.enis.values()}
        return next(number for number in range(self.max_enis) if number not in used)

    def surplus_addresses(self, now: float) -> list[tuple[Eni, list[str]]]:
        """Addresses to return to the subnet: with WARM_IP_TARGET, free ones beyond the target."""
        too_many = (
            -self.missing() if self.targets.counts_addresses and not self.targets.prefixes else 0
        )
        surplus = []
        for eni in sorted(self.enis.values(), key=lambda eni: -eni.index):
            free = [
                address
                for address in eni.addresses
                if address not in self.assigned and not self._is_cooling(address, now)
            ]
            if too_many > 0 and free:
                going = free[-too_many:]
                too_many -= len(going)
                surplus.append((eni, going))
        return surplus

    def surplus_eni(self, now: float) -> Eni | None:
        """An interface without pods that may be detached: WARM_ENI_TARGET holds without it."""
        if self.targets.counts_addresses or self.targets.prefixes:
            return None
        for eni in sorted(self.enis.values(), key=lambda eni: -eni.index):
            idle = not any(
                address in self.assigned or self._is_cooling(address, now)
                for address in eni.addresses
            )
            enough = self.available - len(eni.addresses) >= self.slots * self.targets.warm_enis
            if eni.index and idle and enough:
                return eni
        return None
