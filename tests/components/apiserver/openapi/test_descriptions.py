"""What `kubectl explain` says."""

from __future__ import annotations

from kubewire.components.apiserver.openapi.descriptions import described
from kubewire.components.apiserver.openapi.models import all_models
from kubewire.components.apiserver.openapi.schemas import V2_PREFIX, V3_PREFIX, schema_of

API = "io.k8s.api."


def test_every_description_is_of_something_that_exists() -> None:
    models = all_models()
    unknown = [name for name in described() if API + name not in models]
    unknown += [
        f"{name}.{field}"
        for name, fields in described().items()
        for field in fields
        if field and not unknown and field not in models[API + name].fields
    ]
    assert not unknown


def test_fields_have_descriptions_beside_types_and_references() -> None:
    service = all_models()[API + "core.v1.Service"]
    assert schema_of(service, V2_PREFIX)["properties"]["spec"]["description"].startswith("Which pods")
    spec = schema_of(service, V3_PREFIX)["properties"]["spec"]
    assert spec["allOf"] and spec["description"].startswith("Which pods")
    ports = schema_of(all_models()[API + "core.v1.ServicePort"], V3_PREFIX)["properties"]
    assert "node port" not in ports["port"]["description"] and ports["port"]["type"] == "integer"


def test_another_kind_says_where_its_reference_is() -> None:
    text = schema_of(all_models()[API + "batch.v1.Job"], V3_PREFIX)["description"]
    assert text == "Job of batch/v1. Its reference is at https://kubernetes.io/docs/reference/kubernetes-api/"
