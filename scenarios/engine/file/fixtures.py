"""Expands the short forms of pods and Services in a scenario (`fixtures`) to full manifests.

By default, the pod of a fixture runs agnhost's netexec, with HTTP on port 8080 and UDP on port 8081
(https://github.com/kubernetes/kubernetes/tree/master/test/images/agnhost).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubewire.scenarios.engine.file.spec import LabSpec

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"
NETEXEC = ("netexec", "--http-port", "8080", "--udp-port", "8081")
#: Short names of images in scenarios.
IMAGES = {"agnhost": AGNHOST, "busybox": "busybox:1.36", "netshoot": "nicolaka/netshoot"}
#: The command of a pod with an image that has no server of its own.
SLEEP = ("sleep", "3600")


def expand(fixtures: Mapping[str, Any], lab: LabSpec) -> Iterator[dict[str, Any]]:
    """The manifests of pods and Services, in the order of the file."""
    for name, short in fixtures.get("pods", {}).items():
        if where := short.get("on"):
            for node in nodes(where, lab):
                yield pod(f"{name}-{node}", {**short, "node": node}, app=name)
        else:
            yield pod(name, short, app=name)
    for name, short in fixtures.get("services", {}).items():
        yield service(name, short)


def nodes(where: str, lab: LabSpec) -> list[str]:
    """The names of a lab's nodes ("nodes") or workers ("workers")."""
    return lab.workers if where == "workers" else lab.nodes


def pod(name: str, short: Mapping[str, Any], app: str) -> dict[str, Any]:
    """The manifest of a pod with one container, named like its app. nodeName binds it to a node
    without the scheduler."""
    image = IMAGES.get(short.get("image", "agnhost"), short.get("image", ""))
    container: dict[str, Any] = {"name": app, "image": image}
    command = short.get("command", () if image == AGNHOST else SLEEP)
    args = short.get("args", () if image != AGNHOST or "command" in short else NETEXEC)
    if command:
        container["command"] = list(command)
    if args:
        container["args"] = list(args)
    if image == AGNHOST and "args" not in short and "command" not in short:
        container["ports"] = [
            {"name": "http", "containerPort": 8080},
            {"name": "udp", "containerPort": 8081, "protocol": "UDP"},
        ]
    if env := short.get("env"):
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    if node := short.get("node"):
        spec["nodeName"] = node
        spec["tolerations"] = [{"operator": "Exists"}]
    if short.get("hostNetwork"):
        spec["hostNetwork"] = True
    spec |= short.get("spec", {})
    labels = {"app": app, **short.get("labels", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def service(name: str, short: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a Service. By default it selects app=NAME and forwards port 80 to 8080."""
    spec: dict[str, Any] = {"selector": short.get("selector", {"app": name})}
    if "type" in short:
        spec["type"] = short["type"]
    if "externalName" in short:
        spec = {"type": "ExternalName", "externalName": short["externalName"]}
    else:
        port = {
            "name": "http",
            "port": short.get("port", 80),
            "targetPort": short.get("targetPort", 8080),
        }
        if "protocol" in short:
            port |= {"protocol": short["protocol"], "name": short["protocol"].lower()}
        if "nodePort" in short:
            port["nodePort"] = short["nodePort"]
        spec["ports"] = [port]
    if short.get("headless"):
        spec["clusterIP"] = "None"
    elif "clusterIP" in short:
        spec["clusterIP"] = short["clusterIP"]
    spec |= short.get("spec", {})
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
