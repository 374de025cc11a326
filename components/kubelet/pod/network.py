"""A pod's network namespace and its CNI attachment, in the steps of containerd's sandbox.

Attaching a pod: make a network namespace, bring lo up, pin the namespace, run CNI ADD. Detaching
it: run CNI DEL, unpin.

A network namespace exists as long as a process is in it, a descriptor of it is open, or its nsfs
file is bind-mounted somewhere (network_namespaces(7)). A pod's namespace must outlive its
processes, because plugins need it in DEL, and all processes may have been killed by then. So the
namespace is pinned by a bind mount at /run/netns/cni-UUID before ADD.

unshare(2) and setns(2) change the namespace of the calling thread only. They must run in a thread
of their own, which ends afterwards (in_own_thread): in any other thread they would move later work
of the kubelet into the pod's network. A socket belongs for ever to the namespace it was made in,
so a socket made in such a thread can be used in any other one.

The CNI spec demands that plugins accept DEL for an attachment that is already gone, so detach() may
be called at any time and any number of times. A kubelet that is killed during an attachment leaves
one behind that belongs to no sandbox. The next kubelet finds such attachments in the CNI cache, and
namespaces by their pins, and removes them (collect_garbage()).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kubewire.components.kernel import namespaces
from kubewire.components.kubelet import cni, pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod

log = logging.getLogger(__name__)
T = TypeVar("T")

INTERFACE = "eth0"
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFF_RUNNING = 0x40


class SandboxNetworkError(Exception):
    """ADD or DEL failed; the text is containerd's."""


async def in_own_thread(work: Callable[[], T]) -> T:
    """Runs work in a new thread, which ends with it and takes a changed namespace along."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result = work()
            error = None
        except BaseException as caught:  # the waiting task raises it
            result = None
            error = caught
        loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, daemon=True).start()
    # The thread cannot be stopped, so a cancelled caller must not cancel the future that it sets.
    return await asyncio.shield(done)


def pin_new_namespace(directory: Path) -> Path:
    """Makes a network namespace with lo up, bind-mounted at directory/cni-UUID.

    The calling thread is in the new namespace afterwards.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"cni-{uuid.uuid4()}"
    namespaces.unshare(namespaces.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING)  # ifreq, netdevice(7)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)
    path.touch()
    try:
        namespaces.bind("/proc/thread-self/ns/net", path)
    except OSError:
        path.unlink()
        raise
    return path


def unpin(path: Path) -> None:
    """Removes the pin. Succeeds if it does not exist."""
    try:
        namespaces.unmount(path, lazy=True)
    except OSError:
        pass
    path.unlink(missing_ok=True)


def connect_within(netns: Path, family: socket.AddressFamily) -> socket.socket:
    """Makes a TCP socket in the namespace at netns, which the calling thread enters for good."""
    namespaces.enter_path(netns)
    return socket.socket(family, socket.SOCK_STREAM)


def cni_args(pod: Pod, container_id: str) -> dict[str, str]:
    """The CNI_ARGS that containerd passes."""
    return {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pods.namespace(pod),
        "K8S_POD_NAME": pods.name(pod),
        "K8S_POD_INFRA_CONTAINER_ID": container_id,
        "K8S_POD_UID": pods.uid(pod),
    }


def in_order(ips: Iterable[str], node_ips: Sequence[str]) -> tuple[str, ...]:
    """The pod's addresses in the order of its status (sortPodIPs of pkg/kubelet).

    That is the first address of the node's primary family, then the first of the other family. CNI
    results may list them in any order.
    """
    first: dict[bool, str] = {}
    for ip in ips:
        first.setdefault(":" in ip, ip)
    primary = ":" in (node_ips[0] if node_ips else "")
    return tuple(first[is_ipv6] for is_ipv6 in (primary, not primary) if is_ipv6 in first)


def port_mappings(pod: Pod) -> list[dict[str, Any]]:
    """The argument of the capability portMappings: every hostPort of the pod."""
    return [
        {
            "hostPort": port["hostPort"],
            "containerPort": port["containerPort"],
            "protocol": (port.get("protocol") or "TCP").lower(),
            "hostIP": port.get("hostIP") or "",
        }
        for container in pods.all_containers(pod)
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]


def bandwidth(pod: Pod) -> dict[str, int]:
    """The argument of the capability bandwidth.

    It comes from the annotations kubernetes.io/ingress-bandwidth and
    kubernetes.io/egress-bandwidth.
    """
    from kubewire.components.kubeapi.quantity import value

    annotations = pod["metadata"].get("annotations") or {}
    limits: dict[str, int] = {}
    for direction in ("ingress", "egress"):
        if text := annotations.get(f"kubernetes.io/{direction}-bandwidth"):
            limits |= {f"{direction}Rate": value(text), f"{direction}Burst": 2**31 - 1}
    return limits


#: The annotation by which a pod requests an IP or MAC address in the cluster's network, in the form
#: that Multus defines
#: (https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/docs/configuration.md).
_DEFAULT_NETWORK = "v1.multus-cni.io/default-network"


