"""MutatingWebhookConfiguration and ValidatingWebhookConfiguration
(admissionregistration.k8s.io/v1).

The registry's admission asks the webhooks; this module has what the objects must look like
(admissionregistration/validation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.cluster import admissionrules, matchconditions
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    if_one_of,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.labelselectors import validate_selector
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import KubeObject, Resource

GROUP = "admissionregistration.k8s.io"
MUTATING: Resource[KubeObject] = Resource(
    GROUP,
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING: Resource[KubeObject] = Resource(
    GROUP,
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)

COLUMNS = (
    cells.NAME,
    Column("Webhooks", "integer", "", "Number of webhooks in this configuration"),
    cells.AGE,
)


def default(obj: KubeObject) -> None:
    for webhook in obj.get("webhooks") or ():
        webhook.setdefault("failurePolicy", "Fail")
        webhook.setdefault("matchPolicy", "Equivalent")
        webhook.setdefault("namespaceSelector", {})
        webhook.setdefault("objectSelector", {})
        webhook.setdefault("timeoutSeconds", 10)
        if obj.get("kind") == MUTATING.kind:
            webhook.setdefault("reinvocationPolicy", "Never")
        for rule in webhook.get("rules") or ():
            rule.setdefault("scope", "*")
        service = cells.at(webhook, "clientConfig", "service")
        if service is not None:
            service.setdefault("port", 443)


_VERSIONS = ("v1", "v1beta1")
_NO_SIDE_EFFECTS = ("None", "NoneOnDryRun")


def validate_create(obj: KubeObject) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, webhook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = webhook.get("name") or ""
        errors += _qualified_name(f"{path}.name", name)
        errors += _webhook(webhook, path)
        errors += _review_versions(webhook.get("admissionReviewVersions") or (), path)
        if name and name in seen:
            errors.append(duplicate(f"{path}.name", name))
        seen.add(name)
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def _qualified_name(path: str, name: str) -> list[FieldError]:
    """utilvalidation.IsFullyQualifiedName: a subdomain of at least three parts."""
    if not name:
        return [required(path)]
    if errors := by_rule(names.dns1123_subdomain, path, name):
        return errors
    if name.count(".") < 2:
        return [
            invalid(path, name, "should be a domain with at least three segments separated by dots")
        ]
    return []


def _webhook(webhook: Mapping[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, rule in enumerate(webhook.get("rules") or ()):
        errors += admissionrules.validate(rule, f"{path}.rules[{index}]")
    errors += if_one_of(f"{path}.failurePolicy", webhook.get("failurePolicy"), ("Fail", "Ignore"))
    errors += if_one_of(f"{path}.matchPolicy", webhook.get("matchPolicy"), ("Equivalent", "Exact"))
    effects = webhook.get("sideEffects")
    if effects is None:
        listed = ", ".join(_NO_SIDE_EFFECTS)
        errors.append(required(f"{path}.sideEffects", f"must specify one of {listed}"))
    elif effects not in _NO_SIDE_EFFECTS:
        errors.append(not_supported(f"{path}.sideEffects", effects, _NO_SIDE_EFFECTS))
    seconds = webhook.get("timeoutSeconds", 10)
    if not 1 <= seconds <= 30:
        text = "the timeout value must be between 1 and 30 seconds"
        errors.append(invalid(f"{path}.timeoutSeconds", seconds, text))
    policy = webhook.get("reinvocationPolicy")
    errors += if_one_of(f"{path}.reinvocationPolicy", policy, ("IfNeeded", "Never"))
    conditions = webhook.get("matchConditions") or ()
    errors += matchconditions.validate(conditions, f"{path}.matchConditions")
    for key in ("namespaceSelector", "objectSelector"):
        errors += validate_selector(webhook.get(key) or {}, f"{path}.{key}")
    errors += client_config(webhook.get("clientConfig") or {}, f"{path}.clientConfig")
    return errors


def _review_versions(versions: Sequence[str], path: str) -> list[FieldError]:
    path = f"{path}.admissionReviewVersions"
    listed = ", ".join(_VERSIONS)
    if not versions:
        return [required(path, f"must specify one of {listed}")]
    errors = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(invalid(f"{path}[{index}]", version, "duplicate version"))
        else:
            errors += by_rule(names.dns1035_label, f"{path}[{index}]", version)
    if not any(version in _VERSIONS for version in versions):
        errors.append(invalid(path, list(versions), f"must include at least one of {listed}"))
    return errors


def client_config(config: Mapping[str, Any], path: str) -> list[FieldError]:
    """Validates a WebhookClientConfig (apiserver/pkg/util/webhook/validation.go)."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [required(path, "exactly one of url or service is required")]
    if url is not None:
        return _url(url, f"{path}.url")
    return _service(service or {}, f"{path}.service")


def _url(url: str, path: str) -> list[FieldError]:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return [required(path, f"url must be a valid URL: {error}{form}")]
    errors = []
    if parts.scheme != "https":
        text = f"'https' is the only allowed URL scheme{form}"
        errors.append(invalid(path, parts.scheme, text))
    if not parts.netloc:
        errors.append(invalid(path, parts.netloc, f"host must be specified{form}"))
    if parts.username is not None:
        user = parts.netloc.rpartition("@")[0]
        errors.append(invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errors.append(invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        text = "query parameters are not permitted in the URL"
        errors.append(invalid(path, parts.query, text))
    return errors


def _service(service: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = [
        required(f"{path}.{key}", f"service {key} is required")
        for key in ("name", "namespace")
        if not service.get(key)
    ]
    for text in names.port_number(service.get("port", 443)):
        errors.append(invalid(f"{path}.port", service.get("port"), f"port is not valid: {text}"))
    where = service.get("path")
    if where is not None and where != "/":
        errors += _service_path(where, f"{path}.path")
    return errors


def _service_path(where: str, path: str) -> list[FieldError]:
    if not where.startswith("/"):
        return [invalid(path, where, "must start with a '/'")]
    steps = where[1:].removesuffix("/").split("/")
    errors = []
    for index, step in enumerate(steps):
        if not step:
            errors.append(invalid(path, where, f"segment[{index}] may not be empty"))
            continue
        for text in names.dns1123_subdomain(step):
            errors.append(invalid(path, where, f"segment[{index}]: {text}"))
    return errors


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), len(obj.get("webhooks") or ()), cells.age(obj, now)]


MUTATING_KIND = KindSpec(
    resource=MUTATING,
    singular="mutatingwebhookconfiguration",
    categories=("api-extensions",),
    default=default,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
    unconditional_update=False,
    generation=True,
)
VALIDATING_KIND = KindSpec(
    resource=VALIDATING,
    singular="validatingwebhookconfiguration",
    categories=("api-extensions",),
    default=default,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
    unconditional_update=False,
    generation=True,
)
