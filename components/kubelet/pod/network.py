"""A pod's network namespace and its CNI attachment, in the steps of containerd's sandbox:
make and pin a namespace, bring lo up, ADD; and DEL, unpin.

The namespace is pinned at /run/netns/cni-UUID before ADD, so DEL still works when every process is dead.
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
from typing import Any, TypeVar

from kubewire.components.kernel import namespaces
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubelet import cni, pods

log = logging.getLogger(__name__)
T = TypeVar("T")

INTERFACE = "eth0"
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40


class SandboxNetworkError(Exception):
    """ADD failed; the text is containerd's."""


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run work in a thread that ends with it: a thread that has changed its namespace is not used again."""
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
            result, error = work(), None
        except BaseException as caught:  # handed to the waiting task, which raises it
            result, error = None, caught
        loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, daemon=True).start()
    # A cancelled caller must not leave half-made state behind that nobody knows of.
    return await asyncio.shield(done)


def pin_new_namespace(directory: Path) -> Path:
    """A fresh network namespace with lo up, bind-mounted at directory/cni-UUID. Changes the calling thread's."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"cni-{uuid.uuid4()}"
    namespaces.unshare(namespaces.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING))
    path.touch()
    try:
        namespaces.bind("/proc/thread-self/ns/net", path)
    except OSError:
        path.unlink()
        raise
    return path


def unpin(path: Path) -> None:
    """Let the namespace go; nothing there is success."""
    try:
        namespaces.unmount(path, lazy=True)
    except OSError:
        pass
    path.unlink(missing_ok=True)


def connect_within(netns: Path, family: socket.AddressFamily) -> socket.socket:
    """A TCP socket that belongs to the namespace at netns. Changes the calling thread's namespace."""
    namespaces.enter_path(netns)
    return socket.socket(family, socket.SOCK_STREAM)


def cni_args(pod: KubeObject, container_id: str) -> dict[str, str]:
    """CNI_ARGS as containerd passes them."""
    return {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pods.namespace(pod),
        "K8S_POD_NAME": pods.name(pod),
        "K8S_POD_INFRA_CONTAINER_ID": container_id,
        "K8S_POD_UID": pods.uid(pod),
    }


def in_order(ips: Iterable[str], node_ips: Sequence[str]) -> tuple[str, ...]:
    """The pod's addresses as its status lists them: the first of the node's primary family, then the first of the other
    (sortPodIPs of pkg/kubelet). A runtime may name them in any order."""
    first: dict[bool, str] = {}
    for ip in ips:
        first.setdefault(":" in ip, ip)
    primary = ":" in (node_ips[0] if node_ips else "")
    return tuple(first[is_ipv6] for is_ipv6 in (primary, not primary) if is_ipv6 in first)


def port_mappings(pod: KubeObject) -> list[dict[str, Any]]:
    """The portMappings capability: every hostPort of the pod."""
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


def bandwidth(pod: KubeObject) -> dict[str, int]:
    """The bandwidth capability from the kubernetes.io/ingress-bandwidth and egress-bandwidth annotations."""
    from kubewire.components.kubeapi.quantity import value

    annotations = pod["metadata"].get("annotations") or {}
    limits: dict[str, int] = {}
    for direction in ("ingress", "egress"):
        if text := annotations.get(f"kubernetes.io/{direction}-bandwidth"):
            limits |= {f"{direction}Rate": value(text), f"{direction}Burst": 2**31 - 1}
    return limits


#: Who asks for an address or a MAC of the cluster's own network says it as Multus understands it
#: (https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/docs/configuration.md, "default network").
_DEFAULT_NETWORK = "v1.multus-cni.io/default-network"


def requested(pod: KubeObject) -> dict[str, Any]:
    """The ips and mac capabilities: ips with prefix lengths. What cannot be understood is passed over."""
    text = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_NETWORK, "")
    try:
        (wanted, *_) = json.loads(text) if text.startswith("[") else ({},)
    except ValueError:
        wanted = {}
    return {key: wanted[key] for key in ("ips", "mac") if isinstance(wanted, dict) and wanted.get(key)}


