"""ObjectMeta's validation: which names, labels, annotations and owners are refused, in the words of v1.36."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.apiserver.registry import metadata


def complaints(storage: str = "configmaps", **fields: Any) -> list[str]:
    return [error.message() for error in metadata.validate({"name": "fine"} | fields, storage)]


@pytest.mark.parametrize(
    ("storage", "name"),
    [
        ("services", "1st-of-its-kind"),
        ("namespaces", "2024"),
        ("configmaps", "with.dots"),
        ("clusterroles.rbac.authorization.k8s.io", "system:node"),
        ("ipaddresses.networking.k8s.io", "2001:db8::1"),
    ],
    ids=["a Service may begin with a digit", "Namespace", "subdomain", "RBAC", "IPAddress"],
)
def test_a_name_that_its_kind_allows(storage: str, name: str) -> None:
    assert complaints(storage, name=name) == []


@pytest.mark.parametrize(
    ("storage", "name", "says"),
    [
        ("services", "a.b", "must not contain dots"),
        ("namespaces", "x" * 64, "must be no more than 63 bytes"),
        ("configmaps", "x" * 254, "must be no more than 253 bytes"),
        ("configmaps", "UPPER", "a lowercase RFC 1123 subdomain must consist of"),
        ("clusterroles.rbac.authorization.k8s.io", "a/b", "may not contain '/'"),
    ],
    ids=["dots in a label", "label too long", "subdomain too long", "upper case", "slash"],
)
def test_a_name_that_its_kind_refuses(storage: str, name: str, says: str) -> None:
    [complaint] = complaints(storage, name=name)
    assert complaint.startswith(f'metadata.name: Invalid value: "{name}": {says}')


def test_a_missing_name_is_required() -> None:
    assert complaints(name="") == ["metadata.name: Required value: name or generateName is required"]


def test_a_generated_names_prefix_may_end_in_a_dash_and_is_checked_otherwise() -> None:
    assert complaints(generateName="web-") == []
    [complaint] = complaints(generateName="Web-")
    assert complaint.startswith('metadata.generateName: Invalid value: "Web-": a lowercase RFC 1123 subdomain')


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"a/b/c": ""}, 'metadata.labels: Invalid value: "a/b/c": a valid label key must consist of'),
        ({"/b": ""}, 'metadata.labels: Invalid value: "/b": prefix part must be non-empty'),
        ({"a": "x" * 64}, f'metadata.labels: Invalid value: "{"x" * 64}": must be no more than 63 bytes'),
        ({"a": "-"}, 'metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of'),
    ],
    ids=["two slashes", "empty prefix", "long value", "value of a dash"],
)
def test_labels_that_are_refused(labels: dict[str, str], says: str) -> None:
    [complaint] = complaints(labels=labels)
    assert complaint.startswith(says)


def test_annotation_keys_may_be_of_either_case_and_all_together_not_too_long() -> None:
    assert complaints(annotations={"Example.COM/Key": "x"}) == []
    [complaint] = complaints(annotations={"a": "x" * 256 * 1024})
    assert complaint == "metadata.annotations: Too long: may not be more than 262144 bytes"


def test_finalizers_are_qualified_names_and_two_of_them_exclude_each_other() -> None:
    [named, both] = complaints(finalizers=["or phan", "orphan", "foregroundDeletion"])
    assert named.startswith('metadata.finalizers: Invalid value: "or phan": name part must consist of')
    assert both.endswith('finalizer "orphan" and "foregroundDeletion" cannot be both set')


def test_an_object_has_one_controller() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "uid": "1", "controller": True}
    [complaint] = complaints(ownerReferences=[owner | {"name": "a"}, owner | {"name": "b"}])
    assert complaint.endswith('Found "true" in references for a and b')


def test_a_generated_name_keeps_within_63_characters() -> None:
    name = metadata.generate_name("x" * 80)
    assert len(name) == 63
    assert metadata.generate_name("x" * 80) != name
