"""azure-cns and ip-masq-agent of a node: waits for the node's addresses, installs the plugins,
keeps the chain.

Azure gives a node its pod addresses in one of two ways. In transparent mode they are addresses of
the node's interface in the VNET, reserved when the node starts; in overlay mode they come from the
node's podCIDR, and the VNET must have a route for that range to the node. The plugins are installed
only after this is done, because a CNI configuration makes the node Ready.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from kubewire.components.kernel import iptables
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import NODES
from kubewire.components.networks.azure_cni import install, masquerade

log = logging.getLogger("azure-cns")
CLOUD = "http://169.254.169.254"
_RETRY_S = 0.2
_RESYNC_S = 60.0


@dataclass(frozen=True)
class Options:
    """inside: the ranges that are not masqueraded."""

    kubeconfig: str
    nodename: str
    overlay: bool
    inside: tuple[str, ...]
    conf_dir: str = "/etc/cni/net.d"
    bin_dir: str = "/opt/cni/bin"


async def run(options: Options, client: Client) -> None:
    """Runs until cancelled. Raises CommandError, OSError."""
    await _masquerade(options)
    subnet = await _pod_cidr(options, client) if options.overlay else ""
    if options.overlay:
        await _routed(subnet)
    else:
        await _until(f"{CLOUD}/latest/meta-data/instance-id")
    install.install(subnet, options.conf_dir, options.bin_dir)
    log.info("Installed %s and %s", ", ".join(install.PLUGINS), install.CONFLIST_NAME)
    while True:
        await asyncio.sleep(_RESYNC_S)
        await _masquerade(options)


async def _masquerade(options: Options) -> None:
    await iptables.ensure(masquerade.rules(options.inside))


async def _pod_cidr(options: Options, client: Client) -> str:
    """Waits until the node has a podCIDR."""
    while True:
        try:
            node = await client.get(NODES, options.nodename)
            if cidr := node["spec"].get("podCIDR"):
                return str(cidr)
        except ApiError as error:
            log.debug("%s", error)
        await asyncio.sleep(_RETRY_S)


async def _routed(subnet: str) -> None:
    """Adds a route to the VNET: packets for these pods go to this node."""
    instance = await _until(f"{CLOUD}/latest/meta-data/instance-id")
    route = {"Action": "CreateRoute", "DestinationCidrBlock": subnet, "InstanceId": instance}
    await _until(f"{CLOUD}/?{urlencode(route)}")


async def _until(url: str) -> str:
    """Returns the URL's content; retries until it is available."""

    def get() -> str:
        with urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    while True:
        try:
            return await asyncio.to_thread(get)
        except (URLError, OSError) as error:
            log.debug("%s: %s", url, error)
        await asyncio.sleep(_RETRY_S)
