"""DefaultTolerationSeconds: pods stay for five minutes on a node that fails
(plugin/pkg/admission/defaulttolerationseconds).
"""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served

_SECONDS = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class DefaultTolerationSeconds(Plugin):
    name = "DefaultTolerationSeconds"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == "pods" and operation in ("CREATE", "UPDATE") and not subresource

    def admit(self, attributes: Attributes) -> None:
        spec = attributes.obj["spec"]
        tolerations = spec.get("tolerations") or []
        added = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS}
            for key in _TAINTS
            if not any(_tolerates_no_execute(toleration, key) for toleration in tolerations)
        ]
        if added:
            spec["tolerations"] = [*tolerations, *added]


def _tolerates_no_execute(toleration: dict[str, Any], key: str) -> bool:
    if toleration.get("key", "") not in ("", key):
        return False
    return toleration.get("effect", "") in ("", "NoExecute")
