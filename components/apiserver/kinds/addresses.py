"""Validates IP addresses and CIDRs in API fields.

This is k8s.io/apimachinery/pkg/util/validation/ip.go with StrictIPCIDRValidation (KEP-4858), which
is on by default since 1.36. Fields that are older than strict validation ("legacy") may have IPv6
addresses in any spelling, newer ones only in the canonical form of RFC 5952.
"""

from __future__ import annotations

import ipaddress
import re

from kubewire.components.apiserver.kinds.fielderrors import invalid
from kubewire.components.apiserver.kinds.spec import FieldError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV4 = "IPv4"
IPV6 = "IPv6"

_NOT_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_NOT_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_METADATA_SERVICE = (
    "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
)


def _without_leading_zeros(value: str) -> str:
    """Drops leading zeros as Go's ParseIPSloppy does for 010.002.003.004."""
    return re.sub(r"(^|\.)0+(?=\d)", r"\1", value)


def _parsed(value: str) -> Address | None:
    if "%" in value:
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def parse_ip(value: str) -> Address | None:
    """The address, leading zeros allowed; None when the text is not an address."""
    return _parsed(value) or _parsed(_without_leading_zeros(value))


def family(value: str) -> str:
    """IPv4 or IPv6, or "" when the text is not an address.

    An IPv4-mapped IPv6 address counts as IPv4, as in Go.
    """
    address = parse_ip(value)
    if address is None:
        return ""
    return IPV4 if address.version == 4 or address.ipv4_mapped else IPV6


def validate_legacy_ip(field: str, value: str) -> list[FieldError]:
    address = parse_ip(value)
    if address is None:
        return [invalid(field, value, _NOT_IP)]
    if _parsed(value) is None:
        return [invalid(field, value, "must not have leading 0s")]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return [invalid(field, value, "must not be an IPv4-mapped IPv6 address")]
    return []


def validate_ip(field: str, value: str) -> list[FieldError]:
    errors = validate_legacy_ip(field, value)
    canonical = str(parse_ip(value))
    if not errors and value != canonical:
        errors.append(invalid(field, value, f'must be in canonical form ("{canonical}")'))
    return errors


def validate_legacy_cidr(field: str, value: str) -> list[FieldError]:
    text, slash, length = value.partition("/")
    address = parse_ip(text)
    if address is None or not slash or not length.isdecimal():
        return [invalid(field, value, _NOT_CIDR)]
    if int(length) > address.max_prefixlen:
        return [invalid(field, value, _NOT_CIDR)]
    if _parsed(text) is None or str(int(length)) != length:
        return [invalid(field, value, "must not have leading 0s in IP or prefix length")]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return [invalid(field, value, "must not have an IPv4-mapped IPv6 address")]
    if ipaddress.ip_network(value, strict=False).network_address != address:
        return [invalid(field, value, "must not have bits set beyond the prefix length")]
    return []


def validate_cidr(field: str, value: str) -> list[FieldError]:
    errors = validate_legacy_cidr(field, value)
    if not errors:
        canonical = str(ipaddress.ip_network(value))
        if value != canonical:
            errors.append(invalid(field, value, f'must be in canonical form ("{canonical}")'))
    return errors


def validate_non_special_ip(field: str, value: str) -> list[FieldError]:
    """Rejects addresses that lead to the node itself (ValidateNonSpecialIP).

    Endpoints and external IPs must not have them.
    """
    address = parse_ip(value)
    if address is None:
        return [invalid(field, value, "must be a valid IP address")]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    errors = []
    if address.is_unspecified:
        errors.append(invalid(field, value, f"may not be unspecified ({value})"))
    if address.is_loopback:
        text = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        errors.append(invalid(field, value, text))
    if address.is_link_local:
        errors.append(invalid(field, value, _METADATA_SERVICE[0]))
    if _link_local_multicast(address):
        errors.append(invalid(field, value, _METADATA_SERVICE[1]))
    return errors


def _link_local_multicast(address: Address) -> bool:
    """224.0.0.0/24, or ffx2::/16 as in Go's IsLinkLocalMulticast."""
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.ip_network("224.0.0.0/24")
    return address.packed[0] == 0xFF and address.packed[1] & 0x0F == 0x02
