"""A pod's files on its node: volumes, /etc/hosts, /etc/resolv.conf and /etc/hostname."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.pod import hostsfile
from kubewire.components.kubelet.pod.environment import Sources
from kubewire.components.kubelet.pod.expansion import expand
from kubewire.components.kubelet.pod.launch import LaunchError, mounts
from kubewire.components.kubelet.pod.node_services import NodeServices
from kubewire.components.kubelet.resolvconf import pod_resolver
from kubewire.components.kubelet.volumes import local
from kubewire.components.kubelet.volumes.payload import (
    VolumeSources,
    references,
    secret_bytes,
    token_requests,
)
from kubewire.components.kubelet.volumes.persistent import PersistentVolumes, read_only_claims
from kubewire.components.kubelet.volumes.setup import WRITTEN, set_up, sub_path
from kubewire.components.runtime.api import Mount

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, Pod


class PodFiles:
    """The files of a pod. Each call of prepare() also updates the volumes of running containers."""

    def __init__(self, node: NodeServices, uid: str) -> None:
        self._node = node
        self._uid = uid
        self._persistent = PersistentVolumes(node.client)

    async def prepare(self, pod: Pod, pod_ips: tuple[str, ...]) -> None:
        """Sets up the pod's volumes, or updates their content. Raises MountProblem."""
        node = self._node
        config_maps, secrets = references(pod)
        await node.objects.use(self._uid, pods.namespace(pod), config_maps, secrets)
        await self._persistent.find(pod)
        tokens = {request: await node.tokens.fetch(pod, request) for request in token_requests(pod)}
        namespace = pods.namespace(pod)
        sources = VolumeSources(
            lambda name: node.objects.config_map(namespace, name),
            lambda name: node.objects.secret(namespace, name),
            lambda request: tokens[request],
            node.facts,
            pod_ips,
        )
        set_up(self._persistent.resolve(pod), node.directories, sources)

        def warn(reason: str, message: str) -> None:
            node.recorder.event(pod, "Warning", reason, message)

        for volume in self._persistent.local(pod):
            local.set_up(pod, volume, node.directories, warn)

    def environment_sources(self, pod: Pod, pod_ips: tuple[str, ...]) -> Sources:
        node = self._node
        namespace = pods.namespace(pod)

        def secret(name: str) -> Mapping[str, bytes] | None:
            obj = node.objects.secret(namespace, name)
            return None if obj is None else secret_bytes(obj)

        return Sources(
            node.facts,
            pod_ips,
            lambda name: node.objects.config_map(namespace, name),
            secret,
            node.services(),
        )

    def write_managed(self, pod: Pod, pod_ips: tuple[str, ...]) -> dict[str, Path]:
        """Writes the three files in /etc; returns target in the container -> file on the node.

        Exceeded DNS limits become events.
        """
        node = self._node
        settings = self._node.settings
        domain = settings.cluster_domain
        resolution = pod_resolver(
            pod,
            node.resolver,
            settings.cluster_dns,
            domain,
            settings.node_ips,
        )
        for warning in resolution.warnings:
            node.recorder.event(pod, "Warning", "DNSConfigForming", warning)
        node_hosts = _text(settings.hosts_file) if pods.host_network(pod) else ""
        texts = {
            "etc-hosts": hostsfile.render(pod, pod_ips, settings.node_name, domain, node_hosts),
            "resolv.conf": resolution.config.render(),
            "hostname": hostsfile.hostname(pod, settings.node_name) + "\n",
        }
        node.directories.pod(self._uid).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = node.directories.file(self._uid, name)
            # Written in place: a bind mount shows a file, not a path, so running containers would
            # not see a new file of the same name.
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        targets = {
            "/etc/hosts": "etc-hosts",
            "/etc/resolv.conf": "resolv.conf",
            "/etc/hostname": "hostname",
        }
        return {target: node.directories.file(self._uid, name) for target, name in targets.items()}

    def mounts(
        self,
        pod: Pod,
        container: Container,
        pod_ips: tuple[str, ...],
        env: Mapping[str, str],
        attempt: int,
    ) -> tuple[Mount, ...]:
        """All mounts of a container, parents before the mounts below them.

        Raises LaunchError or MountProblem.
        """
        message = self._node.directories.termination_message(self._uid, container["name"], attempt)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch()
        message.chmod(0o666)
        volumes = self._persistent.resolve(pod)["spec"].get("volumes") or []
        by_name = {volume["name"]: volume for volume in volumes}
        written = {name for name, volume in by_name.items() if volume.keys() & set(WRITTEN)}
        written |= read_only_claims(pod)
        sub_mounts: list[Mount] = []
        plain: dict[str, Path] = {}
        for wanted in container.get("volumeMounts") or []:
            volume = by_name.get(wanted["name"])
            path = self._node.directories.volume(self._uid, volume) if volume else None
            if path is None:
                raise LaunchError(f'volume "{wanted["name"]}" is not known')
            relative = wanted.get("subPath") or expand(wanted.get("subPathExpr") or "", env)
            if relative:
                source = str(sub_path(path, relative))
                read_only = bool(wanted.get("readOnly")) or wanted["name"] in written
                sub_mounts.append(Mount(wanted["mountPath"], source, read_only=read_only))
            else:
                plain[wanted["name"]] = path
        whole: Container = {
            **container,
            "volumeMounts": [
                entry
                for entry in container.get("volumeMounts") or []
                if not entry.get("subPath") and not entry.get("subPathExpr")
            ],
        }
        managed = self.write_managed(pod, pod_ips)
        taken = {mount.target for mount in sub_mounts}
        candidates = mounts(whole, managed, plain, message, written)
        rest = [mount for mount in candidates if mount.target not in taken]
        every = [*rest, *sub_mounts]
        return tuple(sorted(every, key=lambda mount: mount.target.rstrip("/").count("/")))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
