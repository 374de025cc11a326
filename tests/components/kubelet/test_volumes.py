"""Files of volumes: contents, atomic changes, host path checks, subPath."""

from __future__ import annotations

import base64
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubelet.downward import NodeFacts
from kubewire.components.kubelet.volumes import atomic_writer, ownership
from kubewire.components.kubelet.volumes.directories import Directories
from kubewire.components.kubelet.volumes.payload import (
    FileContent,
    MountProblem,
    TokenRequest,
    VolumeSources,
    references,
    volume_payload,
)
from kubewire.components.kubelet.volumes.setup import check_host_path, set_up, sub_path

POD: Any = {
    "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"a": "b"}},
    "spec": {"containers": [{"name": "app"}]},
}
CONFIG: Any = {"data": {"a": "1", "b": "2"}, "binaryData": {"z": base64.b64encode(b"\0z").decode()}}
SECRET: Any = {"data": {"p": base64.b64encode(b"secret").decode()}}
SOURCES = VolumeSources(
    {"config": CONFIG}.get,
    {"keys": SECRET}.get,
    lambda request: f"token for {request.audience or 'the API'}",
    NodeFacts("worker-1", ("172.18.0.3",), {"cpu": "2"}),
    ("10.244.1.2",),
)


def contents(volume: Any) -> dict[str, tuple[bytes, int]]:
    return {path: (file.data, file.mode) for path, file in volume_payload(POD, volume, SOURCES).items()}


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ({"configMap": {"name": "config"}}, {"a": (b"1", 0o644), "b": (b"2", 0o644), "z": (b"\0z", 0o644)}),
        (
            {"configMap": {"name": "config", "items": [{"key": "a", "path": "x/y", "mode": 0o600}]}},
            {"x/y": (b"1", 0o600)},
        ),
        ({"secret": {"secretName": "keys", "defaultMode": 0o400}}, {"p": (b"secret", 0o400)}),
        ({"secret": {"secretName": "none", "optional": True}}, {}),
        (
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"l": (b'a="b"', 0o644)},
        ),
        (
            {
                "projected": {
                    "defaultMode": 0o440,
                    "sources": [
                        {"serviceAccountToken": {"path": "token", "audience": "vault"}},
                        {"configMap": {"name": "config", "items": [{"key": "a", "path": "a"}]}},
                    ],
                }
            },
            {"token": (b"token for vault", 0o440), "a": (b"1", 0o440)},
        ),
    ],
    ids=["a whole ConfigMap", "items", "a Secret", "an optional one", "downward API", "projected"],
)
def test_payloads(volume: dict[str, Any], expected: dict[str, Any]) -> None:
    assert contents({"name": "v", **volume}) == expected


@pytest.mark.parametrize(
    ("volume", "text"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        (
            {"configMap": {"name": "config", "items": [{"key": "q", "path": "q"}]}},
            "configmap references non-existent config key: q",
        ),
        (
            {"secret": {"secretName": "keys", "items": [{"key": "q", "path": "q"}]}},
            "references non-existent secret key: q",
        ),
    ],
)
def test_what_is_missing_is_named(volume: dict[str, Any], text: str) -> None:
    with pytest.raises(MountProblem, match=text):
        contents({"name": "v", **volume})


def test_a_token_lives_an_hour_unless_told_otherwise() -> None:
    seen: list[TokenRequest] = []
    volume: Any = {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}

    def token(request: Any) -> str:
        seen.append(request)
        return "x"

    sources = VolumeSources(SOURCES.config_map, SOURCES.secret, token, SOURCES.node, ())
    volume_payload(POD, volume, sources)
    assert seen == [TokenRequest("t", "", 3600, 0o644)]


def test_all_references_of_a_pod_are_found() -> None:
    pod: Any = {
        "spec": {
            "volumes": [{"name": "v", "secret": {"secretName": "s1"}}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "c1"}}]}],
            "containers": [
                {"name": "a", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}]}
            ],
        }
    }
    assert references(pod) == (frozenset({"c1"}), frozenset({"s1", "s2"}))


def write(target: Path, **files: str) -> bool:
    return atomic_writer.write(target, {path.replace("__", "/"): FileContent(t.encode()) for path, t in files.items()})


