"""From the slices there are to the slices there should be, with as few writes as possible
(https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#distribution-of-endpointslices).

Endpoints stay in the slice they are in; gaps in slices that change anyway are filled first; a slice that needs
no change is touched only when all that is left fits into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubewire.components.controllers.actions import Action, Create, Delete, Update
from kubewire.components.controllers.endpointslice.desired import Group, endpoint_key, ports_key
from kubewire.components.controllers.endpointslice.zonehints import AutoHints
from kubewire.components.controllers.meta import annotations_of, is_deleting, labels_of
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, KubeObject

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


@dataclass(frozen=True)
class Shape:
    """What all slices of one parent share. trigger_time: when what is written now began to be true, or None."""

    namespace: str
    generate_name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: KubeObject
    max_per_slice: int = 100
    trigger_time: str | None = None


@dataclass
class _Draft:
    """A slice on its way: existing is None for a new one."""

    address_type: str
    ports: tuple[KubeObject, ...]
    endpoints: list[KubeObject]
    existing: KubeObject | None = None
    changed: bool = False


def plan_slices(
    shape: Shape,
    existing: Sequence[KubeObject],
    groups: Sequence[Group],
    address_types: Sequence[str],
    auto: AutoHints | None = None,
) -> tuple[Action, ...]:
    """Creates, updates and deletes. Every address type keeps at least one slice, empty if need be. auto gives the
    endpoints hints when all of them have found their slice; the groups then bring none."""
    ours = [item for item in existing if not is_deleting(item)]
    wanted = [*groups, *_placeholders(groups, address_types)]
    drafts: list[_Draft] = []
    claimed: set[str] = set()
    for group in wanted:
        mine = [item for item in ours if (item["addressType"], ports_key(item.get("ports"))) == group.key]
        claimed |= {item["metadata"]["name"] for item in mine}
        drafts += _distribute(shape, group, mine, keep_hints=auto is not None)
    unused = [item for item in ours if item["metadata"]["name"] not in claimed]
    gone = [draft.existing for draft in drafts if draft.existing is not None and not draft.endpoints]
    keep = [draft for draft in drafts if draft.endpoints]
    empty = [item for item in gone if item is not None]
    if auto is not None:
        for kind in address_types:
            auto.assign(kind, [draft for draft in keep if draft.address_type == kind])
    return _write(shape, keep, unused + empty, _missing(wanted, keep, address_types))


def _placeholders(groups: Sequence[Group], address_types: Sequence[str]) -> list[Group]:
    present = {group.address_type for group in groups}
    return [Group(kind, (), ()) for kind in address_types if kind not in present]


def _missing(groups: Sequence[Group], keep: Sequence[_Draft], address_types: Sequence[str]) -> list[str]:
    present = {draft.address_type for draft in keep}
    return [kind for kind in address_types if kind not in present]


def _distribute(shape: Shape, group: Group, existing: Sequence[KubeObject], *, keep_hints: bool) -> list[_Draft]:
    left = {endpoint_key(item): item for item in group.endpoints}
    drafts = [_kept(group, item, left, keep_hints) for item in existing]
    changed = sorted((draft for draft in drafts if draft.changed), key=lambda draft: -len(draft.endpoints))
    for draft in changed:
        _fill(draft, left, shape.max_per_slice)
    while left:
        roomy = _slice_with_room(drafts, len(left), shape.max_per_slice)
        target = roomy or _Draft(group.address_type, group.ports, [])
        if roomy is None:
            drafts.append(target)
        _fill(target, left, shape.max_per_slice)
        target.changed = True
    return drafts


def _kept(group: Group, existing: KubeObject, left: dict[str, KubeObject], keep_hints: bool) -> _Draft:
    before = existing.get("endpoints") or []
    # left loses what is placed, so an endpoint that two slices hold stays only in the first.
    after = [left.pop(key) for key in map(endpoint_key, before) if key in left]
    if keep_hints and after == [{key: one[key] for key in one if key != "hints"} for one in before]:
        after = before
    return _Draft(group.address_type, group.ports, after, existing, after != before)


def _fill(draft: _Draft, left: dict[str, KubeObject], limit: int) -> None:
    for key in list(left)[: max(limit - len(draft.endpoints), 0)]:
        draft.endpoints.append(left.pop(key))


def _slice_with_room(drafts: Sequence[_Draft], count: int, limit: int) -> _Draft | None:
    """The fullest untouched slice that takes all that is left."""
    fitting = [
        draft for draft in drafts if not draft.changed and draft.endpoints and len(draft.endpoints) + count <= limit
    ]
    return max(fitting, key=lambda draft: len(draft.endpoints), default=None) if count < limit else None


def _write(
    shape: Shape, drafts: Sequence[_Draft], unused: Sequence[KubeObject], missing: Sequence[str]
) -> tuple[Action, ...]:
    drafts = [*drafts, *(_Draft(kind, (), []) for kind in missing)]
    spare = list(unused)
    writes: list[Action] = []
    for draft in drafts:
        if draft.existing is None:
            # Reuse a slice that would go: one update, and watchers see no gap (upstream's finalize).
            draft.existing = next((item for item in spare if item["addressType"] == draft.address_type), None)
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


def _content_of(existing: KubeObject) -> object:
    return ports_key(existing.get("ports")), existing.get("endpoints") or []


def _annotations(shape: Shape, standing: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in standing.items() if key != TRIGGER_TIME}
    stamp = {TRIGGER_TIME: shape.trigger_time} if shape.trigger_time else {}
    return kept | dict(shape.annotations) | stamp


def _new(shape: Shape, draft: _Draft) -> KubeObject:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": shape.generate_name,
            "namespace": shape.namespace,
            "labels": dict(shape.labels),
            "annotations": _annotations(shape, {}),
            "ownerReferences": [shape.owner],
        },
        "addressType": draft.address_type,
        "endpoints": draft.endpoints,
        "ports": list(draft.ports),
    }


def _changed(shape: Shape, draft: _Draft, existing: KubeObject) -> KubeObject:
    annotations = _annotations(shape, annotations_of(existing))
    metadata = {**existing["metadata"], "labels": dict(shape.labels), "annotations": annotations}
    return {**existing, "metadata": metadata, "endpoints": draft.endpoints, "ports": list(draft.ports)}


def _delete(existing: KubeObject) -> Delete:
    metadata = existing["metadata"]
    return Delete(ENDPOINTSLICES, metadata["namespace"], metadata["name"], metadata["uid"])
