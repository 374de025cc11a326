"""The arithmetic of an IPAMBlock: its free addresses, and the order in which they are assigned.
Pure.

A pool (IPPool) is cut into blocks of equal size, 64 addresses by default. A node claims whole
blocks and assigns addresses from them, so other nodes need one route for 64 pods, and two nodes
seldom write the same object. A block is one API object with parallel lists; an ordinal is an
address's position in the block:

    allocations   ordinal -> index in attributes, or null if the address is free
    unallocated   free ordinals, a queue: the head is assigned next, released ones are appended
    attributes    handle and details of each holder

Three things must always hold. An ordinal is either in unallocated or has an allocation, never both.
A released address goes to the end of the queue, because connections to its last pod may still exist
(conntrack, caches of other nodes). And a block is written only with the resourceVersion with which
it was read, which is what makes two writers safe; ipam.py does that.

The form is that of crd.projectcalico.org/v1 IPAMBlock; the behaviour is that of
libcalico-go/lib/ipam/ipam_block.go.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Block = dict[str, Any]


def is_ipv6(text: str) -> bool:
    """Takes an address or a range."""
    return ":" in text


def bits(text: str) -> int:
    return 128 if is_ipv6(text) else 32


def number_of(address: str) -> int:
    """An address as a number. The module `ipaddress` takes longer to load than this plugin."""
    return int.from_bytes(inet_pton(AF_INET6 if is_ipv6(address) else AF_INET, address), "big")


def address_of(number: int, like: str) -> str:
    """The address of a number. like: an address or a range of the wanted family."""
    if is_ipv6(like):
        return inet_ntop(AF_INET6, number.to_bytes(16, "big"))
    return inet_ntop(AF_INET, number.to_bytes(4, "big"))


def bounds(cidr: str) -> tuple[int, int]:
    """The range's first address as a number, and its size."""
    address, _, length = cidr.partition("/")
    size = 1 << (bits(address) - int(length))
    return number_of(address) // size * size, size


def is_network(cidr: str) -> bool:
    """Tells whether cidr is an address, a slash and a prefix length."""
    address, slash, length = cidr.partition("/")
    try:
        inet_pton(AF_INET6 if is_ipv6(address) else AF_INET, address)
    except (OSError, ValueError):
        return False
    return (
        slash == "/" and length.isascii() and length.isdigit() and int(length[:4]) <= bits(address)
    )


def contains(cidr: str, other: str) -> bool:
    """Tells whether other, an address or a range, lies within cidr."""
    if is_ipv6(cidr) != is_ipv6(other):
        return False
    first, size = bounds(cidr)
    inner, count = bounds(other if "/" in other else f"{other}/{bits(other)}")
    return first <= inner and inner + count <= first + size


def object_name(cidr: str) -> str:
    """10.244.17.128/26 -> 10-244-17-128-26, fd00:10:244::40/122 -> fd00-10-244--40-122."""
    return cidr.replace(".", "-").replace(":", "-").replace("/", "-")


def new(cidr: str, host: str) -> Block:
    """A free block that belongs to a host."""
    _, size = bounds(cidr)
    spec = {
        "cidr": cidr,
        "affinity": f"host:{host}",
        "strictAffinity": False,
        "allocations": [None] * size,
        "unallocated": list(range(size)),
        "attributes": [],
        "deleted": False,
        "sequenceNumber": 0,
    }
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPAMBlock",
        "metadata": {"name": object_name(cidr)},
        "spec": spec,
    }


def host(block: Block) -> str:
    """The host that the block belongs to; "" if it belongs to none."""
    affinity = block["spec"].get("affinity") or ""
    return affinity.partition(":")[2] if affinity.startswith("host:") else ""


def free(block: Block) -> int:
    return len(block["spec"]["unallocated"])


def is_empty(block: Block) -> bool:
    return all(index is None for index in block["spec"]["allocations"])


def take(block: Block, handle: str, attributes: dict[str, str]) -> str:
    """Assigns the address that has been free for longest. The caller checks that one is free."""
    spec = block["spec"]
    ordinal = spec["unallocated"].pop(0)
    spec["allocations"][ordinal] = _attribute(spec, handle, attributes)
    spec["sequenceNumber"] = spec.get("sequenceNumber", 0) + 1
    return address_of(bounds(spec["cidr"])[0] + ordinal, spec["cidr"])


def take_this(block: Block, address: str, handle: str, attributes: dict[str, str]) -> bool:
    """Assigns a certain address; False if it is in use."""
    spec = block["spec"]
    ordinal = number_of(address) - bounds(spec["cidr"])[0]
    if ordinal not in spec["unallocated"]:
        return False
    spec["unallocated"].remove(ordinal)
    spec["allocations"][ordinal] = _attribute(spec, handle, attributes)
    spec["sequenceNumber"] = spec.get("sequenceNumber", 0) + 1
    return True


def _attribute(spec: dict[str, Any], handle: str, attributes: dict[str, str]) -> int:
    entry = {"handle_id": handle, "secondary": attributes}
    if entry not in spec["attributes"]:
        spec["attributes"].append(entry)
    index: int = spec["attributes"].index(entry)
    return index


def release(block: Block, handle: str) -> list[str]:
    """Releases all addresses of a handle; they go to the end of the queue."""
    spec = block["spec"]
    first, _ = bounds(spec["cidr"])
    gone = {
        index for index, entry in enumerate(spec["attributes"]) if entry.get("handle_id") == handle
    }
    freed = [ordinal for ordinal, index in enumerate(spec["allocations"]) if index in gone]
    for ordinal in freed:
        spec["allocations"][ordinal] = None
    spec["unallocated"] += freed
    _compact(spec)
    spec["sequenceNumber"] = spec.get("sequenceNumber", 0) + 1
    return [address_of(first + ordinal, spec["cidr"]) for ordinal in freed]


def _compact(spec: dict[str, Any]) -> None:
    """Deletes attributes that no allocation refers to, and renumbers the others."""
    used = sorted({index for index in spec["allocations"] if index is not None})
    numbers = {index: number for number, index in enumerate(used)}
    spec["attributes"] = [spec["attributes"][index] for index in used]
    spec["allocations"] = [
        None if index is None else numbers[index] for index in spec["allocations"]
    ]


def allocations(block: Block) -> list[tuple[str, str, dict[str, str]]]:
    """(address, handle, attributes) for every assigned address."""
    spec = block["spec"]
    first, _ = bounds(spec["cidr"])
    return [
        (
            address_of(first + ordinal, spec["cidr"]),
            spec["attributes"][index].get("handle_id") or "",
            spec["attributes"][index].get("secondary") or {},
        )
        for ordinal, index in enumerate(spec["allocations"])
        if index is not None
    ]


def candidates(pool: str, size: int, node: str) -> Iterator[str]:
    """All blocks of a pool, starting at a hash of the node's name and wrapping round, so that nodes
    rarely collide."""
    first, count = bounds(pool)
    step = 1 << (bits(pool) - size)
    total = count // step
    start = start_of(node, total)
    for number in range(total):
        yield f"{address_of(first + (start + number) % total * step, pool)}/{size}"


def start_of(node: str, total: int) -> int:
    """The index, out of total blocks, at which a node starts its search."""
    return (_fnv(node) * 2654435761 & 0xFFFFFFFF) * total >> 32


def _fnv(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value * 0x01000193) & 0xFFFFFFFF ^ byte
    return value