def test_files_change_all_at_once_by_one_rename(tmp_path: Path) -> None:
    assert write(tmp_path / "v", a="1", b="2", deep__c="3")
    first = str((tmp_path / "v/..data").readlink())
    assert (tmp_path / "v/deep/c").read_text() == "3"
    assert str((tmp_path / "v/a").readlink()) == "..data/a"
    assert write(tmp_path / "v", a="new", deep__c="3")
    assert str((tmp_path / "v/..data").readlink()) != first
    assert (tmp_path / "v/a").read_text() == "new"
    assert not (tmp_path / "v/b").is_symlink(), "what is gone has no name any more"
    assert not (tmp_path / "v" / first).exists()


def test_the_same_files_again_touch_nothing(tmp_path: Path) -> None:
    write(tmp_path / "v", a="1")
    before = str((tmp_path / "v/..data").readlink())
    assert not write(tmp_path / "v", a="1")
    assert str((tmp_path / "v/..data").readlink()) == before


@pytest.mark.parametrize("path", ["../up", "/abs", "..data", "a/../../b"])
def test_no_file_leaves_its_volume(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="invalid path"):
        atomic_writer.write(tmp_path / "v", {path: FileContent(b"")})


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("Directory", "is not a directory"),
        ("File", "is not a file"),
        ("Socket", "is not a socket file"),
        ("CharDevice", "is not a character device"),
        ("BlockDevice", "is not a block device"),
    ],
)
def test_a_host_path_of_the_wrong_kind(tmp_path: Path, kind: str, complaint: str) -> None:
    for path in (tmp_path / "absent", tmp_path if kind != "Directory" else Path("/dev/null")):
        with pytest.raises(MountProblem, match=f"hostPath type check failed: {path} {complaint}"):
            check_host_path(path, kind)


def test_a_host_path_of_the_right_kind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        check_host_path(tmp_path / "s", "Socket")
    check_host_path(tmp_path / "new/dir", "DirectoryOrCreate")
    check_host_path(tmp_path / "new/file", "FileOrCreate")
    assert (tmp_path / "new/dir").is_dir() and (tmp_path / "new/file").is_file()
    check_host_path(tmp_path / "anything", "")


def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    assert sub_path(tmp_path, "a/b").is_dir()
    (tmp_path / "link").symlink_to("/etc")
    for relative in ("../x", "/etc", "link"):
        with pytest.raises(MountProblem):
            sub_path(tmp_path, relative)


@pytest.mark.parametrize(
    ("mode", "writable", "wanted"),
    [
        (0o100644, True, 0o664),
        (0o100644, False, 0o644),
        (0o100600, False, 0o640),
        (0o100400, True, 0o660),
        (0o040755, True, 0o2775),
        (0o040700, False, 0o2750),
        (0o040777, True, 0o2777),
    ],
    ids=lambda value: oct(value) if isinstance(value, int) and value > 1 else str(value),
)
def test_the_modes_of_an_fs_groups_files(mode: int, writable: bool, wanted: int) -> None:
    assert ownership.wanted_mode(mode, writable=writable) == wanted


def modes(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): oct(path.stat().st_mode & 0o7777) for path in sorted(root.rglob("*"))}


def test_an_empty_dir_belongs_to_the_fs_group_from_the_start_and_its_content_to_the_pod(tmp_path: Path) -> None:
    pod: Any = {
        **POD,
        "spec": {"containers": [], "securityContext": {"fsGroup": os.getgid()}, "volumes": [{"name": "v", "emptyDir": {}}]},
    }  # fmt: skip
    directories = Directories(tmp_path)
    set_up(pod, directories, SOURCES)
    path = directories.volume("u", pod["spec"]["volumes"][0])
    assert path is not None and path.stat().st_mode & 0o7777 == 0o2777
    (path / "secret").write_text("mine")
    (path / "secret").chmod(0o600)
    path.chmod(0o700)
    set_up(pod, directories, SOURCES)
    assert (modes(path), path.stat().st_mode & 0o7777) == ({"secret": "0o600"}, 0o700)


