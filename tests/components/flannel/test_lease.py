"""What flanneld reads from and writes to Node objects."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from components.flannel.lease import (
    Annotations,
    Lease,
    lease_of,
    pod_cidr,
    slim,
    stored_mac,
    wanted_annotations,
)
from tests.components.flannel.nodes import node

KEYS = Annotations()
MAC = "5e:00:00:00:00:01"


def test_a_managed_node_is_a_lease():
    lease = lease_of(node("worker-1", "10.244.1.0/24", "172.18.0.3", MAC.upper()), KEYS)
    assert lease == Lease("worker-1", IPv4Network("10.244.1.0/24"), IPv4Address("172.18.0.3"), "vxlan", 1, MAC)


@pytest.mark.parametrize(
    "without",
    [node("a", "10.244.1.0/24", "172.18.0.3", managed=False), node("a", "", "172.18.0.3", MAC)],
    ids=["not annotated", "no podCIDR yet"],
)
def test_a_node_flannel_does_not_run_on_is_none(without):
    assert lease_of(without, KEYS) is None


@pytest.mark.parametrize(
    "notes",
    [
        {f"{KEYS.prefix}/public-ip": "nowhere"},
        {f"{KEYS.prefix}/backend-data": "{"},
        {f"{KEYS.prefix}/backend-data": "[1]"},
    ],
    ids=["bad address", "bad JSON", "not an object"],
)
def test_annotations_that_make_no_sense_are_refused(notes):
    with pytest.raises(ValueError):
        lease_of(node("a", "10.244.1.0/24", "172.18.0.3", MAC, **notes), KEYS)


def test_the_ipv4_subnet_of_a_dual_stack_node_is_taken():
    both = node("a", "fd00::/64", "172.18.0.3")
    both["spec"]["podCIDRs"] = ["fd00::/64", "10.244.7.0/24"]
    assert pod_cidr(both) == IPv4Network("10.244.7.0/24")


def test_vxlan_announces_its_mac_as_upstream_writes_it():
    assert wanted_annotations(KEYS, {}, "172.18.0.3", "vxlan", 1, MAC) == {
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": '{"VNI":1,"VtepMAC":"5e:00:00:00:00:01"}',
        "flannel.alpha.coreos.com/public-ip": "172.18.0.3",
    }
    assert wanted_annotations(KEYS, {}, "172.18.0.3", "host-gw")[KEYS.backend_data] == "null"


def test_the_overwrite_annotation_wins_over_the_interfaces_address():
    wanted = wanted_annotations(KEYS, {KEYS.public_ip_overwrite: "203.0.113.7"}, "172.18.0.3", "host-gw")
    assert wanted[KEYS.public_ip] == "203.0.113.7"


def test_what_is_kept_of_a_node_still_gives_its_lease_and_mac():
    full = node("worker-1", "10.244.1.0/24", "172.18.0.3", MAC, **{"kubeadm.alpha.kubernetes.io/cri-socket": "x" * 900})
    kept = slim(full)
    assert lease_of(kept, KEYS) == lease_of(full, KEYS)
    assert stored_mac(kept, KEYS) == MAC
    assert "status" not in kept and len(str(kept)) < 700
