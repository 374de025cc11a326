"""A container's environment: what kubectl exec -- env shows."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubelet.downward import DownwardError, NodeFacts, field, resource_field
from kubewire.components.kubelet.pod.environment import EnvironmentProblem, Sources, environment, service_variables
from kubewire.components.kubelet.pod.expansion import expand

NODE = NodeFacts("worker-1", ("172.18.0.3",), {"cpu": "2", "memory": "4194304Ki"})


def pod(**spec: Any) -> Any:
    metadata = {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app": "web", "tier": 'a"b'},
        "annotations": {"note": "one\ntwo"},
    }
    return {"metadata": metadata, "spec": {"containers": [{"name": "app"}], **spec}}


def service(name: str, namespace: str, ip: str, *ports: tuple[str, int, str]) -> Any:
    listed = [{"name": n, "port": p, "protocol": proto} for n, p, proto in ports]
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": listed}}


SERVICES = [
    service("kubernetes", "default", "10.96.0.1", ("https", 443, "TCP")),
    service("red-db", "shop", "10.96.3.4", ("sql", 5432, "TCP"), ("", 53, "UDP")),
    service("other", "elsewhere", "10.96.9.9", ("", 80, "TCP")),
    service("headless", "shop", "None", ("", 80, "TCP")),
]


def sources(config_maps: dict[str, Any] | None = None, secrets: dict[str, Any] | None = None) -> Sources:
    return Sources(NODE, ("10.244.1.7",), (config_maps or {}).get, (secrets or {}).get, SERVICES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
        ("a$b $", "a$b $"),
        ("$(A)$(A)", "11"),
    ],
    ids=["unknown names stay", "two dollars escape", "escaped then real", "unclosed", "a lone dollar", "twice"],
)
def test_references_are_expanded_as_the_api_says(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_service_variables_are_those_of_the_pods_namespace_and_of_kubernetes() -> None:
    assert service_variables(SERVICES, "shop", links=True) == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
        "RED_DB_SERVICE_HOST": "10.96.3.4",
        "RED_DB_SERVICE_PORT": "5432",
        "RED_DB_SERVICE_PORT_SQL": "5432",
        "RED_DB_PORT": "tcp://10.96.3.4:5432",
        "RED_DB_PORT_5432_TCP": "tcp://10.96.3.4:5432",
        "RED_DB_PORT_5432_TCP_PROTO": "tcp",
        "RED_DB_PORT_5432_TCP_PORT": "5432",
        "RED_DB_PORT_5432_TCP_ADDR": "10.96.3.4",
        "RED_DB_PORT_53_UDP": "udp://10.96.3.4:53",
        "RED_DB_PORT_53_UDP_PROTO": "udp",
        "RED_DB_PORT_53_UDP_PORT": "53",
        "RED_DB_PORT_53_UDP_ADDR": "10.96.3.4",
    }


def test_without_service_links_only_kubernetes_is_left() -> None:
    names = {key.partition("_")[0] for key in service_variables(SERVICES, "shop", links=False)}
    assert names == {"KUBERNETES"}


def test_later_entries_win_and_may_refer_to_earlier_ones_and_to_services() -> None:
    config = {"settings": {"data": {"LEVEL": "info", "MODE": "fast"}}}
    container: Any = {
        "name": "app",
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "CFG_"}, {"configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "MODE", "value": "slow"},
            {"name": "URL", "value": "http://$(RED_DB_SERVICE_HOST)/$(MODE)/$(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "RED_DB_SERVICE_PORT", "value": "mine"},
        ],
    }
    env = environment(pod(), container, sources(config))
    assert env["CFG_LEVEL"] == "info" and env["LEVEL"] == "info"
    assert env["MODE"] == "slow"
    assert env["URL"] == "http://10.96.3.4/slow/$(LATER)"
    assert env["RED_DB_SERVICE_PORT"] == "mine"


def test_value_from_every_kind_of_source() -> None:
    container: Any = {
        "name": "app",
        "resources": {"limits": {"cpu": "1500m"}},
        "env": [
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "CM", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}},
        ],
    }
    env = environment(
        pod(enableServiceLinks=False), container, sources({"c": {"data": {"k": "v"}}}, {"s": {"k": b"x"}})
    )
    assert {key: env.get(key) for key in ("IP", "CPU", "CM", "SECRET", "GONE")} == {
        "IP": "10.244.1.7",
        "CPU": "2",
        "CM": "v",
        "SECRET": "x",
        "GONE": None,
    }


@pytest.mark.parametrize(
    ("container", "text"),
    [
        ({"envFrom": [{"configMapRef": {"name": "nope"}}]}, 'configmap "nope" not found'),
        ({"envFrom": [{"secretRef": {"name": "nope"}}]}, 'secret "nope" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "missing"}}}]},
            "couldn't find key missing in ConfigMap shop/c",
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "nope", "key": "k"}}}]},
            'secret "nope" not found',
        ),
    ],
    ids=["envFrom ConfigMap", "envFrom Secret", "key of a ConfigMap", "Secret of a key"],
)
def test_what_is_missing_is_named_as_upstream_names_it(container: Any, text: str) -> None:
    with pytest.raises(EnvironmentProblem, match=text):
        environment(pod(), {"name": "app"} | container, sources({"c": {"data": {}}}))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels", 'app="web"\ntier="a\\"b"'),
        ("metadata.annotations", 'note="one\\ntwo"'),
        ("spec.nodeName", "worker-1"),
        ("status.hostIP", "172.18.0.3"),
        ("spec.serviceAccountName", "default"),
    ],
)
def test_downward_api_fields(path: str, expected: str) -> None:
    assert field(pod(), path, NODE, ("10.244.1.7",)) == expected


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(DownwardError, match=r"unsupported fieldPath: spec\.foo"):
        field(pod(), "spec.foo", NODE, ())


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "limits.memory", "divisor": "1Mi"}, "4096"),
        ({"resource": "requests.memory"}, "0"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
    ],
    ids=["an unset limit is the node's", "an unset request is 0", "divided"],
)
def test_resource_fields(reference: Any, expected: str) -> None:
    container: Any = {"resources": {"requests": {"cpu": "250m"}}}
    assert resource_field(container, reference, NODE) == expected