def test_files_that_the_kubelet_writes_can_be_read_by_the_fs_group_and_are_written_once(tmp_path: Path) -> None:
    payload = {"p": FileContent(b"secret", 0o400), "x/y": FileContent(b"1", 0o644)}
    assert atomic_writer.write(tmp_path, payload, os.getgid())
    data = tmp_path / atomic_writer.DATA
    assert modes(data.resolve()) == {"p": "0o440", "x": "0o2755", "x/y": "0o644"}
    assert not atomic_writer.write(tmp_path, payload, os.getgid())
    assert atomic_writer.write(tmp_path, payload | {"p": FileContent(b"other", 0o400)}, os.getgid())
    assert (tmp_path / "p").read_bytes() == b"other"


@pytest.mark.parametrize(
    ("policy", "root_mode", "changed"),
    [("Always", 0o2770, True), ("OnRootMismatch", 0o2770, False), ("OnRootMismatch", 0o755, True)],
)
def test_a_large_volume_is_left_alone_if_its_root_is_right(
    tmp_path: Path, policy: str, root_mode: int, changed: bool
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "link").symlink_to("/no/such")
    tmp_path.chmod(root_mode)
    ownership.give(tmp_path, os.getgid(), writable=True, policy=policy)
    assert (tmp_path / "file").stat().st_mode & 0o777 == (0o660 if changed else 0o600)


TOKEN: Any = {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


def with_users(pod: Any, *containers: Any, init: Any = ()) -> Any:
    def made(users: Any) -> list[Any]:
        return [{"name": "c", "securityContext": {} if user is None else {"runAsUser": user}} for user in users]

    return {
        **POD,
        "spec": {
            "securityContext": pod,
            "containers": made(containers),
            "initContainers": made(init),
            "volumes": [TOKEN],
        },
    }


@pytest.mark.parametrize(
    ("pod", "owner", "mode"),
    [
        (POD, 0, 0o644),
        (with_users({}, None), 0, 0o644),
        (with_users({"runAsUser": 7}, None, None), 7, 0o600),
        (with_users({}, 7, 7), 7, 0o600),
        (with_users({"runAsUser": 0}, None), 0, 0o600),
        (with_users({"runAsUser": 7}, 8), 8, 0o600),
        (with_users({}, 7, None), 0, 0o644),
        (with_users({"runAsUser": 7}, None, 8), 0, 0o644),
        (with_users({"runAsUser": 7}, None, init=(8,)), 0, 0o644),
        (with_users({"fsGroup": 5}, None), 0, 0o640),
        (with_users({"fsGroup": 5, "runAsUser": 7}, None), 7, 0o640),
    ],
    ids=[
        "no security context", "no user", "the pod's user", "the same user in all containers", "root by name",
        "the container's user, not the pod's", "one container without a user", "two users",
        "another user in an init container", "a group", "a user and a group",
    ],
)  # fmt: skip
def test_whose_a_token_is(tmp_path: Path, pod: Any, owner: int, mode: int) -> None:
    pod = {**pod, "spec": {**pod["spec"], "volumes": [TOKEN]}}
    directories = Directories(tmp_path)
    set_up(pod, directories, SOURCES)
    found = (tmp_path / "pods/u/volumes/kubernetes.io~projected/v/token").stat()
    group = pod["spec"].get("securityContext", {}).get("fsGroup", 0)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (owner, group, mode)
    before = found.st_ino
    set_up(pod, directories, SOURCES)
    path = tmp_path / "pods/u/volumes/kubernetes.io~projected/v/token"
    assert path.stat().st_ino == before, "what has not changed is not written again"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"image": {"reference": "busybox", "pullPolicy": "Always"}}, "an image here is a program of this machine"),
        ({"image": {"reference": "no/such"}}, "an image here is a program of this machine"),
        ({"nfs": {"server": "s", "path": "/"}}, "nfs volumes are not supported"),
    ],
    ids=["an image of the catalogue", "an unknown image", "a plugin that is missing"],
)
def test_a_volume_of_a_kind_that_is_not_there_is_refused_with_the_reason(tmp_path: Path, source: Any, why: str) -> None:
    pod: Any = {**POD, "spec": {"containers": [], "volumes": [{"name": "v", **source}]}}
    with pytest.raises(MountProblem, match=f'"v" : no volume plugin matched: .*{why}'):
        set_up(pod, Directories(tmp_path), SOURCES)
