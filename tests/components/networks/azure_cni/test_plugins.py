"""The plugins' store, and the plugins as any runtime calls them, beside a host agent that answers."""

import json
import os
import socket
import subprocess
import threading

import pytest

from kubewire.components.kernel.iptables import transaction
from kubewire.components.networks.azure_cni import install, masquerade
from kubewire.components.networks.azure_cni.plugin.state import NoAddress, Store
from kubewire.components.networks.cni_plugin import pack
from tests.scratch import isolated

POD = {"CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}


def test_addresses_are_given_once_and_come_back_last(tmp_path):
    path = str(tmp_path / "ipam.json")
    with Store(path) as store:
        store.refresh(["10.0.0.5", "10.0.0.6"])
        assert [store.request("a"), store.request("b"), store.request("a")] == ["10.0.0.5", "10.0.0.6", "10.0.0.5"]
        with pytest.raises(NoAddress, match="No available addresses"):
            store.request("c")
    with Store(path) as store:
        store.refresh(["10.0.0.5", "10.0.0.6", "10.0.0.7"])
        assert (store.release("a"), store.release("a")) == ("10.0.0.5", "")
        assert [store.request("c"), store.request("d")] == ["10.0.0.7", "10.0.0.5"]
        assert sorted(store.keep_only(["b"])) == ["10.0.0.5", "10.0.0.7"]
        assert sorted(store.addresses.values()) == ["", "", "b"]


def test_an_address_that_the_node_lost_stays_with_its_container(tmp_path):
    with Store(str(tmp_path / "ipam.json")) as store:
        store.refresh(["10.0.0.5"])
        store.request("a")
        store.refresh(["10.0.0.6"])
        assert store.request("a") == "10.0.0.5"
        assert store.request("b") == "10.0.0.6"


def test_what_fails_is_not_written(tmp_path):
    path = tmp_path / "ipam.json"
    with pytest.raises(RuntimeError), Store(str(path)) as store:
        store.refresh(["10.0.0.5"])
        raise RuntimeError
    assert not path.exists()


def test_the_chain_is_ip_masq_agents(golden):
    golden("azure_cni/nat.txt", transaction(masquerade.rules(["172.18.0.0/16", "10.244.0.0/16"]), {}))


def test_the_conflist():
    network = json.loads(install.conflist("10.244.2.0/24"))
    assert network["plugins"][0]["ipam"] == {"mode": "v4overlay", "type": "azure-cns", "subnet": "10.244.2.0/24"}
    assert json.loads(install.conflist())["plugins"][0]["ipam"] == {"type": "azure-vnet-ipam"}


def call(verb, container, config, **environment):
    pack.install(install.plugin(), install.PLUGINS, "/tmp/bin")
    done = subprocess.run(
        ["/tmp/bin/azure-vnet"], input=json.dumps({"cniVersion": "1.1.0", "name": "azure", **config}),
        capture_output=True, text=True, timeout=30,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_CONTAINERID": container, **POD, **environment},
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def in_sandbox(body):
    def run():
        subprocess.run("ip link set lo up; mkdir -p /run/netns", shell=True, check=True)
        for name in ("a", "b", "c"):
            subprocess.run(["ip", "netns", "add", name], check=True)
        body()

    isolated(run, timeout=60)


def host_agent():
    """Of a node whose interface has two addresses for pods."""
    subprocess.run("ip address add 168.63.129.16/32 dev lo", shell=True, check=True)
    server = socket.create_server(("168.63.129.16", 80))
    text = (
        '<Interfaces><Interface MacAddress="00" IsPrimary="true"><IPSubnet Prefix="10.0.0.0/24">'
        '<IPAddress Address="10.0.0.4" IsPrimary="true"/><IPAddress Address="10.0.0.5" IsPrimary="false"/>'
        '<IPAddress Address="10.0.0.6" IsPrimary="false"/></IPSubnet></Interface></Interfaces>'
    )

    def serve():
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.0 200 OK\r\n\r\n{text}".encode())

    threading.Thread(target=serve, daemon=True).start()


@pytest.mark.packet
def test_add_check_delete_twice_and_exhaustion():
    def body():
        host_agent()
        code, first = call("ADD", "a", {}, CNI_NETNS="/run/netns/a")
        assert (code, first["ips"][0]["address"]) == (0, "10.0.0.5/32")
        assert call("ADD", "b", {}, CNI_NETNS="/run/netns/b")[1]["ips"][0]["address"] == "10.0.0.6/32"
        code, answer = call("ADD", "c", {}, CNI_NETNS="/run/netns/c")
        assert (code, answer["msg"]) == (1, "Failed to allocate address: No available addresses")
        inside = subprocess.run(["ip", "-n", "a", "neigh"], capture_output=True, text=True).stdout
        assert f"169.254.1.1 dev eth0 lladdr {first['interfaces'][0]['mac']} PERMANENT" in inside
        subprocess.run(["ping", "-c1", "-W2", "10.0.0.5"], check=True, capture_output=True)
        assert call("CHECK", "a", {"prevResult": first}, CNI_NETNS="/run/netns/a")[0] == 0
        for _ in range(2):
            assert call("DEL", "a", {}, CNI_NETNS="/run/netns/a") == (0, {})
        assert call("ADD", "c", {}, CNI_NETNS="/run/netns/c")[1]["ips"][0]["address"] == "10.0.0.5/32"
        subprocess.run(["ip", "netns", "delete", "b"], check=True)
        assert call("DEL", "b", {}) == (0, {})
        valid = [{"containerID": "x", "ifname": "eth0"}]
        assert call("GC", "none", {"cni.dev/valid-attachments": valid}) == (0, {})
        assert call("ADD", "d", {}, CNI_NETNS="/run/netns/a")[0] == 0

    in_sandbox(body)


@pytest.mark.packet
def test_an_overlay_takes_addresses_of_the_nodes_range_and_asks_nobody():
    def body():
        config = {"ipam": {"mode": "v4overlay", "type": "azure-cns", "subnet": "10.244.2.0/29"}}
        code, answer = call("ADD", "a", config, CNI_NETNS="/run/netns/a")
        assert (code, answer["ips"][0]["address"]) == (0, "10.244.2.2/32")
        assert call("STATUS", "a", {})[1]["code"] == 50  # without a range there is nobody to ask

    in_sandbox(body)
