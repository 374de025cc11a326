"""Links, redirects and headers of pages behind the proxies, and where a proxied name leads."""

from __future__ import annotations

import gzip
import time
import zlib
from typing import Any

import pytest
from multidict import CIMultiDict

from kubewire.components.apiserver.http import requestinfo
from kubewire.components.apiserver.http.connectnames import service_port_name, split_scheme_name_port
from kubewire.components.apiserver.http.proxying import (
    Place,
    answer_headers,
    forwarded_uri,
    has_links,
    rewritten_body,
)
from kubewire.components.apiserver.status import StatusError

PREFIX = "/api/v1/namespaces/default/services/web/proxy"
PLACE = Place(PREFIX, "10.244.1.5:80", "127.0.0.1:6443")


@pytest.mark.parametrize(
    ("target", "link"),
    [
        ("/a/b", f"{PREFIX}/a/b"),
        ("/", f"{PREFIX}/"),
        ("/a/", f"{PREFIX}/a/"),
        ("/a/../b?q=1#f", f"{PREFIX}/b?q=1#f"),
        ("http://10.244.1.5:80/a", f"{PREFIX}/a"),
        ("https://127.0.0.1:6443/a", f"https://127.0.0.1:6443{PREFIX}/a"),
        (f"{PREFIX}/a", f"{PREFIX}/a"),
        ("a/b", "a/b"),
        ("?q=1", "?q=1"),
        ("#top", "#top"),
        ("http://example.org/a", "http://example.org/a"),
        ("//example.org/a", "//example.org/a"),
        ("mailto:me@example.org", "mailto:me@example.org"),
        ("http://[::1", "http://[::1"),
    ],
    ids=lambda value: value.replace(PREFIX, "PREFIX"),
)
def test_links_to_the_pages_own_host_go_through_the_proxy(target: str, link: str) -> None:
    assert PLACE.link(target) == link


@pytest.mark.parametrize(
    ("page", "rewritten"),
    [
        ('<a href="/x">/x</a>', '<a href="P/x">/x</a>'),
        ("<A HREF='/x' class=c>", '<A HREF="P/x" class=c>'),
        ("<img src=/i.png alt='a > b'>", """<img src="P/i.png" alt='a > b'>"""),
        ('<img src="/i.png"/>', '<img src="P/i.png"/>'),
        ('<form action="/do?a=1&amp;b=2">', '<form action="P/do?a=1&amp;b=2">'),
        ('<a data-href="/x" title="/y">', '<a data-href="/x" title="/y">'),
        ('<div href="/x">', '<div href="/x">'),
        ('<!-- <a href="/x"> -->', '<!-- <a href="/x"> -->'),
        ("""<script src="/s.js">"<a href='/x'>"</script>""", """<script src="P/s.js">"<a href='/x'>"</script>"""),
        ('<textarea><a href="/x"></textarea><a href="/y">', '<textarea><a href="/x"></textarea><a href="P/y">'),
        ('<a href="x">', '<a href="x">'),
        ("1 < 2 <", "1 < 2 <"),
    ],
    ids=lambda value: value,
)
def test_a_page_keeps_everything_but_its_links(page: str, rewritten: str) -> None:
    assert PLACE.page(page) == rewritten.replace("P/", f"{PREFIX}/")


@pytest.mark.parametrize("piece", ["<a ", '<a "', "<a '", '<a href="', "<!--", "<script>", "<a \"'", "<a x=y "])
def test_a_page_of_unfinished_tags_takes_no_long_time(piece: str) -> None:
    began = time.process_time()
    page = piece * 100_000
    assert PLACE.page(page) == page
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("encoding", "pack", "unpack"),
    [
        ("", bytes, bytes),
        ("gzip", gzip.compress, gzip.decompress),
        (
            "deflate",
            lambda data: zlib.compress(data, wbits=-zlib.MAX_WBITS),
            lambda data: zlib.decompress(data, -zlib.MAX_WBITS),
        ),
    ],
    ids=["plain", "gzip", "deflate"],
)
def test_a_page_stays_in_its_encoding(encoding: str, pack: Any, unpack: Any) -> None:
    body = unpack(rewritten_body(PLACE, encoding, pack(b'<a href="/x">\xff')))
    assert body == f'<a href="{PREFIX}/x">'.encode() + b"\xff"


