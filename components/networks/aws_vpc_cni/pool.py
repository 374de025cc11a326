"""ipamd's datastore and its warm pool: which addresses the node has, who uses them, how many more it wants. Pure.

(amazon-vpc-cni-k8s: pkg/ipamd/datastore/data_store.go; docs/eni-and-ip-target.md, docs/prefix-and-ip-target.md)
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kubewire.components.base.golang import parse_bool

log = logging.getLogger("ipamd")

#: An address that a pod had is not given again for this long, so that nobody still sends to the pod before.
COOLDOWN_S = 30.0
PREFIX_ADDRESSES = 16


class NoAddress(Exception):
    """Nothing is free; the text is upstream's."""


@dataclass(frozen=True)
class Targets:
    """aws-node's environment. 0: not set."""

    warm_enis: int = 1
    warm_addresses: int = 0
    minimum_addresses: int = 0
    warm_prefixes: int = 1
    prefixes: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Targets:
        """Raises ValueError for what is no number."""

        def number(name: str, default: int) -> int:
            return int(environment.get(name) or default)

        return cls(
            warm_enis=number("WARM_ENI_TARGET", 1),
            warm_addresses=number("WARM_IP_TARGET", 0),
            minimum_addresses=number("MINIMUM_IP_TARGET", 0),
            warm_prefixes=number("WARM_PREFIX_TARGET", 1),
            prefixes=switch(environment, "ENABLE_PREFIX_DELEGATION"),
        )

    @property
    def counts_addresses(self) -> bool:
        """WARM_IP_TARGET and MINIMUM_IP_TARGET take the place of the others."""
        return bool(self.warm_addresses or self.minimum_addresses)


def switch(environment: Mapping[str, str], name: str) -> bool:
    """Off without a value; also with one that cannot be read, which is logged (upstream's GetBoolAsStringEnvVar)."""
    text = environment.get(name, "")
    try:
        return parse_bool(text) if text else False
    except ValueError as error:
        log.error("%s: %s; it is off", name, error)
        return False


@dataclass
class Eni:
    """index: its device number. addresses: what pods can have, not the primary one; prefixes: those they are of."""

    id: str
    index: int
    mac: str
    primary: str
    subnet: str
    addresses: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)

    @property
    def table(self) -> int:
        """Of routing, for what is to leave by it; the first interface's is main."""
        return 254 if self.index == 0 else self.index + 1

    @property
    def device(self) -> str:
        return f"eth{self.index}"


@dataclass(frozen=True)
class Assignment:
    """An address that a sandbox has."""

    address: str
    index: int
    sandbox: str
    pod: str = ""
    namespace: str = ""


class Pool:
    """slots: places of an interface for addresses or prefixes, besides the primary; max_enis: of the instance."""

    def __init__(self, targets: Targets, max_enis: int, slots: int) -> None:
        self.targets = targets
        self.max_enis = max_enis
        self.slots = slots
        self.enis: dict[str, Eni] = {}
        self.assigned: dict[str, Assignment] = {}
        self._released: dict[str, float] = {}

    # --- addresses

    def assign(self, sandbox: str, now: float, pod: str = "", namespace: str = "") -> Assignment:
        """The same one when a sandbox asks again. Raises NoAddress."""
        for held in self.assigned.values():
            if held.sandbox == sandbox:
                return held
        for eni in sorted(self.enis.values(), key=lambda one: one.index):
            for address in eni.addresses:
                if address not in self.assigned and not self._is_cooling(address, now):
                    found = Assignment(address, eni.index, sandbox, pod, namespace)
                    self.assigned[address] = found
                    return found
        raise NoAddress("assignPodIPv4AddressUnsafe: no available IP addresses")

    def release(self, sandbox: str, now: float) -> Assignment | None:
        """None: it has none, which is fine."""
        for address, held in self.assigned.items():
            if held.sandbox == sandbox:
                del self.assigned[address]
                self._released[address] = now
                return held
        return None

    def restore(self, assignments: Iterable[Assignment]) -> list[Assignment]:
        """After a restart: those whose address the node still has. Returns them."""
        known = {address for eni in self.enis.values() for address in eni.addresses}
        held = [one for one in assignments if one.address in known]
        self.assigned |= {one.address: one for one in held}
        return held

    def _is_cooling(self, address: str, now: float) -> bool:
        return now - self._released.get(address, now - COOLDOWN_S) < COOLDOWN_S

    @property
    def total(self) -> int:
        return sum(len(eni.addresses) for eni in self.enis.values())

    @property
    def available(self) -> int:
        """Not assigned; those that cool down count, as upstream counts them."""
        return self.total - len(self.assigned)

    # --- how many more

    def missing(self) -> int:
        """Addresses that WARM_IP_TARGET and MINIMUM_IP_TARGET want and that are not there; negative: too many."""
        wanted = max(
            len(self.assigned) + self.targets.warm_addresses,
            self.targets.minimum_addresses,
        )
        return wanted - self.total

    def wants_more(self) -> bool:
        """isDatastorePoolTooLow."""
        if self.targets.counts_addresses:
            return self.missing() > 0
        if self.targets.prefixes:
            return self._free_prefixes() < self.targets.warm_prefixes
        per_eni = self.slots
        return self.available < per_eni * self.targets.warm_enis

    def _free_prefixes(self) -> int:
        return sum(not self._is_used(eni, prefix) for eni in self.enis.values() for prefix in eni.prefixes)

    def _is_used(self, eni: Eni, prefix: str) -> bool:
        network = ipaddress.IPv4Network(prefix)
        return any(ipaddress.IPv4Address(address) in network for address in self.assigned if address in eni.addresses)

    def room(self) -> list[tuple[Eni, int]]:
        """Interfaces with places left, and how many."""
        found = []
        for eni in sorted(self.enis.values(), key=lambda one: one.index):
            used = len(eni.prefixes) if self.targets.prefixes else len(eni.addresses)
            if used < self.slots:
                found.append((eni, self.slots - used))
        return found

    def ask(self, places: int) -> int:
        """How many addresses or prefixes to ask for, of so many places."""
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
        """What goes back to the subnet: with WARM_IP_TARGET, free addresses beyond it."""
        too_many = -self.missing() if self.targets.counts_addresses and not self.targets.prefixes else 0
        found = []
        for eni in sorted(self.enis.values(), key=lambda one: -one.index):
            free = [one for one in eni.addresses if one not in self.assigned and not self._is_cooling(one, now)]
            if too_many > 0 and free:
                going = free[-too_many:]
                too_many -= len(going)
                found.append((eni, going))
        return found

    def surplus_eni(self, now: float) -> Eni | None:
        """An interface without pods, when those left are enough (WARM_ENI_TARGET and one more is what is kept)."""
        if self.targets.counts_addresses or self.targets.prefixes:
            return None
        for eni in sorted(self.enis.values(), key=lambda one: -one.index):
            idle = not any(one in self.assigned or self._is_cooling(one, now) for one in eni.addresses)
            enough = self.available - len(eni.addresses) >= self.slots * self.targets.warm_enis
            if eni.index and idle and enough:
                return eni
        return None
