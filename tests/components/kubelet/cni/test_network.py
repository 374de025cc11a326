"""The chain of plugins as SPEC.md section 3 wants it, seen by a plugin that records its calls."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubelet import cni

RECORDER = Path(__file__).with_name("recorder.py")
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}


class Bench:
    """A folder with plugins "first", "second", ... and the calls they got."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("first", "second", "third"):
            shutil.copy(RECORDER, self.bin / name)
        self.record = folder / "calls"
        monkeypatch.setenv("RECORD", str(self.record))
        self.where: dict[str, Any] = {
            "plugin_dirs": [str(self.bin)],
            "cache_dir": str(folder / "cache"),
            "timeout": 10.0,
        }

    def network(self, *plugins, version="1.0.0", **more):
        data = {"name": "net", "cniVersion": version, "plugins": list(plugins)} | more
        path = self.folder / "10-net.conflist"
        path.write_text(json.dumps(data))
        return cni.load_file(path)

    def add(self, network, *more, **options):
        return asyncio.run(cni.add(network, "c1", "/run/netns/x", "eth0", *more, **(self.where | options)))

    def delete(self, network, *more):
        asyncio.run(cni.delete(network, "c1", "/run/netns/x", "eth0", *more, **self.where))

    def check(self, network):
        asyncio.run(cni.check(network, "c1", "/run/netns/x", "eth0", **self.where))

    def run(self, function, network, *more):
        options = {key: value for key, value in self.where.items() if key != "cache_dir" or function is cni.gc}
        return asyncio.run(function(network, *more, **options))

    def calls(self):
        """(verb, plugin) pairs and the full records since the last look."""
        text = self.record.read_text() if self.record.exists() else ""
        self.record.unlink(missing_ok=True)
        records = [json.loads(line) for line in text.splitlines()]
        return [(one["CNI_COMMAND"], one["conf"].get("type")) for one in records], records

    def cached(self):
        return sorted(path.name for path in Path(self.where["cache_dir"], "results").glob("*"))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


FIRST, SECOND, THIRD = {"type": "first", "result": RESULT}, {"type": "second"}, {"type": "third"}


def test_add_runs_forward_and_hands_each_result_on(bench):
    result = bench.add(bench.network(FIRST, SECOND, THIRD), {"K8S_POD_NAME": "web", "IgnoreUnknown": "1"})
    order, records = bench.calls()
    assert order == [("ADD", "first"), ("ADD", "second"), ("ADD", "third")]
    assert "prevResult" not in records[0]["conf"]
    assert records[2]["conf"]["prevResult"] == RESULT
    assert result.ips[0].ip == "10.0.0.2"
    assert {key: value for key, value in records[0].items() if key != "conf"} == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "K8S_POD_NAME=web;IgnoreUnknown=1",
        "CNI_PATH": str(bench.bin),
    }


def test_runtime_config_reaches_only_the_plugins_that_ask_for_it(bench):
    asking = SECOND | {"capabilities": {"portMappings": True, "mac": False}}
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    bench.add(bench.network(FIRST, asking), {}, {"portMappings": ports, "mac": "02::", "bandwidth": {}})
    _, records = bench.calls()
    assert "runtimeConfig" not in records[0]["conf"]
    assert records[1]["conf"]["runtimeConfig"] == {"portMappings": ports}


def test_delete_runs_backward_with_the_cached_result_and_forgets_it(bench):
    network = bench.network(FIRST, SECOND | {"capabilities": {"portMappings": True}})
    bench.add(network, {"A": "1"}, {"portMappings": [1]})
    assert bench.cached() == ["net-c1-eth0"]
    bench.calls()
    bench.delete(network)
    order, records = bench.calls()
    assert order == [("DEL", "second"), ("DEL", "first")]
    assert records[0]["conf"]["prevResult"] == RESULT
    assert records[0]["conf"]["runtimeConfig"] == {"portMappings": [1]}
    assert records[0]["CNI_ARGS"] == "A=1"
    assert bench.cached() == []


def test_delete_of_what_was_never_added_still_asks_the_plugins_and_succeeds(bench):
    bench.delete(bench.network(FIRST, SECOND))
    order, records = bench.calls()
    assert order == [("DEL", "second"), ("DEL", "first")]
    assert "prevResult" not in records[0]["conf"]


def test_before_0_4_0_there_is_no_prev_result_on_delete_and_no_check(bench):
    network = bench.network({"type": "first", "result": {"ips": [{"address": "10.0.0.2/24"}]}}, version="0.3.1")
    bench.add(network)
    bench.calls()
    bench.delete(network)
    assert "prevResult" not in bench.calls()[1][0]["conf"]
    with pytest.raises(cni.CNIError, match=r'configuration version "0\.3\.1" does not support the CHECK command'):
        bench.check(network)


