"""flanneld against the real API server component."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import NODES
from kubewire.components.networks.flannel import install
from tests.components.apiserver.running import RunningApiServer
from tests.components.networks.flannel.fabric import sh, until
from tests.components.networks.flannel.nodes import node
from tests.scratch import isolated

pytestmark = pytest.mark.packet

PREFIX = "flannel.alpha.coreos.com"
LOG = Path("/tmp/flanneld.log")
PEER_MAC = "5e:00:00:00:00:02"
OUTER_LINK = (
    "ip link add eth0 type veth peer name other && ip link set other up && "
    "ip addr add 172.18.0.3/16 dev eth0 && ip link set eth0 mtu 1400 up && ip route add default via 172.18.0.1"
)


def created(name, subnet, address, mac=""):
    """A Node to POST: what the server assigns itself is left out."""
    made = node(name, subnet, address, mac, managed=bool(mac))
    for key in ("uid", "resourceVersion"):
        del made["metadata"][key]
    return made


async def start(server):
    """flanneld as a process on this host; its log is in /tmp."""
    await sh(OUTER_LINK)
    Path("/tmp/net-conf.json").write_text('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}')
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kubewire.components.networks.flannel", "--kube-subnet-mgr", "--ip-masq",
        "--kubeconfig-file", str(server.kubeconfig), "--net-config-path", "/tmp/net-conf.json",
        "--cni-conf-dir", "/run/net.d", "--cni-bin-dir", "/run/bin", "--healthz-port", "10254",
        stderr=LOG.open("ab"),  # noqa: ASYNC230
        env=os.environ | {"NODE_NAME": "worker-1"},
    )  # fmt: skip


async def condition(client, name):
    status = (await client.get(NODES, name)).get("status") or {}
    return {one["type"]: one for one in status.get("conditions", ())}.get("NetworkUnavailable")


async def has_peer_route(wanted):
    routes = (await sh("ip route show dev flannel.1 2>&1 || true")).split("\n")
    return ([line.strip() for line in routes if line] == ["10.244.2.0/24 via 10.244.2.0 onlink"]) == wanted


async def life_of_an_agent():
    with RunningApiServer() as server:
        async with Client.from_kubeconfig(server.kubeconfig) as client:
            agent = await start(server)

            async def soon(condition, what):
                """Fails at once if the agent has died; the deadline is for one that hangs."""

                async def reached():
                    assert agent.returncode is None, LOG.read_text()
                    answer = condition()
                    return await answer if asyncio.iscoroutine(answer) else answer

                return await until(reached, what, timeout=120)

            # The node first has no podCIDR: the agent waits for the IPAM controller.
            await client.create(NODES, created("worker-1", "", "172.18.0.3"))
            await soon(lambda: "pod cidr not assigned" in LOG.read_text(), "told to wait")
            spec = {"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}}
            await client.patch(NODES, "worker-1", spec)
            told = await soon(lambda: condition(client, "worker-1"), "the condition")
            assert (told["status"], told["reason"], told["message"]) == (
                "False",
                "FlannelIsUp",
                "Flannel is running on this node",
            )
            notes = (await client.get(NODES, "worker-1"))["metadata"]["annotations"]
            mac = (await sh("cat /sys/class/net/flannel.1/address")).strip()
            assert json.loads(notes[f"{PREFIX}/backend-data"]) == {"VNI": 1, "VtepMAC": mac}
            assert (notes[f"{PREFIX}/public-ip"], notes[f"{PREFIX}/backend-type"]) == ("172.18.0.3", "vxlan")
            assert Path("/run/flannel/subnet.env").read_text() == (
                "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1350\nFLANNEL_IPMASQ=true\n"
            )
            assert json.loads(Path("/run/net.d/10-flannel.conflist").read_text())["name"] == "cbr0"
            health = await sh("curl -s http://127.0.0.1:10254/healthz")
            assert health == "flanneld is running"

            await client.create(NODES, created("worker-2", "10.244.2.0/24", "172.18.0.4", PEER_MAC))
            await soon(lambda: has_peer_route(True), "the peer's route")
            # A crash of the API server is not noticed by packets, and a node deleted meanwhile is not missed.
            server.kill()
            assert await has_peer_route(True)
            server.start()
            await client.delete(NODES, "worker-2")
            await soon(lambda: has_peer_route(False), "the peer's route gone")
            await sh("ip link add cni0 type bridge && ip addr add 10.244.1.1/24 dev cni0")
            await client.delete(NODES, "worker-1")
            await client.create(NODES, created("worker-1", "10.244.7.0/24", "172.18.0.3"))
            again = await soon(lambda: condition(client, "worker-1"), "the condition of the new Node")
            assert again["reason"] == "FlannelIsUp"
            notes = (await client.get(NODES, "worker-1"))["metadata"]["annotations"]
            assert json.loads(notes[f"{PREFIX}/backend-data"]) == {"VNI": 1, "VtepMAC": mac}
            assert "FLANNEL_SUBNET=10.244.7.1/24" in Path("/run/flannel/subnet.env").read_text()
            assert "10.244.7.0/32" in await sh("ip -4 addr show flannel.1")
            assert "10.244.1" not in await sh("ip -4 addr show")
            assert "the podCIDR changed from 10.244.1.0/24 to 10.244.7.0/24" in LOG.read_text()
            agent.terminate()
            assert await agent.wait() == 0


@pytest.mark.parametrize(
    ("plugins", "bridge"),
    [
        ([{"type": "flannel"}, {"type": "portmap"}], "cni0"),
        ([{"type": "flannel", "delegate": {"bridge": "br1"}}], "br1"),
        ([{"type": "flannel", "delegate": {"type": "ipvlan"}}], ""),
        ([{"type": "tuning"}], ""),
    ],
)
def test_the_bridge_is_that_of_the_configuration(plugins, bridge):
    assert install.bridge(json.dumps({"plugins": plugins}).encode()) == bridge


def test_an_agent_announces_itself_and_follows_the_nodes_of_a_real_api_server():
    isolated(lambda: asyncio.run(life_of_an_agent()))


@pytest.mark.parametrize(
    ("subnet", "net_conf", "said"),
    [
        ("10.99.1.0/24", "{}", "please define a correct Network parameter"),
        ("10.99.1.0/24", None, "failed to read net conf: open /tmp/net-conf.json: no such file or directory"),
        (
            "10.99.1.0/24",
            '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}',
            'subnet "10.244.0.0/16" specified in the flannel net config doesn\'t contain "10.99.1.0/24" PodCIDR of '
            'the "worker-1" node',
        ),
    ],
    ids=["bad configuration", "no configuration", "podCIDR outside of the network"],
)
def test_what_makes_a_start_impossible_is_said_and_ends_the_process(subnet, net_conf, said):
    def body():
        return asyncio.run(refused(subnet, net_conf))

    code, log = isolated(body)
    assert code == 1
    assert said in log


async def refused(subnet, net_conf):
    await sh(OUTER_LINK)
    if net_conf:
        Path("/tmp/net-conf.json").write_text(net_conf)
    with RunningApiServer() as server:
        async with Client.from_kubeconfig(server.kubeconfig) as client:
            await client.create(NODES, created("worker-1", subnet, "172.18.0.3"))
        argv: list[str] = [
            sys.executable, "-m", "kubewire.components.networks.flannel", "--kube-subnet-mgr", "--kubeconfig-file", str(server.kubeconfig),
            "--net-config-path", "/tmp/net-conf.json", "--iface", "eth0", "--hostname-override", "worker-1",
        ]  # fmt: skip
        done = await asyncio.to_thread(
            lambda: subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        )
        return done.returncode, done.stderr


def test_a_patch_of_a_node_that_is_gone_is_404_as_from_the_fake():

    async def missing(server):
        async with Client.from_kubeconfig(server.kubeconfig) as client:
            with pytest.raises(ApiError) as raised:
                await client.patch(NODES, "absent", {"metadata": {}}, subresource="status")
            return raised.value.status

    def body():
        with RunningApiServer() as server:
            return asyncio.run(missing(server))

    assert isolated(body) == 404
