"""Computes the files of configMap, secret, downwardAPI and projected volumes. Pure.

The texts of the errors are upstream's; they become FailedMount events.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.downward import DownwardError, NodeFacts, field, resource_field
from kubewire.components.kubelet.volumes import ownership

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ConfigMap,
        ConfigMapProjection,
        ConfigMapVolumeSource,
        DownwardAPIProjection,
        DownwardAPIVolumeSource,
        KeyToPath,
        Pod,
        ProjectedVolumeSource,
        Secret,
        SecretProjection,
        SecretVolumeSource,
        ServiceAccountTokenProjection,
        Volume,
        VolumeProjection,
    )

DEFAULT_MODE = 0o644
#: A token's mode in a pod with a user or a group, before the group gets it.
_OWNED_TOKEN_MODE = 0o600


class MountProblem(Exception):
    """A volume cannot be set up now; the kubelet retries, and the pod waits."""


@dataclass(frozen=True)
class FileContent:
    """The content and the mode of a file. owner: the number of its user, if not the kubelet's."""

    data: bytes
    mode: int = DEFAULT_MODE
    owner: int | None = None


#: Relative path -> content.
Payload = dict[str, FileContent]


@dataclass(frozen=True)
class TokenRequest:
    """A projected service account token: its file, and what to request."""

    path: str
    audience: str
    expiration_seconds: int
    mode: int


@dataclass(frozen=True)
class VolumeSources:
    """The data for volumes. config_map and secret return None for a missing object."""

    config_map: Callable[[str], ConfigMap | None]
    secret: Callable[[str], Secret | None]
    token: Callable[[TokenRequest], str]
    node: NodeFacts
    pod_ips: tuple[str, ...]


def config_map_bytes(config_map: ConfigMap) -> dict[str, bytes]:
    """The data and binaryData of a ConfigMap by key."""
    texts = (config_map.get("data") or {}).items()
    binaries = (config_map.get("binaryData") or {}).items()
    values = {key: text.encode() for key, text in texts}
    return values | {key: base64.b64decode(raw) for key, raw in binaries}


def secret_bytes(secret: Secret) -> dict[str, bytes]:
    """The decoded data of a Secret by key."""
    return {key: base64.b64decode(raw) for key, raw in (secret.get("data") or {}).items()}


def volume_payload(pod: Pod, volume: Volume, sources: VolumeSources) -> Payload:
    """The files of a volume. Raises MountProblem if something that is not optional is missing."""
    if config_map := volume.get("configMap"):
        return _config_map(config_map, sources, config_map["name"], _mode(config_map))
    if secret := volume.get("secret"):
        return _secret(secret, sources, secret["secretName"], _mode(secret))
    if "downwardAPI" in volume:
        downward = volume["downwardAPI"] or {}
        return _downward(pod, downward, sources, _mode(downward))
    payload: Payload = {}
    projected = volume.get("projected") or {}
    for source in projected.get("sources") or []:
        payload |= _projection(pod, source, sources, _mode(projected))
    return payload


def _mode(
    source: ConfigMapVolumeSource
    | SecretVolumeSource
    | DownwardAPIVolumeSource
    | ProjectedVolumeSource,
) -> int:
    mode = source.get("defaultMode")
    return DEFAULT_MODE if mode is None else int(mode)


def _projection(
    pod: Pod,
    source: VolumeProjection,
    sources: VolumeSources,
    mode: int,
) -> Payload:
    if config_map := source.get("configMap"):
        return _config_map(config_map, sources, config_map["name"], mode)
    if secret := source.get("secret"):
        return _secret(secret, sources, secret["name"], mode)
    if "downwardAPI" in source:
        return _downward(pod, source["downwardAPI"] or {}, sources, mode)
    if token := source.get("serviceAccountToken"):
        request = _token_request(pod, token, mode)
        content = sources.token(request).encode()
        return {request.path: FileContent(content, request.mode, ownership.user_of(pod))}
    return {}


