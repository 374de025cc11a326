"""Nodes on one Ethernet segment, each a network and mount namespace of its own, inside a test's sandbox:

pod -- veth -- cni0 [ node ] eth0 ==== fabric bridge (this namespace, 172.18.0.1) ==== eth0 [ node ] cni0 -- pod
"""

import asyncio
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

from kubewire.components.kernel import command, namespaces
from kubewire.components.kubeapi.kubeconfig import Credentials, dump
from kubewire.components.kubelet import cni
from tests.existing import existing

GATEWAY, API_PORT = "172.18.0.1", 8001
GATEWAY_IPV6 = "fd00:18::1"
MTU = 1500


async def until(condition, what, timeout=10.0):
    """Wait for condition() (plain or async) to be true; a failure says what was waited for."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        value = await answer if asyncio.iscoroutine(answer) else answer
        if value:
            return value
        assert time.monotonic() < deadline, f"not after {timeout:g} s: {what}"
        await asyncio.sleep(0.02)


async def sh(text):
    """Run a line of shell; its stdout."""
    return (await command.run(["sh", "-ec", text], check=True)).stdout.decode()


async def build_segment(ipv6=False):
    # The fabric is a plain switch: no iptables on what it forwards.
    await sh(f"ip link add fabric type bridge && ip addr add {GATEWAY}/16 dev fabric && ip link set fabric up")
    for family in ("ip", "ip6"):
        Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables").write_text("0")
    if ipv6:
        await sh(f"ip addr add {GATEWAY_IPV6}/64 dev fabric nodad")


class Node:
    """A node with eth0 on the segment. Its /run and /var/lib are its own. ipv6: a second address."""

    def __init__(self, name, address, ipv6=""):
        self.name, self.address, self.ipv6 = name, address, ipv6
        self.pid = 0
        self.agent: Any = None
        self.log = Path(f"/tmp/flanneld-{name}.log")

    async def start(self):
        holder = await asyncio.create_subprocess_exec(
            "unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
            "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mkdir /run/netns && mount -t sysfs none /sys "
            "&& echo ready && exec sleep 1000",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert await existing(holder.stdout).readline() == b"ready\n"
        self.pid = holder.pid
        port = f"p-{self.name}"
        await sh(f"ip link add {port} type veth peer name eth0 netns {self.pid} && ip link set {port} master fabric up")
        if self.ipv6:
            # As in a lab: no address is tentative. A node solicits others from its link-local one.
            await self.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.eth0.accept_dad=0")
        await self.sh(
            f"ip link set lo up && ip addr add {self.address}/16 dev eth0 && ip link set eth0 mtu {MTU} up && "
            f"ip route add default via {GATEWAY} && sysctl -qw net.ipv4.ip_forward=1 "
            "net.bridge.bridge-nf-call-iptables=1 && iptables -P FORWARD DROP"
        )
        if self.ipv6:
            await self.sh(
                "sysctl -qw net.ipv6.conf.all.forwarding=1 "
                f"net.bridge.bridge-nf-call-ip6tables=1 && ip addr add {self.ipv6}/64 dev eth0 nodad && "
                f"ip route add default via {GATEWAY_IPV6} && ip6tables -P FORWARD DROP"
            )
        return self

    def argv(self, *argv):
        return ["nsenter", "-t", str(self.pid), "-n", "-m", *argv]

    async def run(self, *argv, check=True):
        return await command.run(self.argv(*argv), check=check)

    async def sh(self, text):
        return (await self.run("sh", "-ec", text)).stdout.decode()

    async def start_flanneld(self, net_conf, *flags):
        """The real main, as a process in the node."""
        folder = f"/run/{self.name}"
        kubeconfig = dump("fabric", Credentials(server=f"http://{GATEWAY}:{API_PORT}"), "flannel")
        Path(f"/tmp/{self.name}.kubeconfig").write_text(kubeconfig)
        Path(f"/tmp/{self.name}.net-conf.json").write_text(net_conf)
        self.agent = await asyncio.create_subprocess_exec(
            *self.argv(
                sys.executable, "-m", "kubewire.components.networks.flannel", "--kube-subnet-mgr", "--ip-masq",
                "--kubeconfig-file", f"/tmp/{self.name}.kubeconfig",
                "--net-config-path", f"/tmp/{self.name}.net-conf.json",
                "--iface", "eth0", "--hostname-override", self.name, "--iptables-resync", "0.5",
                "--cni-conf-dir", f"{folder}/net.d", "--cni-bin-dir", f"{folder}/bin", "-v", "2", *flags,
            ),
            stderr=self.log.open("ab"),
        )  # fmt: skip

    async def stop_flanneld(self):
        self.agent.terminate()
        return await self.agent.wait()

    async def kill_flanneld(self):
        self.agent.kill()
        await self.agent.wait()

    async def routes(self):
        return await self.sh("ip route")

    # Pods: made by the real CNI plugins through the kubelet's cni, in a forked child that is inside the node.

    def _network(self):
        return cni.load_network(f"/run/{self.name}/net.d")

    async def _in_node(self, function):
        """function() -> text, run in the node's namespaces."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                namespaces.enter(self.pid, ("net", "mnt"))
                text = f"ok {function()}"
            except BaseException as error:
                text = f"failed {error}"
            os.write(write, text.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answer:
            state, _, text = (await asyncio.to_thread(answer.read)).partition(" ")
        os.waitpid(pid, 0)  # noqa: ASYNC222 (it has answered and ends)
        assert state == "ok", text
        return text

    async def add_pod(self, name, capabilities=None):
        """The pod's first address; its namespace is /run/netns/NAME in the node."""
        return (await self.add_pod_of_any_family(name, capabilities))[0]

    async def add_pod_of_any_family(self, name, capabilities=None):
        """All addresses of the pod, in the order in which the plugins say them."""

        def add():
            os.system(f"ip netns add {name} && ip -n {name} link set lo up")
            plugin_dirs = [f"/run/{self.name}/bin", "/usr/lib/cni"]
            result = asyncio.run(
                cni.add(self._network(), name, f"/run/netns/{name}", "eth0", {}, capabilities, plugin_dirs=plugin_dirs)
            )
            return " ".join(one.ip for one in result.ips)

        return (await self._in_node(add)).split()

    async def delete_pod(self, name):
        def delete():
            plugin_dirs = [f"/run/{self.name}/bin", "/usr/lib/cni"]
            asyncio.run(cni.delete(self._network(), name, f"/run/netns/{name}", "eth0", plugin_dirs=plugin_dirs))
            os.system(f"ip netns del {name}")
            return ""

        await self._in_node(delete)

    def pod_argv(self, pod, *argv):
        return self.argv("ip", "netns", "exec", pod, *argv)

    async def ping(self, pod, target, size=56, count=1):
        """Echo requests with DF from a pod; the number answered. size is ICMP's payload in bytes."""
        argv = ("ping", "-n", "-M", "do", "-c", str(count), "-i", "0.2", "-W", "2", "-s", str(size), target)
        done = await command.run(self.pod_argv(pod, *argv))
        words = done.stdout.decode().partition(" packets transmitted, ")[2].split()
        return int(words[0]) if words else 0


class Capture:
    """tcpdump on an interface of the sandbox's namespace; packets as bytes from the Ethernet header on."""

    def __init__(self, interface, expression):
        self.interface, self.expression = interface, expression
        self.path = Path(f"/tmp/capture-{interface}.pcap")

    async def __aenter__(self):
        self._process = await asyncio.create_subprocess_exec(
            "tcpdump", "-i", self.interface, "-n", "--immediate-mode", "-U", "-w", self.path, self.expression,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        while b"listening on" not in await existing(self._process.stderr).readline():
            pass
        return self

    async def __aexit__(self, *_):
        self._process.terminate()
        await self._process.communicate()

    def packets(self):
        data, offset, found = self.path.read_bytes(), 24, []
        while offset + 16 <= len(data):
            (length,) = struct.unpack_from("<I", data, offset + 8)
            found.append(data[offset + 16 : offset + 16 + length])
            offset += 16 + length
        return [packet for packet in found if packet]
