"""Stores the results of ADD for CHECK, DEL and GC.

Path and format are libcni's (CACHE/results/NETWORK-CONTAINERID-IFNAME, kind cniCacheV1), so that
cnitool and a real container runtime can read the files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kubewire.components.kubelet.cni.config import NetworkConfigList
from kubewire.components.kubelet.cni.invoke import Attachment
from kubewire.components.kubelet.cni.types import CNIError, Result

DEFAULT_CACHE_DIR = "/var/lib/cni"
KIND = "cniCacheV1"


@dataclass(frozen=True)
class CachedAttachment:
    """The content of a cache file. result: None if the file has none."""

    network: str
    attachment: Attachment
    result: Result | None
    config: bytes


def _path(cache_dir: str | Path, network: str, attachment: Attachment) -> Path:
    name = f"{network}-{attachment.container_id}-{attachment.ifname}"
    return Path(cache_dir, "results", name)


def store(
    cache_dir: str | Path,
    network: NetworkConfigList,
    attachment: Attachment,
    result: Result,
) -> None:
    """Writes a cache file. Raises OSError."""
    body = {
        "kind": KIND,
        "containerId": attachment.container_id,
        "config": base64.b64encode(network.raw).decode(),
        "ifName": attachment.ifname,
        "networkName": network.name,
        "netns": attachment.netns,
        "cniArgs": [list(pair) for pair in attachment.args.items()],
        "capabilityArgs": dict(attachment.capability_args),
        "result": result.dump(),
    }
    path = _path(cache_dir, network.name, attachment)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(body))


def load(
    cache_dir: str | Path,
    network: str,
    attachment: Attachment,
) -> CachedAttachment | None:
    """Reads the cache file of an attachment, if any. Raises CNIError if it is malformed."""
    return _read(_path(cache_dir, network, attachment))


def remove(cache_dir: str | Path, network: str, attachment: Attachment) -> None:
    _path(cache_dir, network, attachment).unlink(missing_ok=True)


def attachments(cache_dir: str | Path) -> Iterator[CachedAttachment]:
    """Yields all cached attachments in the order of the file names; skips malformed files."""
    folder = Path(cache_dir, "results")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            cached = _read(path)
        except CNIError:
            continue
        if cached is not None:
            yield cached


def _read(path: Path) -> CachedAttachment | None:
    try:
        body = json.loads(path.read_bytes())
        texts = [body[key] for key in ("networkName", "containerId", "ifName")]
        texts.append(body.get("netns", ""))
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("networkName, containerId, ifName and netns must be strings")
        if body["kind"] != KIND:
            raise ValueError(f"wrong kind: {body['kind']}")
        result = body.get("result")
        return CachedAttachment(
            network=body["networkName"],
            attachment=Attachment(
                container_id=body["containerId"],
                netns=body.get("netns", ""),
                ifname=body["ifName"],
                args={str(key): str(value) for key, value in body.get("cniArgs") or ()},
                capability_args=dict(body.get("capabilityArgs") or {}),
            ),
            result=Result.parse(result, "") if result else None,
            config=base64.b64decode(body["config"]),
        )
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CNIError(f"failed to unmarshal cached network config {path.name}: {error}") from error
