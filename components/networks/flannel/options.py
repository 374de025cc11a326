"""flanneld's flags: upstream's names and defaults, also settable as FLANNELD_* environment
variables (https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubewire.components.base import golang
from kubewire.components.networks.flannel import install, lease, subnetfile

DEFAULT_NET_CONF = "/etc/kube-flannel/net-conf.json"
DEFAULT_CNI_CONF = "/etc/kube-flannel/cni-conf.json"


@dataclass(frozen=True)
class Options:
    """iptables_resync is in seconds. node_name comes from --hostname-override or NODE_NAME."""

    kubeconfig_file: str
    net_config_path: str
    subnet_file: str
    node_name: str
    iface: tuple[str, ...] = ()
    iface_regex: tuple[str, ...] = ()
    iface_can_reach: str = ""
    public_ip: str = ""
    public_ipv6: str = ""
    ip_masq: bool = False
    ip_masq_random_fully: bool = True
    iptables_forward_rules: bool = True
    iptables_resync: float = 5
    set_node_network_unavailable: bool = True
    annotation_prefix: str = lease.DEFAULT_PREFIX
    healthz_ip: str = "0.0.0.0"
    healthz_port: int = 0
    cni_conf_path: str = DEFAULT_CNI_CONF
    cni_conf_dir: str = install.DEFAULT_CONF_DIR
    cni_bin_dir: str = install.DEFAULT_BIN_DIR
    verbosity: int = 0


class OptionError(Exception):
    """The flags are incomplete or contradictory; the text says what to pass."""


_bool = golang.flag(golang.parse_bool)


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="flanneld", description=__doc__, allow_abbrev=False)

    def default(flag: str, value: str) -> str:
        return environment.get("FLANNELD_" + flag.upper().replace("-", "_"), value)

    def text(flag: str, value: str, explained: str) -> None:
        made.add_argument(
            f"--{flag}",
            default=default(flag, value),
            help=f"{explained} (default {value!r})",
        )

    def switch(flag: str, value: bool, explained: str) -> None:
        made.add_argument(
            f"--{flag}",
            nargs="?",
            const=True,
            type=_bool,
            default=default(flag, str(value)),
            help=explained,
        )

    def many(flag: str, explained: str) -> None:
        given = default(flag, "")
        made.add_argument(
            f"--{flag}",
            action="append",
            default=[given] if given else [],
            help=explained,
        )

    switch(
        "kube-subnet-mgr",
        False,
        "take the subnet from the Kubernetes API (the only supported manager)",
    )
    text("kubeconfig-file", "", "kubeconfig file; if empty, the pod's service account is used")
    text("net-config-path", DEFAULT_NET_CONF, "network configuration")
    text(
        "subnet-file",
        subnetfile.DEFAULT_PATH,
        "file with the subnet and the MTU for the CNI plugin",
    )
    many("iface", "interface between nodes, by name or address; repeatable, the first match wins")
    many("iface-regex", "regular expression for the interface's name or address; repeatable")
    text("iface-can-reach", "", "use the interface of the route to this address")
    text("public-ip", "", "IPv4 address that other nodes send to; default: the interface's")
    text("public-ipv6", "", "IPv6 address that other nodes send to; default: the interface's")
    switch("ip-masq", False, "masquerade traffic that leaves the flannel network")
    switch("ip-masq-fully-random", True, "masquerade with --random-fully (ours)")
    switch("iptables-forward-rules", True, "accept forwarding of the flannel network")
    text("iptables-resync", "5", "seconds between checks of the iptables rules")
    switch(
        "set-node-network-unavailable",
        True,
        "set the node's NetworkUnavailable condition to False",
    )
    text("kube-annotation-prefix", lease.DEFAULT_PREFIX, "prefix of the node annotations")
    text("healthz-ip", "0.0.0.0", "address of the health check")
    text("healthz-port", "0", "port of the health check; 0 disables it")
    text(
        "hostname-override",
        "",
        "name of this node's Node object (ours); default: NODE_NAME, as upstream",
    )
    text(
        "cni-conf-path",
        DEFAULT_CNI_CONF,
        "conflist to install (ours); upstream's default if the file is missing",
    )
    text("cni-conf-dir", install.DEFAULT_CONF_DIR, "folder to install the conflist into (ours)")
    text("cni-bin-dir", install.DEFAULT_BIN_DIR, "folder to install the flannel plugin into (ours)")
    made.add_argument("-v", "--v", type=int, default=0, help="log level")
    return made


def parse(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Options:
    """Raises OptionError. Errors that argparse finds end the process with status 2."""
    environment = os.environ if environment is None else environment
    given = parser(environment).parse_args(argv)
    node_name = given.hostname_override or environment.get("NODE_NAME", "")
    if not given.kube_subnet_mgr:
        raise OptionError(
            "--kube-subnet-mgr is needed: subnets come from the Kubernetes API, there is no etcd manager",
        )
    if not node_name:
        raise OptionError("the node's name is needed: pass --hostname-override or set NODE_NAME")
    try:
        resync = float(given.iptables_resync)
        port = int(given.healthz_port)
    except ValueError as error:
        raise OptionError(f"--iptables-resync and --healthz-port are numbers: {error}") from error
    return Options(
        kubeconfig_file=given.kubeconfig_file,
        net_config_path=given.net_config_path,
        subnet_file=given.subnet_file,
        node_name=node_name,
        iface=tuple(given.iface),
        iface_regex=tuple(given.iface_regex),
        iface_can_reach=given.iface_can_reach,
        public_ip=given.public_ip,
        public_ipv6=given.public_ipv6,
        ip_masq=given.ip_masq,
        ip_masq_random_fully=given.ip_masq_fully_random,
        iptables_forward_rules=given.iptables_forward_rules,
        iptables_resync=resync,
        set_node_network_unavailable=given.set_node_network_unavailable,
        annotation_prefix=given.kube_annotation_prefix,
        healthz_ip=given.healthz_ip,
        healthz_port=port,
        cni_conf_path=given.cni_conf_path,
        cni_conf_dir=given.cni_conf_dir,
        cni_bin_dir=given.cni_bin_dir,
        verbosity=given.v,
    )
