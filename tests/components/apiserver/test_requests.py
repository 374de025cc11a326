"""The verbs over HTTP, with upstream's errors."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kubewire.components.kubeapi.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
    Resource,
)
from tests.components.apiserver.conftest import Run

EVENTS_V1: Resource[Any] = Resource("events.k8s.io", "v1", "events", "Event")


def configmap(name: str, **data: str) -> Any:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def pod(name: str, **spec: Any) -> Any:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "pause"}]} | spec,
    }


async def refused(action: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        await action
    return error.value


def test_an_object_that_has_a_version_cannot_be_created(run: Run) -> None:
    async def act(client: Client) -> None:
        copied = {"metadata": {"name": "copied", "namespace": "default", "resourceVersion": "5"}}
        error = await refused(client.create(CONFIGMAPS, copied))
        assert (error.status, error.reason) == (500, "")
        assert error.message == "resourceVersion should not be set on objects to be created"

    run(act)


def test_a_lease_is_replaced_only_by_who_says_which_one_it_read(run: Run) -> None:
    async def act(client: Client) -> None:
        lease: Any = {"metadata": {"name": "mine", "namespace": "default"}, "spec": {"holderIdentity": "a"}}
        made = await client.create(LEASES, lease)
        error = await refused(client.update(LEASES, lease))
        assert error.status == 422
        assert error.message.endswith("must be specified for an update")
        await client.update(LEASES, made | {"spec": {"holderIdentity": "b"}})
        assert (await refused(client.update(LEASES, made))).status == 409

    run(act)


def test_create_fills_in_what_the_server_gives(run: Run) -> None:
    async def act(client: Client) -> None:
        made = await client.create(CONFIGMAPS, configmap("made", a="1"))
        metadata = made["metadata"]
        assert made["kind"] == "ConfigMap"
        assert made["apiVersion"] == "v1"
        assert metadata["uid"]
        assert metadata["creationTimestamp"].endswith("Z")
        assert metadata["resourceVersion"].isdigit()
        assert await client.get(CONFIGMAPS, "made", "default") == made

    run(act)


def test_generate_name_adds_five_characters(run: Run) -> None:
    async def act(client: Client) -> None:
        obj = configmap("") | {"metadata": {"generateName": "gen-", "namespace": "default"}}
        names = {(await client.create(CONFIGMAPS, obj))["metadata"]["name"] for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("gen-") and len(name) == 9 for name in names)

    run(act)


ERRORS: Any = {
    "get of nothing": (
        lambda client: client.get(PODS, "x", "default"),
        (404, "NotFound", 'pods "x" not found'),
    ),
    "get in a group": (
        lambda client: client.get(DEPLOYMENTS, "x", "default"),
        (404, "NotFound", 'deployments.apps "x" not found'),
    ),
    "create in no namespace": (
        lambda client: client.create(CONFIGMAPS, {"metadata": {"name": "x", "namespace": "nope"}}),
        (404, "NotFound", 'namespaces "nope" not found'),
    ),
    "pod of a missing account": (
        lambda client: client.create(PODS, pod("x", serviceAccountName="who")),
        (
            403,
            "Forbidden",
            'pods "x" is forbidden: error looking up service account default/who: serviceaccount "who" not found',
        ),
    ),
    "pod without containers": (
        lambda client: client.create(PODS, pod("x", containers=[])),
        (422, "Invalid", 'Pod "x" is invalid: spec.containers: Required value'),
    ),
    "a name that is none": (
        lambda client: client.create(CONFIGMAPS, configmap("A_b")),
        (
            422,
            "Invalid",
            'ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b": a lowercase RFC 1123 '
            "subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'example.com', regex used for validation is "
            r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
    ),
    "no name": (
        lambda client: client.create(CONFIGMAPS, {"metadata": {"namespace": "default"}}),
        (422, "Invalid", 'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'),
    ),
    "another namespace in the object": (
        lambda client: client.request("POST", "/api/v1/namespaces/kube-system/configmaps", body=configmap("x")),
        (400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"),
    ),
    "another name in the object": (
        lambda client: client.request(
            "PUT", "/api/v1/namespaces/kube-system/serviceaccounts/x", body={"metadata": {"name": "y"}}
        ),
        (404, "NotFound", 'serviceaccounts "x" not found'),
    ),
    "another kind": (
        lambda client: client.request(
            "POST",
            "/api/v1/namespaces/default/configmaps",
            body=configmap("x") | {"kind": "ConfigMap", "apiVersion": "v2"},
        ),
        (
            400,
            "BadRequest",
            'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for '
            'version "v2" in scheme "pkg/api/legacyscheme/scheme.go:30"',
        ),
    ),
    "a body of another kind": (
        lambda client: client.request(
            "POST", "/api/v1/namespaces/default/configmaps", body=configmap("x") | {"kind": "Pod", "apiVersion": "v1"}
        ),
        (
            400,
            "BadRequest",
            'Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): '
            "unknown conversion",
        ),
    ),
    "a version of the same kind that is served elsewhere": (
        lambda client: client.request(
            "POST",
            "/api/v1/namespaces/default/events",
            body={"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "x"}},
        ),
        (
            400,
            "BadRequest",
            "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)",
        ),
    ),
    "a field of another type": (
        lambda client: client.create(
            SERVICES, {"metadata": {"name": "x", "namespace": "default"}, "spec": {"ports": [{"port": "80"}]}}
        ),
        (
            400,
            "BadRequest",
            'Service in version "v1" cannot be handled as a Service: json: cannot unmarshal string '
            "into Go struct field ServicePort.spec.ports.port of type int32",
        ),
    ),
    "an unknown field, strictly": (
        lambda client: client.request(
            "POST", "/api/v1/namespaces/default/pods?fieldValidation=Strict", body=pod("x", foo=1)
        ),
        (
            400,
            "BadRequest",
            'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo"',
        ),
    ),
    "an unknown field label": (
        lambda client: client.list(PODS, field_selector="spec.foo=x"),
        (400, "BadRequest", "field label not supported: spec.foo"),
    ),
    "a system namespace": (
        lambda client: client.delete(NAMESPACES, "kube-system"),
        (403, "Forbidden", 'namespaces "kube-system" is forbidden: this namespace may not be deleted'),
    ),
    "an unknown path": (
        lambda client: client.request("GET", "/apis/nope.example.com/v1/things"),
        (404, "NotFound", "the server could not find the requested resource"),
    ),
    "a verb that is not served": (
        lambda client: client.request("POST", "/api/v1/namespaces/default/pods/x", body={}),
        (405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
    ),
    "a body that is no JSON": (
        lambda client: client.request("POST", "/api/v1/namespaces", body=b"{"),
        (400, "BadRequest", "couldn't get version/kind; json parse error: "),
    ),
    "a body of another type": (
        lambda client: client.request("POST", "/api/v1/namespaces", body=b"{}", headers={"Content-Type": "text/html"}),
        (
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
    ),
    "an answer in CBOR only": (
        lambda client: client.request("GET", "/api/v1/namespaces", headers={"Accept": "application/cbor"}),
        (
            406,
            "NotAcceptable",
            "only the following media types are accepted: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
    ),
    "a resource version of the future": (
        lambda client: client.request("GET", "/api/v1/namespaces?resourceVersion=999999999"),
        (504, "Timeout", "Timeout: Too large resource version: 999999999, current: "),
    ),
    "a patch of another type": (
        lambda client: client.patch(NAMESPACES, "default", {}, content_type="application/json"),
        (
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, "
            "application/apply-patch+yaml",
        ),
    ),
}


@pytest.mark.parametrize(("action", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_refusals_have_upstreams_code_reason_and_text(run: Run, action: Any, expected: tuple[int, str, str]) -> None:
    error = run(lambda client: refused(action(client)))
    assert (error.status, error.reason) == expected[:2]
    assert error.message.startswith(expected[2]) if expected[2].endswith(" ") else error.message == expected[2]
    assert error.body["kind"] == "Status"
    assert error.body["code"] == error.status


def test_a_second_create_already_exists(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(CONFIGMAPS, configmap("twice"))
        error = await refused(client.create(CONFIGMAPS, configmap("twice")))
        assert (error.status, error.reason) == (409, "AlreadyExists")
        assert error.message == 'configmaps "twice" already exists'
        assert error.body["details"] == {"name": "twice", "kind": "configmaps"}

    run(act)


def test_an_update_of_an_old_version_conflicts_and_one_without_a_version_does_not(run: Run) -> None:
    async def act(client: Client) -> None:
        old = await client.create(CONFIGMAPS, configmap("cas", a="1"))
        new = await client.update(CONFIGMAPS, old | {"data": {"a": "2"}})
        assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
        error = await refused(client.update(CONFIGMAPS, old | {"data": {"a": "3"}}))
        assert (error.status, error.reason) == (409, "Conflict")
        assert error.message == (
            'Operation cannot be fulfilled on configmaps "cas": the object has been modified; please apply your '
            "changes to the latest version and try again"
        )
        forced = await client.update(CONFIGMAPS, configmap("cas", a="4"))
        assert forced["data"] == {"a": "4"}
        assert forced["metadata"]["uid"] == old["metadata"]["uid"]
        assert forced["metadata"]["creationTimestamp"] == old["metadata"]["creationTimestamp"]

    run(act)


def test_an_update_that_changes_nothing_is_no_write(run: Run) -> None:
    async def act(client: Client) -> None:
        made = await client.create(CONFIGMAPS, configmap("same", a="1"))
        assert await client.update(CONFIGMAPS, made) == made

    run(act)


def test_generation_counts_changes_of_the_spec_alone(run: Run) -> None:
    async def act(client: Client) -> None:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        obj: Any = {"metadata": {"name": "gen", "namespace": "default"}, "spec": spec}
        made = await client.create(DEPLOYMENTS, obj)
        assert made["metadata"]["generation"] == 1
        labelled = await client.patch(DEPLOYMENTS, "gen", {"metadata": {"labels": {"x": "y"}}}, "default")
        assert labelled["metadata"]["generation"] == 1
        scaled: Any = await client.patch(DEPLOYMENTS, "gen", {"spec": {"replicas": 3}}, "default", subresource="scale")
        assert scaled["kind"] == "Scale"
        assert scaled["spec"] == {"replicas": 3}
        assert scaled["status"]["selector"] == "a=b"
        status = {"status": {"replicas": 3, "observedGeneration": 2}, "spec": {"replicas": 9}}
        after = await client.patch(DEPLOYMENTS, "gen", status, "default", subresource="status")
        assert after["metadata"]["generation"] == 2
        assert after["spec"]["replicas"] == 3
        assert after["status"]["replicas"] == 3

    run(act)


@pytest.mark.parametrize(
    ("content_type", "patch"),
    [
        (JSON_PATCH, [{"op": "add", "path": "/spec/containers/0/image", "value": "new"}]),
        (STRATEGIC_MERGE_PATCH, {"spec": {"containers": [{"name": "main", "image": "new"}]}}),
    ],
    ids=["JSON patch", "strategic merge patch"],
)
def test_patches_change_one_field_of_a_list_item(run: Run, content_type: str, patch: Any) -> None:
    async def act(client: Client) -> None:
        name = f"patched-{content_type.partition('-')[0].rpartition('/')[2]}"
        before = await client.create(PODS, pod(name))
        after = await client.patch(PODS, name, patch, "default", content_type=content_type)
        assert after["spec"]["containers"] == [before["spec"]["containers"][0] | {"image": "new"}]

    run(act)


def test_a_merge_patch_with_an_old_version_conflicts(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(CONFIGMAPS, configmap("pre", a="1"))
        patch = {"metadata": {"resourceVersion": "1"}, "data": {"a": "2"}}
        error = await refused(client.patch(CONFIGMAPS, "pre", patch, "default", content_type=MERGE_PATCH))
        assert error.reason == "Conflict"

    run(act)


def test_a_dry_run_answers_and_stores_nothing(run: Run) -> None:
    async def act(client: Client) -> None:
        path = "/api/v1/namespaces/default/services"
        service = {"metadata": {"name": "dry"}, "spec": {"ports": [{"port": 80}]}}
        made = orjson.loads(await client.request("POST", path, params={"dryRun": "All"}, body=service))
        assert made["spec"]["clusterIP"].startswith("10.")
        assert (await refused(client.get(SERVICES, "dry", "default"))).reason == "NotFound"

    run(act)


def test_unknown_fields_warn_and_are_dropped(run: Run) -> None:
    async def act(client: Client) -> None:
        url = client.credentials.server + "/api/v1/namespaces/default/configmaps"
        async with client.session().post(url, json=configmap("warned", a="1") | {"dta": {}}) as answer:
            assert answer.status == 201
            assert answer.headers.getall("Warning") == ['299 - "unknown field \\"dta\\""']
            assert "dta" not in await answer.json()

    run(act)


def test_lists_select_by_labels_and_fields(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(PODS, pod("sel-a", nodeName="n1"))
        await client.create(PODS, pod("sel-b", nodeName="n2"))

        async def names(**selectors: str) -> list[str]:
            found = await client.list(PODS, "default", **selectors)
            return [item["metadata"]["name"] for item in found.items if item["metadata"]["name"].startswith("sel-")]

        assert await names() == ["sel-a", "sel-b"]
        assert await names(label_selector="app in (sel-a, x)") == ["sel-a"]
        assert await names(field_selector="spec.nodeName=n2") == ["sel-b"]
        assert await names(field_selector="spec.nodeName!=n2,metadata.name=sel-a") == ["sel-a"]
        assert (await client.list(PODS, "kube-system")).items == []

    run(act)


def test_pages_of_a_list_show_one_moment(run: Run) -> None:
    async def act(client: Client) -> None:
        for number in range(5):
            account: Any = {"metadata": {"name": f"p{number}", "namespace": "kube-public"}}
            await client.create(SERVICEACCOUNTS, account)
        path = "/api/v1/namespaces/kube-public/serviceaccounts"
        first = orjson.loads(await client.request("GET", path, params={"limit": "2"}))
        assert [item["metadata"]["name"] for item in first["items"]] == ["p0", "p1"]
        assert first["metadata"]["remainingItemCount"] == 3
        await client.delete(SERVICEACCOUNTS, "p3", "kube-public")
        late: Any = {"metadata": {"name": "p22", "namespace": "kube-public"}}
        await client.create(SERVICEACCOUNTS, late)
        params = {"limit": "9", "continue": first["metadata"]["continue"]}
        second = orjson.loads(await client.request("GET", path, params=params))
        assert [item["metadata"]["name"] for item in second["items"]] == ["p2", "p3", "p4"]
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert "continue" not in second["metadata"]

    run(act)


def test_finalizers_hold_a_deleted_object_until_they_are_gone(run: Run) -> None:
    async def act(client: Client) -> None:
        held = configmap("held")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await client.create(CONFIGMAPS, held)
        marked = await client.delete(CONFIGMAPS, "held", "default")
        assert marked["metadata"]["deletionTimestamp"]
        assert (await client.get(CONFIGMAPS, "held", "default"))["metadata"]["finalizers"] == ["example.com/hold"]
        await client.patch(CONFIGMAPS, "held", {"metadata": {"finalizers": None}}, "default")
        assert (await refused(client.get(CONFIGMAPS, "held", "default"))).reason == "NotFound"

    run(act)


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
def test_propagation_policies_become_finalizers_for_the_garbage_collector(
    run: Run, policy: str, finalizer: str
) -> None:
    async def act(client: Client) -> None:
        name = f"owner-{policy.lower()}"
        await client.create(CONFIGMAPS, configmap(name))
        marked = await client.delete(CONFIGMAPS, name, "default", propagation_policy=policy)
        assert marked["metadata"]["finalizers"] == [finalizer]
        assert marked["metadata"]["deletionTimestamp"]

    run(act)


def test_a_delete_with_another_uid_conflicts(run: Run) -> None:
    async def act(client: Client) -> None:
        made = await client.create(CONFIGMAPS, configmap("uid"))
        error = await refused(client.delete(CONFIGMAPS, "uid", "default", uid="other"))
        assert error.reason == "Conflict"
        assert "Precondition failed: UID in precondition: other" in error.message
        answer = await client.delete(CONFIGMAPS, "uid", "default", uid=made["metadata"]["uid"])
        assert answer["status"] == "Success"
        assert answer["details"]["uid"] == made["metadata"]["uid"]

    run(act)


def test_a_pod_on_a_node_is_deleted_gracefully_and_one_on_none_at_once(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(PODS, pod("nowhere"))
        await client.delete(PODS, "nowhere", "default")
        assert (await refused(client.get(PODS, "nowhere", "default"))).reason == "NotFound"
        await client.create(PODS, pod("graceful", nodeName="n1", terminationGracePeriodSeconds=7))
        marked = await client.delete(PODS, "graceful", "default")
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
        longer = await client.delete(PODS, "graceful", "default", grace_period_seconds=60)
        assert longer["metadata"]["deletionGracePeriodSeconds"] == 7
        await client.delete(PODS, "graceful", "default", grace_period_seconds=0)
        assert (await refused(client.get(PODS, "graceful", "default"))).reason == "NotFound"

    run(act)


def test_a_collection_is_deleted_by_selector(run: Run) -> None:
    async def act(client: Client) -> None:
        for name in ("dc-a", "dc-b", "kept"):
            obj = configmap(name)
            obj["metadata"]["labels"] = {"gone": str(name != "kept").lower()}
            await client.create(CONFIGMAPS, obj)
        path = CONFIGMAPS.path("default")
        answer = orjson.loads(await client.request("DELETE", path, params={"labelSelector": "gone=true"}))
        assert sorted(item["metadata"]["name"] for item in answer["items"]) == ["dc-a", "dc-b"]
        left = await client.list(CONFIGMAPS, "default", label_selector="gone")
        assert [item["metadata"]["name"] for item in left.items] == ["kept"]

    run(act)


def test_a_terminating_namespace_takes_nothing_new_and_goes_when_finalized(run: Run) -> None:
    async def act(client: Client) -> None:
        ending: Any = {"metadata": {"name": "ending"}}
        made = await client.create(NAMESPACES, ending)
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "ending"}
        assert made["spec"]["finalizers"] == ["kubernetes"]
        assert made["status"]["phase"] == "Active"
        marked: Any = await client.delete(NAMESPACES, "ending")
        assert marked["status"]["phase"] == "Terminating"
        obj = {"metadata": {"name": "late", "namespace": "ending"}}
        error = await refused(client.create(CONFIGMAPS, obj))
        assert error.status == 403
        assert error.message == (
            'configmaps "late" is forbidden: unable to create new content in namespace ending because it is being '
            "terminated"
        )
        assert error.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
        marked["spec"]["finalizers"] = []
        await client.update(NAMESPACES, marked, subresource="finalize")
        assert (await refused(client.get(NAMESPACES, "ending"))).reason == "NotFound"

    run(act)


def test_pods_get_account_token_priority_and_tolerations(run: Run) -> None:
    async def act(client: Client) -> None:
        spec = (await client.create(PODS, pod("admitted")))["spec"]
        assert spec["serviceAccountName"] == "default"
        assert spec["priority"] == 0
        volume = spec["volumes"][0]
        assert volume["name"].startswith("kube-api-access-")
        sources = [next(iter(source)) for source in volume["projected"]["sources"]]
        assert sources == ["serviceAccountToken", "configMap", "downwardAPI"]
        assert spec["containers"][0]["volumeMounts"] == [
            {"name": volume["name"], "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ]
        assert {one["key"] for one in spec["tolerations"]} == {
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
        }
        bare = await client.create(PODS, pod("bare", automountServiceAccountToken=False))
        assert "volumes" not in bare["spec"]

    run(act)


def test_binding_sets_the_node_once(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(PODS, pod("bound"))
        binding = {"metadata": {"name": "bound", "namespace": "default"}, "target": {"kind": "Node", "name": "n1"}}
        await client.create(PODS, binding, subresource="binding")
        found = await client.get(PODS, "bound", "default")
        assert found["spec"]["nodeName"] == "n1"
        assert any(one["type"] == "PodScheduled" and one["status"] == "True" for one in found["status"]["conditions"])
        error = await refused(client.create(PODS, binding, subresource="binding"))
        assert error.reason == "Conflict"
        assert error.message.endswith('pod bound is already assigned to node "n1"')

    run(act)


def test_eviction_deletes_the_pod(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(PODS, pod("evicted", nodeName="n1"))
        eviction = {"metadata": {"name": "evicted", "namespace": "default"}, "deleteOptions": {"gracePeriodSeconds": 3}}
        await client.create(PODS, eviction, subresource="eviction")
        assert (await client.get(PODS, "evicted", "default"))["metadata"]["deletionGracePeriodSeconds"] == 3

    run(act)


def test_cluster_ips_are_given_out_once_and_come_back(run: Run) -> None:
    async def act(client: Client) -> None:
        def service(name: str, address: str) -> Any:
            spec = {"ports": [{"port": 80}], "clusterIP": address}
            return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}

        await client.create(SERVICES, service("first", "10.96.7.7"))
        error = await refused(client.create(SERVICES, service("second", "10.96.7.7")))
        assert error.status == 422
        assert "provided IP is already allocated" in error.message
        await client.delete(SERVICES, "first", "default")
        await client.create(SERVICES, service("second", "10.96.7.7"))

    run(act)


def test_default_kubernetes_leads_to_the_server_and_is_repaired(run: Run) -> None:
    async def act(client: Client) -> None:
        service = await client.get(SERVICES, "kubernetes", "default")
        assert service["spec"]["clusterIP"] == "10.96.0.1"
        await client.delete(ENDPOINTS, "kubernetes", "default")
        endpoints = await client.get(ENDPOINTS, "kubernetes", "default")
        assert endpoints["subsets"][0]["addresses"] == [{"ip": "172.18.0.2"}]

    run(act)


def test_events_are_one_storage_in_two_groups(run: Run) -> None:
    async def act(client: Client) -> None:
        event = {
            "metadata": {"name": "e.1", "namespace": "default"},
            "regarding": {"kind": "Pod", "name": "x", "namespace": "default"},
            "reason": "Started",
            "type": "Normal",
            "note": "Started container",
            "action": "Start",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "kubelet",
            "reportingInstance": "n1",
        }
        made = await client.create(EVENTS_V1, event)
        assert made["note"] == "Started container"
        core = await client.get(EVENTS, "e.1", "default")
        assert (core["apiVersion"], core["message"]) == ("v1", "Started container")
        assert core["involvedObject"]["name"] == "x"
        listed = await client.list(EVENTS_V1, "default", field_selector="reason=Started")
        assert [item["note"] for item in listed.items] == ["Started container"]

    run(act)


def test_tables_have_the_kinds_columns(run: Run) -> None:
    async def act(client: Client) -> None:
        node: Any = {"metadata": {"name": "tabled"}}
        await client.create(NODES, node)
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        answer = orjson.loads(await client.request("GET", "/api/v1/nodes", headers={"Accept": accept}))
        assert answer["kind"] == "Table"
        names = [column["name"] for column in answer["columnDefinitions"]]
        assert names[:5] == ["Name", "Status", "Roles", "Age", "Version"]
        row = next(row for row in answer["rows"] if row["cells"][0] == "tabled")
        assert len(row["cells"]) == len(names)
        assert row["object"]["kind"] == "PartialObjectMetadata"
        assert "spec" not in row["object"]

    run(act)


@pytest.mark.parametrize(
    ("agent", "query", "indented"),
    [
        ("curl/7.88.1", "", True),
        ("Mozilla/5.0 (X11)", "", True),
        ("curl/7.88.1", "?pretty=false", False),
        ("kubectl/v1.32", "", False),
        ("kubectl/v1.32", "?pretty=true", True),
    ],
)
def test_people_get_indented_json(run: Run, agent: str, query: str, indented: bool) -> None:
    async def act(client: Client) -> None:
        for path in ("/api/v1/namespaces/default", "/api", "/version"):
            body = await client.request("GET", path + query, headers={"User-Agent": agent})
            assert (b'{\n  "' in body) == indented, path
            assert isinstance(orjson.loads(body), dict)

    run(act)


def test_a_path_that_is_not_served_has_empty_details_for_clients_to_look_into(run: Run) -> None:
    async def act(client: Client) -> None:
        with pytest.raises(ApiError) as error:
            await client.request("GET", "/api/v1/namespaces/default/pods/a/nope")
        assert (error.value.status, error.value.reason, error.value.body["details"]) == (404, "NotFound", {})

    run(act)


def test_endpoints_come_with_a_deprecation_warning(run: Run) -> None:
    async def act(client: Client) -> None:
        url = client.credentials.server + "/api/v1/namespaces/default/endpoints"
        async with client.session().get(url) as answer:
            text = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
            assert answer.headers.getall("Warning") == [f'299 - "{text}"']
        async with client.session().get(url.replace("endpoints", "services")) as answer:
            assert "Warning" not in answer.headers

    run(act)


def test_yaml_in_and_out(run: Run) -> None:
    async def act(client: Client) -> None:
        body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-yaml}\ndata: {day: '2026-01-01', on: 'x'}\n"
        headers = {"Content-Type": "application/yaml", "Accept": "application/yaml"}
        answer = await client.request("POST", CONFIGMAPS.path("default"), body=body, headers=headers)
        assert b"kind: ConfigMap\n" in answer
        assert (await client.get(CONFIGMAPS, "from-yaml", "default"))["data"]["day"] == "2026-01-01"

    run(act)


def test_a_service_comes_with_warnings_when_it_is_made_and_changed(run: Run) -> None:
    async def act(client: Client) -> None:
        url = client.credentials.server + "/api/v1/namespaces/default/services"
        spec = {"clusterIP": "None", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}
        text = '299 - "spec.SessionAffinity is ignored for headless services"'
        body = {"metadata": {"name": "told"}, "spec": spec}
        async with client.session().post(url, json=body) as answer:
            assert answer.status == 201
            assert answer.headers.getall("Warning") == [text]
        headers = {"Content-Type": "application/merge-patch+json"}
        patch = '{"metadata": {"labels": {"a": "b"}}}'
        async with client.session().patch(f"{url}/told", data=patch, headers=headers) as answer:
            assert answer.headers.getall("Warning") == [text]

    run(act)
