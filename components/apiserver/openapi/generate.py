r"""Writes models.json, the field schemas of the served kinds.

The source is the models of the PyPI package `kubernetes` 36.0.0, whose OpenAPI document is that of
release-1.36. models.json has names, types and required fields, and no descriptions.

    pip download --no-deps --dest DIRECTORY kubernetes==36.0.0
    python -m kubewire.components.apiserver.openapi.generate \
        DIRECTORY/kubernetes-36.0.0-py2.py3-none-any.whl

The wheel is only read. It is not imported and not needed at run time. models.py describes the
format.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kubewire.components.apiserver.openapi import facts

TARGET = Path(__file__).with_name("models.json")

_API = "io.k8s.api."
_META = "io.k8s.apimachinery.pkg.apis.meta."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."

#: API group, version and top-level kinds of each package of definitions.
_ROOTS: dict[str, tuple[str, str, str]] = {
    _API + "core.v1": (
        "",
        "v1",
        "Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume "
        "PersistentVolumeClaim Pod "
        "PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount",
    ),
    _API + "apps.v1": (
        "apps",
        "v1",
        "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    ),
    _API + "batch.v1": ("batch", "v1", "CronJob Job"),
    _API + "autoscaling.v1": ("autoscaling", "v1", "Scale"),
    _API + "autoscaling.v2": ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    _API + "policy.v1": ("policy", "v1", "Eviction PodDisruptionBudget"),
    _API + "networking.v1": (
        "networking.k8s.io",
        "v1",
        "IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR",
    ),
    _API + "discovery.v1": ("discovery.k8s.io", "v1", "EndpointSlice"),
    _API + "events.v1": ("events.k8s.io", "v1", "Event"),
    _API + "coordination.v1": ("coordination.k8s.io", "v1", "Lease"),
    _API + "rbac.v1": (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole ClusterRoleBinding Role RoleBinding",
    ),
    _API + "scheduling.v1": ("scheduling.k8s.io", "v1", "PriorityClass"),
    _API + "storage.v1": (
        "storage.k8s.io",
        "v1",
        "CSIDriver CSINode StorageClass VolumeAttachment",
    ),
    _API + "admissionregistration.v1": (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration ValidatingWebhookConfiguration",
    ),
    _API + "authentication.v1": (
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview TokenRequest TokenReview",
    ),
    _API + "authorization.v1": (
        "authorization.k8s.io",
        "v1",
        "LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview",
    ),
    _EXTENSIONS + "v1": ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    _META + "v1": ("", "v1", "DeleteOptions Status"),
}
#: Types of the meta package. Any other type belongs to the first package that refers to it.
_META_TYPES = frozenset(
    "Condition DeleteOptions FieldSelectorRequirement LabelSelector LabelSelectorRequirement "
    "ListMeta ManagedFieldsEntry ObjectMeta OwnerReference Preconditions Status StatusCause "
    "StatusDetails".split()
)
#: Core types to which no core kind refers.
_CORE_TYPES = frozenset({"TopologySelectorTerm", "TopologySelectorLabelRequirement"})
#: Prefixes of class names whose short name exists in several packages.
_PREFIXES = {
    "CoreV1": _API + "core.v1",
    "EventsV1": _API + "events.v1",
    "DiscoveryV1": _API + "discovery.v1",
    "RbacV1": _API + "rbac.v1",
    "StorageV1": _API + "storage.v1",
    "AuthenticationV1": _API + "authentication.v1",
    "AdmissionregistrationV1": _API + "admissionregistration.v1",
    "ApiextensionsV1": _EXTENSIONS + "v1",
}


@dataclass(frozen=True)
class ClassModel:
    """A model class: the client's type of each JSON name, and the required JSON names."""

    name: str
    types: Mapping[str, str]
    required: tuple[str, ...]

    def references(self) -> Iterable[str]:
        for text in self.types.values():
            yield from re.findall(r"[A-Z]\w*V\d\w+|V\d\w+", text)


def read_classes(wheel: Path) -> dict[str, ClassModel]:
    classes = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            is_stable = "alpha" not in name and "beta" not in name
            if name.startswith("kubernetes/client/models/") and is_stable:
                for model_class in _classes(archive.read(name).decode()):
                    classes[model_class.name] = model_class
    return classes


