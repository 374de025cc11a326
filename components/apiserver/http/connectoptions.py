"""The options of a connection as an object, such as PodExecOptions.

Admission sees a request to exec, attach, portforward or proxy as the operation CONNECT with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubewire.components.apiserver.http.requestinfo import flag
from kubewire.components.kubeapi.resources import KubeObject

#: The kind of each connecting subresource. Logs are read, and so not admitted.
KINDS = {
    ("pods", "exec"): "PodExecOptions",
    ("pods", "attach"): "PodAttachOptions",
    ("pods", "portforward"): "PodPortForwardOptions",
    ("pods", "proxy"): "PodProxyOptions",
    ("services", "proxy"): "ServiceProxyOptions",
    ("nodes", "proxy"): "NodeProxyOptions",
}
_STREAMS = ("stdin", "stdout", "stderr", "tty")


def body(kind: str, query: Sequence[tuple[str, str]], rest: str) -> KubeObject:
    """The options object of the kind; rest is the path behind a proxy."""
    options: dict[str, Any] = {"kind": kind, "apiVersion": "v1"}
    given = dict(reversed(query))
    if kind.endswith("ProxyOptions"):
        return options | ({"path": rest} if rest else {})
    if kind == "PodPortForwardOptions":
        ports = [int(value) for key, value in query if key == "ports" and value.isdecimal()]
        return options | ({"ports": ports} if ports else {})
    options |= {name: True for name in _STREAMS if name in given and flag(given[name])}
    if given.get("container"):
        options["container"] = given["container"]
    if kind == "PodExecOptions":
        options["command"] = [value for key, value in query if key == "command"]
    return options
