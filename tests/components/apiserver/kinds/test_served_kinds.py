"""Kinds on which nothing acts here: their defaults, what is refused, and their rows."""

from __future__ import annotations

import base64
from typing import Any

import pytest

REQUEST = base64.b64encode(b"-----BEGIN CERTIFICATE REQUEST-----\n").decode()
SIGNED = {"request": REQUEST, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
LIMITED = {"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}}


@pytest.mark.parametrize(
    ("kind", "obj", "expected"),
    [
        ("RuntimeClass", {"handler": "runc"}, []),
        ("RuntimeClass", {}, ["handler: Required value"]),
        ("CSIDriver", {}, []),
        (
            "CSIDriver",
            {"spec": {"fsGroupPolicy": "Never"}},
            [
                'spec.fsGroupPolicy: Unsupported value: "Never": '
                'supported values: "File", "None", "ReadWriteOnceWithFSType"'
            ],
        ),
        ("CSINode", {"spec": {"drivers": [{"name": "a"}]}}, ["spec.drivers[0].nodeID: Required value"]),
        (
            "VolumeAttachment",
            {"spec": {"attacher": "a", "nodeName": "n", "source": {}}},
            ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
        ),
        (
            "VolumeAttributesClass",
            {"driverName": "a"},
            ["parameters: Required value: must contain at least one key/value pair"],
        ),
        (
            "FlowSchema",
            {"spec": {"priorityLevelConfiguration": {"name": "x"}, "matchingPrecedence": 20000}},
            ["spec.matchingPrecedence: Invalid value: 20000: must be between 1 and 10000, inclusive"],
        ),
        ("PriorityLevelConfiguration", {"spec": LIMITED}, []),
        (
            "PriorityLevelConfiguration",
            {"spec": {"type": "Limited"}},
            ["spec.limited: Required value: must not be empty when type is Limited"],
        ),
        (
            "ResourceClaim",
            {"spec": {"devices": {"requests": [{"name": "gpu"}]}}},
            ["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
        ),
        ("ResourceSlice", {"spec": {"driver": "a"}}, ["spec.pool.name: Required value"]),
        ("CertificateSigningRequest", {"spec": SIGNED}, []),
        (
            "CertificateSigningRequest",
            {"spec": {**SIGNED, "usages": ["everything"], "signerName": "nobody", "expirationSeconds": 60}},
            [
                'spec.usages[0]: Invalid value: "everything": not a supported usage',
                "spec.expirationSeconds: Invalid value: 60: "
                "may not specify a duration less than 600 seconds (10 minutes)",
                'spec.signerName: Invalid value: "nobody": '
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ],
        ),
    ],
)
def test_what_is_refused(complaints: Any, kind: str, obj: Any, expected: list[str]) -> None:
    assert complaints(kind, obj) == expected


@pytest.mark.parametrize(
    ("kind", "obj", "expected"),
    [
        ("CSIDriver", {}, {"AttachRequired": True, "Modes": "Persistent"}),
        (
            "PriorityLevelConfiguration",
            {"spec": LIMITED},
            {"NominalConcurrencyShares": 30, "Queues": 64, "HandSize": 8, "QueueLengthLimit": 50},
        ),
        ("FlowSchema", {"spec": {"priorityLevelConfiguration": {"name": "x"}}}, {"MatchingPrecedence": 1000}),
        ("ResourceClaim", {}, {"State": "pending"}),
        (
            "HorizontalPodAutoscaler",
            {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}},
            {"Reference": "Deployment/web", "Targets": "cpu: <unknown>/80%"},
        ),
    ],
)
def test_rows(created: Any, row_of: Any, kind: str, obj: Any, expected: dict[str, Any]) -> None:
    assert expected.items() <= row_of(kind, created(kind, obj)).items()
