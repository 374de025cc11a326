"""flanneld's process: flags, logging, signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.networks.flannel import options
from kubewire.components.networks.flannel.agent import SubnetError, start
from kubewire.components.networks.flannel.kernel import LinkError
from kubewire.components.networks.flannel.netconf import NetConfError

log = logging.getLogger("flanneld")
_EXPECTED = (NetConfError, KubeconfigError, LinkError, SubnetError, CommandError, OSError)


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if flanneld cannot start, 2 for invalid flags."""
    try:
        chosen = options.parse(argv)
    except options.OptionError as error:
        print(f"flanneld: {error}", file=sys.stderr)
        return 2
    level = logging.DEBUG if chosen.verbosity > 1 else logging.INFO
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=level, format=form, force=True)
    return asyncio.run(_until_signal(chosen))


async def _until_signal(chosen: options.Options) -> int:
    task = asyncio.ensure_future(start(chosen))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("shutdownHandler sent cancel signal...")
        return 0
    except _EXPECTED as error:
        log.error("%s", error)
    except BaseExceptionGroup as group:
        expected, rest = group.split(_EXPECTED)
        if rest is not None:
            raise
        for leaf in _leaves(expected):
            log.error("%s", leaf)
    return 1


def _leaves(error: BaseException | None) -> list[BaseException]:
    """The errors inside a task group's nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error] if error else []
