"""Protobuf requests, as client-go's typed clients send them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from kubewire.components.apiserver.http import protobuf
from kubewire.components.kubeapi.resources import DEPLOYMENTS
from tests.components.apiserver.conftest import Kubectl, Run

# What kubectl 1.32 sent for `create namespace foo`.
NAMESPACE = bytes.fromhex(
    "6b3873000a0f0a02763112094e616d657370616365121b0a130a03666f6f12001a0022002a0032003800420012001a020a001a002200"
)


def field(number: int, value: int | bytes | str) -> bytes:
    """One field as it is on the wire."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


def entry(key: str, value: str | bytes) -> bytes:
    return field(1, key) + field(2, value)


def decoded_from(body: bytes) -> dict[str, Any]:
    decoded, unknown = protobuf.decode(body)
    assert unknown == ()
    return decoded


def test_what_kubectl_sends_for_a_namespace() -> None:
    decoded = decoded_from(NAMESPACE)
    assert decoded["kind"] == "Namespace"
    assert decoded["metadata"] == {"name": "foo"}


def test_zero_values_are_kept_only_where_go_has_pointers() -> None:
    spec = field(1, 0) + field(9, 0)  # replicas, progressDeadlineSeconds
    spec += field(5, 0)  # minReadySeconds is no pointer
    decoded = decoded_from(envelope("apps/v1", "Deployment", field(2, spec)))
    assert decoded["spec"] == {"replicas": 0, "progressDeadlineSeconds": 0}


def test_a_duration_is_a_text_and_the_groups_of_a_request_for_a_certificate_are_lists() -> None:
    metrics = field(3, field(1, 90 * 10**9))
    assert decoded_from(envelope("metrics.k8s.io/v1beta1", "NodeMetrics", metrics))["window"] == "1m30s"
    extra = entry("scopes", field(1, "a") + field(1, "b"))
    request = envelope("certificates.k8s.io/v1", "CertificateSigningRequest", field(2, field(6, extra)))
    assert decoded_from(request)["spec"] == {"extra": {"scopes": ["a", "b"]}}


def test_maps_bytes_and_booleans() -> None:
    raw = field(2, entry("k", b"\x00\xff")) + field(2, entry("empty", b"")) + field(3, "Opaque") + field(5, 0)
    decoded = decoded_from(envelope("v1", "Secret", raw))
    assert decoded["data"] == {"k": base64.b64encode(b"\x00\xff").decode(), "empty": ""}
    assert (decoded["type"], decoded["immutable"]) == ("Opaque", False)


def test_embedded_structs_quantities_and_int_or_strings() -> None:
    volume = field(1, "v") + field(2, field(2, field(1, "Memory")))  # emptyDir.medium
    probe = field(1, field(2, field(1, "/ok") + field(2, field(1, 0) + field(2, 8080) + field(3, ""))))
    limits = field(8, field(1, entry("cpu", field(1, "500m"))))
    container = field(1, "c") + field(10, probe) + limits
    decoded = decoded_from(envelope("v1", "Pod", field(2, field(1, volume) + field(2, container))))
    assert decoded["spec"]["volumes"] == [{"name": "v", "emptyDir": {"medium": "Memory"}}]
    found = decoded["spec"]["containers"][0]
    assert found["livenessProbe"] == {"httpGet": {"path": "/ok", "port": 8080}}
    assert found["resources"] == {"limits": {"cpu": "500m"}}


def test_times_and_negative_numbers() -> None:
    metadata = field(8, field(1, 1_700_000_000) + field(2, 0)) + field(10, -1)
    decoded = decoded_from(envelope("v1", "ConfigMap", field(1, metadata)))
    assert decoded["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
    assert decoded["metadata"]["deletionGracePeriodSeconds"] == -1


def test_a_definition_with_schemas_that_may_be_two_things() -> None:
    size = field(5, "integer") + field(8, field(1, b"0"))  # type, default
    schema = field(5, "object") + field(29, entry("size", size)) + field(30, field(1, 0))
    version = field(1, "v1") + field(2, 1) + field(4, field(1, schema))
    spec = field(1, "example.org") + field(7, version)
    decoded = decoded_from(envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, spec)))
    assert decoded["spec"]["versions"][0]["schema"]["openAPIV3Schema"] == {
        "type": "object", "additionalProperties": False, "properties": {"size": {"type": "integer", "default": 0}},
    }  # fmt: skip


