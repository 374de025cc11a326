"""The parts of a rule, as data: what to match and what to do. text(ip) is nft's language; ip is
"ip" or "ip6"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Expression(Protocol):
    def text(self, ip: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Text:
    """A part of the fixed rules, in nft's own words; IP in it stands for the family's header."""

    words: str

    def text(self, ip: str) -> str:
        return self.words.replace("IP", ip)


@dataclass(frozen=True, slots=True)
class Source:
    """saddr in (or not in) one of the ranges."""

    ranges: tuple[str, ...]
    negated: bool = False

    def text(self, ip: str) -> str:
        ranges = (
            self.ranges[0]
            if len(self.ranges) == 1 and not self.negated
            else f"{{ {', '.join(self.ranges)} }}"
        )
        return f"{ip} saddr {'!= ' if self.negated else ''}{ranges}"


@dataclass(frozen=True, slots=True)
class LocalPod:
    """The packet is (or is not) of a pod of this node; one of the three ways to tell is set."""

    cidr: str = ""
    interface: str = ""
    interface_prefix: str = ""
    negated: bool = False

    def text(self, ip: str) -> str:
        unequal = "!= " if self.negated else ""
        if self.cidr:
            return f"{ip} saddr {unequal}{self.cidr}"
        return f'iifname {unequal}"{self.interface or self.interface_prefix + "*"}"'


@dataclass(frozen=True, slots=True)
class FromThisNode:
    def text(self, ip: str) -> str:
        return "fib saddr type local"


@dataclass(frozen=True, slots=True)
class InSet:
    """saddr is an element of a set."""

    name: str

    def text(self, ip: str) -> str:
        return f"{ip} saddr @{self.name}"


@dataclass(frozen=True, slots=True)
class Remember:
    """Puts saddr into a set, or starts its timeout anew."""

    name: str

    def text(self, ip: str) -> str:
        return f"update @{self.name} {{ {ip} saddr }}"


@dataclass(frozen=True, slots=True)
class Mark:
    """Sets the bits of value in the packet's mark."""

    value: int

    def text(self, ip: str) -> str:
        return f"mark set mark or {self.value:#010x}"


@dataclass(frozen=True, slots=True)
class Goto:
    chain: str

    def text(self, ip: str) -> str:
        return f"goto {self.chain}"


@dataclass(frozen=True, slots=True)
class Drop:
    def text(self, ip: str) -> str:
        return "drop"


Verdict = Goto | Drop


@dataclass(frozen=True, slots=True)
class GotoRandom:
    """One of the chains, each as likely as the others."""

    chains: tuple[str, ...]

    def text(self, ip: str) -> str:
        choices = " , ".join(f"{number} : goto {chain}" for number, chain in enumerate(self.chains))
        return f"numgen random mod {len(self.chains)} vmap {{ {choices} }}"


@dataclass(frozen=True, slots=True)
class Dnat:
    """The packet goes to an endpoint."""

    protocol: str
    address: str
    port: int

    def text(self, ip: str) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"meta l4proto {self.protocol} dnat to {address}:{self.port}"


@dataclass(frozen=True, slots=True)
class DnatRandom:
    """The packet goes to one of the endpoints (address, port), each as likely as the others."""

    protocol: str
    endpoints: tuple[tuple[str, int], ...]

    def text(self, ip: str) -> str:
        endpoints = enumerate(self.endpoints)
        choices = " , ".join(
            f"{number} : {address} . {port}" for number, (address, port) in endpoints
        )
        choose = f"numgen random mod {len(self.endpoints)} map {{ {choices} }}"
        return f"meta l4proto {self.protocol} dnat {ip} addr . port to {choose}"
