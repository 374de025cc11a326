"""Warnings about spellings of IP addresses and CIDRs (GetWarningsForIP and GetWarningsForCIDR of
apimachinery/pkg/util/validation/ip.go).

Strict validation refuses most of them in new objects; an update may keep them.
"""

from __future__ import annotations

import ipaddress

from kubewire.components.apiserver.kinds.addresses import Address, Network, parse_ip


def ip_warnings(path: str, value: str) -> list[str]:
    address = parse_ip(value)
    if address is None:
        return []
    preferred = _preferred(address)
    if _leading_zeros(value) or preferred is not address:
        return [f'{path}: non-standard IP address "{value}" is invalid: use "{preferred}"']
    if address.version == 6 and str(address) != value:
        text = f'should be in RFC 5952 canonical format ("{address}")'
        return [f'{path}: IPv6 address "{value}" {text}']
    return []


def cidr_warnings(path: str, value: str) -> list[str]:
    text, _, length = value.partition("/")
    address = parse_ip(text)
    if address is None or not length.isdecimal() or int(length) > address.max_prefixlen:
        return []
    preferred = _preferred(address)
    bits = int(length) - (96 if preferred is not address else 0)
    network: Network = ipaddress.ip_network(f"{preferred}/{max(bits, 0)}", strict=False)
    warnings = []
    if network.network_address != preferred:
        single = f"{preferred}/{preferred.max_prefixlen}"
        why = f'is ambiguous in this context (should be "{network}" or "{single}"?)'
        warnings.append(f'{path}: CIDR value "{value}" {why}')
    if _leading_zeros(text) or str(int(length)) != length or preferred is not address:
        warnings.append(f'{path}: non-standard CIDR value "{value}" is invalid: use "{network}"')
    if not warnings and address.version == 6 and str(network) != value:
        why = f'should be in RFC 5952 canonical format ("{network}")'
        warnings.append(f'{path}: IPv6 CIDR value "{value}" {why}')
    return warnings


def _preferred(address: Address) -> Address:
    """The IPv4 address of an IPv4-mapped IPv6 address, as Go prints it."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _leading_zeros(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return True
    return False
