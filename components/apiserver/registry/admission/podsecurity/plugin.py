"""The plugin: pods are refused, the makers of pods and their namespaces are warned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.admission.podsecurity.findings import Finding
from kubewire.components.apiserver.registry.admission.podsecurity.policy import (
    Level,
    Policy,
    label_errors,
)
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi.resources import KubeObject

#: Where the kinds that make pods have their templates.
_TEMPLATES = {
    "podtemplates": ("template",),
    "replicationcontrollers": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}
#: The most pods that a change of a namespace looks at.
_MOST_PODS = 3000


class PodSecurity(Plugin):
    name = "PodSecurity"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        if operation not in ("CREATE", "UPDATE"):
            return False
        if served.storage == "pods":
            return subresource in ("", "ephemeralcontainers")
        return not subresource and (served.storage == "namespaces" or served.storage in _TEMPLATES)

    def validate(self, attributes: Attributes) -> None:
        storage = attributes.served.storage
        if storage == "namespaces":
            self._namespace(attributes)
            return
        policy = self._policy(attributes.namespace)
        if policy.is_idle:
            return
        if storage == "pods":
            _pod(attributes, policy)
            return
        template: Any = attributes.obj
        for part in _TEMPLATES[storage]:
            template = template.get(part) or {}
        _warn(attributes, policy.warn, template)

    def _policy(self, namespace: str) -> Policy:
        stored = self.store.get(Key("namespaces", "", namespace))
        return Policy() if stored is None else Policy.of(stored.obj)

    def _namespace(self, attributes: Attributes) -> None:
        labels = attributes.obj["metadata"].get("labels") or {}
        before = (attributes.old.get("metadata") or {}).get("labels") or {}
        errors = label_errors(labels)
        # Labels that were wrong already do not keep a namespace from other changes.
        if errors and not label_errors(before):
            raise status.invalid("", "Namespace", attributes.name, errors)
        if attributes.operation == "UPDATE" and not errors:
            new = Policy.of(attributes.obj).enforce
            old = Policy.of(attributes.old).enforce
            if new != old and not old.is_stricter_than(new):
                attributes.warnings += self._existing(attributes.name, new)

    def _existing(self, namespace: str, level: Level) -> list[str]:
        """About pods that may stay but could not be made again."""
        pods = [item.obj for item in self.store.items("pods") if item.key.namespace == namespace]
        bad: dict[str, list[str]] = {}
        for pod in pods[:_MOST_PODS]:
            findings = level.findings(pod["metadata"], pod["spec"])
            if findings:
                reasons = ", ".join(finding.reason for finding in findings)
                bad.setdefault(reasons, []).append(pod["metadata"]["name"])
        if not bad:
            return []
        title = (
            f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level'
        )
        return [f'{title} "{level}"', *sorted(_line(names, why) for why, names in bad.items())]


def _line(names: list[str], reasons: str) -> str:
    first, *others = sorted(names)
    if not others:
        return f"{first}: {reasons}"
    return f"{first} (and {len(others)} other pod{'s' if len(others) > 1 else ''}): {reasons}"


def _pod(attributes: Attributes, policy: Policy) -> None:
    if attributes.operation == "UPDATE" and not _is_significant(attributes.obj, attributes.old):
        return
    pod = attributes.obj
    findings = policy.enforce.findings(pod["metadata"], pod["spec"])
    if findings:
        why = f'violates PodSecurity "{policy.enforce}": {_text(findings)}'
        raise status.forbidden("", "pods", attributes.name, why)
    _warn(attributes, policy.warn, pod)


def _is_significant(new: KubeObject, old: KubeObject) -> bool:
    """Whether an update could make the pod less secure: other containers, images or profiles."""

    def relevant(pod: KubeObject) -> object:
        spec = pod["spec"]
        annotations = pod["metadata"].get("annotations") or {}
        profiles = {
            key: value
            for key, value in annotations.items()
            if "seccomp.security.alpha" in key or "apparmor.security.beta" in key
        }
        fields = ("containers", "initContainers", "ephemeralContainers")
        return profiles, [spec.get(field) or [] for field in fields]

    return relevant(new) != relevant(old)


def _warn(attributes: Attributes, level: Level, template: KubeObject) -> None:
    findings = level.findings(template.get("metadata") or {}, template.get("spec") or {})
    if findings:
        attributes.warnings.append(f'would violate PodSecurity "{level}": {_text(findings)}')


def _text(findings: Iterable[Finding]) -> str:
    return ", ".join(finding.text() for finding in findings)
