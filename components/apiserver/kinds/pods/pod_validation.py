"""Validates pods and pod templates (ValidatePodSpec of pkg/apis/core/validation/validation.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.addresses import validate_legacy_ip
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    if_one_of,
    in_range,
    invalid,
    labels,
    not_supported,
    one_of,
    required,
)
from kubewire.components.apiserver.kinds.labelselectors import (
    validate_selector,
)
from kubewire.components.apiserver.kinds.nodeselectors import (
    validate_node_selector,
    validate_node_term,
)
from kubewire.components.apiserver.kinds.pods.container_validation import (
    PodContext,
    validate_containers,
    validate_ephemeral_containers,
    validate_init_containers,
)
from kubewire.components.apiserver.kinds.pods.sysctl_validation import validate_sysctls
from kubewire.components.apiserver.kinds.pods.volume_validation import validate_volumes
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.resources import KubeObject

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_MOST_NAMESERVERS = 3
_MOST_SEARCHES = 32
_MOST_SEARCH_CHARACTERS = 2048
_MIRROR = "kubernetes.io/config.mirror"

Spec = Mapping[str, Any]


def validate_pod(pod: KubeObject) -> list[FieldError]:
    annotations = pod["metadata"].get("annotations") or {}
    spec = pod.get("spec") or {}
    errors = []
    if _MIRROR in annotations and not spec.get("nodeName"):
        text = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(invalid(f"metadata.annotations[{_MIRROR}]", annotations[_MIRROR], text))
    return errors + validate_pod_spec(spec, "spec", is_pod=True)


def validate_template_metadata(template: Mapping[str, Any], path: str) -> list[FieldError]:
    metadata = template.get("metadata") or {}
    errors = labels(f"{path}.labels", metadata.get("labels"))
    for key in metadata.get("annotations") or {}:
        texts = names.qualified_name(key.lower())
        errors += [invalid(f"{path}.annotations", key, text) for text in texts]
    return errors


def validate_pod_template(template: Mapping[str, Any], path: str) -> list[FieldError]:
    spec = template.get("spec") or {}
    errors = validate_template_metadata(template, path)
    errors += validate_pod_spec(spec, f"{path}.spec", is_pod=False)
    if spec.get("ephemeralContainers"):
        errors.append(
            forbidden(
                f"{path}.spec.ephemeralContainers",
                "ephemeral containers not allowed in pod template",
            )
        )
    return errors


def validate_pod_spec(spec: Spec, path: str, *, is_pod: bool) -> list[FieldError]:
    volumes = spec.get("volumes") or []
    context = PodContext(
        {volume.get("name", ""): volume for volume in volumes},
        spec.get("terminationGracePeriodSeconds"),
        spec.get("restartPolicy", "Always"),
        is_pod,
    )
    containers = spec.get("containers") or []
    init = spec.get("initContainers") or []
    ephemeral = spec.get("ephemeralContainers") or []
    dns = spec.get("dnsPolicy")
    return [
        *validate_volumes(volumes, f"{path}.volumes"),
        *validate_containers(containers, f"{path}.containers", context),
        *validate_init_containers(init, containers, f"{path}.initContainers", context),
        *validate_ephemeral_containers(
            ephemeral,
            [*containers, *init],
            f"{path}.ephemeralContainers",
            context,
        ),
        *_host_network(spec, path, is_pod),
        *one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES),
        *one_of(f"{path}.dnsPolicy", dns, _DNS_POLICIES),
        *labels(f"{path}.nodeSelector", spec.get("nodeSelector")),
        *_security_context(spec.get("securityContext") or {}, f"{path}.securityContext"),
        *_affinity(spec.get("affinity") or {}, f"{path}.affinity"),
        *_dns_config(spec.get("dnsConfig"), dns, f"{path}.dnsConfig"),
        *_gates(spec, path),
        *_spread(spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints"),
        *_names(spec, path),
        *validate_tolerations(spec.get("tolerations") or (), f"{path}.tolerations"),
        *_host_aliases(spec.get("hostAliases") or (), f"{path}.hostAliases"),
        *if_one_of(
            f"{path}.preemptionPolicy",
            spec.get("preemptionPolicy"),
            ("PreemptLowerPriority", "Never"),
        ),
        *_operating_system(spec, path),
    ]


def _host_network(spec: Spec, path: str, is_pod: bool) -> list[FieldError]:
    """With hostNetwork a container port is a port of the node, so both numbers must be equal."""
    if not spec.get("hostNetwork"):
        return []
    errors = []
    for number, container in enumerate(spec.get("containers") or ()):
        for index, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort", 0)
            own = port.get("containerPort", 0)
            if (is_pod or host) and host != own:
                at = f"{path}.containers[{number}].ports[{index}].hostPort"
                errors.append(
                    invalid(at, host, "must match `containerPort` when `hostNetwork` is true"),
                )
    return errors


def _names(spec: Spec, path: str) -> list[FieldError]:
    errors = []
    for key, rule in (
        ("serviceAccountName", names.dns1123_subdomain),
        ("nodeName", names.dns1123_subdomain),
    ):
        if spec.get(key):
            errors += by_rule(rule, f"{path}.{key}", spec[key])
    seconds = spec.get("activeDeadlineSeconds")
    if seconds is not None:
        errors += in_range(f"{path}.activeDeadlineSeconds", seconds, 1, 2**31 - 1)
    for key, rule in (
        ("hostname", names.dns1123_label),
        ("subdomain", names.dns1123_label),
        ("priorityClassName", names.dns1123_subdomain),
        ("runtimeClassName", names.dns1123_subdomain),
    ):
        if spec.get(key):
            errors += by_rule(rule, f"{path}.{key}", spec[key])
    return errors


def _security_context(context: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    for key in ("fsGroup", "runAsUser", "runAsGroup"):
        if context.get(key) is not None:
            errors += in_range(f"{path}.{key}", context[key], 0, 2**32 - 1)
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        errors += in_range(f"{path}.supplementalGroups[{index}]", group, 0, 2**32 - 1)
    return errors + validate_sysctls(context.get("sysctls") or (), f"{path}.sysctls")


def _dns_config(
    config: Mapping[str, Any] | None,
    policy: str | None,
    path: str,
) -> list[FieldError]:
    nameservers = (config or {}).get("nameservers") or []
    if policy == "None" and config is None:
        return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
    if policy == "None" and not nameservers:
        text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        return [required(f"{path}.nameservers", text)]
    if config is None:
        return []
    errors = []
    if len(nameservers) > _MOST_NAMESERVERS:
        text = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        errors.append(invalid(f"{path}.nameservers", nameservers, text))
    for index, address in enumerate(nameservers):
        errors += validate_legacy_ip(f"{path}.nameservers[{index}]", address)
    errors += _searches(config.get("searches") or [], f"{path}.searches")
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{path}.options[{index}]", "must not be empty"))
    return errors


def _searches(searches: Sequence[str], path: str) -> list[FieldError]:
    errors = []
    if len(searches) > _MOST_SEARCHES:
        errors.append(
            invalid(path, searches, f"must not have more than {_MOST_SEARCHES} search paths"),
        )
    if len(" ".join(searches)) > _MOST_SEARCH_CHARACTERS:
        text = f"must not have more than {_MOST_SEARCH_CHARACTERS} characters"
        text += " (including spaces) in the search list"
        errors.append(invalid(path, searches, text))
    for index, search in enumerate(searches):
        if search != ".":
            rule = names.dns1123_subdomain_with_underscore
            errors += by_rule(rule, f"{path}[{index}]", search.removesuffix("."))
    return errors


def _gates(spec: Spec, path: str) -> list[FieldError]:
    errors = []
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        at = f"{path}.readinessGates[{index}].conditionType"
        errors += by_rule(names.qualified_name, at, gate.get("conditionType") or "")
    seen = set[str]()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        at = f"{path}.schedulingGates[{index}]"
        name = gate.get("name") or ""
        errors += by_rule(names.qualified_name, at, name)
        if name in seen:
            errors.append(duplicate(at, name))
        seen.add(name)
    return errors


def _spread(constraints: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors = []
    seen = set[tuple[str, str]]()
    for index, constraint in enumerate(constraints):
        at = f"{path}[{index}]"
        key = constraint.get("topologyKey") or ""
        action = constraint.get("whenUnsatisfiable") or ""
        if constraint.get("maxSkew", 0) <= 0:
            errors.append(invalid(f"{at}.maxSkew", constraint.get("maxSkew", 0), names.POSITIVE))
        if not key:
            errors.append(required(f"{at}.topologyKey", "can not be empty"))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            errors.append(
                not_supported(
                    f"{at}.whenUnsatisfiable",
                    action,
                    ("DoNotSchedule", "ScheduleAnyway"),
                )
            )
        if (key, action) in seen:
            errors.append(
                duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"),
            )
        seen.add((key, action))
        errors += validate_selector(constraint.get("labelSelector"), f"{at}.labelSelector")
    return errors


def validate_tolerations(tolerations: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors = []
    for index, toleration in enumerate(tolerations):
        at = f"{path}[{index}]"
        key = toleration.get("key") or ""
        operator = toleration.get("operator") or ""
        if key:
            errors += by_rule(names.qualified_name, f"{at}.key", key)
        elif operator != "Exists":
            text = "operator must be Exists when `key` is empty"
            text += ', which means "match all values and all keys"'
            errors.append(invalid(f"{at}.operator", operator, text))
        is_limited = toleration.get("tolerationSeconds") is not None
        if is_limited and toleration.get("effect") != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid(f"{at}.effect", toleration.get("effect") or "", text))
        errors += _toleration_value(operator, toleration.get("value") or "", f"{at}.operator")
        errors += if_one_of(f"{at}.effect", toleration.get("effect"), _EFFECTS)
    return errors


def _toleration_value(operator: str, value: str, path: str) -> list[FieldError]:
    if operator in ("", "Equal"):
        wrong = names.label_value(value)
        return [invalid(path, value, ";".join(wrong))] if wrong else []
    if operator == "Exists":
        text = "value must be empty when `operator` is 'Exists'"
        return [invalid(path, value, text)] if value else []
    return [not_supported(path, operator, ("Equal", "Exists"))]


def validate_taints(taints: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    """Validates the taints of nodes; they share effects and texts with tolerations."""
    errors = []
    seen = set[tuple[str, str]]()
    for index, taint in enumerate(taints):
        at = f"{path}[{index}]"
        key = taint.get("key") or ""
        effect = taint.get("effect") or ""
        errors += by_rule(names.qualified_name, f"{at}.key", key)
        wrong = names.label_value(taint.get("value") or "")
        if wrong:
            errors.append(invalid(f"{at}.value", taint.get("value"), ";".join(wrong)))
        errors += one_of(f"{at}.effect", effect, _EFFECTS)
        if (key, effect) in seen:
            text = "taints must be unique by key and effect pair"
            errors.append(FieldError("Duplicate", at, dict(taint), text))
        seen.add((key, effect))
    return errors


def _host_aliases(aliases: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors = []
    for index, alias in enumerate(aliases):
        errors += validate_legacy_ip(f"{path}[{index}].ip", alias.get("ip") or "")
        for number, name in enumerate(alias.get("hostnames") or ()):
            errors += by_rule(names.dns1123_subdomain, f"{path}[{index}].hostnames[{number}]", name)
    return errors


def _operating_system(spec: Spec, path: str) -> list[FieldError]:
    system = spec.get("os")
    if system is None:
        return []
    return one_of(
        f"{path}.os.name" if not system.get("name") else f"{path}.os",
        system.get("name"),
        ("linux", "windows"),
    )


def _affinity(affinity: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = _node_affinity(affinity.get("nodeAffinity") or {}, f"{path}.nodeAffinity")
    for key in ("podAffinity", "podAntiAffinity"):
        pod_affinity = affinity.get(key) or {}
        at = f"{path}.{key}"
        terms = pod_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for index, term in enumerate(terms):
            errors += _pod_term(
                term,
                f"{at}.requiredDuringSchedulingIgnoredDuringExecution[{index}]",
            )
        for index, weighted in enumerate(
            pod_affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or (),
        ):
            term_path = f"{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            errors += _weight(weighted, term_path)
            errors += _pod_term(
                weighted.get("podAffinityTerm") or {},
                f"{term_path}.podAffinityTerm",
            )
    return errors


def _weight(weighted: Mapping[str, Any], path: str) -> list[FieldError]:
    weight = weighted.get("weight", 0)
    if 1 <= weight <= 100:
        return []
    return [invalid(f"{path}.weight", weight, "must be in the range 1-100")]


def _pod_term(term: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = validate_selector(term.get("labelSelector"), f"{path}.labelSelector")
    errors += validate_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for name in term.get("namespaces") or ():
        errors += by_rule(names.dns1123_label, f"{path}.namespace", name)
    key = term.get("topologyKey") or ""
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    return errors + by_rule(names.qualified_name, f"{path}.topologyKey", key)


def _node_affinity(affinity: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    selector = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if selector is not None:
        at = f"{path}.requiredDuringSchedulingIgnoredDuringExecution"
        errors += validate_node_selector(selector, at)
    for index, weighted in enumerate(
        affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or (),
    ):
        at = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        errors += _weight(weighted, at)
        errors += validate_node_term(weighted.get("preference") or {}, f"{at}.preference")
    return errors
