"""What stands in the URL and in headers: selectors, options of lists and watches, paths, Accept."""

from __future__ import annotations

import random
from contextlib import suppress
from urllib.parse import quote, urlencode

from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.apiserver import jsonpath, status
from kubewire.components.apiserver.http import connectnames, negotiation, requestinfo
from kubewire.components.kubeapi import quantity
from kubewire.components.kubeapi.selectors import FieldSelector, LabelSelector, SelectorError
from tests.fuzz.apiserver.conftest import Send
from tests.fuzz.apiserver.seeds import seeds

PATHS = sorted(seeds())
odd = st.text(max_size=30)
numbers = st.one_of(
    st.integers().map(str),
    st.sampled_from(["", "0", "-1", "²", "1e3", "9" * 5000, "0x1", " 1", "+1", "\u0661", "NaN"]),
    odd,
)
flags = st.sampled_from(["", "true", "false", "1", "0", "TRUE", "x"])
selectors = st.one_of(odd, st.text(alphabet="abc=!<>(),in ot./-_1", max_size=40))

parameters = st.fixed_dictionaries(
    {},
    optional={
        "labelSelector": selectors,
        "fieldSelector": st.one_of(selectors, st.sampled_from(["metadata.name=x", "spec.nodeName!=", "=", "!=", "a=b=c"])),
        "limit": numbers,
        "continue": st.one_of(odd, st.sampled_from(["e30", "bnVsbA", "eyJydiI6MSwic3RhcnQiOjF9", "eyJydiI6MWU5OTl9"])),
        "resourceVersion": numbers,
        "resourceVersionMatch": st.sampled_from(["Exact", "NotOlderThan", "x", ""]),
        "timeoutSeconds": numbers,
        "pretty": flags,
        "includeObject": st.sampled_from(["None", "Metadata", "Object", "x"]),
        "gracePeriodSeconds": numbers,
        "propagationPolicy": odd,
        "orphanDependents": flags,
        "dryRun": flags,
        "fieldValidation": odd,
        "fieldManager": odd,
        "force": flags,
    },
)  # fmt: skip


@given(path=st.sampled_from(PATHS), query=parameters, name=st.booleans())
def test_lists_and_gets(send: Send, path: str, query: dict[str, str], name: bool) -> None:
    send("GET", path + ("/seed" if name else "") + "?" + urlencode(query))


@given(path=st.sampled_from(PATHS), query=parameters)
def test_deletions(send: Send, path: str, query: dict[str, str]) -> None:
    send("DELETE", f"{path}/no-such-object?" + urlencode(query))
    send("DELETE", f"{path}?" + urlencode(query | {"fieldSelector": "metadata.name=no-such-object"}))


@given(path=st.text(max_size=40), method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]))
def test_paths(send: Send, path: str, method: str) -> None:
    for root in ("", "/api/v1/", "/apis/", "/apis/apps/v1/namespaces/", "/openapi/v3/", "/livez/"):
        send(method, "/" + (root + quote(path, safe="/%")).lstrip("/"), b"{}", Content_Type="application/json")


media = st.lists(
    st.builds(
        lambda kind, rest: kind + rest,
        st.sampled_from(
            ["application/json", "application/yaml", "*/*", "text/html", "application/vnd.kubernetes.protobuf", ""]
        ),
        st.text(alphabet=';=,qasvgTable meta.k8s.io0.19-/*"', max_size=40),
    ),
    max_size=5,
).map(",".join)


@given(
    accept=st.one_of(media, odd.map(lambda text: text.encode("ascii", "ignore").decode())), path=st.sampled_from(PATHS)
)
def test_accept(send: Send, accept: str, path: str) -> None:
    for place in (path, f"{path}/seed", "/apis", "/openapi/v3"):
        send("GET", place, Accept=accept)


@given(text=st.one_of(selectors, st.text()))
def test_selectors(text: str) -> None:
    for parse in (LabelSelector.parse, FieldSelector.parse):
        try:
            found = parse(text)
        except SelectorError:
            continue
        if isinstance(found, LabelSelector):
            assert LabelSelector.parse(str(found)).matches({}) == found.matches({})
        else:
            found.matches({})


def test_long_selectors_take_linear_time() -> None:
    for text in (
        "a," * 100_000,
        "(" * 100_000,
        "a in (" + "b," * 100_000 + ")",
        "a=" * 50_000,
        " " * 200_000,
        "!" * 100_000,
    ):
        for parse in (LabelSelector.parse, FieldSelector.parse):
            try:
                parse(text)
            except SelectorError:
                continue


@given(
    text=st.one_of(
        st.text(max_size=30), st.text(alphabet="0123456789.+-eEinumkKMGTP", max_size=60), st.floats(), st.integers()
    )
)
def test_quantities(text: str | float) -> None:
    for read in (quantity.parse_quantity, quantity.value, quantity.milli_value):
        try:
            read(text)
        except ValueError:
            continue


def test_quantities_of_any_exponent_are_small() -> None:
    for text in ("1e999999999", "1e-999999999", "9" * 100_000, "0." + "0" * 100_000 + "1", "1e99999999999999999999"):
        for read in (quantity.parse_quantity, quantity.value, quantity.milli_value):
            try:
                read(text)
            except ValueError:
                continue


@given(text=st.text(alphabet=".[]()?@='\"*-$\\{}abc01", max_size=40), value=st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=10,
))  # fmt: skip
def test_json_paths(text: str, value: object) -> None:
    try:
        jsonpath.find(value, text)
    except ValueError:
        return


@given(header=st.text(max_size=60), name=st.text(max_size=30), path=st.text(max_size=40), rng=st.randoms())
def test_what_reads_headers_and_names(header: str, name: str, path: str, rng: random.Random) -> None:
    negotiation.parse_accept(header)
    with suppress(status.StatusError):
        negotiation.representation(header)
    with suppress(status.StatusError):
        connectnames.split_scheme_name_port(name, "pod")
    requestinfo.parse(rng.choice(["GET", "POST", "DELETE"]), "/" + quote(path, safe="/"), {})
