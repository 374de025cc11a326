"""libcni's side against Debian's real bridge, host-local and portmap, in a scratch network namespace."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from kubewire.components.kubelet import cni
from tests.scratch import isolated

pytestmark = pytest.mark.packet

PLUGINS = ["/usr/lib/cni"]
BRIDGE = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.1.0/24"}]],
        # With its gateway: bridge 1.1.1's CHECK does not find its own routes without one.
        "routes": [{"dst": "10.244.0.0/16", "gw": "10.244.1.1"}],
    },
}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
LEASES = Path("/var/lib/cni/networks/net")


def network(*plugins, version="1.0.0"):
    path = Path("/run/10-net.conflist")
    path.write_text(json.dumps({"name": "net", "cniVersion": version, "plugins": list(plugins)}))
    return cni.load_file(path)


def pod(name):
    subprocess.run(["ip", "netns", "add", name], check=True)
    return f"/run/netns/{name}"


def add(conf, name, **more):
    return asyncio.run(cni.add(conf, name, pod(name), "eth0", {}, plugin_dirs=PLUGINS, **more))


def delete(conf, name, netns=None):
    path = f"/run/netns/{name}" if netns is None else netns
    asyncio.run(cni.delete(conf, name, path, "eth0", plugin_dirs=PLUGINS))


def check(conf, name):
    asyncio.run(cni.check(conf, name, f"/run/netns/{name}", "eth0", plugin_dirs=PLUGINS))


def leases():
    return sorted(path.name for path in LEASES.glob("10.*"))


def in_pod(name, *argv):
    done = subprocess.run(["ip", "netns", "exec", name, *argv], check=True, capture_output=True, text=True)
    return done.stdout


def life(version):
    conf = network(BRIDGE, PORTMAP, version=version)
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    result = add(conf, "web", capability_args=ports)
    assert result.cni_version == version
    assert result.ips[0].address == "10.244.1.2/24" and result.ips[0].gateway == "10.244.1.1"
    assert result.interfaces[result.ips[0].interface].sandbox == "/run/netns/web"
    assert "10.244.1.2/24" in in_pod("web", "ip", "address")
    assert leases() == ["10.244.1.2"]
    assert "--to-destination 10.244.1.2:80" in subprocess.check_output(["iptables-save"], text=True)
    delete(conf, "web")
    assert leases() == []
    assert "10.244.1.2:80" not in subprocess.check_output(["iptables-save"], text=True)
    delete(conf, "web")


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_pod_is_added_and_deleted_in_every_version_the_binaries_speak(version):
    isolated(life, version)


def checked(version):
    conf = network(BRIDGE, version=version)
    add(conf, "web")
    check(conf, "web")
    in_pod("web", "ip", "address", "flush", "dev", "eth0")
    with pytest.raises(cni.CNIError, match="Failed to match addr"):
        check(conf, "web")


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_check_notices_that_a_pods_address_is_gone(version):
    isolated(checked, version)


def version_not_spoken():
    with pytest.raises(cni.CNIError, match="incompatible CNI versions") as raised:
        add(network(BRIDGE, version="1.1.0"), "web")
    assert raised.value.code == 1
    with pytest.raises(cni.CNIError, match=r'plugin bridge does not support config version "1\.1\.0"'):
        asyncio.run(cni.validate(network(BRIDGE, version="1.1.0"), plugin_dirs=PLUGINS))


def test_a_version_the_binaries_do_not_speak_is_refused_by_them():
    isolated(version_not_spoken)


def failed_add():
    conf = network(BRIDGE, {"type": "absent"})
    with pytest.raises(cni.CNIError, match='plugin type="absent" failed'):
        add(conf, "web")
    assert leases() == []
    assert "eth0" not in in_pod("web", "ip", "link")


def test_a_failed_add_gives_the_address_back():
    isolated(failed_add)


def namespace_gone():
    conf = network(BRIDGE)
    for name in ("one", "two"):
        add(conf, name)
    os.system("ip netns del one")
    delete(conf, "one", netns="")
    assert leases() == ["10.244.1.3"]


def test_delete_works_when_the_pods_namespace_is_gone():
    isolated(namespace_gone)


def collected():
    conf = network(BRIDGE)
    for name in ("one", "two"):
        add(conf, name)
    asyncio.run(cni.gc(conf, [("two", "eth0")], plugin_dirs=PLUGINS))
    assert leases() == ["10.244.1.3"]


def test_gc_gives_back_what_vanished_containers_held():
    isolated(collected)


async def many():
    conf = network(BRIDGE)
    names = [f"pod-{number}" for number in range(20)]
    paths = [pod(name) for name in names]
    results = await asyncio.gather(
        *(cni.add(conf, name, path, "eth0", plugin_dirs=PLUGINS) for name, path in zip(names, paths, strict=True))
    )
    return sorted(int(result.ips[0].ip.rpartition(".")[2]) for result in results)


def test_many_pods_at_once_get_an_address_each():
    assert isolated(lambda: asyncio.run(many())) == list(range(2, 22))