def requested(pod: Pod) -> dict[str, Any]:
    """The arguments of the capabilities ips (with prefix lengths) and mac.

    An annotation that cannot be parsed is ignored.
    """
    text = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_NETWORK, "")
    try:
        (wanted, *_) = json.loads(text) if text.startswith("[") else ({},)
    except ValueError:
        wanted = {}
    if not isinstance(wanted, dict):
        return {}
    return {key: wanted[key] for key in ("ips", "mac") if wanted.get(key)}


def capability_args(pod: Pod) -> dict[str, Any]:
    """The arguments of all capabilities that the pod makes use of."""
    args: dict[str, Any] = {
        "portMappings": port_mappings(pod),
        "bandwidth": bandwidth(pod),
        **requested(pod),
    }
    return {key: value for key, value in args.items() if value}


class PodNetwork:
    """Attaches pods of this node to its CNI network, and detaches them."""

    def __init__(
        self,
        conf_dir: Path,
        plugin_dirs: Sequence[str],
        netns_dir: Path,
        cache_dir: str = "/var/lib/cni",
    ) -> None:
        self._conf_dir = conf_dir
        self._plugin_dirs = tuple(plugin_dirs)
        self._cache_dir = cache_dir
        self.netns_dir = netns_dir
        self._problem = ""

    def network(self) -> cni.NetworkConfigList:
        """The node's network, read again for each use. Raises cni.NoConfigError without one."""
        return cni.load_network(self._conf_dir)

    def ready(self) -> bool:
        return not self.problem()

    def problem(self) -> str:
        """Why pods cannot be attached, in containerd's words; "" if they can."""
        try:
            self.network()
        except cni.NoConfigError:
            return "cni plugin not initialized"
        return self._problem

    async def ask_status(self) -> None:
        """Runs the plugins' STATUS (CNI 1.1.0); problem() then returns what they reported."""
        try:
            await cni.status(self.network(), plugin_dirs=self._plugin_dirs)
            self._problem = ""
        except cni.NoConfigError:
            self._problem = ""
        except (cni.CNIError, cni.ConfigError) as error:
            self._problem = str(error)

    async def attach(self, pod: Pod, sandbox_id: str) -> tuple[Path, tuple[str, ...]]:
        """Returns a pinned namespace that is attached to the network, and its addresses.

        Raises SandboxNetworkError.
        """
        netns = await in_own_thread(lambda: pin_new_namespace(self.netns_dir))
        try:
            result = await cni.add(
                self.network(),
                sandbox_id,
                str(netns),
                INTERFACE,
                cni_args(pod, sandbox_id),
                capability_args(pod),
                plugin_dirs=self._plugin_dirs,
                cache_dir=self._cache_dir,
            )
        except (cni.CNIError, cni.ConfigError) as error:
            unpin(netns)
            text = f'failed to setup network for sandbox "{sandbox_id}": {error}'
            raise SandboxNetworkError(text) from error
        except asyncio.CancelledError:
            # Nothing else knows this namespace and its address yet, so they must be freed here.
            await asyncio.shield(self._abandon(sandbox_id, netns))
            raise
        return netns, tuple(ip.ip for ip in result.ips)

    async def _abandon(self, sandbox_id: str, netns: Path) -> None:
        try:
            await self.detach(sandbox_id, netns)
        except SandboxNetworkError as error:
            log.warning("%s", error)

    async def detach(self, sandbox_id: str, netns: Path | None) -> None:
        """Runs DEL and removes the pin; succeeds if the attachment does not exist.

        Raises SandboxNetworkError; the caller retries.
        """
        try:
            path = str(netns) if netns and netns.exists() else ""
            await cni.delete(
                self.network(),
                sandbox_id,
                path,
                INTERFACE,
                plugin_dirs=self._plugin_dirs,
                cache_dir=self._cache_dir,
            )
        except cni.NoConfigError:
            pass
        except (cni.CNIError, cni.ConfigError) as error:
            text = f'failed to destroy network for sandbox "{sandbox_id}": {error}'
            raise SandboxNetworkError(text) from error
        if netns:
            unpin(netns)

    async def _gc(self, known: Mapping[str, str]) -> None:
        """Runs GC (CNI 1.1.0), by which plugins free what belongs to no known sandbox."""
        try:
            await cni.gc(
                self.network(),
                [(sandbox, INTERFACE) for sandbox in known],
                plugin_dirs=self._plugin_dirs,
                cache_dir=self._cache_dir,
            )
        except cni.NoConfigError:
            pass
        except (cni.CNIError, cni.ConfigError) as error:
            log.warning("%s", error)

    async def collect_garbage(self, known: Mapping[str, str]) -> None:
        """Removes attachments and namespaces without a sandbox, after a restart of the kubelet.

        known: id -> path of the network namespace, of all sandboxes that exist.
        """
        for cached in list(cni.attachments(self._cache_dir)):
            if cached.attachment.container_id not in known:
                await self._abandon(cached.attachment.container_id, Path(cached.attachment.netns))
        await self._gc(known)
        held = set(known.values())
        if self.netns_dir.is_dir():
            for path in self.netns_dir.glob("cni-*"):
                if str(path) not in held:
                    unpin(path)
