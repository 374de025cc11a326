"""The functions that Kubernetes adds to CEL (apiserver/pkg/cel/library).

The named formats are in formats.py, and the authorizer in authorization.py.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubewire.components.apiserver import patterns
from kubewire.components.apiserver.cel import authorization, formats
from kubewire.components.apiserver.cel.values import Function, make
from kubewire.components.kubeapi.quantity import parse_quantity

QUANTITY, URL, SEMVER = "kubernetes.Quantity", "kubernetes.URL", "kubernetes.Semver"
IP, CIDR = "net.IP", "net.CIDR"


# Quantities


def _quantity(text: str) -> Any:
    try:
        number = parse_quantity(text)
    except (ValueError, ArithmeticError) as error:
        rule = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
        raise ValueError(f"quantities must match the regular expression '{rule}'") from error
    return _as_quantity(number)


def _as_quantity(number: Decimal) -> Any:
    return make(QUANTITY, format(number.normalize(), "f"))


def _number(quantity: Any) -> Decimal:
    return Decimal(quantity.text)


def _is_quantity(text: str) -> bool:
    return _succeeds(_quantity, text)


def _compare(left: Any, right: Any) -> int:
    return int((left > right) - (left < right))


def _sign(quantity: Any) -> int:
    return _compare(_number(quantity), 0)


def _whole(quantity: Any) -> bool:
    number = _number(quantity)
    return number == number.to_integral_value() and abs(number) < 2**63


def _integer(quantity: Any) -> int:
    if not _whole(quantity):
        raise ValueError("cannot convert value to integer")
    return int(_number(quantity))


# URLs


def _url(text: str) -> Any:
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")):
        why = f'parse "{text}": invalid URI for request'
        raise ValueError(f"URL parse error during conversion from string: {why}")
    return make(URL, text)


def _url_query(url: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url.text).query, keep_blank_values=True)


def _url_host(url: Any) -> str:
    return str(urlsplit(url.text).netloc.rpartition("@")[2])


def _url_hostname(url: Any) -> str:
    host = _url_host(url)
    bracketed = re.match(r"\[(.*)\]", host)
    return bracketed[1] if bracketed else host.partition(":")[0]


def _url_port(url: Any) -> str:
    port = urlsplit(url.text).port
    return "" if port is None else str(port)


# Addresses


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        where = f'IP Address "{text}" parse error during conversion from string'
        raise ValueError(f'{where}: ParseAddr("{text}"): unable to parse IP') from error
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError(f'IP address "{text}" with zone value is not allowed')
        if address.ipv4_mapped:
            raise ValueError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return address


def _ip(text: str) -> Any:
    return make(IP, str(_address(text)))


def _of(ip: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(ip.text)


def _is_canonical(text: str) -> bool:
    return str(_address(text)) == text


def _is_global_unicast(ip: Any) -> bool:
    address = _of(ip)
    broadcast = ipaddress.ip_address("255.255.255.255")
    special = address.is_unspecified or address.is_loopback or address.is_multicast
    return not (special or address.is_link_local or address == broadcast)


def _is_link_local_multicast(ip: Any) -> bool:
    address = _of(ip)
    if address.version == 4:
        return address in ipaddress.ip_network("224.0.0.0/24")
    return address.packed[0] == 0xFF and address.packed[1] & 0x0F == 2


Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _interface(text: str) -> Interface:
    address, slash, length = text.partition("/")
    if not slash or not length.isdecimal() or (len(length) > 1 and length[0] == "0"):
        where = f'network address parse error during conversion from string: "{text}"'
        raise ValueError(f'{where}: netip.ParsePrefix("{text}"): bad bits after slash')
    _address(address)
    try:
        return ipaddress.ip_interface(text)
    except ValueError as error:
        raise ValueError(f"network address parse error: {error}") from error


def _cidr(text: str) -> Any:
    return make(CIDR, str(_interface(text)))


def _network(cidr: Any) -> Interface:
    return ipaddress.ip_interface(cidr.text)


def _contains_ip(cidr: Any, ip: Any) -> bool:
    address = _address(ip) if isinstance(ip, str) else _of(ip)
    return address in _network(cidr).network


def _contains_cidr(cidr: Any, other: Any) -> bool:
    inner = (_interface(other) if isinstance(other, str) else _network(other)).network
    outer = _network(cidr).network
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


# Versions, https://semver.org

_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)


def _semver(text: str, normalize: bool = False) -> Any:
    if normalize:
        text = text.removeprefix("v")
        core, mark, rest = re.match(r"([^-+]*)([-+]?)(.*)", text).groups()  # type: ignore[union-attr]
        numbers = [part.lstrip("0") or "0" for part in core.split(".")]
        text = ".".join([*numbers, "0", "0"][: max(3, len(numbers))]) + mark + rest
    if not _SEMVER.fullmatch(text):
        raise ValueError("No Major.Minor.Patch elements found")
    return make(SEMVER, text)


def _precedence(version: Any) -> tuple[Any, ...]:
    match = _SEMVER.fullmatch(version.text)
    assert match is not None
    numbers = tuple(int(match[index]) for index in (1, 2, 3))
    if not match[4]:
        return (*numbers, (1,))
    parts = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in match[4].split(".")
    )
    return (*numbers, (0, *parts))


def _semver_compare(left: Any, right: Any) -> int:
    return _compare(_precedence(left), _precedence(right))


def _semver_part(index: int) -> Callable[[Any], int]:
    return lambda version: int(_precedence(version)[index])


# Lists and patterns


def _sorted(items: list[Any]) -> bool:
    return all(left <= right for left, right in pairwise(items))


def _extreme(name: str, choose: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    def chosen(items: list[Any]) -> Any:
        if not items:
            raise ValueError(f"{name} called on empty list")
        return _given_back(choose(items))

    return chosen


def _sum(items: list[Any]) -> Any:
    if not items:
        return 0
    total = items[0]
    for item in items[1:]:
        total = total + item
    if isinstance(total, int) and not -(2**63) <= total < 2**63:
        raise ValueError("integer overflow")
    return _given_back(total)


def _given_back(value: Any) -> Any:
    """The engine hands out datetime and timedelta, but takes only their messages."""
    if isinstance(value, timedelta):
        from google.protobuf.duration_pb2 import Duration

        duration = Duration()
        duration.FromTimedelta(value)
        return duration
    if isinstance(value, datetime):
        from google.protobuf.timestamp_pb2 import Timestamp

        moment = Timestamp()
        moment.FromDatetime(value)
        return moment
    return value


def _index(items: list[Any], wanted: Any) -> int:
    return next((index for index, item in enumerate(items) if item == wanted), -1)


def _last_index(items: list[Any], wanted: Any) -> int:
    return max((index for index, item in enumerate(items) if item == wanted), default=-1)


def _find(text: str, pattern: str) -> str:
    return next(iter(patterns.matches(pattern, text, 1)), "")


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    return patterns.matches(pattern, text, most)


def _escape_key(key: str) -> str:
    """A key in a path of a JSON patch, RFC 6901, section 3."""
    return key.replace("~", "~0").replace("/", "~1")


def _succeeds(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        function(*arguments)
    except ValueError:
        return False
    return True


_FUNCTIONS: tuple[Function, ...] = (
    ("quantity", False, ("string",), QUANTITY, _quantity),
    ("isQuantity", False, ("string",), "bool", _is_quantity),
    ("sign", True, (QUANTITY,), "int", _sign),
    ("isGreaterThan", True, (QUANTITY, QUANTITY), "bool", lambda a, b: _number(a) > _number(b)),
    ("isLessThan", True, (QUANTITY, QUANTITY), "bool", lambda a, b: _number(a) < _number(b)),
    ("compareTo", True, (QUANTITY, QUANTITY), "int", lambda a, b: _compare(_number(a), _number(b))),
    ("asApproximateFloat", True, (QUANTITY,), "double", lambda a: float(_number(a))),
    ("asInteger", True, (QUANTITY,), "int", _integer),
    ("isInteger", True, (QUANTITY,), "bool", _whole),
    (
        "add",
        True,
        (QUANTITY, QUANTITY),
        QUANTITY,
        lambda a, b: _as_quantity(_number(a) + _number(b)),
    ),
    ("add", True, (QUANTITY, "int"), QUANTITY, lambda a, b: _as_quantity(_number(a) + b)),
    (
        "sub",
        True,
        (QUANTITY, QUANTITY),
        QUANTITY,
        lambda a, b: _as_quantity(_number(a) - _number(b)),
    ),
    ("sub", True, (QUANTITY, "int"), QUANTITY, lambda a, b: _as_quantity(_number(a) - b)),
    ("url", False, ("string",), URL, _url),
    ("isURL", False, ("string",), "bool", lambda text: _succeeds(_url, text)),
    ("getScheme", True, (URL,), "string", lambda url: urlsplit(url.text).scheme),
    ("getHost", True, (URL,), "string", _url_host),
    ("getHostname", True, (URL,), "string", _url_hostname),
    ("getPort", True, (URL,), "string", _url_port),
    ("getEscapedPath", True, (URL,), "string", lambda url: urlsplit(url.text).path),
    ("getQuery", True, (URL,), "map<string, list<string>>", _url_query),
    ("ip", False, ("string",), IP, _ip),
    ("isIP", False, ("string",), "bool", lambda text: _succeeds(_address, text)),
    ("ip.isCanonical", False, ("string",), "bool", _is_canonical),
    ("family", True, (IP,), "int", lambda ip: _of(ip).version),
    ("isUnspecified", True, (IP,), "bool", lambda ip: _of(ip).is_unspecified),
    ("isLoopback", True, (IP,), "bool", lambda ip: _of(ip).is_loopback),
    ("isLinkLocalMulticast", True, (IP,), "bool", _is_link_local_multicast),
    ("isLinkLocalUnicast", True, (IP,), "bool", lambda ip: _of(ip).is_link_local),
    ("isGlobalUnicast", True, (IP,), "bool", _is_global_unicast),
    ("string", False, (IP,), "string", lambda ip: ip.text),
    ("cidr", False, ("string",), CIDR, _cidr),
    ("isCIDR", False, ("string",), "bool", lambda text: _succeeds(_interface, text)),
    ("containsIP", True, (CIDR, IP), "bool", _contains_ip),
    ("containsIP", True, (CIDR, "string"), "bool", _contains_ip),
    ("containsCIDR", True, (CIDR, CIDR), "bool", _contains_cidr),
    ("containsCIDR", True, (CIDR, "string"), "bool", _contains_cidr),
    ("ip", True, (CIDR,), IP, lambda cidr: make(IP, str(_network(cidr).ip))),
    ("prefixLength", True, (CIDR,), "int", lambda cidr: _network(cidr).network.prefixlen),
    ("masked", True, (CIDR,), CIDR, lambda cidr: make(CIDR, str(_network(cidr).network))),
    ("semver", False, ("string",), SEMVER, _semver),
    ("semver", False, ("string", "bool"), SEMVER, _semver),
    ("isSemver", False, ("string",), "bool", lambda text: _succeeds(_semver, text)),
    (
        "isSemver",
        False,
        ("string", "bool"),
        "bool",
        lambda text, norm: _succeeds(_semver, text, norm),
    ),
    ("isGreaterThan", True, (SEMVER, SEMVER), "bool", lambda a, b: _semver_compare(a, b) > 0),
    ("isLessThan", True, (SEMVER, SEMVER), "bool", lambda a, b: _semver_compare(a, b) < 0),
    ("compareTo", True, (SEMVER, SEMVER), "int", _semver_compare),
    ("major", True, (SEMVER,), "int", _semver_part(0)),
    ("minor", True, (SEMVER,), "int", _semver_part(1)),
    ("patch", True, (SEMVER,), "int", _semver_part(2)),
    ("isSorted", True, ("list",), "bool", _sorted),
    ("sum", True, ("list",), "dyn", _sum),
    ("min", True, ("list",), "dyn", _extreme("min", min)),
    ("max", True, ("list",), "dyn", _extreme("max", max)),
    ("indexOf", True, ("list", "dyn"), "int", _index),
    ("lastIndexOf", True, ("list", "dyn"), "int", _last_index),
    ("find", True, ("string", "string"), "string", _find),
    ("findAll", True, ("string", "string"), "list<string>", _find_all),
    ("jsonpatch.escapeKey", False, ("string",), "string", _escape_key),
    ("findAll", True, ("string", "string", "int"), "list<string>", _find_all),
    *formats.FUNCTIONS,
    *authorization.FUNCTIONS,
)


def _kind(type_name: str) -> str:
    """The kind of a value at run time, where all messages are alike."""
    return "message" if "." in type_name else type_name


def _dispatcher(functions: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Calls the function for the type of the message that comes first."""
    if len(functions) == 1:
        return next(iter(functions.values()))

    def dispatch(first: Any, *others: Any) -> Any:
        return functions[first.DESCRIPTOR.full_name](first, *others)

    return dispatch


