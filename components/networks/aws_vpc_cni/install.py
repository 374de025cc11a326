"""Installs the plugin and 10-aws.conflist once ipamd is ready, as upstream's aws-vpc-cni-init and
entrypoint do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubewire.components.kernel import files
from kubewire.components.networks.aws_vpc_cni.environment import Configuration
from kubewire.components.networks.cni_plugin import pack

CONFLIST_NAME = "10-aws.conflist"
PLUGINS = ("aws-cni",)
_PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
_WITHOUT_IPV6 = {
    f"net.ipv6.conf.{interface}.disable_ipv6": "1" for interface in ("all", "default", "lo")
}


def plugin() -> bytes:
    return pack.pack("kubewire.components.networks.aws_vpc_cni.plugin.cni")


def conflist(mtu: int, wanted: Configuration) -> bytes:
    """mtu: of the pods' interfaces."""
    aws = {
        "name": "aws-cni",
        "type": "aws-cni",
        "vethPrefix": wanted.veth_prefix,
        "mtu": str(mtu),
        "podSGEnforcingMode": "strict",
        "pluginLogFile": wanted.plugin_log,
        "pluginLogLevel": wanted.plugin_level,
    }
    plugins: list[Mapping[str, Any]] = [aws, _PORTMAP]
    if wanted.bandwidth:
        plugins.append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    if wanted.without_ipv6:
        plugins.append({"type": "tuning", "sysctl": _WITHOUT_IPV6})
    network = {
        "cniVersion": "0.4.0",
        "name": "aws-cni",
        "disableCheck": True,
        "plugins": plugins,
    }
    return (json.dumps(network, indent=2) + "\n").encode()


def install(content: bytes, conf_dir: str, bin_dir: str) -> None:
    """content: the conflist. Raises OSError."""
    pack.install(plugin(), PLUGINS, bin_dir)
    files.replace(Path(conf_dir, CONFLIST_NAME), content, 0o644)
