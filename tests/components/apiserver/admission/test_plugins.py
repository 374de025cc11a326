"""Admission as clients see it: what is added to objects, and what is refused with which words."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import (
    DEPLOYMENTS,
    INGRESSCLASSES,
    INGRESSES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCEQUOTAS,
    SERVICEACCOUNTS,
    SERVICES,
    KubeObject,
    Resource,
)
from tests.components.apiserver.conftest import Run

LIMITRANGES: Resource[KubeObject] = Resource("", "v1", "limitranges", "LimitRange")
CLAIMS: Resource[KubeObject] = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CLASSES: Resource[KubeObject] = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False)
POD_RESOURCE: Resource[KubeObject] = Resource("", "v1", "pods", "Pod")
_NUMBERS = itertools.count()
Namespace = Callable[..., str]


@pytest.fixture
def namespace(run: Run) -> Namespace:
    """Makes a namespace with the given labels and the account `default`; its name."""

    def make(**labels: str) -> str:
        name = f"ns-{next(_NUMBERS)}"

        async def act(client: Client) -> None:
            full = {f"pod-security.kubernetes.io/{key.replace('_', '-')}": value for key, value in labels.items()}
            space: Any = {"metadata": {"name": name, "labels": full}}
            await client.create(NAMESPACES, space)
            account: Any = {"metadata": {"name": "default", "namespace": name}}
            await client.create(SERVICEACCOUNTS, account)

        run(act)
        return name

    return make


def made(run: Run, resource: Resource[Any], obj: Any) -> Any:
    return run(lambda client: client.create(resource, obj))


def refused(run: Run, resource: Resource[Any], obj: Any) -> str:
    with pytest.raises(ApiError) as error:
        made(run, resource, obj)
    assert error.value.status == 403
    return error.value.message


def warned(run: Run, method: str, path: str, body: Any) -> list[str]:
    async def act(client: Client) -> list[str]:
        headers = {"Content-Type": "application/merge-patch+json"} if method == "patch" else {}
        send = getattr(client.session(), method)
        async with send(client.credentials.server + path, json=body, headers=headers) as answer:
            assert answer.status in (200, 201), await answer.text()
            texts = answer.headers.getall("Warning", [])
            return [text.removeprefix('299 - "').removesuffix('"').replace('\\"', '"') for text in texts]

    texts: list[str] = run(act)
    return texts


def pod(namespace: str, name: str = "p", resources: Any = None, **spec: Any) -> Any:
    container = {"name": "c", "image": "i", **({"resources": resources} if resources else {})}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"containers": [container], **spec}}


def limits(run: Run, namespace: str, **item: Any) -> None:
    body = {"metadata": {"name": "l", "namespace": namespace}, "spec": {"limits": [{"type": "Container", **item}]}}
    made(run, LIMITRANGES, body)


def test_a_limit_range_gives_defaults_and_says_so(run: Run, namespace: Namespace) -> None:
    name = namespace()
    limits(run, name, default={"cpu": "200m", "memory": "1Gi"}, defaultRequest={"cpu": "100m"})
    stored = made(run, POD_RESOURCE, pod(name, resources={"limits": {"memory": "2Gi"}}))
    assert stored["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "200m", "memory": "2Gi"},
        "requests": {"cpu": "100m", "memory": "2Gi"},
    }
    text = "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    assert stored["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == text


@pytest.mark.parametrize(
    ("item", "resources", "why"),
    [
        pytest.param(
            {"max": {"cpu": "1"}},
            {"limits": {"cpu": "2"}},
            "maximum cpu usage per Container is 1, but limit is 2",
            id="a limit that is too high",
        ),
        pytest.param(
            {"min": {"memory": "1Gi"}},
            {"requests": {"memory": "1Mi"}, "limits": {"memory": "2Gi"}},
            "minimum memory usage per Container is 1Gi, but request is 1Mi",
            id="a request that is too low",
        ),
        pytest.param(
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            id="too far apart",
        ),
        pytest.param(
            {"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}},
            {"limits": {"cpu": "1500m"}},
            "[maximum cpu usage per Pod is 1, but limit is 1500m, maximum memory usage per Pod is 1Gi.  No limit is "
            "specified]",
            id="several bounds of a whole pod",
        ),
    ],
)
def test_a_limit_range_bounds_pods(run: Run, namespace: Namespace, item: Any, resources: Any, why: str) -> None:
    name = namespace()
    limits(run, name, **item)
    assert refused(run, POD_RESOURCE, pod(name, resources=resources)) == f'pods "p" is forbidden: {why}'


def test_a_limit_range_bounds_claims(run: Run, namespace: Namespace) -> None:
    name = namespace()
    limits(run, name, type="PersistentVolumeClaim", min={"storage": "2Gi"}, max={"storage": "4Gi"})
    for size, why in (("1Gi", "minimum storage usage per PersistentVolumeClaim is 2Gi"), ("5Gi", "maximum storage")):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        text = refused(run, CLAIMS, {"metadata": {"name": "c", "namespace": name}, "spec": spec})
        assert text.startswith(f'persistentvolumeclaims "c" is forbidden: {why}')
        assert text.endswith(f"but request is {size}")


def test_pods_that_violate_the_enforced_level_are_refused(run: Run, namespace: Namespace) -> None:
    name = namespace(enforce="baseline", enforce_version="v1.24")
    why = 'violates PodSecurity "baseline:v1.24": host namespaces (hostNetwork=true)'
    assert refused(run, POD_RESOURCE, pod(name, hostNetwork=True)) == f'pods "p" is forbidden: {why}'
    made(run, POD_RESOURCE, pod(name))


def test_a_warning_level_warns_of_pods_and_of_what_makes_them(run: Run, namespace: Namespace) -> None:
    name = namespace(warn="baseline")
    text = 'would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)'
    assert warned(run, "post", f"/api/v1/namespaces/{name}/pods", pod(name, hostPID=True)) == [text]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod(name, hostPID=True)["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    deployment = {"metadata": {"name": "d"}, "spec": spec}
    assert warned(run, "post", f"/apis/apps/v1/namespaces/{name}/deployments", deployment) == [text]
    assert run(lambda client: client.get(DEPLOYMENTS, "d", name))


def test_a_namespace_tells_of_pods_that_would_not_be_let_in_now(run: Run, namespace: Namespace) -> None:
    name = namespace()
    for number in range(3):
        made(run, POD_RESOURCE, pod(name, f"p{number}", hostPID=number != 2, hostIPC=number == 2))
    patch = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    assert warned(run, "patch", f"/api/v1/namespaces/{name}", patch) == [
        f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "baseline:latest"',
        "p0 (and 2 other pods): host namespaces",
    ]
    assert warned(run, "patch", f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"x": "y"}}}) == []


def test_a_namespace_with_an_unknown_level_is_invalid(run: Run) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "strict"}
    with pytest.raises(ApiError) as error:
        made(run, NAMESPACES, {"metadata": {"name": "strict", "labels": labels}})
    assert error.value.status == 422
    assert "must be one of privileged, baseline, restricted" in error.value.message


def test_an_update_gets_the_default_tolerations_back(run: Run, namespace: Namespace) -> None:
    name = namespace()
    stored = made(run, POD_RESOURCE, pod(name))
    assert len(stored["spec"]["tolerations"]) == 2
    mine = {"key": "mine", "operator": "Exists"}
    patch = {"spec": {"tolerations": [mine]}}
    changed = run(lambda client: client.patch(PODS, "p", patch, name))
    assert [item["key"] for item in changed["spec"]["tolerations"]] == [
        "mine",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]


def test_the_youngest_default_class_is_that_of_ingresses(run: Run, namespace: Namespace) -> None:
    name = namespace()
    backend = {"service": {"name": "s", "port": {"number": 80}}}

    def ingress(title: str, **metadata: Any) -> Any:
        body = {"metadata": {"name": title, "namespace": name, **metadata}, "spec": {"defaultBackend": backend}}
        return made(run, INGRESSES, body)["spec"].get("ingressClassName")

    assert ingress("none") is None
    for title in ("b", "a"):
        annotations = {"ingressclass.kubernetes.io/is-default-class": "true"}
        body = {"metadata": {"name": title, "annotations": annotations}, "spec": {"controller": "x.y/z"}}
        made(run, INGRESSCLASSES, body)
    assert ingress("given") == "a", "the youngest, or the first by name of the same age"
    assert ingress("annotated", annotations={"kubernetes.io/ingress.class": "b"}) is None


def test_the_systems_priority_classes_are_there(run: Run) -> None:
    classes = run(lambda client: client.list(CLASSES)).items
    assert {item["metadata"]["name"]: item["value"] for item in classes} == {
        "system-cluster-critical": 2_000_000_000,
        "system-node-critical": 2_000_001_000,
    }


def test_a_priority_belongs_to_its_class(run: Run, namespace: Namespace) -> None:
    name = namespace()
    stored = made(run, POD_RESOURCE, pod(name, "critical", priorityClassName="system-node-critical"))
    assert (stored["spec"]["priority"], stored["spec"]["preemptionPolicy"]) == (2_000_001_000, "PreemptLowerPriority")
    text = refused(run, POD_RESOURCE, pod(name, priority=5))
    assert text == (
        'pods "p" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority '
        "admission controller computed 0 from the given PriorityClass name"
    )


def test_pods_get_the_default_priority_of_their_time(run: Run, namespace: Namespace) -> None:
    name = namespace()
    seen: list[int] = []

    def look() -> None:
        seen.append(made(run, POD_RESOURCE, pod(name, f"p{len(seen)}"))["spec"]["priority"])

    look()
    made(run, CLASSES, {"metadata": {"name": "now"}, "value": 7, "globalDefault": True})
    try:
        look()
        patch = {"globalDefault": False}
        run(lambda client: client.patch(CLASSES, "now", patch))
        look()
        run(lambda client: client.patch(CLASSES, "now", {"globalDefault": True}))
    finally:
        run(lambda client: client.delete(CLASSES, "now"))
    look()
    assert seen == [0, 7, 0, 0]


def test_there_is_one_default_priority(run: Run) -> None:
    made(run, CLASSES, {"metadata": {"name": "one"}, "value": 5, "globalDefault": True})
    try:
        text = refused(run, CLASSES, {"metadata": {"name": "two"}, "value": 6, "globalDefault": True})
        assert "PriorityClass one is already marked as default. Only one default can exist" in text
    finally:
        run(lambda client: client.delete(CLASSES, "one"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("net.ipv4.ip_forward", "", id="dots"),
        pytest.param("net/ipv4/ip_forward", "", id="slashes"),
        pytest.param(
            "net.ipv4.",
            'Invalid value: "net.ipv4.": must have at most 253 characters and match regex '
            r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?",
            id="an empty part",
        ),
    ],
)
def test_names_of_sysctls(run: Run, namespace: Namespace, name: str, text: str) -> None:
    body = pod(namespace(), securityContext={"sysctls": [{"name": name, "value": "1"}]})
    if not text:
        made(run, POD_RESOURCE, body)
        return
    with pytest.raises(ApiError) as error:
        made(run, POD_RESOURCE, body)
    assert error.value.message == f'Pod "p" is invalid: spec.securityContext.sysctls[0].name: {text}'


def test_a_pod_gets_the_zone_of_its_node(run: Run, namespace: Namespace) -> None:
    name = namespace()
    zone = {"topology.kubernetes.io/zone": "east", "kubernetes.io/hostname": "n"}
    made(run, NODES, {"metadata": {"name": f"node-{name}", "labels": zone}})
    made(run, POD_RESOURCE, pod(name))
    target = {"metadata": {"name": "p", "namespace": name}, "target": {"kind": "Node", "name": f"node-{name}"}}
    run(lambda client: client.request("POST", f"/api/v1/namespaces/{name}/pods/p/binding", body=target))
    stored = run(lambda client: client.get(PODS, "p", name))
    assert stored["metadata"]["labels"] == {"topology.kubernetes.io/zone": "east"}
    assert made(run, POD_RESOURCE, pod(name, "direct", nodeName=f"node-{name}"))["metadata"]["labels"]


class Quota:
    """A quota in a namespace, with the status that its controller would have written."""

    def __init__(self, run: Run, namespace: str, **hard: str) -> None:
        self.run, self.namespace = run, namespace
        full = {key.replace("_", ".").replace("..", "/"): value for key, value in hard.items()}
        made(run, RESOURCEQUOTAS, {"metadata": {"name": "q", "namespace": namespace}, "spec": {"hard": full}})
        status = {"status": {"hard": full, "used": dict.fromkeys(full, "0")}}
        run(lambda client: client.patch(RESOURCEQUOTAS, "q", status, namespace, subresource="status"))

    @property
    def used(self) -> dict[str, str]:
        stored = self.run(lambda client: client.get(RESOURCEQUOTAS, "q", self.namespace))
        used: dict[str, str] = stored["status"]["used"]
        return used


def test_a_quota_counts_what_is_made_and_refuses_what_is_too_much(run: Run, namespace: Namespace) -> None:
    name = namespace()
    quota = Quota(run, name, pods="2", requests_cpu="1")
    made(run, POD_RESOURCE, pod(name, "one", resources={"requests": {"cpu": "600m"}}))
    assert quota.used == {"pods": "1", "requests.cpu": "600m"}
    text = refused(run, POD_RESOURCE, pod(name, "two", resources={"requests": {"cpu": "500m"}}))
    assert text == (
        'pods "two" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, '
        "limited: requests.cpu=1"
    )
    assert refused(run, POD_RESOURCE, pod(name, "three")) == (
        'pods "three" is forbidden: failed quota: q: must specify requests.cpu for: c'
    )
    assert quota.used == {"pods": "1", "requests.cpu": "600m"}


def test_a_dry_run_uses_nothing(run: Run, namespace: Namespace) -> None:
    name = namespace()
    quota = Quota(run, name, count__configmaps="1")
    path = f"/api/v1/namespaces/{name}/configmaps"
    body = {"metadata": {"name": "m"}}
    run(lambda client: client.request("POST", path, params={"dryRun": "All"}, body=body))
    assert quota.used == {"count/configmaps": "0"}
    run(lambda client: client.request("POST", path, body=body))
    assert quota.used == {"count/configmaps": "1"}


def test_a_service_that_changes_its_type_uses_more(run: Run, namespace: Namespace) -> None:
    name = namespace()
    quota = Quota(run, name, services="5", services_nodeports="1")
    spec = {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}
    made(run, SERVICES, {"metadata": {"name": "s", "namespace": name}, "spec": spec})
    assert quota.used == {"services": "1", "services.nodeports": "0"}
    with pytest.raises(ApiError) as error:
        run(lambda client: client.patch(SERVICES, "s", {"spec": {"type": "NodePort"}}, name))
    assert "exceeded quota: q, requested: services.nodeports=2" in error.value.message
    run(lambda client: client.patch(SERVICES, "s", {"metadata": {"labels": {"a": "b"}}}, name))
    assert quota.used == {"services": "1", "services.nodeports": "0"}


def test_a_quota_whose_use_is_unknown_lets_nothing_in(run: Run, namespace: Namespace) -> None:
    name = namespace()
    Quota(run, name, pods="1")
    status = {"status": {"used": {"pods": None}}}
    run(lambda client: client.patch(RESOURCEQUOTAS, "q", status, name, subresource="status"))
    assert "status unknown for quota: q, resources: pods" in refused(run, POD_RESOURCE, pod(name))
