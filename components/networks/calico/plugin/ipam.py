"""Assigns an address to a pod and releases it: from the node's own blocks, from a newly claimed
block, or borrowed.

There is no IPAM server. All nodes write to the same API objects, and optimistic concurrency keeps
them apart: every write carries the resourceVersion that was read, and after a conflict the writer
reads again and decides again. A block is claimed in three writes (pending affinity, block,
confirmed affinity), so that a node that crashes in between leaves only a pending affinity, which
claims nothing. Before an address is assigned its handle is written, so every address in use can be
found and released by its handle (libcalico-go/lib/ipam/ipam.go).
"""

from __future__ import annotations

from kubewire.components.networks.calico.plugin import block
from kubewire.components.networks.calico.plugin.datastore import ApiError
from kubewire.components.networks.calico.plugin.selector import matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from kubewire.components.networks.calico.plugin.datastore import Datastore

POOLS = "ippools"
BLOCKS = "ipamblocks"
AFFINITIES = "blockaffinities"
HANDLES = "ipamhandles"
CONFIGS = "ipamconfigs"
_TRIES = 20
_CONFLICT = 409
_MISSING = 404
_GROUP_VERSION = "crd.projectcalico.org/v1"


class NoAddress(Exception):
    """No address is available. The text is upstream's."""


#: A block has 64 addresses in either family.
_BLOCK_SIZES = {32: 26, 128: 122}


def block_size(pool: dict[str, Any]) -> int:
    return int(pool["spec"].get("blockSize") or _BLOCK_SIZES[block.bits(pool["spec"]["cidr"])])


def _readable_pools(store: Datastore) -> list[dict[str, Any]]:
    """The pools whose spec.cidr is a network. Calico treats others as if they were deleted."""
    return [pool for pool in store.list(POOLS) if block.is_network(pool["spec"]["cidr"])]


def usable_pools(
    store: Datastore,
    node: dict[str, Any],
    asked: list[str],
    use: str = "Workload",
    version: int = 4,
) -> list[dict[str, Any]]:
    """The enabled pools of this IP version that allow this use and select the node. asked: names or
    CIDRs from an annotation, which replace the selection. Raises NoAddress."""
    labels = node["metadata"].get("labels") or {}
    pools = [
        pool
        for pool in _readable_pools(store)
        if block.is_ipv6(pool["spec"]["cidr"]) == (version == 6)
        and not pool["spec"].get("disabled")
    ]
    if asked:
        pools = [
            pool
            for pool in pools
            if pool["metadata"]["name"] in asked or pool["spec"]["cidr"] in asked
        ]
    else:
        pools = [
            pool for pool in pools if matches(pool["spec"].get("nodeSelector") or "all()", labels)
        ]
    pools = [
        pool for pool in pools if use in (pool["spec"].get("allowedUses") or ("Workload", "Tunnel"))
    ]
    if not pools:
        raise NoAddress(f"no configured Calico pools for node {node['metadata']['name']}")
    return pools


def assign(
    store: Datastore,
    node: str,
    pools: list[dict[str, Any]],
    handle: str,
    attributes: dict[str, str],
) -> str:
    """Assigns an address. Raises NoAddress and ApiError."""
    strict = _is_strict(store)
    for name in _own_blocks(store, node, pools):
        if address := _take(store, name, handle, attributes):
            return address
    for name in _claimed(store, node, pools):
        if address := _take(store, name, handle, attributes):
            return address
    if strict:
        raise NoAddress("No more free affine blocks and strict affinity enabled")
    for name in _blocks_to_borrow_from(store, node, pools):
        if address := _take(store, name, handle, attributes):
            return address
    raise NoAddress(
        f"No IPs available in pools: [{' '.join(pool['spec']['cidr'] for pool in pools)}]",
    )


def assign_this(
    store: Datastore, node: str, address: str, handle: str, attributes: dict[str, str]
) -> None:
    """Assigns a certain address (annotation cni.projectcalico.org/ipAddrs). Raises NoAddress and
    ApiError."""
    pool = next(
        (pool for pool in _readable_pools(store) if block.contains(pool["spec"]["cidr"], address)),
        None,
    )
    if pool is None:
        raise NoAddress(f"IP address {address} is not in a configured pool")
    size = block_size(pool)
    step = 1 << (block.bits(address) - size)
    cidr = f"{block.address_of(block.number_of(address) // step * step, address)}/{size}"
    for _ in range(_TRIES):
        found = store.find(BLOCKS, block.object_name(cidr))
        if found is None:
            _claim(store, node, cidr)
            continue
        if not block.take_this(found, address, handle, attributes):
            raise NoAddress(f"address {address} is already assigned in block {cidr}")
        if _written(store, found, handle):
            return
    raise NoAddress(f"too many conflicts for block {cidr}")


def release(store: Datastore, handle: str) -> list[str]:
    """Releases all addresses of a handle; succeeds if it has none. Raises ApiError."""
    found = store.find(HANDLES, handle_name(handle))
    if found is None:
        return []
    freed: list[str] = []
    for cidr in found["spec"]["block"]:
        freed += _release_from(store, cidr, handle)
    _forget_handle(store, handle)
    return freed


def handle_name(handle: str) -> str:
    return handle.lower()


def _release_from(store: Datastore, cidr: str, handle: str) -> list[str]:
    for _ in range(_TRIES):
        found = store.find(BLOCKS, block.object_name(cidr))
        if found is None:
            return []
        freed = block.release(found, handle)
        if not freed:
            return []
        try:
            store.update(BLOCKS, found)
            return freed
        except ApiError as error:
            if error.status not in (_CONFLICT, _MISSING):
                raise
    raise ApiError(_CONFLICT, f"too many conflicts for block {cidr}")


