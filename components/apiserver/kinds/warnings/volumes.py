"""Warnings about the volumes of a pod (pkg/api/pod/warnings.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds.warnings.amounts import claim_warnings

#: Volume plugins that exist no more, by field.
REMOVED = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
#: The field is storageos, but upstream's text calls it storageOS.
SHOWN = {"storageos": "storageOS"}

#: The sources that list files.
_LISTING = ("configMap", "secret", "downwardAPI", "projected")
_WITH_ITEMS = frozenset({"configMap", "secret", "downwardAPI"})
#: Sources of a projected volume that are one file.
_WITH_PATH = frozenset({"serviceAccountToken", "clusterTrustBundle"})

Volume = Mapping[str, Any]


def volume_warnings(volumes: Sequence[Volume], path: str) -> list[str]:
    warnings = []
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        if not volume.keys().isdisjoint(REMOVED):
            warnings += [
                f"{at}.{SHOWN.get(plugin, plugin)}: {text}"
                for plugin, text in REMOVED.items()
                if volume.get(plugin) is not None
            ]
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if template:
            spec = template.get("spec") or {}
            warnings += claim_warnings(spec, f"{at}.ephemeral.volumeClaimTemplate.spec")
    for volume in volumes:
        if not volume.keys().isdisjoint(_LISTING) and _may_overlap(volume):
            warnings += _overlap_warnings(volume)
    return warnings


def _may_overlap(volume: Volume) -> bool:
    """Whether there can be a warning about the volume's files; nearly always there is none.

    Of sorted paths, those that begin with the same one stand together behind it.
    """
    projected = (volume.get("projected") or {}).get("sources") or ()
    paths: list[str] = []
    for source in (volume, *projected):
        if not source:
            return True
        _add_paths(source, paths)
    if len(paths) < 2:
        return False
    paths.sort()
    # A slash at the end counts for nothing.
    if any(path.endswith("/") for path in paths):
        paths = sorted(path.rstrip("/") for path in paths)
    before = paths[0]
    for path in paths[1:]:
        if before and path.startswith(before):
            return True
        before = path
    return False


def _add_paths(source: Volume, paths: list[str]) -> None:
    """Adds the paths of a volume or of a source of a projected one."""
    for field, value in source.items():
        if field in _WITH_ITEMS and value:
            paths += _paths(value)
        elif field in _WITH_PATH and value:
            paths.append(value.get("path", ""))


def _overlap_warnings(volume: Volume) -> list[str]:
    """About files of one volume of which one hides another."""
    name = f'volume "{volume.get("name", "")}"'
    warnings = []
    for field, kind, key in (
        ("configMap", "ConfigMap", "name"),
        ("secret", "Secret", "secretName"),
    ):
        source = volume.get(field) or {}
        subject = f'{name} ({kind} "{source.get(key, "")}"): overlapping paths'
        warnings += _overlaps(_paths(source), subject)
    downward = volume.get("downwardAPI") or {}
    warnings += _overlaps(_paths(downward), f"{name} (DownwardAPI): overlapping paths")
    return warnings + _projected_warnings(name, volume.get("projected") or {})


def _projected_warnings(name: str, projected: Volume) -> list[str]:
    warnings = []
    everything: set[str] = set()
    for source in projected.get("sources") or ():
        if not source:
            warnings.append(f"{name} (Projected) has no sources provided")
            continue
        subject, paths = _projection(source)
        if not paths:
            continue
        text = f"{name} (Projected {subject}): overlapping paths"
        warnings += _overlaps(paths, text)
        if everything:
            warnings += _overlaps(sorted({*paths, *everything}), text)
        everything.update(paths)
    return list(dict.fromkeys(warnings))


def _projection(source: Volume) -> tuple[str, list[str]]:
    for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if source.get(field) is not None:
            return f'{kind} "{source[field].get("name", "")}"', _paths(source[field])
    if source.get("downwardAPI") is not None:
        return "DownwardAPI", _paths(source["downwardAPI"])
    if source.get("serviceAccountToken") is not None:
        return "ServiceAccountToken", [source["serviceAccountToken"].get("path", "")]
    if source.get("clusterTrustBundle") is not None:
        bundle = source["clusterTrustBundle"]
        name = bundle.get("name") or bundle.get("signerName") or ""
        return f'ClusterTrustBundle "{name}"', [bundle.get("path", "")]
    return "", []


def _paths(source: Volume) -> list[str]:
    return [item.get("path", "") for item in source.get("items") or ()]


def _overlaps(paths: Iterable[str], subject: str) -> list[str]:
    warnings = []
    seen: dict[str, None] = {}
    for path in paths:
        path = path.rstrip("/")
        other = next((item for item in seen if _overlap(item, path)), None)
        if other is not None:
            warnings.append(f'{subject}: "{path}" with "{other}"')
        seen[path] = None
    return warnings


def _overlap(one: str, other: str) -> bool:
    """Whether they are the same, or one begins with the other.

    Upstream compares texts, not parts of paths, so that `a` overlaps `ab`.
    """
    if not one or not other:
        return False
    return f"{one}/".startswith(other) or f"{other}/".startswith(one)
