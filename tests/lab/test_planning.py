"""kubewire plan as it is typed."""

import json
import re
import subprocess

import pytest
import yaml

from kubewire.lab.cli import main
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.lab.kubewire_cli import Cli, until


def said(capsys, *arguments):
    code = main(["plan", *arguments])
    return code, capsys.readouterr()


def test_a_labs_defaults_fit(capsys):
    code, output = said(capsys)
    assert code == 0
    assert output.out.endswith("✓ the ranges fit\n")
    assert "pods 10.244.0.0/16: 256 podCIDRs of /24, 252 are left; 253 pods in each" in output.out


def test_an_overlap_is_refused_with_the_reason_and_passes_when_it_is_wanted(capsys):
    wrong = ("--node-cidr", "10.0.0.0/16", "--pod-network-cidr", "10.0.0.0/8")
    code, output = said(capsys, *wrong)
    assert code == 1
    assert "✗ pods 10.0.0.0/8 overlap nodes 10.0.0.0/16 in 10.0.0.0/16: the route to a pod range" in output.out
    code, output = said(capsys, *wrong, "--allow-overlap")
    assert code == 0
    assert "! allowed: pods 10.0.0.0/8 overlap nodes" in output.out


def test_as_data(capsys):
    arguments = (
        "--pod-network-cidr",
        "fd00::/48",
        "--node-cidr",
        "fc00::/64",
        "--service-cidr",
        "fd01::/108",
        "--nodes",
        "300",
    )
    code, output = said(capsys, *arguments, "-o", "json")
    found = json.loads(output.out)
    assert code == 0
    assert found["pods"] == [
        {
            "cidr": "fd00::/48",
            "family": "IPv6",
            "nodeMaskSize": 64,
            "parts": 65536,
            "podsPerNode": 2**64 - 2,
            "firstNode": "fd00::/64",
            "lastNode": "fd00:0:0:12b::/64",
        }
    ]
    assert (
        found["services"][0] | {"addresses": 1048575, "staticBand": 256, "kubeDNS": "fd01::a"} == found["services"][0]
    )
    assert yaml.safe_load(said(capsys, *arguments, "-o", "yaml")[1].out) == found


def test_a_lab_file_is_planned_with_its_masks_and_workers(capsys, tmp_path):
    file = tmp_path / "lab.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "topology": {"workers": 9},
                "network": {"clusterCIDR": "10.244.0.0/20", "nodeCIDRMaskSize": 26, "serviceCIDR": "10.244.8.0/24"},
            }
        )
    )
    code, output = said(capsys, "-f", str(file))
    assert code == 1
    assert "10 nodes, up to 110 pods each" in output.out
    assert "✗ a node's part /26 has 61 addresses for pods" in output.out
    assert "✗ Services 10.244.8.0/24 overlap pods 10.244.0.0/20" in output.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--service-cidr", "10.96.0.1/12"], "--service-cidr: 10.96.0.1/12 has host bits set"),
        (["--other", "10.0.0.0/8"], "--other 10.0.0.0/8: must be NAME=CIDR"),
        (["--nodes", "0"], "--nodes and --max-pods must be at least 1"),
        (["--pod-network-cidr", "10.244.0.0/16,fd00::/48", "--node-cidr-mask-size", "24"], "is for one IP family"),
        (["-f", "/no/such/lab.yaml"], "/no/such/lab.yaml"),
    ],
)
def test_wrong_input_is_named(capsys, arguments, problem):
    code, output = said(capsys, *arguments)
    assert (code, output.out) == (2, "")
    assert problem in output.err


def test_a_lab_file_with_an_overlap_says_what_becomes_of_it():
    ranges = {"nodeCIDR": "172.18.0.0/16", "clusterCIDR": "172.18.0.0/16", "allowOverlap": True}
    (said,) = LabSpec.parse({"network": ranges}).wanted_overlaps()
    assert said.startswith(
        "network.allowOverlap: pods 172.18.0.0/16 overlap nodes 172.18.0.0/16 in 172.18.0.0/16: the route"
    )
    assert LabSpec.parse({"network": {"allowOverlap": True}}).wanted_overlaps() == []


def nodes(cli: Cli) -> dict[str, str]:
    lines = cli.run("kubectl", "get", "nodes", "--no-headers").stdout.splitlines()
    return {name: status for name, status, *_ in map(str.split, lines)}


@pytest.mark.lab
def test_a_lab_whose_pods_have_the_range_of_its_nodes_is_left_standing(short_path):
    """worker-1 finds the way to the API server in the overlay, and is NotReady from then on.

    It may have been Ready before flannel wrote that route; then the node's lease must run out first.
    """
    cli = Cli(short_path)
    ranges = {"nodeCIDR": "172.18.0.0/16", "clusterCIDR": "172.18.0.0/16", "allowOverlap": True}
    grace = {"controllerManager": {"node-monitor-grace-period": "20s"}}
    lab = {"topology": {"workers": 1}, "network": ranges, **grace}
    done = cli.run("up", "-f", "-", input=json.dumps(lab))
    try:
        assert done.returncode == 0, done.stderr
        assert "lab default is up and incomplete" in done.stdout
        assert "warning: the lab is incomplete and keeps running: nodes ready, cluster DNS answering" in done.stderr
        assert re.search("not ready in time: (1 of 2 nodes Ready, not worker-1|0 DNS servers ready)", done.stderr)
        route = cli.run("node", "worker-1", "--", "ip", "route", "get", "172.18.0.2", stdin=subprocess.DEVNULL).stdout
        assert "dev flannel.1" in route
        until(lambda: nodes(cli) == {"control-plane": "Ready", "worker-1": "NotReady"}, "worker-1 is NotReady", 60)
    finally:
        cli.run("down")
