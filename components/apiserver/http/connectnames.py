"""What the path and the query of a connecting request name: containers, ports, parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.requestinfo import flag
from kubewire.components.kubeapi.resources import KubeObject


def stream_parameters(query: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """PodExecOptions as parameters of the kubelet (streamParams of core/pod/strategy.go)."""
    names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    parameters = [(names[key], "1") for key, value in query if key in names and flag(value)]
    return parameters + [(key, value) for key, value in query if key == "command"]


def container_of(pod: KubeObject, asked: str) -> str:
    """Chooses the container; without a name, the annotated default or the only one. Raises 400."""
    spec = pod["spec"]
    name = pod["metadata"]["name"]
    names = {
        kind: [container["name"] for container in spec.get(kind) or []]
        for kind in ("containers", "initContainers", "ephemeralContainers")
    }
    if asked:
        if not any(asked in members for members in names.values()):
            raise status.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    annotations = pod["metadata"].get("annotations") or {}
    default = annotations.get("kubectl.kubernetes.io/default-container")
    if default in names["containers"]:
        return str(default)
    if len(names["containers"]) == 1:
        return str(names["containers"][0])
    choices = " ".join(names["containers"])
    text = f"a container name must be specified for pod {name}, choose one of: [{choices}]"
    if names["initContainers"]:
        text += f" or one of the init containers: [{' '.join(names['initContainers'])}]"
    raise status.bad_request(text)


def split_scheme_name_port(text: str, kind: str) -> tuple[str, str, str]:
    """Splits [scheme:]name[:port] (apimachinery's SplitSchemeNamePort). Raises 400, which names the
    kind of the object."""
    scheme = name = port = ""
    match text.split(":"):
        case [name]:
            pass
        case [name, port]:
            pass
        case [scheme, name, port]:
            scheme = scheme.lower()
    if not name or scheme not in ("", "http", "https"):
        raise status.bad_request(f'invalid {kind} request "{text}"')
    return scheme, name, port


def named(query: Iterable[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in query if key == name]


def port_number(text: str, default: int) -> int:
    """A port of a proxied name, or the default without one. Raises 400."""
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise status.bad_request(f'invalid port "{text}"')
    return int(text)


def service_port_name(service: KubeObject, wanted: str) -> str:
    """The name of the port that is asked for by name or number, which its endpoints have, too.

    Without a name the port without one is meant. Raises 503 for a number that the Service does not
    have.
    """
    ports = service["spec"].get("ports") or []
    if not (wanted.isascii() and wanted.isdigit()):
        return wanted
    for port in ports:
        if wanted.lstrip("0") == str(port["port"]):
            return str(port.get("name") or "")
    name = service["metadata"]["name"]
    raise status.service_unavailable(f'no service port {wanted} found for service "{name}"')
