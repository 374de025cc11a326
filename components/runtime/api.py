"""The contract of the fork server, which corresponds to CRI between the kubelet and containerd.

Other parts of kubewire import only this module.

client = RuntimeClient(state_dir / "runtime.sock")                     # blocking: the lab, the CLI
client = await AsyncRuntimeClient.connect(state_dir / "runtime.sock")  # asyncio: the kubelet

# a component on a node: it joins the net and mnt namespaces of the Mininet host, and stays in the
# lab's pid namespace
ProcessSpec(
    main="kubewire.components.apiserver.main:main",
    args=("--secure-port", "6443", "--listen-fd", "3"),
    name="apiserver@control-plane",
    preload="components",
    join={"net": host_pid, "mnt": host_pid},
    labels={"component": "apiserver", "node": "control-plane"},
)
client.spawn(spec, stdout=log_fd, stderr=log_fd, fds={3: door.fileno()})

# the pause process of a pod, then a container of the pod
ProcessSpec(
    main="kubewire.components.runtime.pause:main",
    name="pause",
    join={"net": "/run/netns/cni-1", "mnt": node},
    unshare=("pid", "mnt", "uts", "ipc"),
    rootfs=Rootfs(hostname="pod-a"),
    env={},
    labels={...},
)
ProcessSpec(
    argv=("sh", "-c", "env"),
    env={...},
    log_path="/var/log/pods/NS_POD_UID/app/0.log",
    join={"net": pause.pid, "uts": pause.pid, "ipc": pause.pid, "mnt": node},
    unshare=("pid", "mnt"),
    rootfs=Rootfs(mounts=(Mount("/etc/hosts", "/var/lib/kubelet/pods/UID/etc-hosts"),)),
    labels={...},
)
# kubectl exec
ProcessSpec(argv=("cat", "/etc/hosts"), container=app.id)
"""

from .aio import AsyncRuntimeClient
from .client import RuntimeClient
from .spec import (
    Completed,
    Disconnected,
    ExitStatus,
    InvalidRequest,
    InvalidSpec,
    Mount,
    Process,
    ProcessSpec,
    Rootfs,
    RuntimeApiError,
    StartError,
    Tty,
    UnknownProcess,
)

__all__ = [
    "AsyncRuntimeClient",
    "Completed",
    "Disconnected",
    "ExitStatus",
    "InvalidRequest",
    "InvalidSpec",
    "Mount",
    "Process",
    "ProcessSpec",
    "Rootfs",
    "RuntimeApiError",
    "RuntimeClient",
    "StartError",
    "Tty",
    "UnknownProcess",
]
