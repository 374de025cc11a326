"""Installs the plugin and 10-aws.conflist once ipamd is ready, as upstream's aws-vpc-cni-init and
entrypoint do."""

from __future__ import annotations

import json
from pathlib import Path

from kubewire.components.kernel import files
from kubewire.components.networks.cni_plugin import pack

CONFLIST_NAME = "10-aws.conflist"
PLUGINS = ("aws-cni",)


def plugin() -> bytes:
    return pack.pack("kubewire.components.networks.aws_vpc_cni.plugin.cni")


def conflist(mtu: int, prefix: str = "eni") -> bytes:
    aws = {
        "name": "aws-cni",
        "type": "aws-cni",
        "vethPrefix": prefix,
        "mtu": str(mtu),
        "podSGEnforcingMode": "strict",
        "pluginLogFile": "/var/log/aws-routed-eni/plugin.log",
        "pluginLogLevel": "DEBUG",
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    network = {
        "cniVersion": "0.4.0",
        "name": "aws-cni",
        "disableCheck": True,
        "plugins": [aws, portmap],
    }
    return (json.dumps(network, indent=2) + "\n").encode()


def install(mtu: int, conf_dir: str, bin_dir: str) -> None:
    """Raises OSError."""
    pack.install(plugin(), PLUGINS, bin_dir)
    files.replace(Path(conf_dir, CONFLIST_NAME), conflist(mtu), 0o644)
