"""The TypedDicts of the kinds have the fields of models.json, and the file on disk is what the command writes."""

from __future__ import annotations

import typing

import pytest

from kubewire.components.apiserver.openapi import models, typeddicts
from kubewire.components.kubeapi import resources, types


def test_the_file_has_what_the_command_writes() -> None:
    written = typeddicts.content()
    assert typeddicts.TARGET.read_text() == written, "run python -m kubewire.lab.setup.generate"


@pytest.mark.parametrize("kind", typeddicts.KINDS, ids=lambda kind: kind[2])
def test_a_kind_has_the_fields_that_the_server_knows(kind: models.GroupVersionKind) -> None:
    model = models.of_kind(*kind)
    assert model is not None
    hints = typing.get_type_hints(getattr(types, kind[2]))  # Raises NameError for a type that is not written.
    assert hints.keys() == model.fields.keys()


def test_only_elements_of_lists_have_required_fields() -> None:
    assert _required(types.ServicePort) == {"port"}
    assert _required(types.PodSpec) == set()  # A reader writes pod.get("spec") or {}.


def _required(struct: type) -> set[str]:
    hints = typing.get_type_hints(struct, include_extras=True)
    return {name for name, hint in hints.items() if typing.get_origin(hint) is typing.Required}


def test_a_resource_has_the_type_of_its_kind() -> None:
    for name, annotation in resources.__annotations__.items():
        resource = getattr(resources, name)
        group_version_kind = (resource.group, resource.version, resource.kind)
        written = f"types.{resource.kind}" if group_version_kind in typeddicts.KINDS else "KubeObject"
        assert annotation == f"Resource[{written}]", name


def test_types_of_one_name_are_told_apart_by_their_packages() -> None:
    assert types.EndpointSlice.__annotations__["ports"].__forward_arg__ == "list[DiscoveryV1EndpointPort]"
    assert types.EndpointSubset.__annotations__["ports"].__forward_arg__ == "list[CoreV1EndpointPort]"


def test_a_kind_that_the_server_does_not_have_is_an_error() -> None:
    with pytest.raises(LookupError, match="Pood"):
        typeddicts.content([("", "v1", "Pood")])
