"""The installed plugins as any runtime calls them: environment and stdin in, JSON and exit code out."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kubewire.components.networks.weave import install

POD = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
NOBODY = '{"cniVersion": "1.1.0", "name": "weave", "httpAddr": "127.0.0.1:1"}'


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    install.install_plugins(str(folder))
    return folder


class FakePeer(BaseHTTPRequestHandler):
    """Remembers what it was asked; knows one container."""

    asked: list[str] = []

    def do_GET(self):
        self.answer(200, "c1\nold\n" if self.path == "/ip" else "10.32.0.2/12")

    def do_POST(self):
        self.answer(200, "10.32.0.2/12")

    def do_PUT(self):
        self.answer(204, "")

    def do_DELETE(self):
        known = self.path == "/ip/old"
        self.answer(204 if known else 400, "" if known else f"Delete: no addresses for {self.path[4:]}\n")

    def answer(self, code, text):
        self.asked.append(f"{self.command} {self.path}")
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def peer():
    FakePeer.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakePeer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def call(plugins, verb, config="{}", name="weave-net", **environment):
    done = subprocess.run(
        [plugins / name],
        input=config,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": verb, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize("name", install.PLUGINS)
def test_version(plugins, name):
    code, answer = call(plugins, "VERSION", '{"cniVersion": "0.4.0"}', name)
    assert (code, answer["cniVersion"]) == (0, "0.4.0")
    assert {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} <= set(answer["supportedVersions"])


@pytest.mark.parametrize(
    ("verb", "config", "environment", "code", "text"),
    [
        ("FLY", "{}", POD, 4, "unknown CNI_COMMAND: FLY"),
        ("ADD", "{}", {"CNI_PATH": "/x"}, 4, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"),
        ("ADD", "{", POD, 6, "failed to load netconf"),
        ("ADD", '{"cniVersion": "9.9.9", "name": "n"}', POD, 1, "incompatible CNI versions"),
        ("CHECK", '{"cniVersion": "0.3.1", "name": "n"}', POD, 1, "config version does not allow CHECK"),
        ("STATUS", '{"cniVersion": "1.0.0", "name": "n"}', POD, 1, "config version does not allow STATUS"),
        (
            "ADD",
            NOBODY,
            POD,
            999,
            'unable to allocate IP address: Post "http://127.0.0.1:1/ip/c1": dial tcp 127.0.0.1:1: connect: '
            "connection refused",
        ),
        ("DEL", NOBODY, POD, 999, "unable to release IP address"),
        ("STATUS", NOBODY, POD, 50, "connection refused"),
        ("ADD", '{"name": "weave", "isGateway": true}', POD, 999, "Gateway functionality not supported"),
        ("ADD", '{"name": "weave", "ipMasq": true}', POD, 999, "IP Masquerading functionality not supported"),
        ("ADD", '{"name": "weave", "ipam": {"type": "nosuch"}}', POD, 999, 'failed to find plugin "nosuch"'),
    ],
)
def test_errors_are_objects_with_the_specs_codes(plugins, verb, config, environment, code, text):
    returned, answer = call(plugins, verb, config, **environment)
    assert returned == 1
    assert answer["code"] == code
    assert text in answer["msg"]


def test_weave_ipam_alone_gives_what_the_peer_gives(plugins, peer):
    config = json.dumps({"cniVersion": "1.0.0", "name": "weave", "httpAddr": peer})
    code, answer = call(plugins, "ADD", config, "weave-ipam", **POD)
    assert (code, answer) == (0, {"cniVersion": "1.0.0", "ips": [{"address": "10.32.0.2/12"}], "dns": {}})
    old = json.dumps({"cniVersion": "0.3.1", "name": "weave", "httpAddr": peer})
    assert call(plugins, "ADD", old, "weave-ipam", **POD)[1]["ips"] == [{"version": "4", "address": "10.32.0.2/12"}]


def test_weave_ipam_asks_for_a_subnet_or_claims_an_address(plugins, peer):
    for ipam in ({"subnet": "10.33.0.0/16"}, {"ips": ["10.32.1.30"]}):
        config = json.dumps({"cniVersion": "1.0.0", "name": "weave", "httpAddr": peer, "ipam": ipam})
        assert call(plugins, "ADD", config, "weave-ipam", **POD)[0] == 0
    assert FakePeer.asked == ["POST /ip/c1/10.33.0.0/16", "PUT /ip/c1/10.32.1.30/32"]


@pytest.mark.parametrize("name", install.PLUGINS)
def test_del_of_what_is_not_there_succeeds(plugins, peer, name):
    config = json.dumps({"cniVersion": "1.0.0", "name": "weave", "httpAddr": peer})
    without_namespace = {key: value for key, value in POD.items() if key != "CNI_NETNS"}
    for environment in (POD, without_namespace):
        assert call(plugins, "DEL", config, name, **environment) == (0, {})
    assert FakePeer.asked == ["DELETE /ip/c1"] * 2


def test_gc_releases_what_is_not_valid_any_more(plugins, peer):
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    config = json.dumps({"cniVersion": "1.1.0", "name": "weave", "httpAddr": peer, "cni.dev/valid-attachments": valid})
    assert call(plugins, "GC", config, CNI_PATH="/opt/cni/bin") == (0, {})
    assert FakePeer.asked == ["GET /ip", "DELETE /ip/old"]


def test_check_of_the_address_by_weave_ipam(plugins, peer):
    for address, code in (("10.32.0.2/12", 0), ("10.32.0.3/12", 1)):
        config = {
            "cniVersion": "1.0.0",
            "name": "weave",
            "httpAddr": peer,
            "prevResult": {"ips": [{"address": address}]},
        }
        assert call(plugins, "CHECK", json.dumps(config), "weave-ipam", **POD)[0] == code


def test_the_conflist_is_upstreams():
    network = json.loads(install.conflist(1376))
    weave = {"name": "weave", "type": "weave-net", "hairpinMode": True}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    assert network == {"cniVersion": "0.3.0", "name": "weave", "plugins": [weave, portmap]}
    assert json.loads(install.conflist(8916, "127.0.0.1:7000"))["plugins"][0] == {
        **weave, "mtu": 8916, "httpAddr": "127.0.0.1:7000"
    }  # fmt: skip
