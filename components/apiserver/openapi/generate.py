r"""Writes models.json and protobuf_fields.json from the Go types of the API (RELEASE in models.py).

The source is five Go modules, k8s.io/api, the two in which it finds its types, and those of the
aggregation layer and of metrics, as zip files with the layout of Go's module proxy. They are only
read, and not needed at run time. From clones of github.com/kubernetes/MODULE, for RELEASE 1.36.2:

    for module in api apimachinery apiextensions-apiserver kube-aggregator metrics; do
        git -C CLONES/$module archive --format=zip --prefix=k8s.io/$module@v0.36.2/ v0.36.2 \
            > ZIPS/$module.zip
    done
    python -m kubewire.components.apiserver.openapi.generate ZIPS/*.zip

models.py and http/protobuf.py describe the formats. JSON names, protobuf numbers and patch
strategies stand in the tags of the same fields, so the two files cannot disagree.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from kubewire.components.apiserver.openapi.gotypes import Declaration, Field, Struct, declarations
from kubewire.components.apiserver.openapi.models import RELEASE

MODELS = Path(__file__).with_name("models.json")
NUMBERS = Path(__file__).parent.parent / "http/protobuf_fields.json"

_API = "k8s.io/api/"
_META = "k8s.io/apimachinery/pkg/apis/meta/v1"
_EXTENSIONS = "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
_AGGREGATOR = "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
_METRICS = "k8s.io/metrics/pkg/apis/metrics/v1beta1"
_RUNTIME = "k8s.io/apimachinery/pkg/runtime"

Types = Mapping[str, Declaration]

#: The served kinds of each package; the group is that of the API.
ROOTS: dict[str, tuple[str, str]] = {
    _API + "core/v1": (
        "",
        "Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume "
        "PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service "
        "ServiceAccount",
    ),
    _API + "apps/v1": ("apps", "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet"),
    _API + "batch/v1": ("batch", "CronJob Job"),
    _API + "autoscaling/v1": ("autoscaling", "HorizontalPodAutoscaler Scale"),
    _API + "autoscaling/v2": ("autoscaling", "HorizontalPodAutoscaler"),
    _API + "policy/v1": ("policy", "Eviction PodDisruptionBudget"),
    _API + "networking/v1": (
        "networking.k8s.io",
        "IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR",
    ),
    _API + "discovery/v1": ("discovery.k8s.io", "EndpointSlice"),
    _API + "events/v1": ("events.k8s.io", "Event"),
    _API + "coordination/v1": ("coordination.k8s.io", "Lease"),
    _API + "rbac/v1": (
        "rbac.authorization.k8s.io",
        "ClusterRole ClusterRoleBinding Role RoleBinding",
    ),
    _API + "scheduling/v1": ("scheduling.k8s.io", "PriorityClass"),
    _API + "storage/v1": (
        "storage.k8s.io",
        "CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass",
    ),
    _API + "certificates/v1": ("certificates.k8s.io", "CertificateSigningRequest"),
    _API + "node/v1": ("node.k8s.io", "RuntimeClass"),
    _API + "flowcontrol/v1": (
        "flowcontrol.apiserver.k8s.io",
        "FlowSchema PriorityLevelConfiguration",
    ),
    _API + "resource/v1": (
        "resource.k8s.io",
        "DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice",
    ),
    _AGGREGATOR: ("apiregistration.k8s.io", "APIService"),
    _METRICS: ("metrics.k8s.io", "NodeMetrics PodMetrics"),
    _API + "admissionregistration/v1": (
        "admissionregistration.k8s.io",
        "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration "
        "ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
    ),
    _API + "authentication/v1": (
        "authentication.k8s.io",
        "SelfSubjectReview TokenRequest TokenReview",
    ),
    _API + "authorization/v1": (
        "authorization.k8s.io",
        "LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview",
    ),
    _EXTENSIONS: ("apiextensions.k8s.io", "CustomResourceDefinition"),
    _META: ("", "DeleteOptions Status"),
}

#: Types that are no structs in JSON: the letter of models.py and the name of http/protobuf.py.
_SCALARS: dict[str, tuple[str, str]] = {
    "string": ("s", "string"),
    "bool": ("b", "bool"),
    "int": ("i", "int"),
    "int32": ("i", "int"),
    "int64": ("l", "int"),
    "float64": ("n", "double"),
    "[]byte": ("y", "bytes"),
    _META + ".Time": ("t", "meta.v1.Time"),
    _META + ".MicroTime": ("u", "meta.v1.MicroTime"),
    _META + ".Duration": ("s", "meta.v1.Duration"),
    _META + ".FieldsV1": ("o", "meta.v1.FieldsV1"),
    _RUNTIME + ".RawExtension": ("o", "runtime.RawExtension"),
    "k8s.io/apimachinery/pkg/api/resource.Quantity": ("q", "Quantity"),
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": ("x", "IntOrString"),
    _EXTENSIONS + ".JSON": ("o", "apiextensions.v1.JSON"),
    _EXTENSIONS + ".JSONSchemaPropsOrArray": ("o", "apiextensions.v1.JSONSchemaPropsOrArray"),
    _EXTENSIONS + ".JSONSchemaPropsOrBool": ("o", "apiextensions.v1.JSONSchemaPropsOrBool"),
    _EXTENSIONS + ".JSONSchemaPropsOrStringArray": (
        "o",
        "apiextensions.v1.JSONSchemaPropsOrStringArray",
    ),
}
#: Types with a zero value, which is in JSON only where the field is a pointer.
_WITH_ZERO = frozenset(
    {
        "string",
        "bool",
        "int",
        "double",
        "IntOrString",
        "apiextensions.v1.JSON",
        "apiextensions.v1.JSONSchemaPropsOrBool",
    }
)
#: Structs to which no kind refers: the envelope of a protobuf body, a form of answers, and what the
#: types of a schema that may be two things are in protobuf.
_MORE_MESSAGES = (
    _RUNTIME + ".TypeMeta",
    _RUNTIME + ".Unknown",
    _META + ".PartialObjectMetadata",
    _META + ".PartialObjectMetadataList",
    *(name for name in _SCALARS if name.startswith(_EXTENSIONS + ".JSONSchema")),
)
#: Structs to which no kind refers, with definitions nevertheless.
_MORE_MODELS = (_API + "core/v1.TopologySelectorTerm",)


def read_types(modules: list[Path]) -> dict[str, Declaration]:
    """The types of all packages; raises SystemExit when a module is of another release."""
    types: dict[str, Declaration] = {}
    version = f"v0.{RELEASE.removeprefix('1.')}"
    for module in modules:
        with zipfile.ZipFile(module) as archive:
            for name in archive.namelist():
                folder, _, file = name.rpartition("/")
                if not re.search(r"(?<!_test)\.go$", file) or file.startswith("zz_generated"):
                    continue
                root, at, rest = folder.partition(f"@{version}")
                if not at:
                    raise SystemExit(f"{module}: {name} is not of {version}, as models.py says")
                types.update(declarations(root + rest, archive.read(name).decode()))
    return types


def resolved(text: str, types: Types) -> str:
    """The type behind names; pointers are dropped."""
    text = text.lstrip("*")
    while text not in _SCALARS and (named := types.get(text)) is not None:
        if isinstance(named, Struct):
            break
        text = named.type.lstrip("*")
    return text


def element(text: str) -> tuple[str, str]:
    """("[", type) of a list, ("{", type) of a map from strings, else ("", type)."""
    if text in _SCALARS:
        return "", text
    if text.startswith("[]"):
        return "[", text[2:]
    if text.startswith("map["):
        return "{", text.partition("]")[2]
    return "", text


def letter(text: str, types: Types) -> str:
    """The type of a field as models.py writes it."""
    kind, inner = element(resolved(text, types))
    if kind:
        return kind + letter(inner, types)
    if inner in _SCALARS:
        return _SCALARS[inner][0]
    return "#" + definition(inner)


def definition(name: str) -> str:
    """io.k8s.api.core.v1.Pod of k8s.io/api/core/v1.Pod."""
    return "io.k8s." + name.removeprefix("k8s.io/").replace("/", ".")


def message(name: str) -> str:
    """core.v1.Pod of k8s.io/api/core/v1.Pod, runtime.Unknown of k8s.io/apimachinery/pkg/runtime."""
    parts = name.split("/")
    return ".".join(parts[-2:] if re.match(r"v\d+\w*\.", parts[-1]) else parts[-1:])


def is_embedded(field: Field) -> bool:
    """Whether JSON has the fields of the struct in the enclosing object (`json:",inline"`)."""
    return "json" in field.tags and not field.json


def flat_fields(name: str, types: Types) -> Iterator[Field]:
    """The fields that JSON has in an object of the type."""
    struct = types[name]
    assert isinstance(struct, Struct), name
    for field in struct.fields:
        if is_embedded(field):
            yield from flat_fields(field.type, types)
        elif field.json not in ("", "-"):
            yield field


def structs_of(field: Field, types: Types) -> Iterator[str]:
    """The struct to which a field refers, if any."""
    text = field.type
    while True:
        kind, text = element(resolved(text, types))
        if not kind:
            break
    if text not in _SCALARS:
        yield text


def reached(roots: list[str], types: Types) -> list[str]:
    """The structs of JSON that are reached from some, sorted."""
    waiting = list(roots)
    found = set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            for field in flat_fields(name, types):
                waiting += structs_of(field, types)
    return sorted(found)


def model(name: str, types: Types) -> dict[str, object]:
    fields = sorted(flat_fields(name, types), key=lambda field: field.json)
    result: dict[str, object] = {
        "fields": {field.json: letter(field.type, types) for field in fields}
    }
    if required := [field.json for field in fields if field.is_required]:
        result["required"] = required
    patch = {
        field.json: [field.tags["patchStrategy"], field.tags.get("patchMergeKey", "")]
        for field in fields
        if "patchStrategy" in field.tags
    }
    if patch:
        result["patch"] = patch
    if keys := {field.json: owned for field in fields if (owned := list_keys(field)) is not None}:
        result["keys"] = keys
    if named := {field.json: text for field in fields if (text := string_type(field, types))}:
        result["named"] = named
    if always := [field.json for field in fields if is_always_written(field, types)]:
        result["always"] = always
    if pointers := [field.json for field in fields if has_own_zero(field, types)]:
        result["pointers"] = pointers
    return result


def is_always_written(field: Field, types: Types) -> bool:
    """Whether JSON has the field even with its zero value.

    omitempty does not omit a struct, and some types that look like scalars are structs.
    """
    if field.omits("omitzero"):
        return False
    if not field.omits("omitempty"):
        return True
    return not field.type.startswith("*") and letter(field.type, types)[0] in "#qxtu"


def has_own_zero(field: Field, types: Types) -> bool:
    """Whether the field is a pointer, so that a zero in it is not the same as its absence."""
    if not field.type.startswith("*"):
        return False
    return letter(field.type, types)[0] in "sbilnyqx" or is_always_written(field, types)


def list_keys(field: Field) -> list[str] | None:
    """The keys by which server-side apply tells items apart, where the patch merge key is not
    it."""
    keys = list(field.markers.get("listMapKey", ()))
    if not keys and field.markers.get("listType") != ("set",):
        return None
    merge_key = field.tags.get("patchMergeKey", "")
    same = keys == [merge_key] if merge_key else not keys and "patchStrategy" in field.tags
    return None if same else keys


def string_type(field: Field, types: Types) -> str:
    """The Go name of a string's own type, or of that of a list's items: v1.Protocol, types.UID."""
    text = field.type.lstrip("*").removeprefix("[]")
    own = "." in text and resolved(text, types) == "string"
    return text.rpartition("/")[2] if own else ""


def message_fields(name: str, types: Types) -> dict[str, str]:
    """Number -> "jsonName type" of a message."""
    struct = types[name]
    assert isinstance(struct, Struct), name
    return {
        str(field.number): f"{_message_key(field)} {message_type(field, types)}"
        for field in sorted(struct.fields, key=lambda field: field.number)
        if field.number
    }


def _message_key(field: Field) -> str:
    """The name in JSON; what JSON does not have is named as in protobuf."""
    return field.json if field.json not in ("", "-") else field.message_name or "embedded"


def message_type(field: Field, types: Types) -> str:
    kind, inner = element(resolved(field.type, types))
    text = {"[": "list ", "{": "map "}.get(kind, "") + _message_of(inner, types)
    if is_embedded(field):
        return "inline " + text
    has_zero = not kind and inner in _SCALARS and _SCALARS[inner][1] in _WITH_ZERO
    return "*" + text if field.type.startswith("*") and has_zero else text


def _message_of(text: str, types: Types) -> str:
    behind = resolved(text, types)
    if behind in _SCALARS:
        return _SCALARS[behind][1]
    # A list with a name in a map is a message of that name, such as authorization.v1.ExtraValue.
    return message(text.lstrip("*") if behind.startswith("[]") else behind)


def messages_of(names: list[str], types: Types) -> list[str]:
    """The structs and those that they embed."""
    found = set[str]()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        struct = types[name]
        if name in found or not isinstance(struct, Struct):
            continue
        found.add(name)
        waiting += [field.type for field in struct.fields if field.number and is_embedded(field)]
    return sorted(found)


def kinds(types: Types) -> dict[str, list[str]]:
    """[group, version, kind] of the served kinds and their lists."""
    found = {}
    for package, (group, names) in ROOTS.items():
        for kind in names.split():
            for name in (f"{package}.{kind}", f"{package}.{kind}List"):
                if name in types:
                    found[name] = [group, package.rpartition("/")[2], name.rpartition(".")[2]]
    return found


def models_text(types: Types) -> str:
    of_kind = kinds(types)
    bodies: dict[str, object] = {}
    for name in reached([*of_kind, *_MORE_MODELS], types):
        body = model(name, types)
        if name in of_kind:
            body["kind"] = of_kind[name]
        bodies[definition(name)] = body
    return _lines(bodies)


def numbers_text(types: Types) -> str:
    names = reached([*kinds(types), *_MORE_MODELS], types)
    return _lines(
        {
            message(name): message_fields(name, types)
            for name in messages_of([*names, *_MORE_MESSAGES], types)
        }
    )


def _lines(bodies: Mapping[str, object]) -> str:
    lines = (
        f"{json.dumps(name)}:{json.dumps(body, separators=(',', ':'))}"
        for name, body in sorted(bodies.items())
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(argv: list[str]) -> int:
    types = read_types([Path(name) for name in argv])
    for target, text in ((MODELS, models_text(types)), (NUMBERS, numbers_text(types))):
        target.write_text(text)
        print(f"{target.name}: {len(text.splitlines()) - 2} types, {len(text)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
