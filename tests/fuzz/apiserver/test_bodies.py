"""Bodies of every verb: mutated objects of each kind, patches of each type, options, and bytes that are none of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import orjson
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.kubeapi.resources import KubeObject
from tests.fuzz.apiserver.conftest import Send
from tests.fuzz.apiserver.mutations import JUNK, copied, mutated, places
from tests.fuzz.apiserver.seeds import seeds

JSON = "application/json"
SEEDS = seeds()
PATHS = sorted(SEEDS)
QUERIES = ("", "?dryRun=All", "?fieldValidation=Strict", "?fieldValidation=Ignore", "?fieldManager=f", "?dryRun=x")
ACCEPTS = (JSON, JSON, JSON, "application/json;as=Table;v=v1;g=meta.k8s.io", "application/yaml",
           "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")  # fmt: skip

#: A path, and where its mutations start from: Hypothesis shrinks both.
kinds = st.sampled_from(PATHS)
randoms = st.integers(0, 2**32).map(random.Random)
queries = st.sampled_from(QUERIES)
accepts = st.sampled_from(ACCEPTS)
Ensured = Callable[[str, KubeObject], str]


@given(path=kinds, rng=randoms, query=queries, accept=accepts)
def test_create(send: Send, path: str, rng: random.Random, query: str, accept: str) -> None:
    obj = mutated(SEEDS[path], rng)
    if isinstance(obj, dict) and isinstance(metadata := obj.get("metadata"), dict) and "custom" not in path:
        metadata["name"] = f"n{rng.randrange(50)}" if rng.random() < 0.8 else metadata.get("name")
    answer = send("POST", path + query, orjson.dumps(obj), Content_Type=JSON, Accept=accept)
    if answer.code == 201 and not query.startswith("?dryRun"):
        name = obj["metadata"].get("name") or ""
        send("GET", f"{path}/{name}", Accept=accept)
        send("GET", path, Accept=accept)
        send("DELETE", f"{path}/{name}?gracePeriodSeconds=0")


@given(path=kinds, rng=randoms, query=queries, accept=accepts)
def test_update(send: Send, ensured: Ensured, path: str, rng: random.Random, query: str, accept: str) -> None:
    place = ensured(path, SEEDS[path]) + rng.choice(["", "", "/status", "/scale", "/finalize", "/ephemeralcontainers"])
    body = orjson.dumps(mutated(SEEDS[path], rng))
    send("PUT", place + query, body, Content_Type=JSON, Accept=accept)


@given(path=kinds, rng=randoms, kind=st.sampled_from(["merge", "strategic-merge"]), query=queries)
def test_merge_patches(send: Send, ensured: Ensured, path: str, rng: random.Random, kind: str, query: str) -> None:
    place = ensured(path, SEEDS[path]) + rng.choice(["", "", "/status", "/scale", "/ephemeralcontainers"])
    patch = mutated({**SEEDS[path], "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, rng)
    if isinstance(patch, dict):
        patch = {key: value for key, value in patch.items() if rng.random() < 0.7}
        if rng.random() < 0.3:
            container, _ = rng.choice(places(patch) or [(patch, "")])
            if isinstance(container, dict):
                directive = rng.choice(
                    ["$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/x"]
                )
                container[directive] = copied(rng.choice([*JUNK, "delete", "replace", "merge", ["name"]]))
    send("PATCH", place + query, orjson.dumps(patch), Content_Type=f"application/{kind}-patch+json")


def _pointer(value: Any, rng: random.Random) -> str:
    text = ""
    while isinstance(value, dict | list) and value and rng.random() < 0.85:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        text += "/" + str(key).replace("~", "~0").replace("/", "~1")
        value = value[key]
    return text if rng.random() < 0.9 else text + rng.choice(["/-", "/x", "/999", "/²", "~", "/" + "9" * 5000, "//"])


@given(path=kinds, rng=randoms, query=queries)
def test_json_patches(send: Send, ensured: Ensured, path: str, rng: random.Random, query: str) -> None:
    obj = SEEDS[path]
    operations: Any = [
        {
            "op": rng.choice(["add", "remove", "replace", "move", "copy", "test"]),
            "path": _pointer(obj, rng),
            "from": _pointer(obj, rng),
            "value": copied(rng.choice(JUNK)),
        }
        for _ in range(rng.randint(1, 4))
    ]
    if rng.random() < 0.2:
        operations = mutated(operations, rng)
    place = ensured(path, obj)
    send("PATCH", place + query, orjson.dumps(operations), Content_Type="application/json-patch+json")


@given(path=kinds, rng=randoms, force=st.booleans())
def test_apply(send: Send, ensured: Ensured, path: str, rng: random.Random, force: bool) -> None:
    obj = mutated(SEEDS[path], rng)
    if isinstance(obj, dict) and rng.random() < 0.2 and isinstance(metadata := obj.get("metadata"), dict):
        metadata["managedFields"] = mutated([{"manager": "m", "fieldsV1": {"f:data": {'k:{"a":1}': {}}}}], rng)
    body = orjson.dumps(obj) if rng.random() < 0.7 else yaml.safe_dump(obj).encode()
    query = f"?fieldManager=m{rng.randrange(3)}" + ("&force=true" if force else "")
    place = ensured(path, SEEDS[path]) + rng.choice(["", "", "/status"])
    send("PATCH", place + query, body, Content_Type="application/apply-patch+yaml")


OPTIONS = {
    "kind": "DeleteOptions",
    "apiVersion": "v1",
    "gracePeriodSeconds": 1,
    "propagationPolicy": "Orphan",
    "preconditions": {"uid": "x", "resourceVersion": "1"},
    "dryRun": ["All"],
}


@given(path=kinds, rng=randoms, whole=st.booleans())
def test_delete_options(send: Send, ensured: Ensured, path: str, rng: random.Random, whole: bool) -> None:
    body = orjson.dumps(mutated(OPTIONS, rng))
    place = f"{path}?labelSelector=no%3Dno" if whole else ensured(path, SEEDS[path])
    send("DELETE", place, body, Content_Type=JSON)


POSTED: dict[str, Any] = {
    "/api/v1/namespaces/default/pods/seed/binding": {"target": {"kind": "Node", "name": "n"}, "metadata": {"name": "seed"}},
    "/api/v1/namespaces/default/pods/seed/eviction": {"metadata": {"name": "seed"}, "deleteOptions": OPTIONS},
    "/api/v1/namespaces/default/serviceaccounts/seed/token": {
        "spec": {"audiences": ["a"], "expirationSeconds": 600,
                 "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "seed", "uid": "u"}}
    },
    "/apis/authentication.k8s.io/v1/tokenreviews": {"spec": {"token": "a.b.c", "audiences": ["a"]}},
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": {"metadata": {}},
    "/apis/authorization.k8s.io/v1/subjectaccessreviews": {
        "spec": {"user": "u", "groups": ["g"], "extra": {"a": ["b"]}, "resourceAttributes": {"verb": "get"}}
    },
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"spec": {"nonResourceAttributes": {"path": "/"}}},
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews": {"spec": {"namespace": "default"}},
    "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews": {"spec": {"user": "u"}},
}  # fmt: skip


@given(path=st.sampled_from(sorted(POSTED)), rng=randoms, query=queries)
def test_subresources_and_reviews(send: Send, path: str, rng: random.Random, query: str) -> None:
    send("POST", path + query, orjson.dumps(mutated(POSTED[path], rng)), Content_Type=JSON)


TYPES = (
    JSON, "application/yaml", "text/yaml", "application/vnd.kubernetes.protobuf", "application/cbor", "text/plain", "",
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml", ";;", "application/json; charset=latin-1", "multipart/form-data",
)  # fmt: skip


@given(
    path=kinds,
    method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"]),
    kind=st.sampled_from(TYPES),
    body=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.text(alphabet="{}[]:,\"- &*a<!|>\n#%?'\\0~.", max_size=100).map(str.encode),
        st.sampled_from(JUNK).map(orjson.dumps),
        st.binary(max_size=60).map(lambda rest: b"k8s\x00" + rest),
    ),
)
def test_bytes(send: Send, path: str, method: str, kind: str, body: bytes) -> None:
    place = path if method in ("POST", "DELETE") else f"{path}/seed"
    query = "?fieldManager=m" if method == "PATCH" else "?labelSelector=no%3Dno" if method == "DELETE" else ""
    send(method, place + query, body, Content_Type=kind)
