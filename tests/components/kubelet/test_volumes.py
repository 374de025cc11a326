"""Files of volumes: contents, atomic changes, host path checks, subPath."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubelet.downward import NodeFacts
from kubewire.components.kubelet.volumes import atomic_writer
from kubewire.components.kubelet.volumes.payload import (
    FileContent,
    MountProblem,
    TokenRequest,
    VolumeSources,
    references,
    volume_payload,
)
from kubewire.components.kubelet.volumes.setup import check_host_path, sub_path

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
