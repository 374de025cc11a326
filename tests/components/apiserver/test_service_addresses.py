"""ClusterIPs as IPAddress objects and ServiceCIDRs as where they come from, through a real server and kubectl."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kubewire.components.apiserver.registry.addressbook import cluster_ips, in_force
from tests.components.apiserver.running import RunningApiServer

RANGE = "--service-cluster-ip-range=10.99.0.0/28,fd00:99::/124"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningApiServer]:
    with RunningApiServer(RANGE) as running:
        yield running


def kubectl(server: RunningApiServer, *args: str, stdin: Any = None, check: bool = True) -> str:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", str(server.kubeconfig), f"--cache-dir={server.folder}/cache", *args],
        input=json.dumps(stdin) if stdin else "",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def create(server: RunningApiServer, *objects: dict[str, Any], check: bool = True) -> str:
    return kubectl(
        server, "create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": objects}, check=check
    )


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def address(name: str, labels: dict[str, str], resource: str, owner: str) -> dict[str, Any]:
    parent = {"group": "" if resource == "services" else "example.net", "resource": resource, "namespace": "default"}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": name, "labels": labels},
        "spec": {"parentRef": parent | {"name": owner}},
    }


def addresses(server: RunningApiServer) -> dict[str, str]:
    """IPAddress -> what kubectl shows as its parent."""
    rows = kubectl(server, "get", "ipaddresses", "--no-headers").splitlines()
    return {row.split()[0]: row.split()[1] for row in rows}


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 10
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def test_each_cluster_ip_is_an_ip_address_of_its_service(server):
    create(server, service("web", clusterIP="10.99.0.5"), service("both", ipFamilyPolicy="RequireDualStack"))
    both = json.loads(kubectl(server, "get", "service", "both", "-o", "json"))["spec"]["clusterIPs"]
    found = addresses(server)
    assert found["10.99.0.1"] == "services/default/kubernetes"
    assert found["10.99.0.5"] == "services/default/web"
    assert {found[ip] for ip in both} == {"services/default/both"}
    made = json.loads(kubectl(server, "get", "ipaddress", "10.99.0.5", "-o", "json"))
    assert made["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    assert made["spec"]["parentRef"] == {"namespace": "default", "name": "web", "resource": "services"}
    kubectl(server, "delete", "service", "web", "both")
    assert set(addresses(server)) == {"10.99.0.1"}


def test_an_address_that_somebody_else_holds_is_given_to_no_service(server):
    create(server, address("10.99.0.7", {}, "gateways", "edge"))
    refusal = create(server, service("taken", clusterIP="10.99.0.7"), check=False)
    assert (
        'spec.clusterIPs: Invalid value: ["10.99.0.7"]: failed to allocate IP 10.99.0.7: provided IP is already allocated'
        in refusal
    )
    kubectl(server, "delete", "ipaddress", "10.99.0.7")
    create(server, service("taken", clusterIP="10.99.0.7"))
    kubectl(server, "delete", "service", "taken")


def test_what_does_not_fit_the_services_is_repaired(server):
    create(server, service("keep", clusterIP="10.99.0.6"))
    before = json.loads(kubectl(server, "get", "ipaddress", "10.99.0.6", "-o", "json"))["metadata"]["uid"]
    kubectl(server, "delete", "ipaddress", "10.99.0.6")
    after = until(
        lambda: "10.99.0.6" in addresses(server) and kubectl(server, "get", "ipaddress", "10.99.0.6", "-o", "json")
    )
    assert json.loads(after)["metadata"]["uid"] != before
    leaked = {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}
    create(server, address("10.99.0.9", leaked, "services", "never-was"))
    until(lambda: "10.99.0.9" not in addresses(server))
    kubectl(server, "delete", "service", "keep")


def test_another_service_cidr_gives_a_full_cluster_addresses(server):
    names = [f"s{number}" for number in range(13)]
    create(server, *(service(name) for name in names))
    refusal = create(server, service("one-more"), check=False)
    text = "Internal error occurred: failed to allocate a serviceIP: range is full"
    assert "Error from server (InternalError): " in refusal and text in refusal
    outside = create(server, service("outside", clusterIP="10.77.0.9"), check=False)
    assert "failed to allocate IP 10.77.0.9: the provided network does not match the current range" in outside
    more = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}}
    create(server, more | {"spec": {"cidrs": ["10.77.0.0/24"]}})
    create(server, service("one-more"), service("outside", clusterIP="10.77.0.9"))
    given = kubectl(server, "get", "service", "one-more", "-o", "jsonpath={.spec.clusterIP}")
    assert given.startswith("10.77.0.")
    assert addresses(server)[given] == "services/default/one-more"
    server.kill()
    server.start()
    again = create(server, service("again", clusterIP="10.77.0.9"), check=False)
    assert "provided IP is already allocated" in again, "what was given out before a crash stays given out"
    kubectl(server, "delete", "service", "one-more", "outside", *names)
    assert set(addresses(server)) == {"10.99.0.1"}


def test_a_service_cidr_counts_until_it_is_unready_or_leaves():
    cidr: dict[str, Any] = {"metadata": {}, "spec": {"cidrs": ["10.0.0.0/24"]}}
    assert in_force(cidr)
    assert in_force(cidr | {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    assert not in_force(cidr | {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    assert not in_force(cidr | {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"clusterIPs": ["10.0.0.1", "fd00:0::5"]}, ["10.0.0.1", "fd00::5"]),
        ({"clusterIPs": ["None"]}, []),
        ({"type": "ExternalName"}, []),
    ],
)
def test_only_real_cluster_ips_are_addresses(spec, expected):
    assert cluster_ips({"spec": spec}) == expected


def test_a_health_check_port_in_use_is_an_internal_error_as_upstreams(server):
    # Ports of the static band: node ports drawn at random come from above it.
    local = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30010}
    create(server, service("first", **local))
    refusal = create(server, service("second", **local), check=False)
    text = "failed to allocate requested HealthCheck NodePort 30010: provided port is already allocated"
    assert f"Internal error occurred: {text}" in refusal
    kubectl(server, "patch", "service", "first", "-p", '{"spec": {"externalTrafficPolicy": "Cluster"}}')
    create(server, service("second", **local))
    moved = kubectl(server, "patch", "service", "second", "-p", '{"spec": {"healthCheckNodePort": 30011}}', check=False)
    assert "spec.healthCheckNodePort: Forbidden: field is immutable" in moved
    kubectl(server, "delete", "service", "first", "second")


def test_a_service_goes_through_all_types_in_place(server):
    create(server, service("walk", clusterIP="10.99.0.4"))

    def become(**spec: Any) -> dict[str, Any]:
        kubectl(server, "patch", "service", "walk", "--type=merge", "-p", json.dumps({"spec": spec}))
        found: dict[str, Any] = json.loads(kubectl(server, "get", "service", "walk", "-o", "json"))["spec"]
        return found

    port = become(type="NodePort")["ports"][0]["nodePort"]
    both = become(ports=[{"name": "a", "port": 80, "nodePort": port}, {"name": "b", "port": 81}])["ports"]
    assert both[0]["nodePort"] == port
    assert both[1]["nodePort"] not in (port, None)
    balanced = become(type="LoadBalancer", externalTrafficPolicy="Local")
    assert [one["nodePort"] for one in balanced["ports"]] == [one["nodePort"] for one in both]
    assert balanced["healthCheckNodePort"] >= 30000
    cluster = become(type="ClusterIP")
    assert cluster["clusterIP"] == "10.99.0.4"
    assert not {"healthCheckNodePort", "externalTrafficPolicy", "allocateLoadBalancerNodePorts"} & cluster.keys()
    assert all("nodePort" not in one for one in cluster["ports"])
    outside = become(type="ExternalName", externalName="example.org")
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & outside.keys()
    assert "10.99.0.4" not in addresses(server)
    back = become(type="ClusterIP", externalName=None, clusterIP="10.99.0.4")
    assert addresses(server)[back["clusterIP"]] == "services/default/walk"
    dual = become(ipFamilyPolicy="RequireDualStack")
    assert [len(dual["clusterIPs"]), dual["ipFamilies"]] == [2, ["IPv4", "IPv6"]]
    assert addresses(server)[dual["clusterIPs"][1]] == "services/default/walk"
    single = become(ipFamilyPolicy="SingleStack")
    assert single["clusterIPs"] == ["10.99.0.4"]
    kubectl(server, "delete", "service", "walk")
    assert set(addresses(server)) == {"10.99.0.1"}
