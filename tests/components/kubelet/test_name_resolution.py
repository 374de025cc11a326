"""resolv.conf, /etc/hosts and the host name of a pod."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubelet.pod import hostsfile
from kubewire.components.kubelet.resolvconf import ResolverConfig, parse, pod_resolver

NODE = ResolverConfig(("203.0.113.53",), ("corp.example",), ("timeout:1",))


def pod(**spec: Any) -> Any:
    metadata = {"name": "web-1", "namespace": "shop", "uid": "u"}
    return {"metadata": metadata, "spec": {"containers": [], **spec}}


def rendered(node: ResolverConfig = NODE, dns: tuple[str, ...] = ("10.96.0.10",), **spec: Any) -> str:
    return pod_resolver(pod(**spec), node, dns, "cluster.local").config.render()


CLUSTER = (
    "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
    "nameserver 10.96.0.10\n"
    "options ndots:5\n"
)
OF_NODE = "search corp.example\nnameserver 203.0.113.53\noptions timeout:1\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, CLUSTER),
        ({"dnsPolicy": "ClusterFirst"}, CLUSTER),
        ({"dnsPolicy": "Default"}, OF_NODE),
        ({"dnsPolicy": "ClusterFirst", "hostNetwork": True}, OF_NODE),
        ({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, CLUSTER),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}, "nameserver 1.1.1.1\n"),
    ],
    ids=["no policy", "ClusterFirst", "Default", "host network falls back", "ClusterFirstWithHostNet", "None"],
)
def test_each_policy(spec: dict[str, Any], expected: str) -> None:
    assert rendered(**spec) == expected


def test_dns_config_adds_servers_and_searches_and_replaces_options() -> None:
    config = {
        "nameservers": ["10.96.0.10", "9.9.9.9"],
        "searches": ["cluster.local", "extra.example"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    assert rendered(dnsConfig=config) == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example extra.example\n"
        "nameserver 10.96.0.10\nnameserver 9.9.9.9\n"
        "options ndots:2 edns0\n"
    )


def test_limits_cut_and_warn() -> None:
    config = {"nameservers": [f"10.0.0.{n}" for n in range(5)], "searches": [f"s{n}.example" for n in range(40)]}
    found = pod_resolver(pod(dnsPolicy="None", dnsConfig=config), NODE, (), "cluster.local")
    assert found.config.nameservers == ("10.0.0.0", "10.0.0.1", "10.0.0.2")
    assert len(found.config.searches) == 32
    assert found.warnings[0].endswith("the applied nameserver line is: 10.0.0.0 10.0.0.1 10.0.0.2")
    assert found.warnings[1].startswith("Search Line limits were exceeded")


def test_without_cluster_dns_a_pod_gets_the_nodes_resolver_and_a_warning() -> None:
    found = pod_resolver(pod(), NODE, (), "cluster.local")
    assert found.config == NODE
    assert 'cannot create Pod using "ClusterFirst" policy' in found.warnings[0]


def test_the_nodes_file_is_read_as_resolv_conf_5_says() -> None:
    text = "# x\ndomain old.example\nsearch a.example b.example.\nnameserver 1.2.3.4\noptions a\noptions b:1\n"
    assert parse(text) == ResolverConfig(("1.2.3.4",), ("a.example", "b.example"), ("a", "b:1"))


def test_the_managed_hosts_file() -> None:
    aliases = [{"ip": "10.1.2.3", "hostnames": ["foo.local", "bar.local"]}]
    found = hostsfile.render(
        pod(hostname="h", subdomain="sub", hostAliases=aliases), ("10.244.1.7",), "worker-1", "cluster.local"
    )
    assert found.splitlines() == [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        "10.244.1.7\th.sub.shop.svc.cluster.local\th",
        "",
        "# Entries added by HostAliases.",
        "10.1.2.3\tfoo.local\tbar.local",
    ]


def test_a_host_network_pod_starts_from_the_nodes_hosts_file() -> None:
    found = hostsfile.render(pod(hostNetwork=True), (), "worker-1", "cluster.local", "127.0.0.1 localhost\n")
    assert found == "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "web-1"),
        ({"hostname": "h"}, "h"),
        ({"hostNetwork": True}, "worker-1"),
        ({"hostname": "h", "subdomain": "s"}, "h"),
        ({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": True}, "h.s.shop.svc.cluster.local"),
        ({"setHostnameAsFQDN": True}, "web-1"),
    ],
    ids=["pod name", "hostname", "node", "subdomain is not in it", "FQDN", "FQDN without subdomain"],
)
def test_what_the_hostname_command_says(spec: dict[str, Any], expected: str) -> None:
    assert hostsfile.kernel_hostname(pod(**spec), "worker-1", "cluster.local") == expected


def test_an_fqdn_above_64_characters_is_refused() -> None:
    with pytest.raises(hostsfile.HostnameError, match="64 characters is the max"):
        hostsfile.kernel_hostname(
            pod(hostname="h" * 40, subdomain="s", setHostnameAsFQDN=True), "worker-1", "cluster.local"
        )
