"""kube-proxy's entry point."""

from __future__ import annotations

import asyncio
import logging
import sys

from components.kube_proxy import flags, proxy
from components.kube_proxy.backends import BACKENDS, ERRORS
from components.kube_proxy.config import ConfigError, validate
from components.machinery.client import Client
from components.machinery.kubeconfig import KubeconfigError

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """0 after SIGTERM; 1 with a sentence on stderr when the configuration cannot be used."""
    try:
        options = flags.parse(argv)
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.DEBUG if options.verbosity > 3 else logging.INFO,
            format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        )
        validate(options.config, tuple(BACKENDS))
        if options.cleanup:
            asyncio.run(proxy.cleanup(options.config))
            return 0
        kubeconfig = options.config.client_connection.kubeconfig
        client = Client.from_kubeconfig(kubeconfig) if kubeconfig else Client.in_cluster()
        asyncio.run(proxy.serve_until_signalled(client, options.config, options.node_name))
    except (ConfigError, KubeconfigError, OSError, *ERRORS) as error:
        print(f"kube-proxy: {error}", file=sys.stderr)
        return 1
    return 0