def test_a_failed_add_is_taken_back_in_reverse_and_names_the_plugin(bench):
    broken = SECOND | {"fail": {"ADD": {"code": 101, "msg": "no luck", "details": "at all"}, "DEL": {"msg": "too"}}}
    with pytest.raises(cni.CNIError) as raised:
        bench.add(bench.network(FIRST, broken, THIRD))
    assert str(raised.value) == 'plugin type="second" failed (add): no luck; at all'
    assert raised.value.code == 101
    order, records = bench.calls()
    deletes = [("DEL", "third"), ("DEL", "second"), ("DEL", "first")]
    assert order == [("ADD", "first"), ("ADD", "second"), *deletes]
    assert records[2]["conf"]["prevResult"] == RESULT
    assert bench.cached() == []


def test_a_failed_delete_keeps_what_is_needed_to_try_again(bench):
    network = bench.network(FIRST, SECOND | {"fail": {"DEL": {"code": 11, "msg": "busy"}}})
    bench.add(network)
    with pytest.raises(cni.CNIError, match=r'^plugin type="second" failed \(delete\): busy$'):
        bench.delete(network)
    assert bench.cached() == ["net-c1-eth0"]


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ({"type": "absent"}, r'failed to find plugin "absent" in path \[.*/bin\]'),
        ({"type": "../first"}, "invalid plugin name: ../first"),
        ({"type": "first", "garbled": {"ADD": ""}}, 'netplugin failed: "it broke": exit status 2'),
        ({"type": "first", "garbled": {"ADD": "Traceback"}}, 'error parsing its diagnostic message "Traceback"'),
        ({"type": "first", "result": {"ips": [{"address": "x"}]}}, "error decoding result"),
    ],
    ids=["no such plugin", "path in the name", "no error object", "garbage", "bad result"],
)
def test_plugins_that_misbehave_give_readable_errors(bench, plugin, said):
    with pytest.raises(cni.CNIError, match=said):
        bench.add(bench.network(plugin))


def test_a_plugin_that_never_ends_is_killed(bench):
    with pytest.raises(cni.CNIError, match=r"signal: killed \(not done after 0.5 s\)"):
        bench.add(bench.network({"type": "first", "sleep": {"ADD": 30}}), timeout=0.5)


@pytest.mark.parametrize(
    ("container", "ifname"), [("", "eth0"), ("../etc", "eth0"), ("c1", ""), ("c1", "a" * 16), ("c1", "a/b")]
)
def test_names_that_would_not_be_file_or_interface_names_are_refused(bench, container, ifname):
    with pytest.raises(cni.CNIError):
        asyncio.run(cni.add(bench.network(FIRST), container, "/run/netns/x", ifname, **bench.where))
    assert bench.calls() == ([], [])


def test_check_asks_every_plugin_with_the_cached_result(bench):
    network = bench.network(FIRST, SECOND)
    bench.add(network)
    bench.calls()
    bench.check(network)
    order, records = bench.calls()
    assert order == [("CHECK", "first"), ("CHECK", "second")]
    assert [one["conf"]["prevResult"] for one in records] == [RESULT, RESULT]


def test_disable_check_and_versions_without_status_ask_nobody(bench):
    bench.check(bench.network(FIRST, disableCheck=True))
    bench.run(cni.status, bench.network(FIRST))
    assert bench.calls() == ([], [])


def test_status_is_the_first_plugins_complaint(bench):
    network = bench.network(FIRST, SECOND | {"fail": {"STATUS": {"code": 50, "msg": "not yet"}}}, version="1.1.0")
    with pytest.raises(cni.CNIError, match="not yet") as raised:
        bench.run(cni.status, network)
    assert raised.value.code == 50


def test_gc_deletes_stale_attachments_and_tells_the_plugins_which_are_valid(bench):
    network = bench.network(FIRST, version="1.1.0")
    for container in ("c1", "c2"):
        asyncio.run(cni.add(network, container, "/run/netns/x", "eth0", **bench.where))
    bench.calls()
    bench.run(cni.gc, network, [("c2", "eth0")])
    order, records = bench.calls()
    assert order == [("DEL", "first"), ("GC", "first")]
    assert records[0]["CNI_CONTAINERID"] == "c1"
    assert records[1]["conf"]["cni.dev/valid-attachments"] == [{"containerID": "c2", "ifname": "eth0"}]
    assert bench.cached() == ["net-c2-eth0"]


def test_validate_asks_each_plugin_for_its_versions(bench):
    with pytest.raises(cni.CNIError, match=r'plugin second does not support config version "0\.3\.1"'):
        bench.run(cni.validate, bench.network(FIRST, SECOND, version="0.3.1"))
    wanted = bench.network(FIRST | {"capabilities": {"ips": True}})
    assert bench.run(cni.validate, wanted) == {"ips"}


def test_a_broken_cache_file_does_not_stop_delete(bench):
    network = bench.network(FIRST)
    bench.add(network)
    Path(bench.where["cache_dir"], "results", "net-c1-eth0").write_text("{")
    bench.delete(network)
    assert bench.cached() == []
