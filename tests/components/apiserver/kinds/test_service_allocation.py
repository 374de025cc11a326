"""ClusterIPs and node ports: what is given out, what is refused, what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.apiserver.kinds.services.service import KIND
from kubewire.components.apiserver.kinds.services.service_allocation import ServiceAllocator, address_pool, port_pool

RANGE = "10.96.0.0/12"


def service(**spec: Any) -> dict[str, Any]:
    obj = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], **spec}}
    KIND.default(obj)
    return obj


def allocator(*cidrs: str, ports: tuple[int, int] = (30000, 32767)) -> ServiceAllocator:
    return ServiceAllocator(cidrs or (RANGE,), ports)


def accepted(given: ServiceAllocator, new: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    if old is not None:
        KIND.default(new)
        KIND.prepare_update(new, old)
    assert [error.message() for error in given.allocate(new, old)] == []
    errors = KIND.validate_update(new, old) if old is not None else KIND.validate_create(new)
    assert [error.message() for error in errors] == []
    return new["spec"]


def refused(given: ServiceAllocator, new: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return [error.message() for error in given.allocate(new, old)]


def copy(obj: dict[str, Any], **spec: Any) -> dict[str, Any]:
    import copy as copying

    changed = copying.deepcopy(obj)
    changed["spec"].update(spec)
    return changed


@pytest.mark.parametrize(
    ("cidr", "first", "upper", "last"),
    [
        pytest.param(
            "10.96.0.0/12", "10.96.0.1", "10.96.1.1", "10.111.255.254", id="a /12 keeps 256 for named addresses"
        ),
        pytest.param("10.0.0.0/24", "10.0.0.1", "10.0.0.17", "10.0.0.254", id="a /24 keeps 16"),
        pytest.param("10.0.0.0/28", "10.0.0.1", "10.0.0.1", "10.0.0.14", id="a /28 keeps none"),
        pytest.param("10.0.0.0/20", "10.0.0.1", "10.0.1.1", "10.0.15.254", id="a /20 keeps a sixteenth"),
        pytest.param("fd00::/112", "fd00::1", "fd00::101", "fd00::ffff", id="IPv6 has no broadcast address"),
    ],
)
def test_bands_of_addresses(cidr: str, first: str, upper: str, last: str) -> None:
    import ipaddress

    pool = address_pool(cidr)
    assert [
        str(ipaddress.ip_address(n)) if n > 2**32 else str(ipaddress.IPv4Address(n))
        for n in (pool.first, pool.upper, pool.last)
    ] == [first, upper, last]


def test_bands_of_ports() -> None:
    pool = port_pool(30000, 32767)
    assert (pool.first, pool.upper, pool.last) == (30000, 30086, 32767)


def test_dynamic_addresses_come_from_the_upper_band_until_it_is_full() -> None:
    given = allocator("10.0.0.0/24")
    addresses = [accepted(given, service())["clusterIP"] for _ in range(254)]
    assert len(set(addresses)) == 254
    assert all(int(address.rpartition(".")[2]) > 16 for address in addresses[:238])
    assert refused(given, service()) == [
        "spec.clusterIPs: Internal error: failed to allocate a serviceIP: range is full"
    ]


def test_a_new_service_gets_all_its_fields() -> None:
    spec = accepted(allocator(), service(type="NodePort"))
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert 30086 <= spec["ports"][0]["nodePort"] <= 32767


REFUSED = [
    pytest.param(
        {"clusterIP": "10.96.0.10"},
        [
            'spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: '
            "provided IP is already allocated"
        ],
        id="an address in use",
    ),
    pytest.param(
        {"clusterIP": "1.2.3.4"},
        [
            'spec.clusterIPs: Invalid value: ["1.2.3.4"]: failed to allocate IP 1.2.3.4: '
            "the provided network does not match the current range"
        ],
        id="an address outside the range",
    ),
    pytest.param(
        {"clusterIP": "10.96.0.300"},
        [
            'spec.clusterIPs[0]: Invalid value: "10.96.0.300": '
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        ],
        id="no address at all",
    ),
    pytest.param(
        {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
        ["spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"],
        id="a node port in use",
    ),
    pytest.param(
        {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
        [
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. "
            "The range of valid ports is 30000-32767"
        ],
        id="a node port outside the range",
    ),
    pytest.param(
        {
            "type": "NodePort",
            "ports": [
                {"name": "a", "port": 80, "nodePort": 31000},
                {"name": "b", "port": 81, "protocol": "UDP", "nodePort": 31000},
            ],
        },
        ["spec.ports[1].nodePort: Invalid value: 31000: provided port is already allocated"],
        id="one node port for two port numbers",
    ),
    pytest.param(
        {"ipFamilyPolicy": "RequireDualStack"},
        [
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": '
            "this cluster is not configured for dual-stack services"
        ],
        id="two families required of a cluster with one",
    ),
    pytest.param(
        {"ipFamilies": ["IPv6"]},
        ['spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'],
        id="a family the cluster has not",
    ),
    pytest.param(
        {"clusterIP": "fd00::1"},
        ['spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster'],
        id="an address of a family the cluster has not",
    ),
    pytest.param(
        {"clusterIPs": ["10.96.0.11"]},
        ['spec.clusterIPs: Invalid value: ["10.96.0.11"]: must be empty when `clusterIP` is not specified'],
        id="clusterIPs without clusterIP",
    ),
]


@pytest.mark.parametrize(("spec", "messages"), REFUSED)
def test_refused_on_create(spec: dict[str, Any], messages: list[str]) -> None:
    given = allocator()
    accepted(given, service(clusterIP="10.96.0.10", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    assert refused(given, service(**spec)) == messages


def test_tcp_and_udp_of_one_number_share_a_node_port() -> None:
    spec = accepted(
        allocator(),
        service(type="NodePort", ports=[{"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}]),
    )
    assert spec["ports"][0]["nodePort"] == spec["ports"][1]["nodePort"]


def test_the_shared_node_port_may_be_asked_for_by_the_second_port() -> None:
    ports = [{"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53, "nodePort": 30053}]
    spec = accepted(allocator(), service(type="NodePort", ports=ports))
    assert [port["nodePort"] for port in spec["ports"]] == [30053, 30053]


def test_headless_services_take_no_address() -> None:
    given = allocator("10.0.0.0/30")
    for _ in range(5):
        spec = accepted(given, service(clusterIP="None", selector={"app": "web"}))
        assert (spec["clusterIPs"], spec["ipFamilyPolicy"], spec["ipFamilies"]) == (["None"], "SingleStack", ["IPv4"])


def test_headless_without_selector_is_of_both_families() -> None:
    spec = accepted(allocator(), service(clusterIP="None"))
    assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("RequireDualStack", ["IPv4", "IPv6"])


def test_dual_stack_service_gets_an_address_of_each_family() -> None:
    spec = accepted(allocator(RANGE, "fd00::/112"), service(ipFamilyPolicy="PreferDualStack"))
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    assert spec["clusterIPs"][1].startswith("fd00::")


def test_single_stack_gives_the_second_address_back() -> None:
    given = allocator(RANGE, "fd00::/112")
    old = service(ipFamilyPolicy="RequireDualStack", clusterIP="10.96.0.9", clusterIPs=["10.96.0.9", "fd00::9"])
    accepted(given, old)
    assert accepted(given, copy(old, ipFamilyPolicy="SingleStack"), old)["clusterIPs"] == ["10.96.0.9"]
    accepted(given, service(ipFamilies=["IPv6"], clusterIP="fd00::9"))


def test_applying_the_same_manifest_keeps_what_was_allocated() -> None:
    given = allocator()
    old = service(type="NodePort")
    before = accepted(given, old)
    assert accepted(given, service(type="NodePort"), old) == before


def test_the_address_may_not_change() -> None:
    given = allocator()
    old = service(clusterIP="10.96.0.10")
    accepted(given, old)
    new = copy(old, clusterIP="10.96.0.11", clusterIPs=["10.96.0.11"])
    given.allocate(new, old)
    assert [error.message() for error in KIND.validate_update(new, old)] == [
        'spec.clusterIPs[0]: Invalid value: ["10.96.0.11"]: may not change once set'
    ]


TYPE_CHANGES = [
    pytest.param("NodePort", "ClusterIP", True, False, id="NodePort to ClusterIP frees the port"),
    pytest.param("NodePort", "ExternalName", False, False, id="NodePort to ExternalName frees address and port"),
    pytest.param("ClusterIP", "NodePort", True, True, id="ClusterIP to NodePort takes a port"),
    pytest.param("ExternalName", "ClusterIP", True, False, id="ExternalName to ClusterIP takes an address"),
    pytest.param("LoadBalancer", "NodePort", True, True, id="LoadBalancer to NodePort keeps the port"),
]


@pytest.mark.parametrize(("before", "after", "has_address", "has_port"), TYPE_CHANGES)
def test_type_changes(before: str, after: str, has_address: bool, has_port: bool) -> None:
    given = allocator()
    old = service(type=before, externalName="example.org")
    accepted(given, old)
    new = copy(old, type=after)
    new["spec"].pop("internalTrafficPolicy", None)
    spec = accepted(given, new, old)
    assert bool(spec.get("clusterIP")) is has_address
    assert bool(spec["ports"][0].get("nodePort")) is has_port
    assert len(given._used["IPv4"]) == has_address
    assert len(given._ports.used) == has_port
    given.release(new)
    assert not given._used["IPv4"] and not given._ports.used


def test_local_load_balancers_have_a_health_check_port() -> None:
    given = allocator()
    old = service(type="LoadBalancer", externalTrafficPolicy="Local")
    spec = accepted(given, old)
    assert spec["healthCheckNodePort"] in given._ports.used
    new = accepted(given, copy(old, externalTrafficPolicy="Cluster"), old)
    assert "healthCheckNodePort" not in new
    assert given._ports.used == {new["ports"][0]["nodePort"]}


def test_load_balancer_without_node_ports() -> None:
    spec = accepted(allocator(), service(type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in spec["ports"][0]


def test_rebuild_restores_what_stored_services_have() -> None:
    first = allocator()
    stored = service(type="NodePort")
    spec = accepted(first, stored)
    second = allocator()
    second.rebuild([stored])
    assert refused(second, service(clusterIP=spec["clusterIP"])) != []
    assert refused(second, service(type="NodePort", ports=spec["ports"])) != []


def test_service_cidrs_in_force_replace_the_ranges_of_the_flags() -> None:
    given = allocator("10.0.0.0/28", "fd00::/124")
    first = accepted(given, service())["clusterIP"]
    given.use_ranges(["10.1.0.0/28", "10.2.0.0/28"])
    taken = [accepted(given, service())["clusterIP"] for _ in range(28)]
    assert {address.rpartition(".")[0] for address in taken} == {"10.1.0", "10.2.0"}
    assert all(address.startswith("10.1.") for address in taken[:14]), "the first range first"
    assert "range is full" in refused(given, service())[0]
    assert "does not match the current range" in refused(given, service(clusterIP=first))[0]
    dual = accepted(given, service(ipFamilies=["IPv6"]))
    assert dual["clusterIP"].startswith("fd00::"), "a family without a ServiceCIDR keeps its flag's"


def test_an_address_held_by_somebody_else_is_passed_over() -> None:
    given = allocator("10.0.0.0/29")
    for last in (1, 2, 3, 4, 5):
        given.hold(f"10.0.0.{last}")
    assert accepted(given, service())["clusterIP"] == "10.0.0.6"
    assert "range is full" in refused(given, service())[0]
    given.rebuild([])
    assert "already allocated" in refused(given, service(clusterIP="10.0.0.3"))[0], "rebuilding forgets no holder"
    given.let_go("10.0.0.3")
    assert accepted(given, service(clusterIP="10.0.0.3"))["clusterIP"] == "10.0.0.3"
