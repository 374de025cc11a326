"""The meta plugin as an executable: subnet.env in, a delegate's configuration out. The delegate here records."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kubewire.components.networks.flannel import install

RECORDER = Path("tests/components/kubelet/cni/recorder.py")
ENV = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.5/24"}]}


class Bench:
    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        install.install_plugin(self.bin)
        for name in ("bridge", "ptp"):
            shutil.copy(RECORDER, self.bin / name)
        self.subnet_file = folder / "subnet.env"
        self.subnet_file.write_text(ENV)
        self.data = folder / "data"

    def conf(self, **more):
        paths = {"subnetFile": str(self.subnet_file), "dataDir": str(self.data)}
        return {"name": "cbr0", "type": "flannel", "cniVersion": "1.0.0"} | paths | more

    def run(self, verb, conf=None, **environment):
        """(exit status, decoded stdout)."""
        names = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": "/run/netns/x",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin),
            "RECORD": str(self.folder / "calls"),
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(
            [self.bin / "flannel"],
            input=json.dumps(self.conf() if conf is None else conf).encode(),
            capture_output=True,
            env={key: value for key, value in (names | environment).items() if value is not None},
        )
        answer = json.loads(done.stdout or b"null")
        if done.returncode:
            assert answer.pop("cniVersion") in ("0.3.1", "1.0.0", "1.1.0")
        return done.returncode, answer

    def calls(self):
        path = self.folder / "calls"
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return records


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_add_gives_bridge_what_upstream_gives_it_and_returns_its_result(bench):
    conf = bench.conf(delegate={"hairpinMode": True, "isDefaultGateway": True, "result": RESULT})
    assert bench.run("ADD", conf) == (0, RESULT)
    (call,) = bench.calls()
    assert (call["CNI_COMMAND"], call["CNI_CONTAINERID"], call["CNI_NETNS"]) == ("ADD", "c1", "/run/netns/x")
    assert call["conf"] == {
        "name": "cbr0",
        "type": "bridge",
        "cniVersion": "1.0.0",
        "mtu": 1450,
        "ipMasq": False,
        "isGateway": True,
        "hairpinMode": True,
        "isDefaultGateway": True,
        "result": RESULT,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.1.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    }
    assert json.loads((bench.data / "c1").read_text()) == call["conf"]


def test_what_the_delegate_dictionary_says_wins(bench):
    bench.run("ADD", bench.conf(delegate={"type": "ptp", "mtu": 1400, "ipMasq": True}, ipam={"type": "static"}))
    (call,) = bench.calls()
    given = {key: call["conf"].get(key) for key in ("type", "mtu", "ipMasq", "isGateway")}
    assert given == {"type": "ptp", "mtu": 1400, "ipMasq": True, "isGateway": None}
    assert call["conf"]["ipam"]["type"] == "static"


def test_bridge_masquerades_when_flanneld_does_not(bench):
    bench.subnet_file.write_text(ENV.replace("IPMASQ=true", "IPMASQ=false"))
    bench.run("ADD")
    assert bench.calls()[0]["conf"]["ipMasq"] is True


def test_ipam_routes_and_runtime_config_are_kept(bench):
    bench.run("ADD", bench.conf(ipam={"routes": [{"dst": "192.0.2.0/24"}]}, runtimeConfig={"mac": "02::1"}))
    conf = bench.calls()[0]["conf"]
    assert conf["ipam"]["routes"] == [{"dst": "192.0.2.0/24"}, {"dst": "10.244.0.0/16"}]
    assert conf["runtimeConfig"] == {"mac": "02::1"}


def test_a_second_address_family_gets_a_second_range(bench):
    bench.subnet_file.write_text(ENV + "FLANNEL_IPV6_NETWORK=fd00:10::/56\nFLANNEL_IPV6_SUBNET=fd00:10:0:1::1/64\n")
    bench.run("ADD")
    ipam = bench.calls()[0]["conf"]["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:0:1::/64"}]]
    assert ipam["routes"] == [{"dst": "10.244.0.0/16"}, {"dst": "fd00:10::/56"}]


def test_delete_uses_what_add_stored_and_then_is_idempotent(bench):
    bench.run("ADD")
    stored = bench.calls()[0]["conf"]
    bench.subnet_file.unlink()
    assert bench.run("DEL") == (0, None)
    (call,) = bench.calls()
    assert (call["CNI_COMMAND"], call["conf"]) == ("DEL", stored)
    assert list(bench.data.iterdir()) == []
    assert bench.run("DEL", CNI_NETNS=None) == (0, None)
    assert bench.calls() == []


def test_a_failed_delete_keeps_the_stored_configuration(bench):
    conf = bench.conf(delegate={"fail": {"DEL": {"code": 11, "msg": "busy"}}})
    bench.run("ADD", conf)
    assert bench.run("DEL", conf) == (1, {"code": 11, "msg": "busy"})
    assert (bench.data / "c1").exists()


def test_check_asks_the_delegate_with_the_previous_result(bench):
    bench.run("ADD")
    bench.calls()
    assert bench.run("CHECK", bench.conf(prevResult=RESULT)) == (0, None)
    (call,) = bench.calls()
    assert (call["CNI_COMMAND"], call["conf"]["prevResult"]) == ("CHECK", RESULT)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "loadFlannelSubnetEnv failed: open {file}: no such file or directory"),
        (
            "FLANNEL_NETWORK=10.244.0.0/16\n",
            "loadFlannelSubnetEnv failed: {file} is missing FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, "
            "FLANNEL_IPMASQ",
        ),
        (ENV.replace("1450", "big"), 'loadFlannelSubnetEnv failed: strconv.ParseUint: parsing "big": invalid syntax'),
        (ENV.replace("10.244.1.1/24", "10.244.1/24"), "loadFlannelSubnetEnv failed: invalid CIDR address: 10.244.1/24"),
    ],
    ids=["no file", "missing values", "MTU", "CIDR"],
)
def test_a_subnet_file_that_cannot_be_used_has_upstreams_text(bench, content, said):
    bench.subnet_file.unlink()
    if content:
        bench.subnet_file.write_text(content)
    assert bench.run("ADD") == (1, {"code": 999, "msg": said.format(file=bench.subnet_file)})


@pytest.mark.parametrize(
    ("delegate", "said"),
    [
        ({"type": 5}, "'delegate' dictionary, if present, must have (string) 'type' field"),
        ({"name": "x"}, "'delegate' dictionary must not have 'name' field, it'll be set by flannel"),
        ({"ipam": {}}, "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel"),
        ({"fail": {"ADD": {"code": 101, "msg": "no addresses"}}}, "failed to delegate add: no addresses"),
        ({"type": "absent"}, 'failed to find plugin "absent" in path [{bin}]'),
    ],
)
def test_errors_about_the_delegate(bench, delegate, said):
    status, error = bench.run("ADD", bench.conf(delegate=delegate))
    assert (status, error["msg"]) == (1, said.format(bin=bench.bin))


def test_version_lists_what_is_spoken_and_incompatible_versions_are_refused(bench):
    status, answer = bench.run("VERSION", {"cniVersion": "1.1.0"})
    assert status == 0
    assert {"0.3.1", "0.4.0", "1.0.0", "1.1.0"} <= set(answer["supportedVersions"])
    status, error = bench.run("ADD", bench.conf(cniVersion="7.0.0"))
    assert (status, error["code"], error["msg"]) == (1, 1, "incompatible CNI versions")


def test_missing_environment_is_named(bench):
    assert bench.run("ADD", CNI_NETNS=None, CNI_IFNAME=None) == (
        1,
        {"code": 4, "msg": "required env variables [CNI_NETNS,CNI_IFNAME] missing"},
    )


def test_status_says_whether_an_add_could_work(bench):
    conf = bench.conf(cniVersion="1.1.0")
    assert bench.run("STATUS", conf)[0] == 0
    bench.subnet_file.unlink()
    status, error = bench.run("STATUS", conf)
    assert (status, error["code"]) == (1, 50)


def test_gc_forgets_containers_that_are_gone(bench):
    for container in ("c1", "c2"):
        bench.run("ADD", CNI_CONTAINERID=container)
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    assert bench.run("GC", bench.conf(cniVersion="1.1.0") | {"cni.dev/valid-attachments": valid}) == (0, None)
    assert [path.name for path in bench.data.iterdir()] == ["c2"]
