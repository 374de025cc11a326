"""A container's environment: service variables, envFrom, env with valueFrom, and $(VAR).

Precedence and texts are upstream's (pkg/kubelet/kubelet_pods.go, pkg/kubelet/envvars): service
variables never override the pod's own; env overrides envFrom; later entries override earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.downward import DownwardError, NodeFacts, field, resource_field
from kubewire.components.kubelet.pod.expansion import expand

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ConfigMap,
        ConfigMapEnvSource,
        ConfigMapKeySelector,
        Container,
        EnvFromSource,
        EnvVar,
        Pod,
        SecretEnvSource,
        SecretKeySelector,
        Service,
        ServiceSpec,
    )


class EnvironmentProblem(ValueError):
    """The container cannot start; the text is the message of CreateContainerConfigError."""


@dataclass(frozen=True)
class Sources:
    """The data for an environment. config_map and secret return None for a missing object."""

    node: NodeFacts
    pod_ips: tuple[str, ...]
    config_map: Callable[[str], ConfigMap | None]
    secret: Callable[[str], Mapping[str, bytes] | None]
    services: Iterable[Service]


def service_variables(
    services: Iterable[Service],
    namespace: str,
    links: bool,
) -> dict[str, str]:
    """X_SERVICE_HOST, X_SERVICE_PORT and Docker's link variables of a pod's Services.

    These are default/kubernetes and, with enableServiceLinks, all Services of the pod's namespace.
    Headless and ExternalName Services have no cluster IP and are left out.
    """
    chosen: dict[str, Service] = {}
    for service in services:
        own = service["metadata"]
        address = service["spec"].get("clusterIP")
        if address in (None, "", "None"):
            continue
        if own["namespace"] == namespace and links:
            chosen[own["name"]] = service
        elif own["namespace"] == "default" and own["name"] == "kubernetes":
            chosen.setdefault("kubernetes", service)
    variables: dict[str, str] = {}
    for name in sorted(chosen):
        variables.update(_variables_of(name, chosen[name]["spec"]))
    return variables


def _variable_name(text: str) -> str:
    return text.upper().replace("-", "_")


def _variables_of(name: str, spec: ServiceSpec) -> dict[str, str]:
    prefix = _variable_name(name)
    host = spec["clusterIP"]
    bracketed = f"[{host}]" if ":" in host else host
    ports = spec.get("ports") or []
    out = {f"{prefix}_SERVICE_HOST": host}
    if ports:
        out[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            out[f"{prefix}_SERVICE_PORT_{_variable_name(port['name'])}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{bracketed}:{port['port']}"
        if index == 0:
            out[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        out |= {
            link: url,
            f"{link}_PROTO": protocol.lower(),
            f"{link}_PORT": str(port["port"]),
            f"{link}_ADDR": host,
        }
    return out


_ENV_NAME = re.compile(r"^[ -<>-~]+$")


def environment(pod: Pod, container: Container, sources: Sources) -> dict[str, str]:
    """The variables of a container.

    Raises EnvironmentProblem for a missing ConfigMap, Secret or key that is not optional.
    """
    result: dict[str, str] = {}
    for entry in container.get("envFrom") or []:
        result.update(_from_object(pod, entry, sources))
    with_links = pod["spec"].get("enableServiceLinks") is not False
    links = service_variables(sources.services, pods.namespace(pod), with_links)
    known = dict(result)
    for variable in container.get("env") or []:
        value = _value(pod, container, variable, sources, {**links, **known})
        if value is not None:
            known[variable["name"]] = value
            result[variable["name"]] = value
    return {**links, **result}


def _from_object(pod: Pod, entry: EnvFromSource, sources: Sources) -> dict[str, str]:
    prefix = entry.get("prefix") or ""
    values: Mapping[str, str] | None = None
    reference: ConfigMapEnvSource | SecretEnvSource = {}
    kind = ""
    if reference := entry.get("configMapRef") or {}:
        kind = "configmap"
        values = _config_map_values(sources, reference)
    elif reference := entry.get("secretRef") or {}:
        kind = "secret"
        values = _secret_values(sources, reference)
    if values is None:
        if not kind or reference.get("optional"):
            return {}
        raise EnvironmentProblem(f'{kind} "{reference["name"]}" not found')
    return {prefix + key: values[key] for key in sorted(values) if _ENV_NAME.match(prefix + key)}


def _value(
    pod: Pod,
    container: Container,
    entry: EnvVar,
    sources: Sources,
    known: Mapping[str, str],
) -> str | None:
    if "valueFrom" not in entry or not entry["valueFrom"]:
        return expand(entry.get("value") or "", known)
    source = entry["valueFrom"]
    try:
        if reference := source.get("fieldRef"):
            return field(pod, reference["fieldPath"], sources.node, sources.pod_ips)
        if resource := source.get("resourceFieldRef"):
            other = pods.container(pod, resource.get("containerName") or "") or container
            return resource_field(other, resource, sources.node)
    except DownwardError as error:
        raise EnvironmentProblem(str(error)) from error
    if config_map_key := source.get("configMapKeyRef"):
        data = _config_map_values(sources, config_map_key)
        return _key(pod, "ConfigMap", "configmap", config_map_key, data)
    if secret_key := source.get("secretKeyRef"):
        values = _secret_values(sources, secret_key)
        return _key(pod, "Secret", "secret", secret_key, values)
    return ""


def _config_map_values(
    sources: Sources, reference: ConfigMapEnvSource | ConfigMapKeySelector
) -> dict[str, str] | None:
    config_map = sources.config_map(reference["name"])
    return None if config_map is None else (config_map.get("data") or {})


def _secret_values(
    sources: Sources, reference: SecretEnvSource | SecretKeySelector
) -> dict[str, str] | None:
    secret = sources.secret(reference["name"])
    if secret is None:
        return None
    return {key: raw.decode(errors="replace") for key, raw in secret.items()}


def _key(
    pod: Pod,
    kind: str,
    lower: str,
    reference: ConfigMapKeySelector | SecretKeySelector,
    values: Mapping[str, str] | None,
) -> str | None:
    """The value of a key; None for a missing optional key. kind, lower: names for the errors."""
    if values is not None and reference["key"] in values:
        return values[reference["key"]]
    if reference.get("optional"):
        return None
    if values is None:
        raise EnvironmentProblem(f'{lower} "{reference["name"]}" not found')
    where = f"{kind} {pods.namespace(pod)}/{reference['name']}"
    raise EnvironmentProblem(f"couldn't find key {reference['key']} in {where}")
