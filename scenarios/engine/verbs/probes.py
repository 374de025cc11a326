"""The verbs `http`, `tcp`, `udp`, `ping` and `dns`: send something from the source, and judge the
answer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from kubewire.scenarios.engine.file.duration import seconds
from kubewire.scenarios.engine.scene.scene import End, SceneError, typed
from kubewire.scenarios.engine.verbs.arguments import (
    Duration,
    Form,
    Listed,
    Numbers,
    Patterns,
    Port,
    Texts,
    Value,
    choice,
    whole,
)
from kubewire.scenarios.engine.verbs.base import (
    Counted,
    Observation,
    Probe,
    listed,
    quoted,
    text_problem,
)

PROBE = "kubewire.scenarios.engine.scene.probe:main"
RESOLVE = "kubewire.scenarios.engine.scene.resolve:main"

Failure = Annotated[
    str,
    choice(
        "any",
        "refused",
        "timeout",
        "unreachable",
        "reset",
        "too-big",
        "prohibited",
        "ttl",
        "dns",
        "protocol",
    ),
    "the error with which it must fail (default: it must succeed)",
]
Timeout = Annotated[Duration | None, "time for one attempt (default: 1s)"]
ExceptSelf = Annotated[bool, "leave out pairs of a source with itself"]
To = Annotated[str, "a place, an address or a name, optionally with :PORT"]


def _timeout(given: float | str | None) -> float:
    """Seconds for one attempt. The default is short: if a SYN is lost because the rules are not
    complete yet, TCP sends the next one only after a second, and a new attempt is quicker."""
    return 1.0 if given is None else seconds(given)


def _error_problem(result: Mapping[str, Any], wanted: str, success: str) -> str:
    """Why the error, or its absence, is not as expected; "" if it is."""
    got = result.get("error")
    if wanted and not got:
        return f"expected it to fail ({wanted}), but {success}"
    if wanted and wanted not in ("any", got):
        return f"expected {wanted}, got {got}: {result['message']}"
    if got and not wanted:
        return f"{got}: {result['message']}"
    return ""


def _failure(result: Mapping[str, Any]) -> str:
    return f"{result['error']} ({result['message']})"


def _detail(result: Mapping[str, Any]) -> str:
    ends = [f"{key} {result[key]}" for key in ("local", "remote") if key in result]
    return ", ".join(ends)


@dataclass(frozen=True)
class Http(Probe):
    """An HTTP request and its answer. Needs `url`, or `to` with `port` and `path`."""

    PROGRAM: ClassVar[str] = PROBE
    SHORT_FORM: ClassVar = "url"
    url: Annotated[str, "the URL, http://..."] = ""
    to: To = ""
    port: Annotated[Port, "with to: the port"] = 80
    path: Annotated[str, "with to: the path"] = "/"
    method: Annotated[str, choice("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")] = "GET"
    headers: Annotated[
        Mapping[str, str] | None,
        Form({"type": "object", "additionalProperties": {"type": "string"}}),
        "headers of the request",
    ] = None
    body: Annotated[str, "body of the request"] = ""
    status: Annotated[Numbers, "status of the answer: one of these"] = (200,)
    error: Failure = ""
    timeout: Timeout = None
    repeat: Annotated[
        int,
        whole(1, 1000),
        "number of requests, one after another, each on a new connection",
    ] = 1
    distinct: Annotated[Counted | None, "with repeat: the number of different answers"] = None
    except_self: ExceptSelf = False
    equals: Annotated[
        Value,
        "the exact body of the answer, without surrounding white space",
    ] = None
    contains: Annotated[Texts, "texts that must all occur in it"] = ()
    matches: Annotated[Patterns, "regular expressions that must all match in it"] = ()
    absent: Annotated[Patterns, "regular expressions that must not match in it"] = ()

    @classmethod
    def contradiction(cls, args: Mapping[str, Any]) -> tuple[str, str] | None:
        if ("url" in args) == ("to" in args):
            return "", "needs either url, or to with port and path"
        return None

    @property
    def address(self) -> str:
        """The complete URL."""
        if self.url:
            return self.url
        host = f"[{self.to}]" if ":" in self.to else self.to
        return f"http://{host}:{self.port}{self.path}"

    def request(self) -> dict[str, Any]:
        parts = urlsplit(self.address)
        if parts.scheme != "http" or not parts.hostname:
            raise SceneError(f"{self.address!r}: only http:// URLs with a host are supported")
        path = parts.path or "/"
        return {
            "probe": "http",
            "host": parts.hostname,
            "port": parts.port or 80,
            "authority": parts.netloc,
            "path": f"{path}?{parts.query}" if parts.query else path,
            "method": self.method,
            "headers": dict(self.headers or {}),
            "body": self.body,
            "repeat": self.repeat,
            "timeout": _timeout(self.timeout),
        }

    def judge(self, result: Mapping[str, Any], source: End) -> Observation:
        several = result["several"]
        problems = [self._problem(one) for one in several]
        why = next((problem for problem in problems if problem), "")
        bodies = sorted({one.get("body", "").strip() for one in several if "status" in one})
        if not why and self.distinct and not self.distinct.holds(len(bodies)):
            why = f"expected {self.distinct} different answers, got {len(bodies)}: {listed(bodies)}"
        return Observation(
            holds=not why,
            command=typed(source, self._command()),
            seen=self._seen(several, bodies),
            why=why,
            detail=_detail(several[-1]),
            latency=several[-1]["ms"] / 1000,
        )

    def _problem(self, one: Mapping[str, Any]) -> str:
        if problem := _error_problem(one, self.error, f"got {one.get('status')}"):
            return problem
        if "error" in one:
            return ""
        if one["status"] not in self.status:
            expected = listed(map(str, self.status))
            return f"expected status {expected}, got {one['status']} {quoted(one['body'])}"
        return text_problem(
            one["body"],
            equals=self.equals,
            contains=self.contains,
            matches=self.matches,
            absent=self.absent,
        )

    def _seen(self, several: list[Mapping[str, Any]], bodies: list[str]) -> str:
        last = several[-1]
        if "error" in last:
            return f"{self.address}  {_failure(last)}"
        if len(several) > 1:
            answers = f"{len(bodies)} different answers: {listed(bodies)}"
            return f"{len(several)} x {self.address}  {last['status']}, {answers}"
        return f"{self.address}  {last['status']} {quoted(last['body'], 60)}"

    def _command(self) -> str:
        words = ["curl", "-sS", "-m", f"{_timeout(self.timeout):g}"]
        if self.method != "GET":
            words += ["-X", self.method]
        for name, value in (self.headers or {}).items():
            words += ["-H", f"{name}: {value}"]
        if self.body:
            words += ["-d", self.body]
        return shlex.join([*words, self.address])


def split_port(to: str, port: int) -> tuple[str, int]:
    """Host and port of a target: "10.0.0.1:80" -> ("10.0.0.1", 80). A port other than 0 takes
    precedence. Raises SceneError if there is none."""
    host, separator, text = to.rpartition(":")
    if port:
        return to, port
    if separator and text.isdigit():
        return host.strip("[]"), int(text)
    raise SceneError(f"{to!r} has no port; write HOST:PORT or add port")


@dataclass(frozen=True)
class Tcp(Probe):
    """A TCP connection; with `send`, also an answer."""

    PROGRAM: ClassVar[str] = PROBE
    SHORT_FORM: ClassVar = "to"
    to: To
    port: Annotated[Port, "the port, if to does not contain it"] = 0
    send: Annotated[str | None, "text to send; an answer must follow"] = None
    error: Failure = ""
    timeout: Timeout = None
    except_self: ExceptSelf = False
    equals: Annotated[Value, "the exact answer, without surrounding white space"] = None
    contains: Annotated[Texts, "texts that must all occur in it"] = ()
    matches: Annotated[Patterns, "regular expressions that must all match in it"] = ()
    absent: Annotated[Patterns, "regular expressions that must not match in it"] = ()
    probe: ClassVar[str] = "tcp"
    netcat: ClassVar[str] = ""
    default_send: ClassVar[str | None] = None

    @property
    def text(self) -> str | None:
        """The text to send."""
        return self.send if self.send is not None else self.default_send

    def request(self) -> dict[str, Any]:
        host, port = split_port(self.to, self.port)
        request = {
            "probe": self.probe,
            "host": host,
            "port": port,
            "timeout": _timeout(self.timeout),
        }
        return request if self.text is None else {**request, "send": self.text}

    def judge(self, result: Mapping[str, Any], source: End) -> Observation:
        host, port = split_port(self.to, self.port)
        where = f"{self.probe} {host}:{port}"
        body = result.get("body", "")
        done = f"answered {quoted(body, 60)}" if self.text is not None else "connected"
        why = _error_problem(result, self.error, done)
        if not why and "error" not in result:
            why = text_problem(
                body,
                equals=self.equals,
                contains=self.contains,
                matches=self.matches,
                absent=self.absent,
            )
        return Observation(
            holds=not why,
            command=typed(source, self._command(host, port)),
            seen=f"{where}  {_failure(result) if 'error' in result else done}",
            why=why,
            detail=_detail(result),
            latency=result["ms"] / 1000,
        )

    def _command(self, host: str, port: int) -> str:
        netcat = f"nc {self.netcat}-w 2 {host} {port}"
        if self.text is None:
            return f"nc -z {self.netcat}-w 2 {host} {port}"
        return f"sh -c {shlex.quote(f'printf %s {shlex.quote(self.text)} | {netcat}')}"


@dataclass(frozen=True)
class Udp(Tcp):
    """A UDP datagram and its answer. Without `send`, the datagram is "hostname", which agnhost's
    netexec answers with its host name."""

    probe: ClassVar[str] = "udp"
    netcat: ClassVar[str] = "-u "
    default_send: ClassVar[str | None] = "hostname"


@dataclass(frozen=True)
class Ping(Probe):
    """An ICMP echo request and its reply."""

    PROGRAM: ClassVar[str] = PROBE
    SHORT_FORM: ClassVar = "to"
    to: To
    size: Annotated[int, whole(0, 65500), "bytes of data; the packet has 28 more, 48 in IPv6"] = 56
    df: Annotated[bool, "the packet must not be fragmented"] = False
    ttl: Annotated[int, whole(1, 255), "the time to live, or the hop limit of IPv6"] = 64
    error: Failure = ""
    timeout: Timeout = None
    except_self: ExceptSelf = False

    def request(self) -> dict[str, Any]:
        wait = _timeout(self.timeout)
        return {
            "probe": "ping",
            "host": self.to,
            "size": self.size,
            "df": self.df,
            "ttl": self.ttl,
            "timeout": wait,
        }

    def judge(self, result: Mapping[str, Any], source: End) -> Observation:
        reply = f"reply from {result.get('source')}, ttl {result.get('ttl')}"
        why = _error_problem(result, self.error, reply)
        headers = 48 if ":" in self.to else 28
        big = ""
        if self.size != 56 or self.df:
            big = f", {self.size + headers} bytes{' unfragmented' if self.df else ''}"
        words = [
            "ping",
            "-c1",
            "-W1",
            *(["-M", "do"] if self.df else []),
            *(["-s", str(self.size)] if big else []),
        ]
        return Observation(
            holds=not why,
            command=typed(source, shlex.join([*words, self.to])),
            seen=f"ping {self.to}{big}  {_failure(result) if 'error' in result else reply}",
            why=why,
            detail=_detail(result),
            latency=result["ms"] / 1000,
        )


@dataclass(frozen=True)
class Dns(Probe):
    """A DNS lookup as the stub resolver of the source makes it, and its answer."""

    PROGRAM: ClassVar[str] = RESOLVE
    SHORT_FORM: ClassVar = "name"
    name: Annotated[str, "the name to look up"]
    type: Annotated[str, choice("A", "AAAA", "CNAME", "SRV", "PTR", "TXT", "NS", "SOA", "MX")] = "A"
    server: Annotated[str, "the server (default: the first nameserver in /etc/resolv.conf)"] = ""
    search: Annotated[bool, "whether to try the domains of the search list"] = True
    transport: Annotated[str, choice("udp", "tcp")] = "udp"
    rcode: Annotated[
        str,
        choice("NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"),
    ] = "NOERROR"
    answers: Annotated[Listed | None, "exactly these data in the records of the type"] = None
    contains: Annotated[Texts, 'texts that must occur in the answer, as lines of "TYPE DATA"'] = ()
    matches: Annotated[Patterns, "regular expressions that must match in the answer"] = ()
    count: Annotated[Counted | None, "the number of records of the type"] = None
    authority: Annotated[bool | None, "whether the answer has an authority section"] = None
    error: Failure = ""
    timeout: Timeout = None

    def request(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "server": self.server,
            "search": self.search,
            "transport": self.transport,
            "timeout": _timeout(self.timeout),
        }

    def judge(self, result: Mapping[str, Any], source: End) -> Observation:
        found = [f"{item['type']} {item['data']}" for item in result.get("answers", ())]
        outcome = f"{result.get('rcode')} {listed(found, 'no records')}"
        if "error" in result:
            outcome = _failure(result)
        found_as = result.get("name", self.name)  # absent if the server did not answer
        via = ""
        if found_as.rstrip(".") != self.name.rstrip(".") and self.type != "PTR":
            via = f" as {found_as}"
        why = self._problem(result)
        return Observation(
            holds=not why,
            command=typed(source, self._command()),
            seen=f"{self.type} {self.name}{via}  {outcome}",
            why=why,
            detail=self._trail(result),
            latency=result["ms"] / 1000,
        )

    def _problem(self, result: Mapping[str, Any]) -> str:
        if problem := _error_problem(result, self.error, f"got {result.get('rcode')}"):
            return problem
        if "error" in result:
            return ""
        if result["rcode"] != self.rcode:
            return f"expected {self.rcode}, got {result['rcode']}"
        records = [str(item["data"]) for item in result["answers"] if item["type"] == self.type]
        if self.answers is not None and sorted(records) != sorted(self.answers):
            return f"expected {listed(sorted(self.answers))}, got {listed(sorted(records))}"
        everything = [f"{item['type']} {item['data']}" for item in result["answers"]]
        if self.count and not self.count.holds(len(records)):
            return f"expected {self.count} {self.type} records, got {len(records)}"
        if self.authority is not None and bool(result["authority"]) != self.authority:
            section = listed(str(item["data"]) for item in result["authority"])
            expected = "an" if self.authority else "no"
            return f"expected {expected} authority section, got {section}"
        unjudged = self.answers is None and self.count is None
        if not everything and self.rcode == "NOERROR" and unjudged:
            return f"no {self.type} record" if not self._wants_nodata() else ""
        return text_problem("\n".join(everything), contains=self.contains, matches=self.matches)

    def _wants_nodata(self) -> bool:
        return self.authority is True and not self.contains and not self.matches

    def _trail(self, result: Mapping[str, Any]) -> str:
        asked = [f"{item['name']} {item['rcode']}" for item in result["asked"]]
        records = []
        for item in result.get("answers", ()):
            records.append(f"{item['name']} {item['ttl']} {item['type']} {item['data']}")
        soa = []
        for item in result.get("authority", ()):
            soa.append(f"authority: {item['name']} {item['type']} {item['data']}")
        return "\n".join([f"server {result['server']}, asked: {', '.join(asked)}", *records, *soa])

    def _command(self) -> str:
        words = [
            "dig",
            *([f"@{self.server}"] if self.server else []),
            *(["+search"] if self.search else []),
        ]
        words += ["+tcp"] if self.transport == "tcp" else []
        return shlex.join([*words, self.name, self.type])


VERBS = {"http": Http, "tcp": Tcp, "udp": Udp, "ping": Ping, "dns": Dns}
