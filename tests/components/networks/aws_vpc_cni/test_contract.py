"""The installed plugin as any runtime calls it, with ipamd away and with an ipamd that answers."""

import json
import os
import socketserver
import subprocess
import threading
from typing import Any, cast

import pytest

from kubewire.components.networks.aws_vpc_cni import install
from kubewire.components.networks.aws_vpc_cni.ipamd import Ipamd, Options
from kubewire.components.networks.aws_vpc_cni.pool import Eni
from kubewire.components.networks.cni_plugin import pack
from tests.scratch import isolated

POD = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}


def call(verb, config='{"cniVersion": "1.1.0", "name": "aws-cni"}', **environment):
    pack.install(install.plugin(), install.PLUGINS, "/tmp/bin")
    done = subprocess.run(
        ["/tmp/bin/aws-cni"], input=config, capture_output=True, text=True, timeout=30,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": verb, **environment},
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


class Daemon(socketserver.ThreadingTCPServer):
    """ipamd's answers without its cloud: two addresses of the first interface, one of the second."""

    def __init__(self):
        self.ipamd = Ipamd(Options((3, 4), checkpoint="/tmp/ipam.json"), cast(Any, None))
        enis = (
            Eni("eni-1", 0, "02:1", "10.0.0.4", "10.0.0.0/24", ["10.0.0.5"]),
            Eni("eni-2", 1, "02:2", "10.0.0.6", "10.0.0.0/24", ["10.0.0.7"]),
        )
        self.ipamd.pool.enis = {one.id: one for one in enis}
        daemon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                request = json.loads(self.rfile.readline())
                self.wfile.write(json.dumps(daemon.ipamd.answer(request.pop("method"), **request)).encode())

        super().__init__(("127.0.0.1", 50051), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def in_sandbox(body):
    def run():
        subprocess.run("ip link set lo up; mkdir -p /run/netns", shell=True, check=True)
        body()

    isolated(run, timeout=60)


@pytest.mark.packet
def test_without_ipamd_it_says_so_and_asks_to_be_tried_again():
    def body():
        code, answer = call("ADD", CNI_NETNS="/run/netns/x", **POD)
        assert (code, answer["code"]) == (1, 11)
        assert "AddNetwork gRPC call" in answer["msg"]
        assert call("STATUS", CNI_PATH="/x")[1]["code"] == 50

    in_sandbox(body)


@pytest.mark.packet
def test_add_check_delete_twice_and_exhaustion():
    def body():
        daemon = Daemon()
        for name in ("a", "b", "c"):
            subprocess.run(["ip", "netns", "add", name], check=True)
        pods = {name: {**POD, "CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}"} for name in "abc"}
        code, first = call("ADD", **pods["a"])
        assert (code, first["ips"][0]["address"], first["interfaces"][1]["sandbox"]) == (
            0,
            "10.0.0.5/32",
            "/run/netns/a",
        )
        call("ADD", **pods["b"])
        rules = subprocess.run(["ip", "rule"], capture_output=True, text=True).stdout
        assert "512:\tfrom all to 10.0.0.5 lookup main" in rules
        assert "1536:\tfrom 10.0.0.7 lookup 2" in rules
        assert "from 10.0.0.5 lookup" not in rules
        inside = subprocess.run(["ip", "-n", "a", "neigh"], capture_output=True, text=True).stdout
        assert f"169.254.1.1 dev eth0 lladdr {first['interfaces'][0]['mac']} PERMANENT" in inside

        code, answer = call("ADD", **pods["c"])
        assert (code, answer["msg"]) == (1, "add cmd: failed to assign an IP address to container")

        config = json.dumps({"cniVersion": "1.1.0", "name": "aws-cni", "prevResult": first})
        assert call("CHECK", config, **pods["a"])[0] == 0
        for _ in range(2):
            assert call("DEL", **pods["a"]) == (0, {})
        subprocess.run(["ip", "netns", "delete", "b"], check=True)
        assert call("DEL", **{key: value for key, value in pods["b"].items() if key != "CNI_NETNS"}) == (0, {})
        rules = subprocess.run(["ip", "rule"], capture_output=True, text=True).stdout
        assert "10.0.0" not in rules
        assert daemon.ipamd.pool.assigned == {}

    in_sandbox(body)


@pytest.mark.packet
def test_garbage_collection_keeps_what_is_valid():
    def body():
        daemon = Daemon()
        for name in ("a", "b"):
            subprocess.run(["ip", "netns", "add", name], check=True)
            assert call("ADD", **{**POD, "CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}"})[0] == 0
        valid = [{"containerID": "b", "ifname": "eth0"}]
        config = json.dumps({"cniVersion": "1.1.0", "name": "aws-cni", "cni.dev/valid-attachments": valid})
        assert call("GC", config, CNI_PATH="/x") == (0, {})
        assert [held.sandbox for held in daemon.ipamd.pool.assigned.values()] == ["b"]

    in_sandbox(body)


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_version(version, tmp_path):
    pack.install(install.plugin(), install.PLUGINS, str(tmp_path))
    done = subprocess.run(
        [tmp_path / "aws-cni"], input=json.dumps({"cniVersion": version}), capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "VERSION"}, timeout=30,
    )  # fmt: skip
    assert json.loads(done.stdout)["cniVersion"] == version