def capability_args(pod: KubeObject) -> dict[str, Any]:
    found: dict[str, Any] = {"portMappings": port_mappings(pod), "bandwidth": bandwidth(pod), **requested(pod)}
    return {key: held for key, held in found.items() if held}


class PodNetwork:
    """CNI on one node."""

    def __init__(
        self,
        conf_dir: Path,
        plugin_dirs: Sequence[str],
        netns_dir: Path,
        cache_dir: str = "/var/lib/cni",
    ) -> None:
        self._conf_dir, self._plugin_dirs, self._cache_dir = conf_dir, tuple(plugin_dirs), cache_dir
        self.netns_dir = netns_dir
        self._problem = ""

    def network(self) -> cni.NetworkConfigList:
        """The node's network now. Raises cni.NoConfigError as long as there is none."""
        return cni.load_network(self._conf_dir)

    def ready(self) -> bool:
        return not self.problem()

    def problem(self) -> str:
        """Why no pod can be attached now, in containerd's words; "" when one can."""
        try:
            self.network()
        except cni.NoConfigError:
            return "cni plugin not initialized"
        return self._problem

    async def ask_status(self) -> None:
        """The plugins' STATUS, which networks of spec 1.1.0 have; problem() says afterwards what they said."""
        try:
            await cni.status(self.network(), plugin_dirs=self._plugin_dirs)
            self._problem = ""
        except cni.NoConfigError:
            self._problem = ""
        except (cni.CNIError, cni.ConfigError) as error:
            self._problem = str(error)

    async def attach(self, pod: KubeObject, sandbox_id: str) -> tuple[Path, tuple[str, ...]]:
        """A pinned namespace that is in the network, and its addresses. Raises SandboxNetworkError."""
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
            raise SandboxNetworkError(f'failed to setup network for sandbox "{sandbox_id}": {error}') from error
        except asyncio.CancelledError:
            # The pod was deleted meanwhile: nobody else knows of this namespace and its address.
            await asyncio.shield(self._abandon(sandbox_id, netns))
            raise
        return netns, tuple(ip.ip for ip in result.ips)

    async def _abandon(self, sandbox_id: str, netns: Path) -> None:
        try:
            await self.detach(sandbox_id, netns)
        except SandboxNetworkError as error:
            log.warning("%s", error)

    async def detach(self, sandbox_id: str, netns: Path | None) -> None:
        """DEL and unpin; succeeds when nothing is there. Raises SandboxNetworkError, to be tried again."""
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
            raise SandboxNetworkError(f'failed to destroy network for sandbox "{sandbox_id}": {error}') from error
        if netns:
            unpin(netns)

    async def _tell_plugins(self, known: Mapping[str, str]) -> None:
        """GC, which networks of spec 1.1.0 have: plugins give back what no file of ours tells of any more."""
        try:
            valid = [(sandbox, INTERFACE) for sandbox in known]
            await cni.gc(self.network(), valid, plugin_dirs=self._plugin_dirs, cache_dir=self._cache_dir)
        except cni.NoConfigError:
            pass
        except (cni.CNIError, cni.ConfigError) as error:
            log.warning("%s", error)

    async def collect_garbage(self, known: Mapping[str, str]) -> None:
        """After a restart: give back attachments and namespaces of no known sandbox (id -> netns path)."""
        for cached in list(cni.attachments(self._cache_dir)):
            if cached.attachment.container_id not in known:
                await self._abandon(cached.attachment.container_id, Path(cached.attachment.netns))
        await self._tell_plugins(known)
        held = set(known.values())
        if self.netns_dir.is_dir():
            for path in self.netns_dir.glob("cni-*"):
                if str(path) not in held:
                    unpin(path)
