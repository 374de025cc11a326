"""The key `topology` of a lab file: hosts of its own, the examples, and Mininet's Topo files."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kubewire.lab.setup import topology_examples
from kubewire.scenarios.engine.file import topofile
from kubewire.scenarios.engine.file.spec import LabSpec, SpecError
from kubewire.scenarios.engine.file.topologyfile import Topology
from kubewire.topologies.shapes import SHAPES

EXAMPLES = sorted(topology_examples.EXAMPLES.glob("*.yaml"))
HOSTS = {"cp": {"role": "control-plane", "interfaces": {"eth0": "lan"}}, "w": {"interfaces": {"eth0": "lan"}}}


def lab(**topology: Any) -> LabSpec:
    return LabSpec.parse({"topology": topology})


def test_examples_are_what_their_generator_makes() -> None:
    for path, text in topology_examples.files().items():
        assert path.read_text() == text, "run python -m kubewire.lab.setup.generate"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_is_written_out_is_the_same_network(shape: str) -> None:
    written = LabSpec.load(topology_examples.EXAMPLES / f"{shape}.yaml").plan
    named = lab(shape=shape).plan
    assert (written.machines, written.switches) == (named.machines, named.switches)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_written_out_and_every_node_is_reached(path: Path) -> None:
    spec = LabSpec.load(path)
    assert LabSpec.parse(json.loads(json.dumps(spec.as_dict()))) == spec
    assert spec.unreachable() == []


def test_nodes_have_the_names_that_the_file_gives() -> None:
    spec = lab(hosts={"w": HOSTS["w"], "cp": HOSTS["cp"]}, switches={"lan": {}})
    assert (spec.nodes, spec.workers) == (["cp", "w"], ["w"])
    assert spec.label() == "flannel/vxlan · kube-proxy iptables · 1 worker · free"


@pytest.mark.parametrize(
    ("topology", "more", "problem"),
    [
        (
            {"hosts": HOSTS, "switches": {"lan": {}}, "shape": "two-racks"},
            {},
            "topology.shape: topology.hosts describes",
        ),
        ({"hosts": HOSTS, "switches": {"lan": {}}, "workers": 3}, {}, "leave workers out"),
        ({"switches": {"lan": {}}}, {}, "no host is plugged into them"),
        ({"hosts": HOSTS, "switches": {"lan": {}}, "routing": "bird"}, {}, "give them asn"),
        ({"hosts": HOSTS, "switches": {"lan": {"delay": "10"}}}, {}, "a time such as 10ms"),
        ({"hosts": HOSTS, "switches": {"lan": {}}, "links": {"loss": 101}}, {}, "topology.links.loss"),
        ({"hosts": HOSTS, "switches": {"lan": {}}, "links": {"bandwidth": 2000}}, {}, "must be 1000 or less"),
        (
            {
                "hosts": {
                    "cp": {"role": "control-plane", "interfaces": {"eth0": {"to": "lan", "addresses": ["10.0.0.1/8"]}}}
                },
                "switches": {"lan": {}},
            },
            {},
            "has an address of network.nodeCIDR 172.18.0.0/16, and 10.0.0.1 is none",
        ),
        (
            {
                "hosts": {
                    "cp": {
                        "role": "control-plane",
                        "interfaces": {"eth0": {"to": "lan", "addresses": ["172.18.0.2/16"]}},
                    }
                },
                "switches": {"lan": {}},
            },
            {"network": {"ipFamily": "dual"}},
            "needs one address of each range",
        ),
        (
            {"hosts": HOSTS, "switches": {"lan": {}}},
            {"cni": {"plugin": "aws-vpc"}},
            "aws-vpc needs a router named router",
        ),
        (
            {"hosts": HOSTS, "switches": {"lan": {}}},
            {"components": [{"name": "x", "command": ["y"], "nodes": "worker-*"}]},
            "there are cp, w",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_key(
    topology: dict[str, Any], more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SpecError) as caught:
        LabSpec.parse({"topology": topology, **more})
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("links", "needed"),
    [({}, ()), ({"mtu": 1400}, ()), ({"delay": "1ms"}, ("netem",)), ({"loss": 1, "bandwidth": 5}, ("netem", "tbf"))],
)
def test_a_lab_needs_of_the_kernel_what_its_links_need(links: dict[str, Any], needed: tuple[str, ...]) -> None:
    assert lab(links=links).topology.requires == needed


TOPO = """
from mininet.topo import Topo
class Own(Topo):
    def build(self, number=1):
        r = self.addHost("r")
        for side in ("a", "b"):
            switch = self.addSwitch(f"s-{side}")
            self.addLink(switch, r, params2={"ip": f"172.18.{ord(side)}.1/24"}, intfName2=f"to-{side}")
            for one in range(number):
                self.addLink(self.addHost(f"{side}{one}"), switch, bw=10, delay="5ms")
        self.addLink(self.addHost("out", role="outside"), r)
