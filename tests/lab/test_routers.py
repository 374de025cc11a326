"""Routers that speak BGP: what each daemon is told, and who is whose neighbour."""

import pytest

from kubewire.lab.bringup import routers
from kubewire.lab.bringup.components import component_specs
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.file.topologyfile import Topology

PLAN = Topology(shape="two-racks", workers=4, routing="bird").plan("172.18.0.0/16")


def test_who_speaks_with_whom():
    spine, first, second = routers.routers(PLAN)
    assert (spine.number, spine.neighbours) == (65000, (("172.18.192.2", 65001), ("172.18.192.6", 65002)))
    assert (first.number, first.neighbours, first.nodes) == (65001, (("172.18.192.1", 65000),), ("172.18.0.0/18",))
    assert (second.neighbours, second.nodes) == ((("172.18.192.5", 65000),), ("172.18.64.0/18",))


@pytest.mark.parametrize("kind", ["bird", "frr", "gobgp"])
def test_what_a_spine_and_a_top_of_rack_router_are_told(kind, golden):
    spine, top, _ = routers.routers(PLAN)
    texts = [
        f"--- {router.machine.name} {path}\n{content.decode()}"
        for router in (spine, top)
        for path, content in routers.files(kind, router).items()
    ]
    golden(f"routers/{kind}.txt", "".join(texts))


def test_routers_have_no_written_routes_when_they_find_them():
    assert all(machine.routes == () for machine in PLAN.machines if machine.role == "router")
    assert PLAN.machine("worker-1").routes == (("default", "172.18.0.1"),)


def test_static_routers_run_nothing():
    spec = LabSpec.parse({"topology": {"shape": "two-racks"}})
    hosts = {
        component.host
        for component in component_specs(spec, Topology(shape="two-racks").plan("172.18.0.0/16"), "/run/x", "")
    }
    assert not hosts & {"tor-1", "tor-2", "router"}


@pytest.mark.parametrize(
    ("lab", "said"),
    [
        ({"topology": {"routing": "bird"}}, "bird runs on the routers of two racks; set topology.shape: two-racks"),
        (
            {"topology": {"routing": "frr", "shape": "two-racks"}, "network": {"ipFamily": "dual"}},
            "frr is set up for IPv4",
        ),
        ({"topology": {"routing": "ospf"}}, "static"),
    ],
)
def test_what_cannot_be_is_refused(lab, said):
    with pytest.raises(SpecError, match=said):
        LabSpec.parse(lab)