def _token_request(pod: Pod, source: ServiceAccountTokenProjection, mode: int) -> TokenRequest:
    if ownership.group_of(pod) is not None or ownership.user_of(pod) is not None:
        mode = _OWNED_TOKEN_MODE
    audience = source.get("audience") or ""
    return TokenRequest(source["path"], audience, source.get("expirationSeconds") or 3600, mode)


def _config_map(
    source: ConfigMapVolumeSource | ConfigMapProjection,
    sources: VolumeSources,
    name: str,
    mode: int,
) -> Payload:
    config_map = sources.config_map(name)
    if config_map is None and not source.get("optional"):
        raise MountProblem(f'configmap "{name}" not found')
    values = config_map_bytes(config_map) if config_map else {}
    items, optional = source.get("items") or (), bool(source.get("optional"))
    return _selected(
        items, optional, values, mode, "configmap references non-existent config key: {}"
    )


def _secret(
    source: SecretVolumeSource | SecretProjection, sources: VolumeSources, name: str, mode: int
) -> Payload:
    secret = sources.secret(name)
    if secret is None and not source.get("optional"):
        raise MountProblem(f'secret "{name}" not found')
    values = secret_bytes(secret) if secret else {}
    items, optional = source.get("items") or (), bool(source.get("optional"))
    return _selected(items, optional, values, mode, "references non-existent secret key: {}")


def _selected(
    items: Sequence[KeyToPath],
    optional: bool,
    values: Mapping[str, bytes],
    mode: int,
    missing: str,
) -> Payload:
    if not items:
        return {key: FileContent(data, mode) for key, data in values.items()}
    payload: Payload = {}
    for item in items:
        if item["key"] in values:
            own_mode = item.get("mode")
            file_mode = mode if own_mode is None else own_mode
            payload[item["path"]] = FileContent(values[item["key"]], file_mode)
        elif not optional:
            raise MountProblem(missing.format(item["key"]))
    return payload


def _downward(
    pod: Pod,
    source: DownwardAPIVolumeSource | DownwardAPIProjection,
    sources: VolumeSources,
    mode: int,
) -> Payload:
    payload: Payload = {}
    for item in source.get("items") or []:
        own_mode = item.get("mode")
        try:
            if reference := item.get("fieldRef"):
                text = field(pod, reference["fieldPath"], sources.node, sources.pod_ips)
            else:
                resource = item["resourceFieldRef"]
                container = pods.container(pod, resource.get("containerName") or "")
                text = resource_field(container, resource, sources.node)
        except DownwardError as error:
            raise MountProblem(str(error)) from error
        file_mode = mode if own_mode is None else own_mode
        payload[item["path"]] = FileContent(text.encode(), file_mode)
    return payload


def references(pod: Pod) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the ConfigMaps, and of the Secrets, in a pod's volumes and environment."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for volume in pod["spec"].get("volumes") or []:
        if config_map := volume.get("configMap"):
            config_maps.add(config_map["name"])
        if secret := volume.get("secret"):
            secrets.add(secret["secretName"])
        for source in (volume.get("projected") or {}).get("sources") or []:
            if projected_map := source.get("configMap"):
                config_maps.add(projected_map["name"])
            if projected_secret := source.get("secret"):
                secrets.add(projected_secret["name"])
    for container in pods.all_containers(pod):
        for entry in container.get("envFrom") or []:
            config_maps.update(ref["name"] for ref in [entry.get("configMapRef")] if ref)
            secrets.update(ref["name"] for ref in [entry.get("secretRef")] if ref)
        for variable in container.get("env") or []:
            value = variable.get("valueFrom") or {}
            config_maps.update(ref["name"] for ref in [value.get("configMapKeyRef")] if ref)
            secrets.update(ref["name"] for ref in [value.get("secretKeyRef")] if ref)
    return frozenset(config_maps), frozenset(secrets)


def token_requests(pod: Pod) -> list[TokenRequest]:
    """The service account tokens of the pod's projected volumes."""
    requests = []
    for volume in pod["spec"].get("volumes") or []:
        projected = volume.get("projected") or {}
        for source in projected.get("sources") or []:
            if own := source.get("serviceAccountToken"):
                requests.append(_token_request(pod, own, _mode(projected)))
    return requests
