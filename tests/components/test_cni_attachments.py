"""What every network's plugins do to a container, row by row of the specification (SPEC.md 1.1.0), called as any runtime
calls them. host-local, which knows no version after 1.0.0, assigns the addresses where a plugin has a delegate."""

import functools
import importlib
import json
import os
import socketserver
import subprocess
import threading
from typing import Any, cast

import pytest

from kubewire.components.networks import registry
from kubewire.components.networks.aws_vpc_cni.ipamd import Ipamd, Options
from kubewire.components.networks.aws_vpc_cni.pool import Eni
from kubewire.components.networks.cni_plugin import pack
from tests.scratch import isolated

pytestmark = pytest.mark.packet

INSTALLERS = [importlib.import_module(one.installer) for one in registry.NETWORKS if one.connects_pods]
NAMES = [name for installer in INSTALLERS for name in installer.PLUGINS]
BIN, DEBIANS = "/tmp/bin", "/usr/lib/cni"
HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]}
SUBNET_ENV = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


class Daemon(socketserver.ThreadingTCPServer):
    """ipamd without its cloud."""

    def __init__(self):
        ipamd = Ipamd(Options((3, 4), checkpoint="/tmp/ipam.json"), cast(Any, None))
        addresses = [f"10.0.0.{number}" for number in range(5, 9)]
        ipamd.pool.enis = {"eni-1": Eni("eni-1", 0, "02:1", "10.0.0.4", "10.0.0.0/24", addresses)}

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                request = json.loads(self.rfile.readline())
                self.wfile.write(json.dumps(ipamd.answer(request.pop("method"), **request)).encode())

        super().__init__(("127.0.0.1", 50051), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def sh(command):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def flannel():
    sh(f"mkdir -p /run/flannel; printf '{SUBNET_ENV}' >/run/flannel/subnet.env")
    return {"delegate": {"isDefaultGateway": True}}


def weave():
    sh("ip link add weave type bridge; ip address add 10.244.1.1/24 dev weave; ip link set weave up")
    return {"ipam": HOST_LOCAL}


def aws():
    Daemon()
    return {}


#: The plugin of each network, and what prepares the node and gives the plugin's configuration.
NETWORKS = {
    "flannel": flannel,
    "calico": lambda: {"ipam": HOST_LOCAL},
    "weave-net": weave,
    "aws-cni": aws,
    "azure-vnet": lambda: {"ipam": {"subnet": "10.244.1.0/24"}},
}


class Runtime:
    """A container of the network, with the results of ADD by interface name."""

    def __init__(self, plugin, config):
        self.plugin = plugin
        self.config = {"cniVersion": "1.1.0", "name": "n", "type": plugin, **config}
        self.results = {}

    def call(self, verb, ifname="eth0", **more):
        """(exit status, the answer)."""
        pod = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/pod", "CNI_IFNAME": ifname}
        done = subprocess.run(
            [f"{BIN}/{self.plugin}"], input=json.dumps(self.config | more), capture_output=True, text=True, timeout=30,
            env={"PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_PATH": DEBIANS, **pod},
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def add(self, ifname="eth0"):
        code, answer = self.call("ADD", ifname)
        assert code == 0, answer
        self.results[ifname] = answer
        return answer["ips"][0]["address"].partition("/")[0]

    def check(self, ifname="eth0"):
        return self.call("CHECK", ifname, prevResult=self.results[ifname])

    def pod(self, command):
        return sh(f"ip -n pod {command}")


def in_network(plugin, body):
    def run():
        for installer in INSTALLERS:
            pack.install(installer.plugin(), installer.PLUGINS, BIN)
        sh("ip link set lo up; mkdir -p /run/netns; ip netns add pod; ip -n pod link set lo up")
        body(Runtime(plugin, NETWORKS[plugin]()))

    isolated(run, timeout=60)


def the_result_is_of_the_callers_version(runtime):
    runtime.add()
    assert runtime.results["eth0"]["cniVersion"] == "1.1.0"
    assert "version" not in runtime.results["eth0"]["ips"][0]
    assert runtime.check() == (0, {})
    assert runtime.call("DEL", prevResult=runtime.results["eth0"]) == (0, {})


def check_finds(change, runtime):
    runtime.add()
    runtime.pod(change)
    code, answer = runtime.check()
    assert code == 1 and answer["msg"] and answer["cniVersion"] == "1.1.0", answer


def the_same_interface_is_refused_and_stays(runtime):
    address = runtime.add()
    code, answer = runtime.call("ADD")
    assert code == 1 and answer["msg"], answer
    assert runtime.check() == (0, {})
    assert address in runtime.pod("address show dev eth0")


def another_interface_is_another_attachment(runtime):
    first, second = runtime.add(), runtime.add("net1")
    assert first != second
    assert (runtime.check(), runtime.check("net1")) == ((0, {}), (0, {}))
    for _ in range(2):
        assert runtime.call("DEL", "net1", prevResult=runtime.results["net1"]) == (0, {})
    assert "net1" not in runtime.pod("link show")
    assert runtime.check() == (0, {})
    assert runtime.call("DEL", prevResult=runtime.results["eth0"]) == (0, {})
    assert "eth0" not in runtime.pod("link show")


def garbage_is_an_attachment_and_not_a_container(runtime):
    runtime.add()
    runtime.add("net1")
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    assert runtime.call("GC", **{"cni.dev/valid-attachments": valid}) == (0, {})
    assert runtime.check() == (0, {})


def status_is_zero(runtime):
    sh("mkdir -p /var/lib/calico; echo node >/var/lib/calico/nodename")
    assert runtime.call("STATUS") == (0, {})


ROWS = [
    the_result_is_of_the_callers_version,
    functools.partial(check_finds, "address flush dev eth0"),
    functools.partial(check_finds, "route delete default"),
    functools.partial(check_finds, "link delete eth0"),
    the_same_interface_is_refused_and_stays,
    another_interface_is_another_attachment,
    garbage_is_an_attachment_and_not_a_container,
    status_is_zero,
]


def title(row):
    return f"CHECK finds {row.args[0]}" if isinstance(row, functools.partial) else row.__name__.replace("_", " ")


#: The last rows need what these two do not have here: Calico's datastore, Weave's peer.
CASES = [
    pytest.param(plugin, row, id=f"{plugin}: {title(row)}")
    for plugin in NETWORKS
    for row in (ROWS[:-2] if plugin in ("calico", "weave-net") else ROWS)
]


@pytest.mark.parametrize(("plugin", "row"), CASES)
def test_the_plugin_does_what_the_specification_says(plugin, row):
    in_network(plugin, row)


@pytest.mark.parametrize("name", NAMES)
def test_status_says_50_where_nothing_of_the_network_runs(name):
    def body():
        for installer in INSTALLERS:
            pack.install(installer.plugin(), installer.PLUGINS, BIN)
        code, answer = Runtime(name, {}).call("STATUS")
        assert (code, answer["code"], answer["cniVersion"]) == (1, 50, "1.1.0"), answer

    isolated(body)
