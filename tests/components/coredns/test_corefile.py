"""The Corefile: what is read, and what CoreDNS's sentences say about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.components.coredns import corefile, manifests
from kubewire.components.coredns.corefile import CorefileError
from kubewire.components.coredns.instance import Instance
from kubewire.components.coredns.plugin import PluginError
from kubewire.components.coredns.plugins import PLUGINS

KNOWN = frozenset(PLUGINS)


def parse(text: str) -> list[corefile.ServerBlock]:
    return corefile.parse(text, "Corefile", KNOWN)


WRONG = {
    "unknown directive": ".:53 {\n    errors\n    foo\n}\n",
    "unknown directive with a block": ". {\n    foo {\n        bar\n    }\n}\n",
    "end of file in a block": ". {\n    errors\n",
    "end of file in a directive": ". {\n    health {\n        lameduck 5s\n",
    "brace without an address": "{\n    errors\n}\n",
    "closing brace without a block": "}\n",
    "import of a missing file": ". {\n    import nowhere.conf\n}\n",
    "import of nothing": ". {\n    import\n}\n",
    "snippet twice": "(a) {\n    errors\n}\n(a) {\n    log\n}\n",
    "zone twice": ". {\n    errors\n}\n. {\n    log\n}\n",
    "other scheme": "tls://. {\n    errors\n}\n",
    "forward without upstream": ". {\n    forward .\n}\n",
    "forward to a name": ". {\n    forward . dns.example.test\n}\n",
    "forward to a missing file": ". {\n    forward . /nowhere/resolv.conf\n}\n",
    "forward unknown property": ". {\n    forward . 192.0.2.1 {\n        fast\n    }\n}\n",
    "forward unknown policy": ". {\n    forward . 192.0.2.1 {\n        policy fair\n    }\n}\n",
    "forward max_fails": ". {\n    forward . 192.0.2.1 {\n        max_fails many\n    }\n}\n",
    "kubernetes unknown property": ". {\n    kubernetes {\n        podz insecure\n    }\n}\n",
    "kubernetes pods": ". {\n    kubernetes {\n        pods maybe\n    }\n}\n",
    "kubernetes pods without a value": ". {\n    kubernetes {\n        pods\n    }\n}\n",
    "kubernetes ttl": ". {\n    kubernetes {\n        ttl 3601\n    }\n}\n",
    "cache unknown property": ". {\n    cache {\n        forever\n    }\n}\n",
    "cache ttl of zero": ". {\n    cache 0\n}\n",
    "health lameduck": ". {\n    health {\n        lameduck 5\n    }\n}\n",
    "health with two addresses": ". {\n    health :80 :81\n}\n",
    "reload too often": ". {\n    reload 1s\n}\n",
    "rewrite subject": ". {\n    rewrite taste a b\n}\n",
    "rewrite regex": ". {\n    rewrite name regex ( b\n}\n",
    "loadbalance policy": ". {\n    loadbalance fair\n}\n",
    "log class": ". {\n    log {\n        class rare\n    }\n}\n",
}


def test_wrong_corefiles_are_refused_with_file_line_and_reason(golden):
    said = []
    for title, text in WRONG.items():
        with pytest.raises((CorefileError, PluginError)) as raised:
            Instance.build(parse(text))
        said.append(f"{title}: {raised.value}")
    golden("coredns/corefile-errors.txt", "\n".join(said) + "\n")


def test_the_wording_is_coredns():
    with pytest.raises(CorefileError) as raised:
        parse(". {\n errors\n foo\n}")
    assert str(raised.value) == "Corefile:3 - Error during parsing: Unknown directive 'foo'"


def test_blocks_keys_comments_and_quotes():
    first, second = parse(
        'example.org, example.net:1053 {\n  errors # why not\n}\n. {\n template IN A {\n answer "a b"\n}\n}'
    )
    assert [key.text for key in first.keys] == ["example.org", "example.net:1053"]
    assert [line.name for line in first.directives] == ["errors"]
    (template,) = second.directives
    assert template.block[0].args == ("a b",)


def test_snippets_and_files_are_imported(tmp_path: Path):
    (tmp_path / "one.conf").write_text("log\nforward . 192.0.2.1 {\n  policy sequential\n}\n")
    main = tmp_path / "Corefile"
    text = "(common) {\n  errors\n  cache 10\n}\n. {\n  import common\n  import one.conf\n}\n"
    (block,) = corefile.parse(text, str(main), KNOWN)
    assert [line.name for line in block.directives] == ["errors", "cache", "log", "forward"]


def test_an_error_in_an_imported_file_names_that_file(tmp_path: Path):
    (tmp_path / "one.conf").write_text("errors\nfoo\n")
    with pytest.raises(CorefileError) as raised:
        corefile.parse(". {\n import one.conf\n}\n", str(tmp_path / "Corefile"), KNOWN)
    assert str(raised.value) == f"{tmp_path}/one.conf:2 - Error during parsing: Unknown directive 'foo'"


def test_the_environment_is_put_in(monkeypatch):
    monkeypatch.setenv("UPSTREAM", "192.0.2.53")
    (block,) = parse(". {\n forward . {$UPSTREAM}\n}")
    assert block.directives[0].args == (".", "192.0.2.53")


def test_cidrs_are_reverse_zones():
    instance = Instance.build(parse("10.96.0.0/12 {\n errors\n}\n192.0.2.0/24:1053 {\n errors\n}"))
    assert sorted(instance.servers[53])[:2] == ["100.10.in-addr.arpa.", "101.10.in-addr.arpa."]
    assert len(instance.servers[53]) == 16
    assert list(instance.servers[1053]) == ["2.0.192.in-addr.arpa."]


def test_the_manifests_are_kubeadms():
    objects = manifests.render("cluster.test", "10.96.0.10", 3)
    kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment", "Service"]
    assert [obj["kind"] for obj in objects] == kinds
    config, deployment, service = objects[3:]
    assert deployment["spec"]["replicas"] == 3
    assert service["spec"]["clusterIP"] == "10.96.0.10"
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    text = config["data"]["Corefile"].replace("/etc/resolv.conf", "192.0.2.1")
    instance = Instance.build(parse(text))
    assert instance.lameduck_seconds == 5.0
    assert {plugin.name for plugin in instance.plugins} >= {"kubernetes", "forward", "cache", "loop"}
    assert "$" not in str(objects)
