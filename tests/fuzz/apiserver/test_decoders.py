"""The decoders alone: protobuf, YAML, JSON, and the patches, which end in time with an object or their own error."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import orjson
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.apiserver import bodies
from kubewire.components.apiserver.http import negotiation, protobuf, yamlbody
from kubewire.components.apiserver.registry.patch import PatchError, json_patch
from kubewire.components.apiserver.registry.strategicmerge import strategic_merge
from kubewire.components.kubeapi.mergepatch import merge_patch
from tests.fuzz.apiserver.mutations import JUNK, copied, mutated
from tests.fuzz.apiserver.seeds import seeds

randoms = st.integers(0, 2**32).map(random.Random)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False),
              st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=20,
)  # fmt: skip

KINDS = (("v1", "Pod"), ("v1", "Secret"), ("apps/v1", "Deployment"), ("v1", "DeleteOptions"), ("v1", "Event"),
         ("apiextensions.k8s.io/v1", "CustomResourceDefinition"), ("networking.k8s.io/v1", "NetworkPolicy"),
         ("discovery.k8s.io/v1", "EndpointSlice"), ("coordination.k8s.io/v1", "Lease"), ("v1", "Nothing"))  # fmt: skip


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def enveloped(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = _field(1, api_version.encode()) + _field(2, kind.encode())
    return b"k8s\x00" + _field(1, meta) + _field(2, raw)


def message(rng: random.Random, depth: int = 0) -> bytes:
    """Fields of any number and wire type, nested."""
    out = b""
    for _ in range(rng.randint(0, 5)):
        number = rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 23, 40, 2**20])
        match rng.randrange(6):
            case 0:
                out += _varint(number << 3) + _varint(rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, rng.getrandbits(70)]))
            case 1:
                out += _varint(number << 3 | 5) + rng.randbytes(4)
            case 2:
                out += _varint(number << 3 | 1) + rng.randbytes(8)
            case 3:
                text = orjson.dumps(rng.choice([one for one in JUNK if isinstance(one, str)])).strip(b'"')
                out += _field(number, text)
            case 4 if depth < 8:
                out += _field(number, message(rng, depth + 1))
            case _:
                out += rng.randbytes(rng.randint(0, 6))
    return out


@given(rng=randoms, kind=st.sampled_from(KINDS))
def test_protobuf(rng: random.Random, kind: tuple[str, str]) -> None:
    body = enveloped(*kind, message(rng))
    if rng.random() < 0.2:
        place = rng.randrange(len(body))
        body = body[:place] + rng.randbytes(rng.randint(0, 3)) + body[place + rng.randint(0, 3) :]
    try:
        orjson.dumps(protobuf.decode(body))
    except (protobuf.ProtobufError, bodies.TooDeep):
        return


def test_protobuf_is_bounded_in_depth_and_values() -> None:
    schema = b""
    for _ in range(5000):
        schema = _field(29, schema)  # JSONSchemaProps.not
    for field, inner in ((3, schema), (1, b"\x0a\x00" * 300_000)):
        for api_version, kind in KINDS:
            try:
                protobuf.decode(enveloped(api_version, kind, _field(field, inner)))
            except (protobuf.ProtobufError, bodies.TooDeep, bodies.TooLarge):
                continue


@given(body=st.one_of(
    st.binary(max_size=100),
    st.text(alphabet="ab01:-[]{},&*!|>'\"\n #%?~<@`.\t", max_size=80).map(str.encode),
    values.map(lambda value: yaml.safe_dump(value).encode()),
    st.sampled_from(["!!binary x", "!!set {a}", "!!timestamp 2001-01-01", "!!python/object:os.system {}", "&a [*a]",
                     "a: &a\n  <<: *a", "<<: [{a: 1}, {b: 2}]", "? [a]\n: b", "!!int " + "9" * 5000, "1e999", ".nan",
                     "!!omap [a: 1]", "0o7", "- - - -", "\ufeff{}", "%TAG ! x\n---\n!a b", "!!float 1:2", "!!bool x"])
    .map(str.encode),
))  # fmt: skip
def test_yaml(body: bytes) -> None:
    try:
        decoded = yamlbody.load(body)
    except (yamlbody.YamlError, bodies.TooDeep):
        return
    orjson.dumps(decoded)


@given(value=st.dictionaries(st.text(max_size=5), values, max_size=3))
def test_yaml_reads_json_as_json(value: Any) -> None:
    text = orjson.dumps(value)
    assert negotiation.decode_yaml(text) == orjson.loads(text)


@given(value=values, body=st.binary(max_size=50))
def test_json(value: Any, body: bytes) -> None:
    text = orjson.dumps(value)
    assert bodies.load_json(text) == orjson.loads(text)
    assert bodies.count_values(text) >= _values(value)
    try:
        bodies.load_json(body)
    except (orjson.JSONDecodeError, bodies.TooDeep):
        return


def _values(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_values, inner)) - (1 if isinstance(value, dict | list) and value else 0)


@given(document=values, patch=values)
def test_merge_patches(document: Any, patch: Any) -> None:
    merged = merge_patch(document, patch)
    assert merge_patch(merged, patch) == merged


OBJECTS = list(seeds().values())


def _always(key: str | None, _: tuple[str, ...]) -> str | None:
    return key


@given(rng=randoms)
def test_strategic_merges(rng: random.Random) -> None:
    document = rng.choice(OBJECTS)
    patch = mutated(document, rng, 6)
    for key in (None, "set", "name", "type"):
        if not isinstance(patch, dict):
            return
        before = orjson.dumps([document, patch])
        try:
            strategic_merge(document, patch, partial(_always, key))
        except PatchError:
            pass
        assert orjson.dumps([document, patch]) == before


@given(rng=randoms)
def test_json_patches(rng: random.Random) -> None:
    document = {"a": [1, {"b": [2]}], "c": {"d": None}, "": 0}
    places = ["", "/a", "/a/0", "/a/1/b", "/a/-", "/c/d", "/c", "/", "/x", "a", "/a/9", "/a/1/b/0"]
    operations: Any = [
        {"op": rng.choice(["add", "remove", "replace", "move", "copy", "test"]), "path": rng.choice(places),
         "from": rng.choice(places), "value": copied(rng.choice(JUNK))}
        for _ in range(rng.randint(1, 40))
    ]  # fmt: skip
    operations = mutated(operations, rng) if rng.random() < 0.3 else operations
    before = orjson.dumps([document, operations])
    try:
        orjson.dumps(json_patch(document, operations))
    except PatchError:
        pass
    except orjson.JSONEncodeError as error:
        assert "ecursion" in str(error)
    assert orjson.dumps([document, operations]) == before
