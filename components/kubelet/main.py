"""The kubelet's process: it reads the flags and runs one event loop until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from kubewire.components.base import tls
from kubewire.components.base.daemon import termination
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubelet.configuration import ConfigurationError, Settings, settings
from kubewire.components.kubelet.images.catalogue import Catalogue, InvalidCatalogue
from kubewire.components.kubelet.kubelet import Kubelet
from kubewire.components.kubelet.server import KubeletServer
from kubewire.components.runtime.api import AsyncRuntimeClient, Disconnected

log = logging.getLogger("kubelet")


def main(argv: list[str]) -> int:
    """Returns 0 after SIGTERM, 1 if it cannot go on, 2 for wrong flags or configuration."""
    try:
        configuration, verbosity = settings(argv)
        catalogue = _catalogue(configuration.image_catalogue)
    except (ConfigurationError, InvalidCatalogue, OSError) as error:
        print(f"kubelet: {error}", file=sys.stderr)
        return 2
    if configuration.kubeconfig is None:
        print("kubelet: --kubeconfig is required: say where the API server is", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=logging.DEBUG if verbosity >= 4 else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    tls.small_buffers()
    try:
        return asyncio.run(_serve(configuration, configuration.kubeconfig, catalogue))
    except KeyboardInterrupt:
        return 0


def _catalogue(path: Path | None) -> Catalogue:
    """The built-in images, extended by those of --image-catalogue."""
    own = Catalogue.load()
    return own.extended(Catalogue.load(path)) if path else own


async def _serve(configuration: Settings, kubeconfig: Path, catalogue: Catalogue) -> int:
    stop = termination()
    try:
        runtime = await AsyncRuntimeClient.connect(configuration.runtime_endpoint)
    except Disconnected as error:
        log.error("failed to run Kubelet: validate service connection: %s", error)
        return 1
    client = Client.from_kubeconfig(kubeconfig, user_agent="kubelet/v1.36.2")
    kubelet = Kubelet(configuration, client, runtime, catalogue)
    server = KubeletServer(kubelet, configuration)
    try:
        await server.start()
        running = asyncio.create_task(kubelet.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return 0
        failure = running.exception()
        log.error("kubelet ended: %s", failure, exc_info=failure)
        return 1
    finally:
        await server.stop()
        await client.close()
        await runtime.close()
