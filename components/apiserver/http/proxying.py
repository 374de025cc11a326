"""What the HTTP proxies of pods, Services and nodes change in requests and answers.

A page behind `/api/v1/.../proxy/` believes that it is at the root of its host. So links and
redirects to that root get the path of the proxy in front
(apimachinery/pkg/util/proxy/transport.go).
"""

from __future__ import annotations

import html
import posixpath
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from multidict import CIMultiDict

#: Tag -> the attributes that are URLs.
_LINKS: Mapping[str, frozenset[str]] = {
    tag: frozenset(names.split())
    for tag, names in {
        "a": "href", "applet": "codebase", "area": "href", "audio": "src", "base": "href",
        "blockquote": "cite", "body": "background", "button": "formaction", "command": "icon",
        "del": "cite", "embed": "src", "form": "action", "frame": "longdesc src",
        "head": "profile", "html": "manifest", "iframe": "longdesc src",
        "img": "longdesc src usemap", "input": "src usemap formaction", "ins": "cite",
        "link": "href", "object": "classid codebase data usemap", "q": "cite", "script": "src",
        "source": "src", "video": "poster src",
    }.items()
}  # fmt: skip
#: Elements whose content is text, even where it looks like a tag.
_RAW_TEXT = frozenset(
    "iframe noembed noframes noscript plaintext script style textarea title xmp".split()
)
_MARKUP = re.compile(
    r"""<!--.*?(?:-->|\Z) | <([a-zA-Z][^\s/<>]*)((?:"[^"]*"|'[^']*'|[^'"<>])*+)>""",
    re.S | re.X,
)
_ATTRIBUTE = re.compile(r"""([^\s=/'">]+)(\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""")
_CORS = tuple(
    f"Access-Control-Allow-{name}" for name in ("Credentials", "Headers", "Methods", "Origin")
)


@dataclass(frozen=True)
class Place:
    """Where a proxied page is. prefix: the path of the proxy, before the page's own path.
    backend, asked: the host that serves the page, and the Host that the client named."""

    prefix: str
    backend: str
    asked: str

    def link(self, target: str) -> str:
        """The URL through the proxy, for one of the page's own host; others stay as they are."""
        try:
            url = urlsplit(target)
        except ValueError:
            return target
        foreign = url.netloc not in ("", self.backend, self.asked)
        if foreign or not url.path.startswith("/"):
            return target
        if url.netloc != self.asked:
            url = url._replace(scheme="", netloc="")
        if not url.path.startswith(self.prefix):
            url = url._replace(path=_joined(self.prefix, url.path))
        return urlunsplit(url)

    def page(self, text: str) -> str:
        """A page of HTML with its links through the proxy."""
        return "".join(self._pieces(text))

    def _pieces(self, text: str) -> Iterator[str]:
        done = 0
        while (found := _MARKUP.search(text, done)) is not None:
            yield text[done : found.start()]
            done = found.end()
            if found[1] is None:  # a comment
                yield found[0]
                continue
            tag = found[1].lower()
            yield self._tag(tag, found) if tag in _LINKS else found[0]
            if tag in _RAW_TEXT:
                end = re.compile(rf"</{tag}", re.I).search(text, done)
                yield text[done : end.start() if end else None]
                done = end.start() if end else len(text)
        yield text[done:]

    def _tag(self, tag: str, found: re.Match[str]) -> str:
        def attribute(one: re.Match[str]) -> str:
            value = one[3].strip(one[3][0]) if one[3][0] in "\"'" else one[3]
            plain = html.unescape(value)
            link = self.link(plain) if one[1].lower() in _LINKS[tag] else plain
            return one[0] if link == plain else f'{one[1]}{one[2]}"{html.escape(link)}"'

        return f"<{found[1]}{_ATTRIBUTE.sub(attribute, found[2])}>"


def _joined(prefix: str, path: str) -> str:
    joined = posixpath.normpath(f"{prefix}/{path}")
    return f"{joined}/" if path.endswith("/") and not joined.endswith("/") else joined


def forwarded_uri(place: Place, path: str) -> str:
    """The header X-Forwarded-Uri: the path that the client asked for."""
    return _joined(place.prefix, path or "/")


def answer_headers(place: Place, headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """The headers for the client: the redirect through the proxy, and no permission for pages of
    other origins, which the backend cannot give for the API server."""
    kept = CIMultiDict(headers)
    for name in _CORS:
        kept.popall(name, None)
    if location := kept.get("Location"):
        kept["Location"] = place.link(location)
    return kept


def _gunzipped(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data)


_DECODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": _gunzipped,
    "deflate": lambda data: zlib.decompress(data, -zlib.MAX_WBITS),
}


def has_links(headers: Mapping[str, str]) -> bool:
    """Whether the body of an answer is a page whose links are rewritten."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip()
    readable = headers.get("Content-Encoding", "") in _DECODERS
    return kind == "text/html" and readable and not headers.get("Location")


def rewritten_body(place: Place, encoding: str, body: bytes) -> bytes:
    """The body of a page with its links rewritten, in the same encoding.

    Raises ValueError if it is not in that encoding.
    """
    try:
        text = _DECODERS[encoding](body).decode("utf-8", "surrogateescape")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"the body is not {encoding}: {error}") from error
    plain = place.page(text).encode("utf-8", "surrogateescape")
    match encoding:
        case "gzip":
            import gzip

            return gzip.compress(plain)
        case "deflate":
            return zlib.compress(plain, wbits=-zlib.MAX_WBITS)
    return plain