def test_a_zero_is_kept_by_the_field_and_not_by_its_name() -> None:
    """A container's restartPolicy is a pointer, a pod's is none."""
    spec = field(2, field(1, "c") + field(24, "")) + field(3, "")
    decoded = decoded_from(envelope("v1", "Pod", field(2, spec)))
    assert decoded["spec"] == {"containers": [{"name": "c", "restartPolicy": ""}]}


def test_webhooks_have_their_name_in_json() -> None:
    decoded = decoded_from(
        envelope("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", field(2, field(1, "w")))
    )
    assert decoded["webhooks"] == [{"name": "w"}]


def test_fields_of_a_newer_release_are_named() -> None:
    raw = field(1, field(1, "n") + field(999, "future") + varint(998 << 3 | 1) + bytes(8))
    decoded, unknown = protobuf.decode(envelope("v1", "ConfigMap", raw))
    assert decoded["metadata"] == {"name": "n"}
    assert unknown == ("field 999 of meta.v1.ObjectMeta", "field 998 of meta.v1.ObjectMeta")


def timestamp(seconds: int, nanos: int = 0) -> bytes:
    return field(1, seconds) + field(2, nanos)


TIMES = [
    pytest.param(timestamp(1_700_000_000, 123_456_789), "2023-11-14T22:13:20.123456Z", id="nanoseconds are cut off"),
    pytest.param(timestamp(0), "1970-01-01T00:00:00.000000Z", id="1970 is a time"),
    pytest.param(timestamp(-59_011_459_200), "0100-01-01T00:00:00.000000Z", id="a year of three digits"),
    pytest.param(timestamp(-1, 500_000_000), "1969-12-31T23:59:59.500000Z", id="before 1970"),
    pytest.param(timestamp(-62_135_596_800), None, id="the zero time"),
    pytest.param(b"", None, id="an empty message"),
]


@pytest.mark.parametrize(("sent", "text"), TIMES)
def test_times_with_microseconds(sent: bytes, text: str | None) -> None:
    decoded = decoded_from(envelope("coordination.k8s.io/v1", "Lease", field(2, field(4, sent))))
    assert decoded["spec"].get("renewTime") == text


def test_a_time_after_the_year_9999_is_refused() -> None:
    with pytest.raises(protobuf.ProtobufError, match="out of range"):
        protobuf.decode(envelope("v1", "ConfigMap", field(1, field(8, timestamp(253_402_300_800)))))


@pytest.mark.parametrize(
    "body",
    [b"{}", b"k8s\x00\x0a\xff", envelope("v1", "Nonsense", b""), envelope("v1", "ConfigMap", b"\x0a\x7f")],
    ids=["JSON", "cut off", "an unknown kind", "a length beyond the end"],
)
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(protobuf.ProtobufError):
        protobuf.decode(body)


def test_kubectl_create_ingress(kubectl: Kubectl) -> None:
    done = kubectl("create", "ingress", "proto", "--rule=foo.com/bar=svc:80")
    assert done.returncode == 0, done.stderr
    shown = kubectl("get", "ingress", "proto", "-o", "jsonpath={.spec.rules[0].http.paths[0].backend.service}")
    assert orjson.loads(shown.stdout) == {"name": "svc", "port": {"number": 80}}


def test_kubectl_create_deployment(kubectl: Kubectl, run: Run) -> None:
    done = kubectl("create", "deployment", "pb", "--image=nginx", "--replicas=2", "--port=8080")
    assert done.returncode == 0, done.stderr
    found = run(lambda client: client.get(DEPLOYMENTS, "pb", "default"))
    assert found["spec"]["replicas"] == 2
    assert found["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]
