"""The paths of a pod's files on its node, in upstream's layout of /var/lib/kubelet and /var/log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, Volume

#: Kind of volume -> the name of its plugin in the path.
PLUGINS = {
    "emptyDir": "kubernetes.io~empty-dir",
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "projected": "kubernetes.io~projected",
    "downwardAPI": "kubernetes.io~downward-api",
}
_LOCAL = "kubernetes.io~local-volume"


@dataclass(frozen=True)
class Directories:
    """root: --root-dir. logs: the folder of container logs. log_links: of the links to them."""

    root: Path = Path("/var/lib/kubelet")
    logs: Path = Path("/var/log/pods")
    log_links: Path = Path("/var/log/containers")

    def pod(self, uid: str) -> Path:
        return self.root / "pods" / uid

    def volume(self, uid: str, volume: Volume) -> Path | None:
        """The directory of a volume; for a hostPath, its path; None for an unsupported kind."""
        if host_path := volume.get("hostPath"):
            return Path(host_path["path"])
        for source, plugin in PLUGINS.items():
            if source in volume:
                return self.pod(uid) / "volumes" / plugin / str(volume["name"])
        return None

    def local_volume(self, uid: str, name: str) -> Path:
        """A pod's link to the PersistentVolume of this name."""
        return self.pod(uid) / "volumes" / _LOCAL / name

    def local_volumes(self, name: str) -> Iterator[Path]:
        """The links of all pods to the PersistentVolume of this name."""
        links = (self.local_volume(entry.name, name) for entry in self.pod("").iterdir())
        return (link for link in links if link.is_symlink())

    def pod_logs(self, pod: Pod) -> Path:
        return self.logs / f"{pods.namespace(pod)}_{pods.name(pod)}_{pods.uid(pod)}"

    def container_log(self, pod: Pod, container: str, attempt: int) -> Path:
        return self.pod_logs(pod) / container / f"{attempt}.log"

    def log_link(self, pod: Pod, container: str, container_id: str) -> Path:
        return self.log_links / f"{pods.full_name(pod)}_{container}-{container_id}.log"

    def termination_message(self, uid: str, container: str, attempt: int) -> Path:
        return self.pod(uid) / "containers" / container / f"{attempt}-termination"

    def file(self, uid: str, name: str) -> Path:
        """A file that is mounted into each container: etc-hosts, resolv.conf or hostname."""
        return self.pod(uid) / name
