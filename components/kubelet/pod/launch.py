"""Translates between the Pod API and the runtime: Pod -> ProcessSpec, runtime labels -> records.

A pod's namespaces belong to its pause process. Containers join its net, uts and ipc namespaces and
get a pid and a mnt namespace of their own (unless the pod shares them), so a container can end and
start again while address and host name stay.

All that a later kubelet must know to take a process over is in the process's labels, because the
kubelet itself stores nothing: it may be killed at any time (see pod/orphans.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.images.catalogue import Program
from kubewire.components.kubelet.records import ContainerRecord, SandboxRecord
from kubewire.components.runtime.api import Mount, Process, ProcessSpec, Rootfs, Tty

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Container,
        Pod,
        PodSecurityContext,
        SecurityContext,
    )

PAUSE = "kubewire.components.runtime.pause:main"
NODE_LABEL = "io.kubewire.kubelet.node"
_UID = "io.kubernetes.pod.uid"
_NAME = "io.kubernetes.pod.name"
_NAMESPACE = "io.kubernetes.pod.namespace"
_CONTAINER = "io.kubernetes.container.name"
_KIND = "io.kubewire.kind"
_STATE = "io.kubewire.state"

#: The capabilities of a container by default (containerd's set).
DEFAULT_CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip


class LaunchError(ValueError):
    """The container's definition is impossible; the text is for CreateContainerConfigError."""


@dataclass(frozen=True)
class Launch:
    """What a container's process needs besides the pod.

    node_pid: a process in the node's namespaces, which is the kubelet.
    """

    node_name: str
    node_pid: int
    sandbox: SandboxRecord
    program: Program
    image_id: str
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    log_path: str
    attempt: int
    spec_hash: str
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5
    #: The process whose pid namespace an ephemeral container joins (targetContainerName), or 0.
    target_pid: int = 0


def labels(
    pod: Pod,
    node_name: str,
    kind: str,
    state: Mapping[str, Any],
    container: str = "",
) -> dict[str, str]:
    """The labels by which a later kubelet takes the process over."""
    result = {
        NODE_LABEL: node_name,
        _KIND: kind,
        _UID: pods.uid(pod),
        _NAME: pods.name(pod),
        _NAMESPACE: pods.namespace(pod),
        _STATE: json.dumps(state, sort_keys=True),
    }
    return result | ({_CONTAINER: container} if container else {})


def pod_uid(process: Process) -> str:
    return process.labels.get(_UID, "")


def container_name(process: Process) -> str:
    """The container's name; "" for pause."""
    return process.labels.get(_CONTAINER, "")


def is_sandbox(process: Process) -> bool:
    return process.labels.get(_KIND) == "sandbox"


def pause_spec(
    pod: Pod,
    node_name: str,
    node_pid: int,
    sandbox_id: str,
    attempt: int,
    netns: str,
    ips: Sequence[str],
    hostname: str,
) -> ProcessSpec:
    """The process that holds the pod's namespaces. netns: "" for the node's network."""
    spec = pod["spec"]
    unshare = ["mnt", "uts"]
    unshare += [] if spec.get("hostPID") else ["pid"]
    unshare += [] if spec.get("hostIPC") else ["ipc"]
    state = {"sandbox": sandbox_id, "attempt": attempt, "netns": netns, "ips": list(ips)}
    context = spec.get("securityContext") or {}
    return ProcessSpec(
        main=PAUSE,
        name=f"pause {pods.full_name(pod)}",
        env={},
        join={"net": netns or node_pid, "mnt": node_pid},
        unshare=tuple(unshare),
        rootfs=Rootfs(hostname=hostname, read_only=True),
        sysctls={item["name"]: item["value"] for item in context.get("sysctls") or []},
        labels=labels(pod, node_name, "sandbox", state),
        oom_score_adj=-998,
    )


def container_spec(pod: Pod, container: Container, launch: Launch) -> ProcessSpec:
    """A container's process. Raises LaunchError if runAsNonRoot contradicts the user."""
    shared = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    privileged = bool(own.get("privileged"))
    user = own.get("runAsUser", shared.get("runAsUser", launch.program.user))
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) and user in (None, 0, "0", "root", ""):
        where = f'(pod: "{pods.full_name(pod)}({pods.uid(pod)})", container: {container["name"]})'
        raise LaunchError(f"container has runAsNonRoot and image will run as root {where}")
    state = {
        "sandbox": launch.sandbox.id,
        "attempt": launch.attempt,
        "hash": launch.spec_hash,
        "image": container.get("image", ""),
        "imageID": launch.image_id,
    }
    program = launch.program
    return ProcessSpec(
        name=f"{container['name']} {pods.full_name(pod)}",
        env=launch.env,
        cwd=container.get("workingDir") or program.working_dir,
        user=user,
        group=own.get("runAsGroup", shared.get("runAsGroup")),
        groups=_groups(shared),
        capabilities=None if privileged else _capabilities(own),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        join=_joined(pod, launch),
        unshare=("mnt",) if launch.target_pid else _own(pod),
        rootfs=Rootfs(
            mounts=launch.mounts,
            read_only=bool(own.get("readOnlyRootFilesystem")),
            privileged=privileged,
        ),
        stdin_open=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        log_path=launch.log_path,
        log_max_bytes=launch.log_max_bytes,
        log_max_files=launch.log_max_files,
        labels=labels(pod, launch.node_name, "container", state, container["name"]),
        tty=Tty() if container.get("tty") else None,
        main=program.main,
        argv=program.argv,
        args=program.args,
        preload=program.preload,
    )


