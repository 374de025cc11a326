"""The character rules of names and the durations of tables, with upstream's texts."""

from __future__ import annotations

import pytest

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.addresses import (
    validate_cidr,
    validate_ip,
    validate_legacy_cidr,
    validate_non_special_ip,
)
from kubewire.components.apiserver.kinds.duration import human_duration
from kubewire.components.apiserver.kinds.spec import FieldError

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
NAME_PART = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize(
    ("rule", "value", "texts"),
    [
        pytest.param(names.dns1123_label, "web-1", [], id="a label"),
        pytest.param(names.dns1123_label, "Web", [LABEL], id="a label has no upper case"),
        pytest.param(names.dns1123_label, "a.b", ["must not contain dots"], id="a label has no dots"),
        pytest.param(names.dns1123_label, "a" * 64, ["must be no more than 63 bytes"], id="a label has 63 bytes"),
        pytest.param(names.dns1123_subdomain, "a_b", [SUBDOMAIN], id="a subdomain has no underscore"),
        pytest.param(names.qualified_name, "example.com/app", [], id="a label key with prefix"),
        pytest.param(names.qualified_name, "/app", ["prefix part must be non-empty"], id="an empty prefix"),
        pytest.param(
            names.qualified_name, "a/", ["name part must be non-empty", NAME_PART], id="a prefix without a name"
        ),
        pytest.param(names.config_map_key, "..a", ["must not start with '..'"], id="a data key leads nowhere else"),
        pytest.param(
            names.environment_name,
            "1=2",
            ["a valid environment variable name must consist only of printable ASCII characters other than '='"],
            id="an environment name has no =",
        ),
        pytest.param(names.port_name, "8080", ["must contain at least one letter (a-z)"], id="port names have letters"),
        pytest.param(names.port_name, "a--b", ["must not contain consecutive hyphens"], id="no two hyphens in a row"),
        pytest.param(names.path_segment, "a/b", ["may not contain '/'"], id="RBAC names are one path segment"),
    ],
)
def test_rules(rule: names.NameRule, value: str, texts: list[str]) -> None:
    assert rule(value) == texts


@pytest.mark.parametrize(
    ("value", "field", "text"),
    [
        ({"matchLabels": {"b": "1", "a": "2"}}, "spec.selector", '{"matchLabels":{"a":"2","b":"1"}}'),
        ({"b": "1", "a": "2"}, "spec.template.metadata.labels", '{"a":"2","b":"1"}'),
        ({"name": "x", "key": "y"}, "spec.ref", '{"name":"x","key":"y"}'),
    ],
)
def test_maps_are_shown_sorted_and_structs_in_their_order(value: object, field: str, text: str) -> None:
    assert FieldError("Invalid", field, value, "no").message() == f"{field}: Invalid value: {text}: no"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (-1.9, "0s"), (-2, "<invalid>"), (119, "119s"), (120, "2m"), (135, "2m15s"), (599, "9m59s"),
        (600, "10m"), (10799, "179m"), (10800, "3h"), (12600, "3h30m"), (28799, "7h59m"), (28800, "8h"),
        (172799, "47h"), (172800, "2d"), (180000, "2d2h"), (691200, "8d"), (62985600, "729d"),
        (63072000, "2y"), (64000000, "2y10d"), (252288000, "8y"),
    ],
)  # fmt: skip
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        pytest.param(validate_ip, "10.0.0.1", None, id="an IPv4 address"),
        pytest.param(validate_ip, "10.0.0.010", "must not have leading 0s", id="leading zeros"),
        pytest.param(validate_ip, "::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address", id="mapped"),
        pytest.param(validate_ip, "FD00::1", 'must be in canonical form ("fd00::1")', id="not canonical"),
        pytest.param(
            validate_ip, "a", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", id="no address"
        ),
        pytest.param(
            validate_legacy_cidr,
            "10.0.0.1/24",
            "must not have bits set beyond the prefix length",
            id="an address with a prefix length",
        ),
        pytest.param(
            validate_legacy_cidr,
            "10.0.0.0",
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            id="no prefix length",
        ),
        pytest.param(validate_cidr, "fd00:0::/64", 'must be in canonical form ("fd00::/64")', id="a long way to write"),
        pytest.param(
            validate_non_special_ip,
            "127.0.0.1",
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
            id="an endpoint on the loopback",
        ),
        pytest.param(
            validate_non_special_ip,
            "169.254.169.254",
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            id="an endpoint on the link",
        ),
    ],
)
def test_addresses(check: object, value: str, text: str | None) -> None:
    messages = [error.message() for error in check("ip", value)]  # type: ignore[operator]
    assert messages == ([f'ip: Invalid value: "{value}": {text}'] if text else [])
