"""kube-proxy's entry point."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path

from kubewire.components.kube_proxy import proxy, sysctls
from kubewire.components.kube_proxy.backends import ERRORS, check
from kubewire.components.kube_proxy.configuration import flags
from kubewire.components.kube_proxy.configuration.config import ConfigError, dump
from kubewire.components.kube_proxy.configuration.configfile import ConfigFileChanged
from kubewire.components.kube_proxy.configuration.flags import Options
from kubewire.components.kube_proxy.configuration.validation import validate
from kubewire.components.kube_proxy.families import FamiliesError
from kubewire.components.kubeapi import kubeconfig
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """0 after SIGTERM; 1 with a sentence on stderr when it cannot run or its configuration file
    changed."""
    try:
        options = flags.parse(argv)
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.DEBUG if options.verbosity > 3 else logging.INFO,
            format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        )
        _run(options)
    except (
        ConfigError,
        ConfigFileChanged,
        FamiliesError,
        KubeconfigError,
        OSError,
        *ERRORS,
    ) as error:
        print(f"kube-proxy: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: Options) -> None:
    try:
        validate(options.config)
    except ConfigError as error:
        raise ConfigError(f"failed validate: {error}") from error
    if options.write_config_to:
        Path(options.write_config_to).write_text(dump(options.config))
        log.info("Wrote configuration to %s", options.write_config_to)
        return
    if options.cleanup:
        asyncio.run(proxy.cleanup(options.config))
        return
    if options.init_only:
        asyncio.run(check(options.config))
        sysctls.prepare(options.config)
        return
    asyncio.run(
        proxy.serve_until_signalled(
            _client(options), options.config, options.node_name, options.config_file
        )
    )


def _client(options: Options) -> Client:
    path = options.config.client_connection.kubeconfig
    if options.master and not path:
        return Client(kubeconfig.Credentials(options.master))
    credentials = kubeconfig.load(path) if path else kubeconfig.in_cluster()
    return Client(replace(credentials, server=options.master) if options.master else credentials)
