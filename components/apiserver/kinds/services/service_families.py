"""How clusterIPs, ipFamilies and ipFamilyPolicy of a Service depend on each other (KEP-563,
dual-stack).

The sources are ValidateServiceClusterIPsRelatedFields of pkg/apis/core/validation and
initIPFamilyFields of pkg/registry/core/service/storage/alloc.go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kubewire.components.apiserver.kinds.addresses import IPV4, IPV6, family, validate_legacy_ip
from kubewire.components.apiserver.kinds.fielderrors import (
    duplicate,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.spec import FieldError

HEADLESS = "None"
SINGLE = "SingleStack"
PREFER_DUAL = "PreferDualStack"
REQUIRE_DUAL = "RequireDualStack"

_IPS = "spec.clusterIPs"
_FAMILIES = "spec.ipFamilies"
_POLICY = "spec.ipFamilyPolicy"
_FIXED = "may not change once set"
_OTHER = {IPV4: IPV6, IPV6: IPV4}

Spec = Mapping[str, Any]


def is_headless(spec: Spec) -> bool:
    return list(spec.get("clusterIPs") or ()) == [HEADLESS]


def validate_cluster_ips(spec: Spec) -> list[FieldError]:
    if spec.get("type") == "ExternalName":
        return []
    errors = _first_matches(spec)
    seen = set[str]()
    for index, ip_family in enumerate(spec.get("ipFamilies") or ()):
        if ip_family not in (IPV4, IPV6):
            errors.append(not_supported(f"{_FAMILIES}[{index}]", ip_family, (IPV4, IPV6)))
        if ip_family in seen:
            errors.append(duplicate(f"{_FAMILIES}[{index}]", ip_family))
        seen.add(ip_family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in (SINGLE, PREFER_DUAL, REQUIRE_DUAL):
        errors.append(not_supported(_POLICY, policy, (PREFER_DUAL, REQUIRE_DUAL, SINGLE)))
    malformed = _malformed_ips(spec)
    errors += malformed
    if len(spec.get("clusterIPs") or ()) > 2:
        errors.append(invalid(_IPS, spec["clusterIPs"], "may only hold up to 2 values"))
    return errors if malformed else errors + _match_families(spec)


def _first_matches(spec: Spec) -> list[FieldError]:
    """clusterIP must be the first of clusterIPs."""
    ip = spec.get("clusterIP") or ""
    ips = spec.get("clusterIPs") or []
    if ip and not ips:
        return [required(_IPS)]
    if ip and ips[0] != ip:
        return [invalid(_IPS, ips, "first value must match `clusterIP`")]
    if not ip and ips:
        return [invalid(_IPS, ips, "must be empty when `clusterIP` is not specified")]
    return []


def _malformed_ips(spec: Spec) -> list[FieldError]:
    errors = []
    ips = spec.get("clusterIPs") or []
    for index, ip in enumerate(ips):
        if index == 0 and ip == HEADLESS:
            if len(ips) > 1:
                errors.append(invalid(_IPS, ips, "'None' must be the first and only value"))
            continue
        errors += validate_legacy_ip(f"{_IPS}[{index}]", ip)
    return errors


def _match_families(spec: Spec) -> list[FieldError]:
    errors = []
    ips = spec.get("clusterIPs") or []
    if len(ips) > 1 and len({family(ip) for ip in ips}) < 2:
        errors.append(invalid(_IPS, ips, "may specify no more than one IP for each IP family"))
    if is_headless(spec):
        return errors
    for index, (wanted, ip) in enumerate(zip(spec.get("ipFamilies") or (), ips, strict=False)):
        if wanted in (IPV4, IPV6) and family(ip) != wanted:
            text = f"expected an {wanted} value as indicated by `ipFamilies[{index}]`"
            errors.append(invalid(f"{_IPS}[{index}]", ip, text))
    return errors


def validate_cluster_ips_change(new: Spec, old: Spec) -> list[FieldError]:
    """Keeps the first address; a second one may come and go with the policy."""
    if "ExternalName" in (new.get("type"), old.get("type")):
        return []
    if is_headless(new) and is_headless(old):
        return []
    before = list(old.get("clusterIPs") or ())
    after = list(new.get("clusterIPs") or ())
    if len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        changed = [index for index, (was, now) in pairs if was != now]
        return [invalid(f"{_IPS}[{index}]", after, _FIXED) for index in changed]
    errors = []
    if before and not after:
        errors.append(invalid(f"{_IPS}[0]", after, "primary clusterIP can not be unset"))
    if before and after and before[0] != after[0]:
        errors.append(invalid(f"{_IPS}[0]", after, _FIXED))
    if len(before) > len(after) == 1 and new.get("ipFamilyPolicy") != SINGLE:
        text = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        errors.append(invalid(_POLICY, new.get("ipFamilyPolicy"), text))
    return errors


def validate_ip_families_change(new: Spec, old: Spec) -> list[FieldError]:
    if "ExternalName" in (new.get("type"), old.get("type")) or is_headless(new) or is_headless(old):
        return []
    before = list(old.get("ipFamilies") or ())
    after = list(new.get("ipFamilies") or ())
    if len(before) == len(after):
        changed = [was for was, now in zip(before, after, strict=True) if was != now]
        return [invalid(f"{_FAMILIES}[0]", after, _FIXED) for _ in changed]
    errors = []
    if len(before) > len(after) and not new.get("clusterIPs"):
        errors.append(invalid(f"{_FAMILIES}[0]", after, "primary ipFamily can not be unset"))
    if before and after and before[0] != after[0]:
        errors.append(invalid(f"{_FAMILIES}[0]", new.get("clusterIPs"), _FIXED))
    if len(before) > len(after) == 1 and new.get("ipFamilyPolicy") != SINGLE:
        text = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        errors.append(invalid(_POLICY, new.get("ipFamilyPolicy"), text))
    return errors


def keeps_prefer_dual_stack(new: Spec, old: Spec | None) -> bool:
    """Whether a PreferDualStack Service keeps its families as they are.

    An update that does not change its addresses neither upgrades nor downgrades it.
    """
    if old is None or new.get("type") != old.get("type") or new.get("type") == "ExternalName":
        return False
    if new.get("ipFamilyPolicy") != PREFER_DUAL:
        return False
    if (old.get("ipFamilyPolicy") or PREFER_DUAL) != PREFER_DUAL:
        return False
    return _same(new, old, "clusterIPs") and _same(new, old, "ipFamilies")


def _same(new: Spec, old: Spec, key: str) -> bool:
    return list(new.get(key) or ()) == list(old.get(key) or ())


def fill_families(
    new: dict[str, Any],
    old: Spec | None,
    configured: Collection[str],
) -> list[FieldError]:
    """Derives ipFamilyPolicy and ipFamilies from the spec and the cluster's families.

    configured lists the families of the Service ranges, the default one first.
    """
    if new.get("type") == "ExternalName" or keeps_prefer_dual_stack(new, old):
        return []
    if new.get("ipFamilyPolicy") is None:
        new["ipFamilyPolicy"] = _default_policy(new, old)
    errors = validate_cluster_ips(new)
    if errors:
        return errors
    if old is not None:
        errors += _release_second(new, old)
    errors += _too_many_for_single(new)
    errors += _infer_families(new, configured)
    if errors:
        return errors
    families = new.get("ipFamilies") or []
    if new.get("clusterIP") == HEADLESS and not new.get("selector"):
        # A headless Service without selector gets no addresses, so any family is valid, whether
        # the cluster has it or not.
        families = families or [next(iter(configured))]
        if len(families) < 2 and new["ipFamilyPolicy"] != SINGLE:
            families = [*families, _OTHER[families[0]]]
        new["ipFamilies"] = families
        return []
    return _complete_families(new, families, configured)


def _complete_families(
    new: dict[str, Any],
    families: list[str],
    configured: Collection[str],
) -> list[FieldError]:
    errors = []
    if new["ipFamilyPolicy"] == REQUIRE_DUAL and len(configured) < 2:
        errors.append(
            invalid(
                _POLICY,
                REQUIRE_DUAL,
                "this cluster is not configured for dual-stack services",
            )
        )
    for index, ip_family in enumerate(families):
        if ip_family not in configured:
            errors.append(
                invalid(f"{_FAMILIES}[{index}]", ip_family, "not configured on this cluster"),
            )
    if errors:
        return errors
    families = families or [next(iter(configured))]
    if new["ipFamilyPolicy"] != SINGLE and len(families) == 1 and len(configured) == 2:
        families = [*families, _OTHER[families[0]]]
    new["ipFamilies"] = families
    return []


def _default_policy(new: Spec, old: Spec | None) -> str:
    if old is not None and old.get("ipFamilyPolicy"):
        return str(old["ipFamilyPolicy"])
    return REQUIRE_DUAL if new.get("clusterIP") == HEADLESS and not new.get("selector") else SINGLE


def _release_second(new: dict[str, Any], old: Spec) -> list[FieldError]:
    """Releases the second address with SingleStack.

    Without that policy it is an error to omit the second address or family.
    """
    if new["ipFamilyPolicy"] == SINGLE:
        for key in ("clusterIPs", "ipFamilies"):
            if _same(new, old, key) and len(new.get(key) or ()) > 1:
                new[key] = new[key][:1]
        return []
    errors = []
    for key, noun in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        if 0 < len(new.get(key) or ()) < len(old.get(key) or ()):
            text = f"must be 'SingleStack' to release the secondary {noun}"
            errors.append(invalid(_POLICY, new["ipFamilyPolicy"], text))
    return errors


def _too_many_for_single(new: Spec) -> list[FieldError]:
    if new["ipFamilyPolicy"] != SINGLE:
        return []
    return [
        invalid(
            _POLICY,
            SINGLE,
            f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {noun} are specified",
        )
        for key, noun in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families"))
        if len(new.get(key) or ()) == 2
    ]


def _infer_families(new: dict[str, Any], configured: Collection[str]) -> list[FieldError]:
    """Adds the families of the given addresses."""
    errors = []
    ips = new.get("clusterIPs") or []
    families = list(new.get("ipFamilies") or ())
    for index, ip in enumerate(ips):
        if ip == HEADLESS:
            break
        if index < len(families):
            continue
        ip_family = family(ip)
        if ip_family in configured:
            families.append(ip_family)
        else:
            errors.append(
                invalid(f"{_IPS}[{index}]", ips, f"{ip_family} is not configured on this cluster"),
            )
    if families:
        new["ipFamilies"] = families
    return errors