def _is_strict(store: Datastore) -> bool:
    config = store.find(CONFIGS, "default")
    return bool(config and config["spec"].get("strictAffinity"))


def _own_blocks(store: Datastore, node: str, pools: list[dict[str, Any]]) -> Iterator[str]:
    """Names of the node's own blocks within the pools."""
    for affinity in store.list(AFFINITIES):
        spec = affinity["spec"]
        ours = (
            spec["node"] == node and spec.get("deleted") != "true" and spec["state"] == "confirmed"
        )
        if ours and any(block.contains(pool["spec"]["cidr"], spec["cidr"]) for pool in pools):
            yield block.object_name(spec["cidr"])


def _claimed(store: Datastore, node: str, pools: list[dict[str, Any]]) -> Iterator[str]:
    """Claims free blocks one after the other and yields their names."""
    config = store.find(CONFIGS, "default")
    limit = (config or {"spec": {}})["spec"].get("maxBlocksPerHost") or 0
    for pool in pools:
        taken = {found["spec"]["cidr"]: found for found in store.list(BLOCKS)}
        own = sum(block.host(found) == node for found in taken.values())
        for cidr in block.candidates(pool["spec"]["cidr"], block_size(pool), node):
            if limit and own >= limit:
                return
            if not any(_overlap(cidr, other) for other in taken) and _claim(store, node, cidr):
                own += 1
                yield block.object_name(cidr)


def _overlap(cidr: str, other: str) -> bool:
    return cidr == other or block.contains(cidr, other) or block.contains(other, cidr)


def _claim(store: Datastore, node: str, cidr: str) -> bool:
    """Writes a pending affinity, the block, and the confirmed affinity; False if another node was
    faster."""
    name = f"{node}-{block.object_name(cidr)}"
    spec = {"cidr": cidr, "node": node, "state": "pending", "deleted": "false", "type": "host"}
    affinity = _created_or_found(store, AFFINITIES, _object("BlockAffinity", name, spec))
    if affinity is None:
        return False
    try:
        store.create(BLOCKS, block.new(cidr, node))
    except ApiError as error:
        if error.status != _CONFLICT:
            raise
        found = store.find(BLOCKS, block.object_name(cidr))
        if found is None or block.host(found) != node:
            _ignoring_conflicts(lambda: store.delete(AFFINITIES, affinity))
            return False
    affinity["spec"]["state"] = "confirmed"
    # A conflict means that another process of this node has confirmed it.
    _ignoring_conflicts(lambda: store.update(AFFINITIES, affinity))
    return True


def _created_or_found(store: Datastore, kind: str, obj: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return store.create(kind, obj)
    except ApiError as error:
        if error.status != _CONFLICT:
            raise
        return store.find(kind, obj["metadata"]["name"])


def _ignoring_conflicts(work: Any) -> None:
    try:
        work()
    except ApiError as error:
        if error.status not in (_CONFLICT, _MISSING):
            raise


def _blocks_to_borrow_from(
    store: Datastore, node: str, pools: list[dict[str, Any]]
) -> Iterator[str]:
    """Other nodes' blocks with free addresses, in the order in which this node would search for
    free blocks."""
    blocks = [
        found for found in store.list(BLOCKS) if block.host(found) != node and block.free(found)
    ]
    for pool in pools:
        first, count = block.bounds(pool["spec"]["cidr"])
        step = 1 << (block.bits(pool["spec"]["cidr"]) - block_size(pool))
        total = count // step
        start = block.start_of(node, total)
        inside = [
            found for found in blocks if block.contains(pool["spec"]["cidr"], found["spec"]["cidr"])
        ]
        yield from (
            block.object_name(found["spec"]["cidr"])
            for found in sorted(
                inside,
                key=lambda found: (
                    ((block.bounds(found["spec"]["cidr"])[0] - first) // step - start) % total
                ),
            )
        )


def _take(store: Datastore, name: str, handle: str, attributes: dict[str, str]) -> str:
    """Assigns an address of a block; "" if none is free."""
    for _ in range(_TRIES):
        found = store.find(BLOCKS, name)
        if found is None or not block.free(found):
            return ""
        address = block.take(found, handle, attributes)
        if _written(store, found, handle):
            return address
    return ""


def _written(store: Datastore, changed: dict[str, Any], handle: str) -> bool:
    """Writes the handle, then the block, so that an assigned address can always be found by its
    handle."""
    _count_handle(store, handle, changed["spec"]["cidr"])
    try:
        store.update(BLOCKS, changed)
        return True
    except ApiError as error:
        if error.status not in (_CONFLICT, _MISSING):
            raise
        return False


def _count_handle(store: Datastore, handle: str, cidr: str) -> None:
    name = handle_name(handle)
    for _ in range(_TRIES):
        found = store.find(HANDLES, name)
        try:
            if found is None:
                spec = {"handleID": handle, "block": {cidr: 1}, "deleted": False}
                store.create(HANDLES, _object("IPAMHandle", name, spec))
            elif cidr not in found["spec"]["block"]:
                found["spec"]["block"][cidr] = 1
                store.update(HANDLES, found)
            return
        except ApiError as error:
            if error.status not in (_CONFLICT, _MISSING):
                raise


def _forget_handle(store: Datastore, handle: str) -> None:
    if (found := store.find(HANDLES, handle_name(handle))) is not None:
        _ignoring_conflicts(lambda: store.delete(HANDLES, found))


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": _GROUP_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