@cache
def extension() -> Any:
    """The library as an extension of an environment.

    The engine finds the implementation of a call by the kinds of its arguments. Functions of two
    message types that have the same name therefore share one, and take any value.
    """
    from cel_expr_python import cel

    shared: dict[tuple[str, ...], dict[str, Callable[..., Any]]] = {}
    for name, _, arguments, _, function in _FUNCTIONS:
        first = arguments[0] if arguments else ""
        shared.setdefault((name, *map(_kind, arguments)), {})[first] = function
    overloads: dict[str, list[Any]] = {}
    for name, method, arguments, result, _ in _FUNCTIONS:
        functions = shared.pop((name, *map(_kind, arguments)), None)
        if functions is None:
            continue
        if len(functions) > 1:
            arguments = ("dyn",) * len(arguments)
        overloads.setdefault(name, []).append(
            cel.Overload(
                f"kubernetes_{name}_{'_'.join(arguments)}".replace(".", "_"),
                _type(result),
                [_type(argument) for argument in arguments],
                method,
                impl=_dispatcher(functions),
            )
        )
    declared = [cel.FunctionDecl(name, listed) for name, listed in overloads.items()]
    return cel.CelExtension("kubernetes", declared)


def _type(text: str) -> Any:
    from cel_expr_python import cel

    kinds = cel.Type
    named = {
        "string": kinds.STRING,
        "bool": kinds.BOOL,
        "int": kinds.INT,
        "double": kinds.DOUBLE,
        "dyn": kinds.DYN,
        "list": kinds.List(kinds.DYN),
        "list<string>": kinds.List(kinds.STRING),
        "map<string, list<string>>": kinds.Map(kinds.STRING, kinds.List(kinds.STRING)),
    }
    return named[text] if text in named else kinds(text)
