"""Plans how existing slices become the desired ones with as few writes as possible.

Every node's kube-proxy watches all EndpointSlices, so each write to a slice is sent to every node,
and its cost is the slice's size times the number of nodes. That is why endpoints are cut into
slices of at most 100 (KEP-752), and why the planner prefers few changed slices to full ones. It
follows the order that the documentation prescribes
(https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#distribution-of-endpointslices):

1. Endpoints stay in the slice they are in; those no longer desired are removed.
2. New endpoints fill slices that have changed in step 1, because these are written anyway.
3. If endpoints are left, they go together into one unchanged slice that has room for all of them,
   or else into new slices.

Three rules must hold after every sync. Each desired endpoint is in exactly one slice. A slice
never changes its address type, which the API forbids, and all its endpoints have its ports. Each
address type of the Service has at least one slice, if need be without endpoints, so that a reader
can tell "no endpoints" from "not known yet".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Create, Delete, Update
from kubewire.components.controllers.endpointslice.desired import Group, endpoint_key, ports_key
from kubewire.components.controllers.endpointslice.zonehints import AutoHints
from kubewire.components.controllers.meta import annotations_of, is_deleting, labels_of
from kubewire.components.kubeapi.resources import ENDPOINTSLICES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        DiscoveryV1EndpointPort,
        Endpoint,
        EndpointSlice,
        ObjectMeta,
        OwnerReference,
    )

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


@dataclass(frozen=True)
class Shape:
    """The metadata that all slices of one parent share.

    trigger_time is the time since which the written endpoints have been true, or None.
    """

    namespace: str
    generate_name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: OwnerReference | None
    max_per_slice: int = 100
    trigger_time: str | None = None


@dataclass
class _Draft:
    """A slice being planned; existing is None for a new slice."""

    address_type: str
    ports: tuple[DiscoveryV1EndpointPort, ...]
    endpoints: list[Endpoint]
    existing: EndpointSlice | None = None
    changed: bool = False


def plan_slices(
    shape: Shape,
    existing: Sequence[EndpointSlice],
    groups: Sequence[Group],
    address_types: Sequence[str],
    auto: AutoHints | None = None,
) -> tuple[Action, ...]:
    """Returns the creates, updates and deletes.

    With auto, endpoints get their hints after each has its slice, and the groups bring none.
    """
    live = [item for item in existing if not is_deleting(item)]
    wanted = [*groups, *_placeholders(groups, address_types)]
    drafts: list[_Draft] = []
    claimed: set[str] = set()
    for group in wanted:
        matching = [item for item in live if _key_of(item) == group.key]
        claimed |= {item["metadata"]["name"] for item in matching}
        drafts += _distribute(shape, group, matching, keep_hints=auto is not None)
    unused = [item for item in live if item["metadata"]["name"] not in claimed]
    keep = [draft for draft in drafts if draft.endpoints]
    emptied = [draft.existing for draft in drafts if not draft.endpoints]
    empty = [item for item in emptied if item is not None]
    if auto is not None:
        for kind in address_types:
            auto.assign(kind, [draft for draft in keep if draft.address_type == kind])
    return _write(shape, keep, unused + empty, _missing(wanted, keep, address_types))


def _key_of(existing: EndpointSlice) -> tuple[str, str]:
    return existing["addressType"], ports_key(existing.get("ports"))


def _placeholders(groups: Sequence[Group], address_types: Sequence[str]) -> list[Group]:
    """Groups without endpoints for the address types that have none."""
    present = {group.address_type for group in groups}
    return [Group(kind, (), ()) for kind in address_types if kind not in present]


def _missing(
    groups: Sequence[Group],
    keep: Sequence[_Draft],
    address_types: Sequence[str],
) -> list[str]:
    present = {draft.address_type for draft in keep}
    return [kind for kind in address_types if kind not in present]


def _distribute(
    shape: Shape,
    group: Group,
    existing: Sequence[EndpointSlice],
    *,
    keep_hints: bool,
) -> list[_Draft]:
    left = {endpoint_key(item): item for item in group.endpoints}
    drafts = [_kept(group, item, left, keep_hints) for item in existing]
    changed = [draft for draft in drafts if draft.changed]
    for draft in sorted(changed, key=lambda draft: -len(draft.endpoints)):
        _fill(draft, left, shape.max_per_slice)
    while left:
        roomy = _slice_with_room(drafts, len(left), shape.max_per_slice)
        target = roomy or _Draft(group.address_type, group.ports, [])
        if roomy is None:
            drafts.append(target)
        _fill(target, left, shape.max_per_slice)
        target.changed = True
    return drafts


def _kept(
    group: Group,
    existing: EndpointSlice,
    left: dict[str, Endpoint],
    keep_hints: bool,
) -> _Draft:
    before = existing.get("endpoints") or []
    # Placed endpoints are taken out of left, so one that two slices hold stays in the first only.
    after = [left.pop(key) for key in map(endpoint_key, before) if key in left]
    if keep_hints and after == [_without_hints(endpoint) for endpoint in before]:
        after = before
    return _Draft(group.address_type, group.ports, after, existing, after != before)


def _without_hints(endpoint: Endpoint) -> Endpoint:
    bare = endpoint.copy()
    bare.pop("hints", None)
    return bare


def _fill(draft: _Draft, left: dict[str, Endpoint], limit: int) -> None:
    for key in list(left)[: max(limit - len(draft.endpoints), 0)]:
        draft.endpoints.append(left.pop(key))


def _slice_with_room(drafts: Sequence[_Draft], count: int, limit: int) -> _Draft | None:
    """The fullest unchanged slice that has room for all endpoints that are left."""
    if count >= limit:
        return None
    unchanged = [draft for draft in drafts if not draft.changed and draft.endpoints]
    fitting = [draft for draft in unchanged if len(draft.endpoints) + count <= limit]
    return max(fitting, key=lambda draft: len(draft.endpoints), default=None)


def _write(
    shape: Shape, drafts: Sequence[_Draft], unused: Sequence[EndpointSlice], missing: Sequence[str]
) -> tuple[Action, ...]:
    drafts = [*drafts, *(_Draft(kind, (), []) for kind in missing)]
    spare = list(unused)
    writes: list[Action] = []
    for draft in drafts:
        if draft.existing is None:
            # Reusing a slice that would be deleted takes one write instead of two, and watchers
            # see no gap (upstream's finalize).
            draft.existing = next(
                (item for item in spare if item["addressType"] == draft.address_type),
                None,
            )
            if draft.existing is None:
                writes.append(Create(ENDPOINTSLICES, _new(shape, draft)))
                continue
            spare.remove(draft.existing)
            draft.changed = _content(draft) != _content_of(draft.existing)
        if draft.changed or dict(shape.labels) != labels_of(draft.existing):
            writes.append(Update(ENDPOINTSLICES, _changed(shape, draft, draft.existing)))
    return (*writes, *(_delete(item) for item in spare))


def _content(draft: _Draft) -> object:
    return ports_key(draft.ports), draft.endpoints


def _content_of(existing: EndpointSlice) -> object:
    return ports_key(existing.get("ports")), existing.get("endpoints") or []


def _annotations(shape: Shape, standing: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in standing.items() if key != TRIGGER_TIME}
    stamp = {TRIGGER_TIME: shape.trigger_time} if shape.trigger_time else {}
    return kept | dict(shape.annotations) | stamp


def _new(shape: Shape, draft: _Draft) -> EndpointSlice:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": shape.generate_name,
            "namespace": shape.namespace,
            "labels": dict(shape.labels),
            "annotations": _annotations(shape, {}),
            "ownerReferences": [shape.owner] if shape.owner is not None else [],
        },
        "addressType": draft.address_type,
        "endpoints": draft.endpoints,
        "ports": list(draft.ports),
    }


def _changed(shape: Shape, draft: _Draft, existing: EndpointSlice) -> EndpointSlice:
    annotations = _annotations(shape, annotations_of(existing))
    metadata: ObjectMeta = {
        **existing["metadata"],
        "labels": dict(shape.labels),
        "annotations": annotations,
    }
    return {
        **existing,
        "metadata": metadata,
        "endpoints": draft.endpoints,
        "ports": list(draft.ports),
    }


def _delete(existing: EndpointSlice) -> Delete:
    metadata = existing["metadata"]
    return Delete(ENDPOINTSLICES, metadata["namespace"], metadata["name"], metadata["uid"])