def _joined(pod: Pod, launch: Launch) -> dict[str, int | str]:
    pause = launch.sandbox.pid
    join: dict[str, int | str] = {"net": pause, "uts": pause, "mnt": launch.node_pid}
    if not pod["spec"].get("hostIPC"):
        join["ipc"] = pause
    if pod["spec"].get("shareProcessNamespace"):
        join["pid"] = pause
    elif launch.target_pid:
        join["pid"] = launch.target_pid
    return join


def _own(pod: Pod) -> tuple[str, ...]:
    shared = pod["spec"].get("shareProcessNamespace") or pod["spec"].get("hostPID")
    return ("mnt",) if shared else ("pid", "mnt")


def _groups(context: PodSecurityContext) -> tuple[int, ...]:
    groups = list(context.get("supplementalGroups") or [])
    if context.get("fsGroup") is not None:
        groups.append(context["fsGroup"])
    return tuple(dict.fromkeys(int(group) for group in groups))


def _capabilities(context: SecurityContext) -> tuple[str, ...] | None:
    asked = context.get("capabilities") or {}
    add = {str(name).upper().removeprefix("CAP_") for name in asked.get("add") or []}
    drop = {str(name).upper().removeprefix("CAP_") for name in asked.get("drop") or []}
    if "ALL" in add:
        return None
    kept = set() if "ALL" in drop else set(DEFAULT_CAPABILITIES) - drop
    return tuple(sorted(kept | add))


def sandbox_record(process: Process) -> SandboxRecord:
    """The record of a pause process that this or an earlier kubelet started."""
    state = json.loads(process.labels[_STATE])
    return SandboxRecord(
        state["sandbox"],
        state["attempt"],
        state["netns"],
        tuple(state["ips"]),
        process.started_at,
        process.pid,
        ready=process.running,
    )


def container_record(process: Process, message: str = "") -> ContainerRecord:
    """The record of a container that this or an earlier kubelet started, running or not."""
    state = json.loads(process.labels[_STATE])
    ended = process.exit
    return ContainerRecord(
        name=process.labels[_CONTAINER],
        id=process.id,
        image=state["image"],
        image_id=state["imageID"],
        attempt=state["attempt"],
        sandbox_id=state["sandbox"],
        spec_hash=state["hash"],
        created_at=process.started_at,
        started_at=process.started_at,
        pid=process.pid,
        finished_at=ended.finished_at if ended else 0.0,
        exit_code=ended.shell_code if ended else None,
        signal=ended.signal if ended else 0,
        message=message,
    )


def tool_mounts(program: Program) -> tuple[Mount, ...]:
    """The mounts of the image's files that the fork server provides."""
    tools = sorted(program.tools.items())
    return tuple(Mount(target, name, type="tools") for name, target in tools)


#: containerd's variables for a process with a terminal. They override the container's environment
#: for an exec, and are overridden by it for the container.
TERMINAL: Mapping[str, str] = {"TERM": "xterm"}


def exec_spec(
    program: Program,
    container_id: str,
    tty: Tty | None = None,
    *,
    stdin_open: bool = False,
) -> ProcessSpec:
    """Another process in a running container, for an exec probe, a hook or kubectl exec."""
    return ProcessSpec(
        main=program.main,
        argv=program.argv,
        args=program.args,
        preload=program.preload,
        container=container_id,
        tty=tty,
        add_env=TERMINAL if tty else {},
        stdin_open=stdin_open,
    )


def mounts(
    container: Container,
    files: Mapping[str, Path],
    volume_path: Mapping[str, Path],
    termination_message: Path,
    written: Collection[str] = (),
) -> tuple[Mount, ...]:
    """The container's mounts: the managed files (target -> file on the node) and its volumeMounts.

    written: volumes whose content the kubelet updates, which are therefore read-only.
    Raises LaunchError for an unknown volume.
    """
    by_target = {target: Mount(target, str(source)) for target, source in files.items()}
    message_target = container.get("terminationMessagePath") or "/dev/termination-log"
    by_target[message_target] = Mount(message_target, str(termination_message))
    for wanted in container.get("volumeMounts") or []:
        target = wanted["mountPath"]
        target = target if target.startswith("/") else f"/{target}"
        if wanted["name"] not in volume_path:
            where = f'container "{container["name"]}"'
            raise LaunchError(f'cannot find volume "{wanted["name"]}" to mount into {where}')
        read_only = bool(wanted.get("readOnly")) or wanted["name"] in written
        source = str(volume_path[wanted["name"]])
        by_target[target] = Mount(target, source, read_only=read_only)
    # A mount would hide an earlier mount below it, so parents come first.
    ordered = sorted(by_target, key=lambda path: path.rstrip("/").count("/"))
    return tuple(by_target[target] for target in ordered)