def _classes(source: str) -> Iterable[ClassModel]:
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        tables = {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in node.body
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
        names: dict[str, str] = tables.get("attribute_map", {})
        types: dict[str, str] = tables.get("openapi_types", {})
        required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", source))
        yield ClassModel(
            node.name,
            {names[key]: value for key, value in types.items()},
            tuple(sorted(names[key] for key in required if key in names)),
        )


def class_of(package: str, short: str, classes: Mapping[str, ClassModel]) -> str:
    """The class of a kind in a package, such as V1Pod or CoreV1Event."""
    version = package.rpartition(".")[2].upper()
    for prefix, its_package in _PREFIXES.items():
        if its_package == package and f"{prefix}{short}" in classes:
            return f"{prefix}{short}"
    return f"{version}{short}"


def definition_names(classes: Mapping[str, ClassModel]) -> dict[str, str]:
    """Maps the classes that the kinds refer to, directly or not, to full definition names."""
    names: dict[str, str] = {}
    for package, (_, _, kinds) in _ROOTS.items():
        for kind in kinds.split():
            for short in (kind, f"{kind}List"):
                _walk(class_of(package, short, classes), package, classes, names)
    return names


def _walk(
    name: str,
    package: str,
    classes: Mapping[str, ClassModel],
    names: dict[str, str],
) -> None:
    if name in names or name not in classes:
        return
    names[name] = _definition_name(name, package)
    for reference in classes[name].references():
        _walk(reference, package, classes, names)


def _definition_name(name: str, package: str) -> str:
    for prefix, its_package in _PREFIXES.items():
        if name.startswith(prefix):
            return f"{its_package}.{name.removeprefix(prefix)}"
    short = re.sub(r"^V\d+", "", name)
    if short in _META_TYPES:
        return f"{_META}v1.{short}"
    if short in _CORE_TYPES:
        return f"{_API}core.v1.{short}"
    return f"{package}.{short}"


def field_type(owner: str, field: str, text: str, names: Mapping[str, str]) -> str:
    """The letter (models.py) of a field; text is `str`, `list[V1Pod]`, `dict[str, str]` and so
    on.
    """
    if text.startswith("list["):
        return "[" + field_type(owner, field, text[5:-1], names)
    if text.startswith("dict["):
        return "{" + _map_value(owner, field, text[5:-1].split(", ", 1)[1], names)
    if text in names:
        return "#" + names[text]
    return _scalar(f"{owner}.{field}", field, text)


def _map_value(owner: str, field: str, text: str, names: Mapping[str, str]) -> str:
    if text == "str" and field in facts.QUANTITY_MAPS:
        return "q"
    if text == "str" and f"{owner}.{field}" in facts.BYTE_MAPS:
        return "y"
    return field_type(owner, field, text, names)


def _scalar(path: str, field: str, text: str) -> str:
    match text:
        case "int":
            return "l" if field in facts.INT64 and path not in facts.INT32 else "i"
        case "float":
            return "n"
        case "bool":
            return "b"
        case "datetime":
            return "u" if path in facts.MICRO_TIME else "t"
        case "object":
            return "x" if path in facts.INT_OR_STRING else "o"
        case "str":
            if path in facts.QUANTITY:
                return "q"
            return "y" if path in facts.BYTES else "s"
    raise SystemExit(f"{path}: unknown type {text}")


def model(source: ClassModel, names: Mapping[str, str]) -> dict[str, object]:
    owner = names[source.name].rpartition(".")[2]
    types = sorted(source.types.items())
    fields = {field: field_type(owner, field, text, names) for field, text in types}
    paths = {field: f"{owner}.{field}" for field in fields}
    result: dict[str, object] = {"fields": fields}
    if source.required:
        result["required"] = list(source.required)
    patch = {key: list(facts.PATCH[path]) for key, path in paths.items() if path in facts.PATCH}
    if patch:
        result["patch"] = patch
    with_keys = ((key, path) for key, path in paths.items() if path in facts.LIST_KEYS)
    keys = {key: list(facts.LIST_KEYS[path]) for key, path in with_keys}
    if keys:
        result["keys"] = keys
    with_type = ((key, path) for key, path in paths.items() if path in facts.STRING_TYPES)
    named = {key: facts.STRING_TYPES[path] for key, path in with_type}
    if named:
        result["named"] = named
    return result


def kinds(names: Mapping[str, str], classes: Mapping[str, ClassModel]) -> dict[str, list[str]]:
    """Maps definition names to [group, version, kind] of the served kinds."""
    by_definition = {}
    for package, (group, version, shorts) in _ROOTS.items():
        for kind in shorts.split():
            for short in (kind, f"{kind}List"):
                name = names.get(class_of(package, short, classes))
                if name is not None:
                    by_definition[name] = [group, version, short]
    return by_definition


def main(argv: list[str]) -> int:
    classes = read_classes(Path(argv[0]))
    names = definition_names(classes)
    of_kind = kinds(names, classes)
    lines = []
    for name, definition in sorted((definition, name) for name, definition in names.items()):
        body = model(classes[definition], names)
        if name in of_kind:
            body["kind"] = of_kind[name]
        lines.append(f"{json.dumps(name)}:{json.dumps(body, separators=(',', ':'))}")
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{TARGET.name}: {len(lines)} definitions, {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