topos = {"own": lambda *args: Own(*args)}
"""


def test_a_mininet_topo_becomes_hosts_and_switches(tmp_path: Path) -> None:
    (tmp_path / "topo.py").write_text(TOPO)
    (tmp_path / "lab.yaml").write_text("topology: {mininet: {file: topo.py, topo: 'own,2'}}\n")
    spec = LabSpec.load(tmp_path / "lab.yaml")
    assert spec.nodes == ["a0", "a1", "b0", "b1"]
    assert spec.topology.requires == ("netem", "tbf")
    roles = {machine.name: machine.role for machine in spec.plan.machines}
    assert (roles["a0"], roles["r"], roles["out"]) == ("control-plane", "router", "outside")
    router = spec.plan.machine("r")
    assert [(one.name, one.address) for one in router.interfaces[:2]] == [
        ("to-a", "172.18.97.1/24"),
        ("to-b", "172.18.98.1/24"),
    ]
    assert spec.plan.machine("b1").routes == (("default", "172.18.98.1"),)
    assert spec.unreachable() == []


@pytest.mark.parametrize(
    ("source", "topo", "problem"),
    [
        ("def f(:", "X", "topo.py:1: invalid syntax"),
        ("import nonesuch", "X", "topo.py:1: ModuleNotFoundError: No module named 'nonesuch'"),
        ("", "X", "there is no Topo X; the file has none"),
        (TOPO, "Onw", "there is no Topo Onw; the file has Own, own"),
        (TOPO, "Own,x", "topo.py:9: TypeError"),
        ("topos = {'X': dict}", "X", "X makes a dict, which is no mininet.topo.Topo"),
        ("import os; os._exit(3)", "X", "could not be evaluated: exit code 3"),
        ("print('{\"topology\": {}}')", "X", "there is no Topo X"),
        ("x = [0] * 10**10", "X", "topo.py:1: MemoryError"),
        (TOPO.replace('delay="5ms"', "jitter='1ms'"), "Own", "jitter is not possible here"),
        (TOPO.replace('"out", role', '"out", defaultRoute="x", role'), "Own", "give it as 'via ADDRESS'"),
    ],
)
def test_a_topo_file_that_cannot_be_used_is_explained_with_its_line(
    tmp_path: Path, source: str, topo: str, problem: str
) -> None:
    (tmp_path / "topo.py").write_text(source)
    (tmp_path / "lab.yaml").write_text(f"topology: {{mininet: {{file: topo.py, topo: '{topo}'}}}}\n")
    with pytest.raises(SpecError, match=r"topology\.mininet\.file") as caught:
        LabSpec.load(tmp_path / "lab.yaml")
    assert problem in str(caught.value)


ATTEMPTS = """
import os, signal, socket, subprocess
from mininet.topo import Topo
worked = []
def attempt(what, action):
    try:
        action()
    except Exception:
        return
    worked.append(what)
attempt("write", lambda: open(HERE + "/written", "w"))
attempt("append", lambda: open(HERE + "/topo.py", "a"))
attempt("setting", lambda: open("/proc/sys/kernel/core_pattern", "a"))
attempt("signal", lambda: os.kill(VICTIM, 0))
attempt("unix", lambda: socket.socket(socket.AF_UNIX).connect(HERE + "/socket"))
attempt("network", lambda: socket.create_connection(("127.0.0.1", PORT), 2))
attempt("remount", lambda: subprocess.run(["mount", "-o", "remount,rw", "/"], check=True, stderr=-3))
attempt("nested", lambda: subprocess.run(["unshare", "-Um", "mount", "-o", "remount,bind,rw", "/"], check=True, stderr=-3))
attempt("read", lambda: open(HERE + "/topo.py"))
attempt("secrets", lambda: open("/etc/shadow"))
attempt("device", lambda: os.mknod("/tmp/x", 0o60600, os.makedev(7, 0)))
class Own(Topo):
    def build(self):
        self.addLink(self.addHost("worked-" + "-".join(worked)), self.addSwitch("s1"))
"""


def test_a_topo_file_changes_and_reaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt works for the process that runs this test, or needs rights that the file must not have."""
    source = tmp_path / "topo.py"
    source.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        monkeypatch.chdir(tmp_path)  # an address of a socket has 107 bytes
        local.bind("socket")
        local.listen()
        names = f"HERE = {str(tmp_path)!r}\nPORT = {server.getsockname()[1]}\nVICTIM = {os.getpid()}\n"
        found = topofile.evaluate(names + ATTEMPTS, str(source), "Own")
    assert list(found["hosts"]) == ["worked-"]
    assert not (tmp_path / "written").exists() and source.read_text() == ""


def test_only_a_described_topology_has_hosts() -> None:
    assert Topology().as_dict().keys() == {"shape", "workers", "routing", "links"}
