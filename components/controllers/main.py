"""The process kube-controller-manager: all controllers, and one informer for each resource."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING

from kubewire.components.base import health
from kubewire.components.base.daemon import log_to_stderr, termination
from kubewire.components.controllers import flags
from kubewire.components.controllers.controller import Context, utc_now
from kubewire.components.controllers.flags import Options
from kubewire.components.controllers.identities import Identities, account_of
from kubewire.components.controllers.registry import ALIASES, CONTROLLERS, enabled
from kubewire.components.controllers.sharedinformers import SharedInformers
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.resources import LEASES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Lease, LeaseSpec

log = logging.getLogger("kube-controller-manager")
_LEASE = "kube-controller-manager"
_LEASE_DURATION = 15
_RENEW = 5.0


def main(argv: list[str]) -> int:
    """Runs until SIGTERM or SIGINT. Returns 0 then, 1 when a controller failed; wrong flags exit
    with 2.
    """
    options = flags.parse(argv, [*CONTROLLERS, *ALIASES])
    log_to_stderr(options.verbosity)
    return asyncio.run(run(options))


async def run(options: Options) -> int:
    stop = termination()
    client = Client.from_kubeconfig(options.kubeconfig, user_agent="kube-controller-manager")
    server = None
    if options.secure_port:
        server = await health.serve(options.bind_address, options.secure_port)
    async with client:
        try:
            return await _run_until(stop, client, options)
        finally:
            if server is not None:
                server.close()


async def _run_until(stop: asyncio.Event, client: Client, options: Options) -> int:
    recorders: dict[tuple[str, str], EventRecorder] = {}
    informers = SharedInformers(client)
    identities = Identities(client, own=options.use_service_account_credentials)

    def context(controller: str) -> Context:
        own = identities.client(controller)

        def recorder(component: str) -> EventRecorder:
            key = account_of(controller), component
            return recorders.setdefault(key, EventRecorder(own, component))

        return Context(own, informers, recorder, options)

    controllers = {name: CONTROLLERS[name](context(name)) for name in _selected(options)}
    informers.start()
    tasks = [asyncio.create_task(item.run(), name=name) for name, item in controllers.items()]
    for (_, component), item in recorders.items():
        tasks.append(asyncio.create_task(item.run(), name=f"events/{component}"))
    if options.leader_elect:
        tasks.append(asyncio.create_task(hold_lease(client), name="lease"))
    log.info("started %s", ", ".join(controllers))
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in done if task is not stopped]
    for task in failed:
        log.error("%s failed", task.get_name(), exc_info=task.exception())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await informers.stop()
    await identities.close()
    return 1 if failed else 0


def _selected(options: Options) -> list[str]:
    names = enabled(options.controllers)
    if not options.allocate_node_cidrs and "node-ipam-controller" in names:
        names.remove("node-ipam-controller")
    return names


async def hold_lease(client: Client) -> None:
    """Renews the Lease kube-system/kube-controller-manager.

    Tools read the Lease to find the leader. This process does not compete for it.
    """
    identity = f"{socket.gethostname()}_{os.getpid()}"
    while True:
        with contextlib.suppress(ApiError):
            await _renew(client, identity)
        await asyncio.sleep(_RENEW)


async def _renew(client: Client, identity: str) -> None:
    now = utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec: LeaseSpec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": _LEASE_DURATION,
        "renewTime": now,
    }
    try:
        await client.patch(LEASES, _LEASE, {"spec": spec}, "kube-system")
    except ApiError as error:
        if error.status != 404:
            raise
        spec |= {"acquireTime": now, "leaseTransitions": 0}
        lease: Lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": _LEASE, "namespace": "kube-system"},
            "spec": spec,
        }
        await client.create(LEASES, lease)
