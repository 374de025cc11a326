"""Ingress and IngressClass (networking.k8s.io/v1): pkg/apis/networking/validation,
pkg/registry/networking.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.addresses import parse_ip
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    immutable,
    in_range,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.services.service import load_balancer
from kubewire.components.apiserver.kinds.services.service_validation import (
    validate_load_balancer_status,
)
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.kubeapi.resources import INGRESSCLASSES, INGRESSES, KubeObject

_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_IN_PATH = ("//", "/./", "/../", "%2f", "%2F")
_BAD_AT_END = ("/..", "/.")
_MOST_HOSTS = 3

COLUMNS = (
    cells.NAME,
    Column("Class", "string", "", "The IngressClass that serves it."),
    Column("Hosts", "string", "", "The hosts against which requests are matched."),
    Column("Address", "string", "", "The addresses of the load balancer in front of it."),
    Column("Ports", "string", "", "80, and 443 with TLS."),
    cells.AGE,
)


def prepare_create(obj: KubeObject) -> None:
    obj["status"] = {"loadBalancer": {}}


def validate_create(obj: KubeObject) -> list[FieldError]:
    annotations = obj["metadata"].get("annotations") or {}
    spec = obj.get("spec") or {}
    errors = []
    if annotations.get(_CLASS_ANNOTATION) and spec.get("ingressClassName") is not None:
        text = "can not be set when the class field is also set"
        errors.append(
            invalid(
                "metadata.annotations." + _CLASS_ANNOTATION,
                annotations[_CLASS_ANNOTATION],
                text,
            )
        )
    return errors + _spec(spec)


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return _spec(new.get("spec") or {})


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    status = new.get("status") or {}
    return validate_load_balancer_status(status.get("loadBalancer") or {}, "status.loadBalancer")


def _spec(spec: Mapping[str, Any]) -> list[FieldError]:
    errors = []
    rules = spec.get("rules") or []
    backend = spec.get("defaultBackend")
    if not rules and backend is None:
        errors.append(
            invalid("spec", rules, "either `defaultBackend` or `rules` must be specified"),
        )
    if backend is not None:
        errors += _backend(backend, "spec.defaultBackend")
    for index, rule in enumerate(rules):
        errors += _rule(rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        for number, host in enumerate(tls.get("hosts") or ()):
            errors += _host(host, f"spec.tls[{index}].hosts[{number}]")
        if tls.get("secretName"):
            errors += by_rule(
                names.dns1123_subdomain,
                f"spec.tls[{index}].secretName",
                tls["secretName"],
            )
    if spec.get("ingressClassName") is not None:
        errors += by_rule(
            names.dns1123_subdomain,
            "spec.ingressClassName",
            spec["ingressClassName"],
        )
    return errors


def _host(host: str, path: str) -> list[FieldError]:
    rule = names.wildcard_subdomain if "*" in host else names.dns1123_subdomain
    return by_rule(rule, path, host)


def _rule(rule: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    host = rule.get("host") or ""
    if host:
        if parse_ip(host) is not None:
            errors.append(invalid(f"{path}.host", host, "must be a DNS name, not an IP address"))
        errors += _host(host, f"{path}.host")
    http = rule.get("http")
    if http is None:
        return errors
    if not http.get("paths"):
        return [*errors, required(f"{path}.http.paths")]
    for index, rule_path in enumerate(http["paths"]):
        errors += _path(rule_path, f"{path}.http.paths[{index}]")
    return errors


def _path(rule_path: Mapping[str, Any], at: str) -> list[FieldError]:
    kind = rule_path.get("pathType")
    path = rule_path.get("path") or ""
    if kind is None:
        return [required(f"{at}.pathType", "pathType must be specified")]
    errors = []
    if kind not in _PATH_TYPES:
        errors.append(not_supported(f"{at}.pathType", kind, _PATH_TYPES))
    elif kind != "ImplementationSpecific" or path:
        if not path.startswith("/"):
            errors.append(invalid(f"{at}.path", path, "must be an absolute path"))
        elif kind != "ImplementationSpecific":
            errors += _strict_path(path, f"{at}.path")
    return errors + _backend(rule_path.get("backend") or {}, f"{at}.backend")


def _strict_path(path: str, at: str) -> list[FieldError]:
    errors = [invalid(at, path, f"must not contain '{bad}'") for bad in _BAD_IN_PATH if bad in path]
    endings = [bad for bad in _BAD_AT_END if path.endswith(bad)]
    return errors + [invalid(at, path, f"cannot end with '{bad}'") for bad in endings]


def _backend(backend: Mapping[str, Any], path: str) -> list[FieldError]:
    service = backend.get("service")
    resource = backend.get("resource")
    if service is not None and resource is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _resource(resource, f"{path}.resource")
    if service is None:
        return [required(path, "resource or service backend is required")]
    errors = []
    if not service.get("name"):
        errors.append(required(f"{path}.service.name"))
    else:
        errors += by_rule(names.dns1123_label, f"{path}.service.name", service["name"])
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        errors += by_rule(names.port_name, f"{path}.service.port.name", port["name"])
    elif port.get("number"):
        errors += in_range(f"{path}.service.port.number", port["number"], 1, 65535)
    else:
        errors.append(required(path, "port name or number is required"))
    return errors


def _resource(resource: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    if resource.get("apiGroup"):
        errors += by_rule(names.dns1123_subdomain, f"{path}.apiGroup", resource["apiGroup"])
    return errors + [required(f"{path}.{key}") for key in ("kind", "name") if not resource.get(key)]


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        cells.name(obj),
        spec.get("ingressClassName", cells.NONE),
        _hosts(spec.get("rules") or []),
        ",".join(load_balancer(obj.get("status"))),
        "80, 443" if spec.get("tls") else "80",
        cells.age(obj, now),
    ]


def _hosts(rules: list[dict[str, Any]]) -> str:
    hosts: list[str] = []
    for rule in rules:
        if len(hosts) == _MOST_HOSTS:
            return f"{','.join(hosts)} + {len(rules) - _MOST_HOSTS} more..."
        if rule.get("host"):
            hosts.append(rule["host"])
    return ",".join(hosts) or "*"


KIND = KindSpec(
    resource=INGRESSES,
    singular="ingress",
    generation=True,
    short_names=("ing",),
    subresources=("status",),
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    columns=COLUMNS,
    row=row,
)


def default_class(obj: KubeObject) -> None:
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is not None and not parameters.get("scope"):
        parameters["scope"] = "Cluster"


def validate_class(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _controller(spec.get("controller") or "")
    parameters = spec.get("parameters")
    if parameters is None:
        return errors
    path = "spec.parameters"
    errors += _resource(parameters, path)
    scope = parameters.get("scope")
    namespace = parameters.get("namespace")
    if scope not in ("Cluster", "Namespace"):
        errors.append(not_supported(f"{path}.scope", scope, ("Cluster", "Namespace")))
    elif scope == "Namespace" and not namespace:
        errors.append(required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Cluster" and namespace is not None:
        text = "`parameters.namespace` must not be set when `parameters.scope` is set to 'Cluster'"
        errors.append(FieldError("Forbidden", f"{path}.namespace", "", text))
    return errors


def _controller(name: str) -> list[FieldError]:
    """Validates a domain-prefixed path such as acme.io/foo."""
    path = "spec.controller"
    if len(name.encode()) > 250:
        return [FieldError("TooLong", path, name, "may not be more than 250 bytes")]
    if not name:
        return [required(path)]
    host, _, rest = name.partition("/")
    if not host or not rest:
        return [invalid(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return by_rule(names.dns1123_subdomain, path, host)


def validate_class_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = immutable(
        "spec.controller",
        cells.at(new, "spec", "controller"),
        cells.at(old, "spec", "controller"),
    )
    return errors + validate_class(new)


def class_row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    parameters = spec.get("parameters")
    text = cells.NONE
    if parameters is not None:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        text = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    return [cells.name(obj), spec.get("controller", ""), text, cells.age(obj, now)]


CLASS_KIND = KindSpec(
    resource=INGRESSCLASSES,
    singular="ingressclass",
    generation=True,
    default=default_class,
    validate_create=validate_class,
    validate_update=validate_class_update,
    columns=(
        cells.NAME,
        Column(
            "Controller",
            "string",
            "",
            "Controller that is responsible for handling this class",
        ),
        Column("Parameters", "string", "", "A reference to a resource with additional parameters"),
        cells.AGE,
    ),
    row=class_row,
)
