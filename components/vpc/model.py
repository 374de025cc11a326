"""The model of the VPC: which interface has which address. Pure; errors carry EC2's codes and
texts.

(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html)
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kubewire.components.vpc.instances import limits_of

#: AWS reserves the first four addresses of a subnet (network, router, DNS, future use) and the
#: last.
RESERVED_FIRST = 4
RESERVED_LAST = 1
PREFIX_LENGTH = 28
ANYWHERE = "0.0.0.0/0"


class Refused(Exception):
    """EC2's error answer to a request that cannot be fulfilled."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Subnet:
    """switch: the bridge that is the subnet. router: address, MAC and port of the VPC router's
    interface in it."""

    id: str
    cidr: str
    switch: str
    router: tuple[str, str, str] = ("", "", "")

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.cidr)


@dataclass
class Interface:
    """An elastic network interface. instance: "" if it is not attached. index: its device number
    there."""

    id: str
    subnet: Subnet
    mac: str
    primary: str
    secondary: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    groups: tuple[str, ...] = ()
    instance: str = ""
    index: int = 0
    port: str = ""
    source_check: bool = True

    def addresses(self) -> Iterator[str]:
        yield self.primary
        yield from self.secondary
        for prefix in self.prefixes:
            yield from map(str, ipaddress.IPv4Network(prefix))


@dataclass(frozen=True)
class Instance:
    id: str
    name: str
    type: str


@dataclass(frozen=True, order=True)
class Rule:
    """An allowed source of packets to a group's members. source: a CIDR or a group; "-1" and (0, 0)
    mean all."""

    source: str
    protocol: str = "-1"
    ports: tuple[int, int] = (0, 0)


