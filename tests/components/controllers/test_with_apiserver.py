"""kubectl, the real API server, the controllers and the scheduler; only the kubelets are played."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.lab.bringup import kubeadm
from tests.components.controllers.cluster import Cluster, fake_node
from tests.components.controllers.objects import template

CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    nodes = [fake_node("control-plane", taints=[CONTROL_PLANE]), *(fake_node(f"worker-{n}") for n in (1, 2, 3))]
    flags = ["--node-monitor-grace-period=6s", "--node-monitor-period=500ms"]
    with Cluster(nodes, controller_flags=flags) as running:
        yield running


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    body = {"selector": {"matchLabels": labels}, "template": template("nginx:1", labels), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


def names(cluster: Cluster, *args: str) -> list[str]:
    return sorted(item["metadata"]["name"] for item in cluster.objects(*args))


def all_ready(cluster: Cluster, name: str, replicas: int) -> None:
    """As `kubectl wait --for=jsonpath` of newer kubectls."""
    path = "jsonpath={.status.readyReplicas}"
    cluster.wait(
        lambda: cluster.kubectl("get", "deployment", name, "-o", path) == str(replicas), f"{replicas} ready of {name}"
    )


def test_nodes_get_their_pod_cidr(cluster):
    path = '{range .items[*]}{.metadata.name}: podCIDR={.spec.podCIDR}{"\\n"}{end}'

    def assigned():
        lines = cluster.kubectl("get", "node", "-o", f"jsonpath={path}").split("\n")
        return sorted(line.partition("=")[2] for line in lines if line)

    cluster.wait(lambda: assigned() == [f"10.244.{n}.0/24" for n in range(4)], "podCIDRs")


def test_a_namespace_comes_with_service_account_and_root_ca_and_goes_with_all_it_holds(cluster):
    cluster.kubectl("create", "namespace", "short")
    cluster.wait(lambda: names(cluster, "serviceaccount", "-n", "short") == ["default"], "ServiceAccount")
    cluster.wait(lambda: "kube-root-ca.crt" in names(cluster, "configmap", "-n", "short"), "root CA")
    cluster.kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2", "-n", "short")
    cluster.kubectl("rollout", "status", "deployment/web", "-n", "short", "--timeout=60s")
    cluster.kubectl("delete", "namespace", "short", "--timeout=60s")
    assert "not found" in cluster.kubectl("get", "namespace", "short", check=False)


def test_a_deployment_from_create_to_cascading_delete(cluster):
    cluster.kubectl("create", "deployment", "web", "--image=nginx:1", "--replicas=3")
    out = cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert 'deployment "web" successfully rolled out' in out
    nodes = [item["spec"]["nodeName"] for item in cluster.objects("pods", "-l", "app=web")]
    assert sorted(nodes) == ["worker-1", "worker-2", "worker-3"], "spread over the workers"
    cluster.kubectl("scale", "deployment/web", "--replicas=5")
    all_ready(cluster, "web", 5)
    cluster.kubectl("set", "image", "deployment/web", "nginx=nginx:2")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.wait(
        lambda: {p["spec"]["containers"][0]["image"] for p in cluster.objects("pods", "-l", "app=web")} == {"nginx:2"},
        "new pods only",
    )
    history = cluster.kubectl("rollout", "history", "deployment/web")
    assert "1 " in history
    assert "2 " in history
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.wait(
        lambda: {p["spec"]["containers"][0]["image"] for p in cluster.objects("pods", "-l", "app=web")} == {"nginx:1"},
        "old image again",
    )
    assert len(cluster.objects("replicasets", "-l", "app=web")) == 2
    described = cluster.kubectl("describe", "deployment", "web")
    assert "ScalingReplicaSet" in described
    assert "NewReplicaSetAvailable" in described
    cluster.kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=60s")
    assert cluster.objects("pods", "-l", "app=web") == []
    assert cluster.objects("replicasets", "-l", "app=web") == []


def test_background_delete_collects_pods_and_orphan_delete_leaves_them(cluster):
    for name in ("gone", "kept"):
        cluster.kubectl("create", "deployment", name, "--image=nginx", "--replicas=2")
        cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    cluster.kubectl("delete", "deployment", "gone")
    cluster.wait(lambda: not cluster.objects("pods", "-l", "app=gone"), "pods of the deleted deployment gone")
    cluster.kubectl("delete", "deployment", "kept", "--cascade=orphan", "--timeout=60s")
    (replicaset,) = cluster.objects("replicasets", "-l", "app=kept")
    assert not replicaset["metadata"].get("ownerReferences")
    assert len(cluster.objects("pods", "-l", "app=kept")) == 2
    cluster.kubectl("delete", "replicaset", replicaset["metadata"]["name"])
    cluster.wait(lambda: not cluster.objects("pods", "-l", "app=kept"), "pods of the replicaset gone")


def test_exactly_the_wanted_number_of_pods_is_ever_made(cluster):
    cluster.kubectl("create", "deployment", "exact", "--image=nginx", "--replicas=30")
    cluster.kubectl("rollout", "status", "deployment/exact", "--timeout=60s")
    (replicaset,) = cluster.objects("replicasets", "-l", "app=exact")
    name = replicaset["metadata"]["name"]

    def told(reason):
        events = cluster.objects("events", "--field-selector", f"involvedObject.name={name},reason={reason}")
        return sum(item.get("count", 1) for item in events)

    # A controller's events are written later than the pods, but in order: this one is the last.
    cluster.kubectl("scale", "deployment/exact", "--replicas=29")
    cluster.wait(lambda: told("SuccessfulDelete"), "the event of the deleted pod")
    assert (told("SuccessfulCreate"), told("SuccessfulDelete")) == (30, 1)
    cluster.kubectl("delete", "deployment", "exact")


def test_a_statefulset_starts_in_order_updates_from_the_top_and_shrinks(cluster):
    cluster.apply(manifest("StatefulSet", "db", replicas=3, serviceName="db"))
    assert "roll" in cluster.kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    pods = {item["metadata"]["name"]: item for item in cluster.objects("pods", "-l", "app=db")}
    assert sorted(pods) == ["db-0", "db-1", "db-2"]
    starts = [int(pods[name]["metadata"]["resourceVersion"]) for name in sorted(pods)]
    assert starts == sorted(starts)
    assert pods["db-1"]["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    newer = template("nginx:2", {"app": "db"})
    cluster.apply(manifest("StatefulSet", "db", replicas=3, serviceName="db", template=newer))
    cluster.kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert {p["spec"]["containers"][0]["image"] for p in cluster.objects("pods", "-l", "app=db")} == {"nginx:2"}
    cluster.kubectl("rollout", "undo", "statefulset/db")
    cluster.wait(
        lambda: {p["spec"]["containers"][0]["image"] for p in cluster.objects("pods", "-l", "app=db")} == {"nginx:1"},
        "the first revision",
    )
    cluster.kubectl("scale", "statefulset/db", "--replicas=1")
    cluster.wait(lambda: names(cluster, "pods", "-l", "app=db") == ["db-0"], "one pod left")
    cluster.kubectl("delete", "statefulset", "db")
    cluster.wait(lambda: not cluster.objects("pods", "-l", "app=db"), "no pod left")


def test_a_daemonset_runs_on_every_node_it_tolerates(cluster):
    cluster.apply(manifest("DaemonSet", "agent"))
    cluster.kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    where = sorted(item["spec"]["nodeName"] for item in cluster.objects("pods", "-l", "app=agent"))
    assert where == ["worker-1", "worker-2", "worker-3"]
    tolerant = template("nginx:2", {"app": "agent"}, tolerations=[{"operator": "Exists"}])
    cluster.apply(manifest("DaemonSet", "agent", template=tolerant))
    cluster.kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    cluster.wait(lambda: len(cluster.objects("pods", "-l", "app=agent")) == 4, "the control plane, too")
    cluster.kubectl("delete", "daemonset", "agent")


def test_a_service_gets_slices_and_endpoints_that_follow_its_pods(cluster):
    cluster.kubectl("create", "deployment", "api", "--image=nginx", "--replicas=3", "--port=8080")
    cluster.kubectl("expose", "deployment", "api", "--port=80", "--target-port=8080")

    def ready_addresses():
        slices = cluster.objects("endpointslices", "-l", "kubernetes.io/service-name=api")
        return sorted(e["addresses"][0] for s in slices for e in s.get("endpoints") or [] if e["conditions"]["ready"])

    def pod_addresses():
        return sorted(p["status"].get("podIP", "") for p in cluster.objects("pods", "-l", "app=api"))

    cluster.wait(lambda: len(ready_addresses()) == 3 and ready_addresses() == pod_addresses(), "3 endpoints")
    (one,) = cluster.objects("endpointslices", "-l", "kubernetes.io/service-name=api")
    assert one["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    assert one["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    endpoints = json.loads(cluster.kubectl("get", "endpoints", "api", "-o", "json"))
    assert sorted(a["ip"] for a in endpoints["subsets"][0]["addresses"]) == pod_addresses()
    cluster.kubectl("scale", "deployment/api", "--replicas=1")
    cluster.wait(lambda: len(ready_addresses()) == 1, "one endpoint left")
    cluster.kubectl("delete", "service,deployment", "api")
    cluster.wait(
        lambda: not cluster.objects("endpointslices", "-l", "kubernetes.io/service-name=api"), "slices collected"
    )


def test_topology_mode_auto_gives_hints_when_the_nodes_allow_it_and_says_why_not(cluster):
    zone = "topology.kubernetes.io/zone"
    for node, where in (("worker-1", "a"), ("worker-2", "b"), ("worker-3", "b")):
        cluster.kubectl("label", "node", node, f"{zone}={where}")
    cluster.kubectl("create", "deployment", "near", "--image=nginx", "--replicas=6")
    cluster.kubectl("expose", "deployment", "near", "--port=80")
    cluster.kubectl("annotate", "service", "near", "service.kubernetes.io/topology-mode=Auto")

    def said() -> set[str]:
        events = cluster.objects("events", "--field-selector", "involvedObject.name=near")
        return {f"{event['type']} {event['reason']}: {event['message']}" for event in events}

    def hints() -> list[str]:
        slices = cluster.objects("endpointslices", "-l", "kubernetes.io/service-name=near")
        found = [e.get("hints", {}).get("forZones") for s in slices for e in s.get("endpoints") or []]
        return sorted(zones[0]["name"] if zones else "" for zones in found)

    why = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
    cluster.wait(lambda: f"Warning TopologyAwareHintsDisabled: {why}, addressType: IPv4" in said(), "the reason")
    assert "a" not in hints()
    # The control plane has no zone; it counts no longer when it says what it is.
    cluster.kubectl("label", "node", "control-plane", "node-role.kubernetes.io/control-plane=")
    cluster.kubectl("annotate", "service", "near", "touched=1")
    cluster.wait(lambda: hints() == ["a"] * 2 + ["b"] * 4, "a third of the endpoints for a third of the CPU")
    enabled = "Normal TopologyAwareHintsEnabled: Topology Aware Hints has been enabled, addressType: IPv4"
    cluster.wait(lambda: enabled in said(), "the event")
    cluster.kubectl("annotate", "service", "near", "service.kubernetes.io/topology-mode-")
    cluster.wait(lambda: hints() == [""] * 6, "no hints")
    cluster.kubectl("delete", "service,deployment", "near")
    for node in ("worker-1", "worker-2", "worker-3"):
        cluster.kubectl("label", "node", node, f"{zone}-")
    cluster.kubectl("label", "node", "control-plane", "node-role.kubernetes.io/control-plane-")


def test_a_service_cidr_stays_until_no_service_has_an_address_of_it(cluster):
    cluster.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "more"},
            "spec": {"cidrs": ["10.77.0.0/24"]},
        }
    )

    def ready() -> list[tuple[str, str]]:
        found = [one for one in cluster.objects("servicecidrs") if one["metadata"]["name"] == "more"]
        conditions = [condition for one in found for condition in one.get("status", {}).get("conditions") or ()]
        return [(condition["status"], condition["message"]) for condition in conditions]

    cluster.wait(lambda: ready() == [("True", "Kubernetes Service CIDR is ready")], "Ready")
    cluster.kubectl("create", "service", "clusterip", "far", "--tcp=80", "--clusterip=10.77.0.9")
    cluster.kubectl("delete", "servicecidr", "more", "--wait=false")
    cluster.wait(lambda: [status for status, _ in ready()] == ["False"], "Terminating")
    refused = cluster.kubectl(
        "create", "service", "clusterip", "late", "--tcp=80", "--clusterip=10.77.0.8", check=False
    )
    assert "the provided network does not match the current range" in refused
    cluster.kubectl("delete", "service", "far")
    cluster.wait(lambda: "more" not in names(cluster, "servicecidrs"), "the range to go")


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
def test_a_job_completes_and_its_pods_go_with_it(cluster, mode):
    name = f"batch-{mode.lower()}"
    spec = {
        "completions": 4,
        "parallelism": 2,
        "completionMode": mode,
        "template": template("x:1", {"finish": "Succeeded"}, restartPolicy="Never"),
    }
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
    cluster.kubectl("wait", "--for=condition=Complete", f"job/{name}", "--timeout=60s")
    job = json.loads(cluster.kubectl("get", "job", name, "-o", "json"))
    assert job["status"]["succeeded"] == 4
    assert len(cluster.objects("pods", "-l", f"job-name={name}")) == 4
    cluster.kubectl("delete", "job", name)
    cluster.wait(lambda: not cluster.objects("pods", "-l", f"job-name={name}"), "pods of the job gone")


def test_hand_made_endpoints_of_a_service_without_selector_are_mirrored(cluster):
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"}, "spec": {"ports": [{"port": 80}]}},
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "ext"},
            "subsets": [{"addresses": [{"ip": "203.0.113.9"}], "ports": [{"port": 8080}]}],
        },
    )
    (mirrored,) = cluster.wait(
        lambda: cluster.objects("endpointslices", "-l", "kubernetes.io/service-name=ext"), "a mirrored slice"
    )
    assert mirrored["endpoints"][0]["addresses"] == ["203.0.113.9"]
    cluster.kubectl("delete", "service", "ext")
    cluster.wait(lambda: not cluster.objects("endpointslices", "-l", "kubernetes.io/service-name=ext"), "gone")


def test_custom_resources_are_collected_by_their_owner(cluster):
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    }
    cluster.apply(crd)
    cluster.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=60s")
    cluster.kubectl("create", "configmap", "owner")
    uid = cluster.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": "w", "ownerReferences": [owner]}
    cluster.apply({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata})
    assert names(cluster, "widgets") == ["w"]
    cluster.kubectl("delete", "configmap", "owner")
    cluster.wait(lambda: names(cluster, "widgets") == [], "the widget collected")
    cluster.kubectl("delete", "crd", "widgets.example.com", "--timeout=60s")


def test_a_drain_says_which_budget_holds_it_and_ends_when_that_allows(cluster):
    cluster.kubectl("create", "deployment", "kept", "--image=nginx:1", "--replicas=2")
    cluster.kubectl("rollout", "status", "deployment/kept", "--timeout=60s")
    cluster.kubectl("create", "pdb", "kept", "--selector=app=kept", "--min-available=2")
    path = "jsonpath={.status.currentHealthy}/{.status.desiredHealthy}"
    cluster.wait(lambda: cluster.kubectl("get", "pdb", "kept", "-o", path) == "2/2", "status of the budget")
    node = cluster.objects("pods", "-l", "app=kept")[0]["spec"]["nodeName"]
    drain = ("drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data")
    said = cluster.kubectl(*drain, "--timeout=3s", check=False)
    assert "Cannot evict pod as it would violate the pod's disruption budget." in said
    cluster.kubectl("patch", "pdb", "kept", "--type=merge", "-p", '{"spec":{"minAvailable":1}}')
    cluster.kubectl(*drain, "--timeout=60s")
    assert node not in {item["spec"]["nodeName"] for item in cluster.objects("pods", "-l", "app=kept")}
    cluster.kubectl("uncordon", node)
    cluster.kubectl("delete", "deployment,pdb", "kept")


def test_a_budget_knows_the_scale_of_custom_resources(cluster):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    version["subresources"] = {"scale": scale}
    kinds = {"plural": "rollouts", "singular": "rollout", "kind": "Rollout", "listKind": "RolloutList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": kinds, "versions": [version]}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
    cluster.apply({**crd, "metadata": {"name": "rollouts.example.com"}})
    cluster.kubectl("wait", "--for=condition=Established", "crd/rollouts.example.com", "--timeout=30s")
    rollout = {"apiVersion": "example.com/v1", "kind": "Rollout", "metadata": {"name": "r"}, "spec": {"replicas": 4}}
    cluster.apply(rollout)
    (made,) = cluster.objects("rollouts")
    owner = {"apiVersion": "example.com/v1", "kind": "Rollout", "name": "r", "uid": made["metadata"]["uid"]}
    metadata = {"name": "rolled", "labels": {"app": "rolled"}, "ownerReferences": [{**owner, "controller": True}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template("nginx:1")["spec"]}
    cluster.apply(pod)
    cluster.kubectl("create", "pdb", "rolled", "--selector=app=rolled", "--max-unavailable=25%")
    path = "jsonpath={.status.expectedPods}/{.status.desiredHealthy}"
    cluster.wait(lambda: cluster.kubectl("get", "pdb", "rolled", "-o", path) == "4/3", "scale of the rollout")
    cluster.kubectl("delete", "pdb/rolled", "pod/rolled", "crd/rollouts.example.com", "--timeout=60s")


def test_a_quota_counts_what_comes_and_what_goes(cluster):
    cluster.kubectl("create", "namespace", "bounded")
    cluster.wait(lambda: names(cluster, "configmap", "-n", "bounded") == ["kube-root-ca.crt"], "root CA")
    cluster.kubectl("create", "quota", "q", "--hard=count/configmaps=2", "-n", "bounded")
    path = "jsonpath={.status.used.count/configmaps}"

    def used() -> str:
        return cluster.kubectl("get", "quota", "q", "-n", "bounded", "-o", path)

    cluster.wait(lambda: used() == "1", "use of the quota")
    cluster.kubectl("create", "configmap", "one", "-n", "bounded")
    said = cluster.kubectl("create", "configmap", "two", "-n", "bounded", check=False)
    assert "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=2" in said
    cluster.kubectl("delete", "configmap", "one", "-n", "bounded")
    cluster.wait(lambda: used() == "1", "less use of the quota")
    cluster.kubectl("delete", "namespace", "bounded")


def test_a_silent_node_is_tainted_and_its_pods_leave(cluster):
    seconds = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
        for key in ("unreachable", "not-ready")
    ]
    brief = template("n:1", {"app": "nomad"}, tolerations=seconds)
    cluster.apply(manifest("Deployment", "nomad", replicas=3, template=brief))
    cluster.kubectl("rollout", "status", "deployment/nomad", "--timeout=60s")
    cluster.kubelet.silent.add("worker-2")

    def taints():
        spec = json.loads(cluster.kubectl("get", "node", "worker-2", "-o", "json"))["spec"]
        return {(item["key"], item["effect"]) for item in spec.get("taints") or []}

    key = "node.kubernetes.io/unreachable"
    try:
        cluster.wait(lambda: taints() == {(key, "NoSchedule"), (key, "NoExecute")}, "taints")

        def elsewhere():
            pods = [p for p in cluster.objects("pods", "-l", "app=nomad") if not p["metadata"].get("deletionTimestamp")]
            ready = [p for p in pods if p["status"]["phase"] == "Running" and p["spec"]["nodeName"] != "worker-2"]
            return len(ready) == 3

        cluster.wait(elsewhere, "pods on the other nodes")
    finally:
        cluster.kubelet.silent.discard("worker-2")
    cluster.wait(lambda: taints() == set(), "taints gone")
    cluster.kubectl("delete", "deployment", "nomad")


def test_controllers_can_be_stopped_and_started_again_at_any_time(cluster):
    cluster.kubectl("create", "deployment", "stay", "--image=nginx", "--replicas=2")
    cluster.kubectl("rollout", "status", "deployment/stay", "--timeout=60s")
    before = names(cluster, "pods", "-l", "app=stay")
    cidrs = cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}")
    assert cluster.stop("controllers") == 0
    cluster.kubectl("scale", "deployment/stay", "--replicas=4")
    cluster.start("controllers")
    all_ready(cluster, "stay", 4)
    assert set(before) <= set(names(cluster, "pods", "-l", "app=stay"))
    assert cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}") == cidrs
    cluster.kubectl("delete", "deployment", "stay")


def test_the_example_of_the_readme_runs(cluster):
    output = cluster.run_readme("controllers")
    (slices,) = (text for line, text in output.items() if "endpointslices" in line)
    assert "8080" in slices
    assert cluster.objects("pods", "-l", "app=readme") == []


def test_work_goes_on_when_the_api_server_crashes_and_comes_back(cluster):
    cluster.kubectl("create", "deployment", "through", "--image=nginx", "--replicas=2")
    cluster.api.restart()
    cluster.kubectl("scale", "deployment/through", "--replicas=4")
    all_ready(cluster, "through", 4)
    assert len(cluster.objects("pods", "-l", "app=through")) == 4
    cluster.kubectl("delete", "deployment", "through", "--cascade=foreground", "--timeout=60s")
    assert all(process.poll() is None for process in cluster.processes.values())


def test_a_node_renews_its_certificate_without_being_asked(cluster):
    name = "system:node:worker-1"
    pairs = [(x509.NameOID.ORGANIZATION_NAME, "system:nodes"), (x509.NameOID.COMMON_NAME, name)]
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    request = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "renewal"},
        "spec": {
            "request": base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    }
    cluster.apply(*(item for item in kubeadm.objects(Credentials("")) if item["kind"] == "ClusterRoleBinding"))
    cluster.kubectl("create", "-f", "-", "--as", name, "--as-group", "system:nodes", stdin=json.dumps(request))
    reason = "jsonpath={.status.conditions[?(@.type=='Approved')].reason}"
    cluster.wait(lambda: cluster.kubectl("get", "csr", "renewal", "-o", reason) == "AutoApproved", "approval")
