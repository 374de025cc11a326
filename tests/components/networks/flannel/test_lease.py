"""What flanneld reads from and writes to Node objects."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from kubewire.components.networks.flannel.lease import (
    Annotations,
    Lease,
    Member,
    lease_of,
    pod_cidr,
    slim,
    stored_mac,
    wanted_annotations,
)
from tests.components.networks.flannel.nodes import node

KEYS = Annotations()
MAC, MAC6 = "5e:00:00:00:00:01", "5e:00:00:00:00:61"


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


def test_each_family_has_its_subnet_in_whichever_order_they_stand():
    both = node("a", "fd00::/64", "172.18.0.3")
    both["spec"]["podCIDRs"] = ["fd00::/64", "10.244.7.0/24"]
    assert pod_cidr(both) == IPv4Network("10.244.7.0/24")
    assert pod_cidr(both, 6) == IPv6Network("fd00::/64")


def test_vxlan_announces_its_mac_as_upstream_writes_it():
    assert wanted_annotations(KEYS, {}, "vxlan", [Member(4, "172.18.0.3", 1, MAC)]) == {
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": '{"VNI":1,"VtepMAC":"5e:00:00:00:00:01"}',
        "flannel.alpha.coreos.com/public-ip": "172.18.0.3",
    }
    assert wanted_annotations(KEYS, {}, "host-gw", [Member(4, "172.18.0.3")])[KEYS.backend_data] == "null"


def test_each_family_has_annotations_of_its_own():
    members = [Member(4, "172.18.0.3", 1, MAC), Member(6, "fd00:18::3", 1, MAC6)]
    both = wanted_annotations(KEYS, {}, "vxlan", members)
    assert both[KEYS.backend_v6_data] == f'{{"VNI":1,"VtepMAC":"{MAC6}"}}'
    assert (both[KEYS.public_ip], both[KEYS.public_ipv6]) == ("172.18.0.3", "fd00:18::3")
    assert set(wanted_annotations(KEYS, {}, "vxlan", members[1:])) == {
        "flannel.alpha.coreos.com/kube-subnet-manager",
        "flannel.alpha.coreos.com/backend-type",
        "flannel.alpha.coreos.com/backend-v6-data",
        "flannel.alpha.coreos.com/public-ipv6",
    }


def test_a_dual_stack_node_has_a_lease_of_each_family():
    both = slim(node("a", "10.244.1.0/24", "172.18.0.3", MAC, ipv6=("fd00:10:244:1::/64", "fd00:18::3", MAC6)))
    assert lease_of(both, KEYS) == Lease("a", IPv4Network("10.244.1.0/24"), IPv4Address("172.18.0.3"), "vxlan", 1, MAC)
    assert lease_of(both, KEYS, 6) == Lease(
        "a", IPv6Network("fd00:10:244:1::/64"), IPv6Address("fd00:18::3"), "vxlan", 1, MAC6
    )
    assert (stored_mac(both, KEYS), stored_mac(both, KEYS, 6)) == (MAC, MAC6)


def test_a_node_whose_flanneld_serves_ipv4_alone_has_no_place_in_the_ipv6_overlay():
    half = node("a", "10.244.1.0/24", "172.18.0.3", MAC)
    half["spec"]["podCIDRs"].append("fd00:10:244:1::/64")
    with pytest.raises(ValueError):
        lease_of(half, KEYS, 6)


def test_the_overwrite_annotation_wins_over_the_interfaces_address():
    notes = {
        "flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.7",
        "flannel.alpha.coreos.com/public-ipv6-overwrite": "2001:db8::7",
    }
    wanted = wanted_annotations(KEYS, notes, "host-gw", [Member(4, "172.18.0.3"), Member(6, "fd00:18::3")])
    assert (wanted[KEYS.public_ip], wanted[KEYS.public_ipv6]) == ("203.0.113.7", "2001:db8::7")


def test_what_is_kept_of_a_node_still_gives_its_lease_and_mac():
    full = node("worker-1", "10.244.1.0/24", "172.18.0.3", MAC, **{"kubeadm.alpha.kubernetes.io/cri-socket": "x" * 900})
    kept = slim(full)
    assert lease_of(kept, KEYS) == lease_of(full, KEYS)
    assert stored_mac(kept, KEYS) == MAC
    assert "status" not in kept and len(str(kept)) < 700