class Vpc:
    """cidr: the range of the whole VPC."""

    def __init__(self, cidr: str, subnets: Iterable[Subnet]) -> None:
        self.cidr = cidr
        self.subnets = {subnet.id: subnet for subnet in subnets}
        self.instances: dict[str, Instance] = {}
        self.interfaces: dict[str, Interface] = {}
        self.groups: dict[str, set[Rule]] = {}
        #: Destination -> id of the interface that it is routed to.
        self.routes: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def launch(
        self, name: str, kind: str, subnet: str, address: str, mac: str, port: str, group: str
    ) -> Instance:
        """Adds a node with its present first interface, which has index 0."""
        instance = Instance(self._id("i"), name, kind)
        self.instances[instance.id] = instance
        self._add(
            Interface(
                self._id("eni"),
                self.subnets[subnet],
                mac,
                address,
                groups=(group,),
                instance=instance.id,
                port=port,
            ),
        )
        return instance

    def instance_at(self, address: str) -> Instance | None:
        """The instance whose interface has this address, or None."""
        for interface in self.interfaces.values():
            if interface.instance and address in (interface.primary, *interface.secondary):
                return self.instances[interface.instance]
        return None

    def attached(self, instance: str) -> list[Interface]:
        interfaces = (
            interface for interface in self.interfaces.values() if interface.instance == instance
        )
        return sorted(interfaces, key=lambda interface: interface.index)

    def create_interface(
        self, subnet: str, groups: Iterable[str], secondary: int = 0, prefixes: int = 0
    ) -> Interface:
        """Creates an interface with the given number of addresses, or none at all."""
        if subnet not in self.subnets:
            raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
        for group in groups:
            self._group(group)
        found = self.subnets[subnet]
        (primary,) = self._free(found, 1)
        number = next(self._numbers)
        mac = f"02:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}:0a"
        interface = self._add(
            Interface(f"eni-{number:017x}", found, mac, primary, groups=tuple(groups)),
        )
        try:
            if secondary:
                self.assign(interface.id, secondary)
            if prefixes:
                self.assign_prefixes(interface.id, prefixes)
        except Refused:
            del self.interfaces[interface.id]
            raise
        return interface

    def attach(self, interface: str, instance: str, index: int) -> Interface:
        found = self._interface(interface)
        host = self._instance(instance)
        if found.instance:
            raise Refused(
                "InvalidParameterValue",
                f"Network interface '{interface}' is already in use",
            )
        limit = limits_of(host.type)[0]
        held = self.attached(instance)
        if len(held) >= limit:
            text = f"Interface count {len(held) + 1} exceeds the limit for {host.type}"
            raise Refused("AttachmentLimitExceeded", text)
        if index in {interface.index for interface in held}:
            raise Refused(
                "InvalidParameterValue",
                f"Instance '{instance}' already has an interface attached at device index '{index}'.",
            )
        self._room(host, found, 0)
        found.instance = instance
        found.index = index
        return found

    def detach(self, interface: str) -> Interface:
        found = self._interface(interface)
        if found.instance and found.index == 0:
            raise Refused(
                "OperationNotPermitted",
                "The network interface at device index 0 cannot be detached",
            )
        found.instance = ""
        found.index = 0
        return found

    def delete(self, interface: str) -> None:
        if self._interface(interface).instance:
            raise Refused(
                "InvalidParameterValue",
                f"Network interface '{interface}' is currently in use.",
            )
        del self.interfaces[interface]

    def assign(self, interface: str, count: int) -> list[str]:
        """Assigns secondary addresses, all or none."""
        found = self._interface(interface)
        if found.instance:
            self._room(self.instances[found.instance], found, count)
        addresses = self._free(found.subnet, count)
        found.secondary += addresses
        return addresses

    def assign_prefixes(self, interface: str, count: int) -> list[str]:
        """Assigns /28 prefixes, each of which takes the slot of one secondary address."""
        found = self._interface(interface)
        if found.instance:
            self._room(self.instances[found.instance], found, count)
        taken = self._taken(found.subnet)
        free = (
            str(prefix)
            for prefix in found.subnet.network.subnets(new_prefix=PREFIX_LENGTH)
            if not any(int(address) in taken for address in prefix)
        )
        prefixes = (
            list(itertools.islice(free, count))
            if found.subnet.network.prefixlen <= PREFIX_LENGTH
            else []
        )
        if len(prefixes) < count:
            text = (
                "The specified subnet does not have enough free cidr blocks to satisfy the request."
            )
            raise Refused("InsufficientCidrBlocks", text)
        found.prefixes += prefixes
        return prefixes

    def unassign(
        self, interface: str, addresses: Iterable[str], prefixes: Iterable[str] = ()
    ) -> None:
        found = self._interface(interface)
        for address in addresses:
            if address not in found.secondary:
                text = f"Some of {[address]} are not assigned to interface {interface}"
                raise Refused("InvalidParameterValue", text)
            found.secondary.remove(address)
        for prefix in prefixes:
            found.prefixes.remove(prefix)

    def free_addresses(self, subnet: str) -> int:
        """The AvailableIpAddressCount of a subnet."""
        found = self.subnets[subnet]
        return found.network.num_addresses - len(self._taken(found))

    def create_route(self, destination: str, instance: str) -> None:
        """Routes a range to the first interface of an instance, which may then also send from
        it."""
        self._instance(instance)
        self.routes[destination] = self.attached(instance)[0].id

    def create_group(self, name: str) -> str:
        self.groups.setdefault(name, set())
        return name

    def authorize(self, group: str, rule: Rule) -> None:
        self._group(group).add(rule)

    def revoke(self, group: str, rule: Rule) -> None:
        rules = self._group(group)
        if rule not in rules:
            text = "The specified rule does not exist in this security group."
            raise Refused("InvalidPermission.NotFound", text)
        rules.remove(rule)

    def set_groups(self, interface: str, groups: Iterable[str]) -> None:
        for group in (wanted := tuple(groups)):
            self._group(group)
        self._interface(interface).groups = wanted

    def _group(self, name: str) -> set[Rule]:
        if name not in self.groups:
            raise Refused("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
        return self.groups[name]

    def _interface(self, name: str) -> Interface:
        if name not in self.interfaces:
            text = f"The networkInterface ID '{name}' does not exist"
            raise Refused("InvalidNetworkInterfaceID.NotFound", text)
        return self.interfaces[name]

    def _instance(self, name: str) -> Instance:
        if name not in self.instances:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        return self.instances[name]

    def _add(self, interface: Interface) -> Interface:
        self.interfaces[interface.id] = interface
        return interface

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers):017x}"

    def _room(self, host: Instance, interface: Interface, more: int) -> None:
        if 1 + len(interface.secondary) + len(interface.prefixes) + more > limits_of(host.type)[1]:
            raise Refused(
                "PrivateIpAddressLimitExceeded",
                "Number of private addresses will exceed limit.",
            )

    def _taken(self, subnet: Subnet) -> set[int]:
        network = subnet.network
        first = int(network.network_address)
        last = int(network.broadcast_address)
        taken = {first + number for number in range(RESERVED_FIRST)} | {
            last - n for n in range(RESERVED_LAST)
        }
        for interface in self.interfaces.values():
            if interface.subnet.id == subnet.id:
                taken |= {int(ipaddress.IPv4Address(address)) for address in interface.addresses()}
        return taken

    def _free(self, subnet: Subnet, count: int) -> list[str]:
        """Free addresses: count of them, or an error."""
        taken = self._taken(subnet)
        first = int(subnet.network.network_address)
        last = int(subnet.network.broadcast_address)
        free = (number for number in range(first, last + 1) if number not in taken)
        addresses = [str(ipaddress.IPv4Address(number)) for number in itertools.islice(free, count)]
        if len(addresses) < count:
            text = (
                "The specified subnet does not have enough free addresses to satisfy the request."
            )
            raise Refused("InsufficientFreeAddressesInSubnet", text)
        return addresses
