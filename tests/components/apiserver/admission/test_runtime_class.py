"""What a pod gets from the RuntimeClass that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.apiserver.kinds.pods import pod as pods
from kubewire.components.apiserver.registry.admission.plugin import Attributes
from kubewire.components.apiserver.registry.admission.runtime_class import RuntimeClass
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.status import StatusError
from kubewire.components.apiserver.store import Key, Store

TOLERATION = {"key": "sandbox", "operator": "Exists"}
CLASSES: dict[str, Any] = {
    "plain": {},
    "heavy": {"overhead": {"podFixed": {"cpu": "250m"}}},
    "placed": {"scheduling": {"nodeSelector": {"runtime": "gvisor"}, "tolerations": [TOLERATION]}},
}


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[RuntimeClass]:
    store = Store(str(tmp_path / "store.db"))
    for name, body in CLASSES.items():
        metadata = {"name": name, "uid": name}
        store.create(Key("runtimeclasses.node.k8s.io", "", name), {"metadata": metadata, "handler": "h", **body})
    yield RuntimeClass(store)
    store.close()


def admitted(plugin: RuntimeClass, **spec: Any) -> Any:
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
    attributes = Attributes(Served(pods.KIND, "v1"), "CREATE", "default", "p", pod, {})
    plugin.admit(attributes)
    plugin.validate(attributes)
    return attributes.obj["spec"]


@pytest.mark.parametrize(
    ("spec", "added"),
    [
        pytest.param({}, {}, id="no class"),
        pytest.param({"runtimeClassName": "plain"}, {}, id="a class that adds nothing"),
        pytest.param({"runtimeClassName": "heavy"}, {"overhead": {"cpu": "250m"}}, id="overhead"),
        pytest.param(
            {"runtimeClassName": "heavy", "overhead": {"cpu": "0.25"}}, {}, id="the same overhead in another form"
        ),
        pytest.param(
            {"runtimeClassName": "placed", "nodeSelector": {"disk": "ssd"}, "tolerations": [TOLERATION]},
            {"nodeSelector": {"disk": "ssd", "runtime": "gvisor"}},
            id="a place, and a toleration that is there",
        ),
    ],
)
def test_what_is_added(plugin: RuntimeClass, spec: Any, added: Any) -> None:
    assert admitted(plugin, **spec) == {**spec, **added}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({"runtimeClassName": "none"}, 'pod rejected: RuntimeClass "none" not found', id="unknown"),
        pytest.param(
            {"overhead": {"cpu": "1"}},
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            id="overhead without a class",
        ),
        pytest.param(
            {"runtimeClassName": "heavy", "overhead": {"cpu": "1"}},
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            id="another overhead",
        ),
        pytest.param(
            {"runtimeClassName": "placed", "nodeSelector": {"runtime": "runc"}},
            "conflict: runtimeClass.scheduling.nodeSelector[runtime] = gvisor; pod.spec.nodeSelector[runtime] = runc",
            id="another place",
        ),
    ],
)
def test_what_is_refused(plugin: RuntimeClass, spec: Any, why: str) -> None:
    with pytest.raises(StatusError) as error:
        admitted(plugin, **spec)
    assert error.value.body["message"] == f'pods "p" is forbidden: {why}'
