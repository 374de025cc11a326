"""Volumes, claims and storage classes."""

from __future__ import annotations

from typing import Any

import pytest

CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
VOLUME = {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/srv"}}}


def changed(obj: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {key: item for key, item in {**obj["spec"], **spec}.items() if item is not None}}


@pytest.mark.parametrize(
    ("kind", "obj", "expected"),
    [
        ("PersistentVolumeClaim", CLAIM, []),
        (
            "PersistentVolumeClaim",
            {"spec": {}},
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            "PersistentVolumeClaim",
            changed(CLAIM, accessModes=["ReadWriteOncePod", "ReadWriteMany"]),
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        (
            "PersistentVolumeClaim",
            changed(CLAIM, resources={"requests": {"storage": "0"}}),
            ['spec.resources[storage]: Invalid value: "0": must be greater than zero'],
        ),
        ("PersistentVolume", VOLUME, []),
        ("PersistentVolume", changed(VOLUME, hostPath=None), ["spec: Required value: must specify a volume type"]),
        (
            "PersistentVolume",
            changed(VOLUME, nfs={"server": "a", "path": "/"}),
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            "PersistentVolume",
            changed(VOLUME, hostPath=None, local={"path": "/srv"}),
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (
            "PersistentVolume",
            changed(VOLUME, persistentVolumeReclaimPolicy="Keep"),
            [
                'spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": '
                'supported values: "Delete", "Recycle", "Retain"'
            ],
        ),
        (
            "PersistentVolume",
            changed(VOLUME, nodeAffinity={"required": {}}),
            ["spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"],
        ),
        (
            "StorageClass",
            {"volumeBindingMode": "Later"},
            [
                "provisioner: Required value",
                'volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"',
            ],
        ),
    ],
)
def test_what_is_refused(complaints: Any, kind: str, obj: Any, expected: list[str]) -> None:
    assert complaints(kind, obj) == expected


LARGER = {"requests": {"storage": "2Gi"}}
IMMUTABLE = (
    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName "
    "for bound claims"
)


@pytest.mark.parametrize(
    ("kind", "old", "new", "expected"),
    [
        ("PersistentVolumeClaim", CLAIM, changed(CLAIM, volumeName="pv"), []),
        ("PersistentVolumeClaim", changed(CLAIM, volumeName="pv"), changed(CLAIM, volumeName="other"), [IMMUTABLE]),
        ("PersistentVolumeClaim", CLAIM, changed(CLAIM, resources=LARGER), [IMMUTABLE]),
        (
            "PersistentVolume",
            VOLUME,
            changed(VOLUME, hostPath={"path": "/other"}),
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
        ),
        (
            "StorageClass",
            {"provisioner": "a"},
            {"provisioner": "b"},
            ["provisioner: Forbidden: updates to provisioner are forbidden."],
        ),
    ],
    ids=["a volume is set once", "not another volume", "only a bound claim grows", "the source stays", "provisioner"],
)
def test_what_an_update_must_not_change(
    update_complaints: Any, kind: str, old: Any, new: Any, expected: list[str]
) -> None:
    assert update_complaints(kind, old, new) == expected
