"""Debian's plugins alone and chained, under the runtime code of our kubelet: what each leaves in the kernel, and that DEL
takes it away. What a kernel lacks is skipped with the reason."""

import json
import subprocess

import pytest

from kubewire.components.kernel import features as kernel_features
from tests.components.kubelet.cni.test_real_plugins import BRIDGE, PORTMAP, add, check, delete, in_pod, network
from tests.scratch import isolated

pytestmark = pytest.mark.packet

HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}


def sh(text):
    return subprocess.run(["sh", "-ec", text], capture_output=True, text=True, check=True).stdout


def uplink():
    """eth0 of the node and, at its other end, somebody outside: 10.244.1.200."""
    sh(
        "ip netns add outside; ip link add eth0 type veth peer name eth0 netns outside; ip link set eth0 up;"
        "ip -n outside link set eth0 up; ip -n outside address add 10.244.1.200/24 dev eth0"
    )


def links(name):
    shown = in_pod(name, "ip", "-json", "-details", "link", "show", "eth0")
    return json.loads(shown)[0]


def kind(name):
    return links(name)["linkinfo"]["info_kind"]


def test_ptp_makes_a_veth_and_a_route_to_the_pod():
    def body():
        conf = network({"type": "ptp", "ipMasq": False, "mtu": 1400, "ipam": HOST_LOCAL})
        result = add(conf, "a")
        assert (kind("a"), links("a")["mtu"]) == ("veth", 1400)
        address = result.ips[0].ip
        assert f"{address} dev veth" in sh("ip route")
        sh(f"ping -c1 -W2 {address}")
        check(conf, "a")
        delete(conf, "a")
        assert address not in sh("ip route")

    isolated(body)


@pytest.mark.parametrize("plugin", ["macvlan", "ipvlan"])
def test_a_device_on_the_uplink_is_on_the_uplinks_network(plugin):
    def body():
        uplink()
        made = subprocess.run(
            ["ip", "link", "add", "try", "link", "eth0", "type", plugin], capture_output=True, text=True
        )
        if made.returncode:
            return made.stderr
        sh("ip link delete try")
        conf = network(
            {
                "type": plugin,
                "master": "eth0",
                "mode": {"macvlan": "bridge", "ipvlan": "l2"}[plugin],
                "ipam": HOST_LOCAL,
            }
        )
        add(conf, "a")
        assert kind("a") == plugin
        in_pod("a", "ping", "-c1", "-W2", "10.244.1.200")
        delete(conf, "a")
        assert "eth0" not in in_pod("a", "ip", "-br", "link")
        return ""

    if reason := isolated(body):
        pytest.skip(f"this kernel has no {plugin}: {reason.strip()}")


def test_vlan_tags_what_the_pod_sends():
    def body():
        uplink()
        made = subprocess.run("ip link add try link eth0 type vlan id 7".split(), capture_output=True, text=True)
        if made.returncode:
            return made.stderr
        sh("ip link delete try; ip -n outside link add eth0.5 link eth0 type vlan id 5; ip -n outside link set eth0.5 up;"
           "ip -n outside address flush dev eth0; ip -n outside address add 10.244.1.200/24 dev eth0.5")  # fmt: skip
        conf = network({"type": "vlan", "master": "eth0", "vlanId": 5, "ipam": HOST_LOCAL})
        add(conf, "a")
        assert links("a")["linkinfo"]["info_data"]["id"] == 5
        in_pod("a", "ping", "-c1", "-W2", "10.244.1.200")
        delete(conf, "a")
        return ""

    if reason := isolated(body):
        pytest.skip(f"this kernel has no VLANs: {reason.strip()}")


def test_host_device_moves_a_device_into_the_pod_and_back():
    def body():
        sh("ip link add nic0 type veth peer name nic1")
        conf = network(
            {
                "type": "host-device",
                "device": "nic0",
                "ipam": {"type": "static", "addresses": [{"address": "10.9.9.9/24"}]},
            }
        )
        result = add(conf, "a")
        assert result.ips[0].address == "10.9.9.9/24"
        assert "nic0" not in sh("ip -br link")
        delete(conf, "a")
        assert "nic0" in sh("ip -br link")

    isolated(body)


def test_static_takes_the_address_that_is_asked_for():
    """The ips capability."""

    def body():
        ipam = {"type": "static"}
        conf = network({"type": "bridge", "bridge": "cni0", "capabilities": {"ips": True}, "ipam": ipam})
        result = add(conf, "a", capability_args={"ips": ["10.244.1.77/24"]})
        assert result.ips[0].address == "10.244.1.77/24"
        assert "10.244.1.77/24" in in_pod("a", "ip", "-br", "address", "show", "eth0")
        delete(conf, "a")

    isolated(body)


def test_loopback_is_up():
    def body():
        conf = network({"type": "loopback"})
        sh("ip netns add x")
        add(conf, "a")
        assert "UP" in in_pod("a", "ip", "-br", "link", "show", "lo")

    isolated(body)


def test_a_chain_of_bridge_portmap_bandwidth_tuning_and_firewall():
    """What each adds is seen in the kernel and gone after DEL."""

    def body():
        sh("iptables -A FORWARD -j DROP; sysctl -qw net.ipv4.ip_forward=1")
        conf = network(
            BRIDGE,
            {"type": "tuning", "capabilities": {"mac": True}, "sysctl": {"net.ipv4.conf.all.arp_announce": "1"}, "mtu": 1300},
            PORTMAP,
            {"type": "firewall", "backend": "iptables"},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        )  # fmt: skip
        asked = {
            "mac": "c2:b0:57:49:47:f1",
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 80_000, "egressRate": 1_000_000, "egressBurst": 80_000},
        }  # fmt: skip
        result = add(conf, "a", capability_args=asked)
        address = result.ips[0].ip
        assert (links("a")["address"], links("a")["mtu"]) == ("c2:b0:57:49:47:f1", 1300)
        assert in_pod("a", "sysctl", "-n", "net.ipv4.conf.all.arp_announce").strip() == "1"
        assert "--dport 8080" in sh("iptables-save -t nat")
        assert f"-d {address}/32" in sh("iptables-save -t filter")
        assert "tbf" in sh("tc qdisc")
        delete(conf, "a")
        assert "--dport 8080" not in sh("iptables-save -t nat")
        assert address not in sh("iptables-save -t filter")
        assert "tbf" not in sh("tc qdisc")
        delete(conf, "a")

    if not kernel_features.works("tbf"):
        pytest.skip("this kernel has no tbf")
    isolated(body)


def test_a_plugin_joins_the_chain_from_a_file_of_its_own():
    """SPEC.md 1.1.0: NETWORK/*.conf beside the list, unless loadOnlyInlinedPlugins."""

    def body():
        sh("mkdir -p /run/net")
        with open("/run/net/50-tuning.conf", "w") as file:
            json.dump({"type": "tuning", "mtu": 1234}, file)
        conf = network(BRIDGE, version="1.0.0")
        assert [plugin.type for plugin in conf.plugins] == ["bridge", "tuning"]
        add(conf, "a")
        assert links("a")["mtu"] == 1234
        delete(conf, "a")

    isolated(body)
