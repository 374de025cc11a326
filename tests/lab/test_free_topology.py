"""A lab of the user's own hosts and links, as the kernel has it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components.runtime.conftest import eventually
from tests.lab.kubewire_cli import Cli

pytestmark = pytest.mark.lab

#: Three switches in a ring, two hosts with a cable, and a route that leads nowhere.
LAB = """\
kubernetes: false
topology:
  links: {mtu: 1300}
  hosts:
    cp: {role: control-plane, interfaces: {eth0: s1, direct: "w:direct", spare: "w:spare"}}
    w: {interfaces: {eth0: {to: s2, mtu: 1280}, direct: "cp:direct", spare: "cp:spare"}, routes: {192.0.2.0/24: direct}}
    a-machine-with-a-long-name: {interfaces: {eth0: {to: s3, bandwidth: 100}}}
  switches: {s1: {to: [s2, s3]}, s2: {to: [s3]}, s3: {}}
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    folder = tmp_path_factory.mktemp("free")
    own = Cli(folder)
    (folder / "lab.yaml").write_text(LAB)
    done = own.run("up", "-f", str(folder / "lab.yaml"))
    try:
        assert done.returncode == 0, done.stderr
        yield own
    finally:
        own.run("down")


def on(cli: Cli, host: str, *command: str) -> str:
    return cli.run("node", host, "--", *command, stdin=subprocess.DEVNULL).stdout


def links(cli: Cli, host: str) -> dict[str, dict[str, Any]]:
    shown = json.loads(on(cli, host, "ip", "-json", "-details", "link", "show"))
    return {link["ifname"]: link for link in shown}


def test_addresses_are_of_one_subnet_for_a_ring_and_of_another_for_a_cable(cli: Cli) -> None:
    shown = on(cli, "w", "ip", "-4", "-oneline", "addr", "show")
    assert "eth0    inet 172.18.0.2/18" in shown and "direct    inet 172.18.64.2/18" in shown


def test_packets_cross_a_ring_once(cli: Cli) -> None:
    """Without a spanning tree the ARP request would circle, and each answer come many times."""

    def answered() -> bool:
        said = on(cli, "cp", "ping", "-c", "3", "-i", "0.2", "-W", "1", "172.18.0.3")
        assert "duplicates" not in said
        return " 0% packet loss" in said

    eventually(answered, "three answers", timeout=30)


def test_links_have_their_mtu_and_bandwidth(cli: Cli) -> None:
    found = {name: link["mtu"] for name, link in links(cli, "w").items() if name != "lo"}
    assert found == {"eth0": 1280, "direct": 1300, "spare": 1300}
    shaped = on(cli, "a-machine-with-a-long-name", "tc", "qdisc", "show", "dev", "eth0")
    assert "tbf" in shaped and "rate 100Mbit" in shaped


def test_a_cable_loses_its_carrier_at_both_ends(cli: Cli) -> None:
    assert links(cli, "cp")["spare"]["operstate"] == "UP"
    on(cli, "w", "ip", "link", "set", "spare", "down")
    assert links(cli, "cp")["spare"]["operstate"] == "DOWN"
    on(cli, "w", "ip", "link", "set", "spare", "up")


def test_routes_are_those_of_the_file_or_the_shortest_ways(cli: Cli) -> None:
    assert "192.0.2.0/24 dev direct" in on(cli, "w", "ip", "route")
    assert "default" not in on(cli, "w", "ip", "route")
    assert "default dev eth0" in on(cli, "cp", "ip", "route")


def test_up_says_which_nodes_cannot_reach_each_other(cli: Cli, tmp_path: Path) -> None:
    lab = tmp_path / "lab.yaml"
    lab.write_text(
        "kubernetes: false\ntopology:\n  hosts:\n"
        "    cp: {role: control-plane, interfaces: {eth0: here}, routes: {}}\n"
        "    w: {interfaces: {eth0: there}}\n"
        "    r: {role: router, interfaces: {eth0: here, eth1: there}}\n"
        "  switches: {here: {}, there: {}}\n"
    )
    done = cli.run("up", "-f", str(lab), "--name", "split")
    try:
        assert done.returncode == 0, done.stderr
        assert "topology: cp does not reach w at 172.18.128.2: cp has no route to 172.18.128.2" in done.stderr
        assert on(cli, "cp", "true") == ""
    finally:
        cli.run("down", "--name", "split")