def test_a_page_that_is_not_in_its_encoding_is_an_error() -> None:
    with pytest.raises(ValueError, match="the body is not gzip"):
        rewritten_body(PLACE, "gzip", b"plain")


@pytest.mark.parametrize(
    ("headers", "rewritten"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, True),
        ({"Content-Type": "text/html", "Content-Encoding": "gzip"}, True),
        ({"Content-Type": "text/html", "Content-Encoding": "br"}, False),
        ({"Content-Type": "text/html", "Location": "/x"}, False),
        ({"Content-Type": "text/plain"}, False),
        ({}, False),
    ],
)
def test_only_readable_pages_are_rewritten(headers: dict[str, str], rewritten: bool) -> None:
    assert has_links(CIMultiDict(headers)) == rewritten


def test_redirects_go_through_the_proxy_and_no_backend_permits_other_origins() -> None:
    received = CIMultiDict({"Location": "/login", "access-control-allow-origin": "*", "X-Own": "1"})
    assert dict(answer_headers(PLACE, received)) == {"Location": f"{PREFIX}/login", "X-Own": "1"}


@pytest.mark.parametrize(("rest", "uri"), [("", "/"), ("/", "/"), ("/a", "/a"), ("/a/", "/a/")])
def test_the_backend_learns_the_path_of_the_client(rest: str, uri: str) -> None:
    assert forwarded_uri(PLACE, rest) == PREFIX + uri


@pytest.mark.parametrize(
    ("path", "name", "rest"),
    [
        ("/api/v1/namespaces/default/services/web/proxy", "web", ""),
        ("/api/v1/namespaces/default/services/web/proxy/", "web", "/"),
        ("/api/v1/namespaces/default/services/web/proxy/a//b/", "web", "/a//b/"),
        ("/api/v1/namespaces/default/services/https%3Aweb%3A443/proxy/a%20b", "https:web:443", "/a%20b"),
        ("/api/v1/namespaces/proxy/pods/proxy/proxy/proxy", "proxy", "/proxy"),
        ("/api/v1/nodes/n:10256/proxy/healthz", "n:10256", "/healthz"),
        ("/api/v1/watch/namespaces/default/pods", "", ""),
    ],
)
def test_what_follows_the_proxy_is_the_path_behind_it(path: str, name: str, rest: str) -> None:
    info = requestinfo.parse("GET", path, {})
    assert (info.name, info.rest) == (name, rest)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web", ("", "web", "")),
        ("web:80", ("", "web", "80")),
        ("web:", ("", "web", "")),
        (":web:80", ("", "web", "80")),
        ("https:web:", ("https", "web", "")),
        ("HTTPS:web:port", ("https", "web", "port")),
        (":80", None),
        ("ftp:web:80", None),
        ("a:b:c:d", None),
    ],
)
def test_a_proxied_name_has_a_scheme_and_a_port(text: str, parts: tuple[str, str, str] | None) -> None:
    if parts:
        assert split_scheme_name_port(text, "service") == parts
        return
    with pytest.raises(StatusError, match=f'invalid service request "{text}"'):
        split_scheme_name_port(text, "service")


SERVICE: Any = {
    "metadata": {"name": "web"},
    "spec": {"ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]},
}


@pytest.mark.parametrize(("wanted", "name"), [("http", "http"), ("443", "https"), ("other", "other"), ("", "")])
def test_a_port_of_a_service_is_named_or_numbered(wanted: str, name: str) -> None:
    assert service_port_name(SERVICE, wanted) == name


def test_a_number_that_the_service_lacks_is_refused() -> None:
    with pytest.raises(StatusError, match='no service port 81 found for service "web"'):
        service_port_name(SERVICE, "81")
