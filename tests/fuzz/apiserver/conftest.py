"""One server for all tests of a process, and what makes an answer wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from kubewire.components.kubeapi.resources import KubeObject
from tests.fuzz.apiserver.in_process import Answer, InProcess, in_process
from tests.fuzz.apiserver.seeds import seeds

Send = Callable[..., Answer]

#: Upstream's own answers of 500 and above: plain errors of Go, a version that is still to come, and
#: a kubelet, pod or Service that a connection does not reach.
_UPSTREAMS = (
    "resourceVersion should not be set on objects to be created",
    "duplicate nodePort: ",
    "Timeout: Too large resource version",
    "Internal error occurred: failed to allocate requested HealthCheck NodePort",
    "Internal error occurred: error dialing backend: ",
    "error trying to reach service: ",
    "no endpoints available for service ",
)


class Tracebacks(logging.Handler):
    """What the server logs with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(logging.Formatter().format(record))


@pytest.fixture(scope="session")
def tracebacks() -> Iterator[Tracebacks]:
    handler = Tracebacks()
    logger = logging.getLogger("components")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("fuzz")) as running:
        running.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        for path, obj in seeds().items():
            assert running.create(path, obj).code == 201, path
        yield running


@pytest.fixture(scope="session")
def send(server: InProcess, tracebacks: Tracebacks) -> Send:
    """send(method, path, body, Header=...): the answer, which is never a 500, a traceback or a hang."""

    def checked(method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        server.longest_turn = 0.0
        answer = server(method, path, body, **headers)
        said = (answer.body or {}).get("message", "") if isinstance(answer.body, dict) else ""
        assert answer.code < 500 or said.startswith(_UPSTREAMS), answer.text[:1000]
        assert not tracebacks.found, tracebacks.found[0]
        assert server.longest_turn < 1, "a small request keeps others waiting"
        return answer

    return checked


@pytest.fixture(scope="session")
def ensured(server: InProcess) -> Callable[[str, KubeObject], str]:
    """ensured(path, obj): the path of the object, which is there."""

    def ensure(path: str, obj: KubeObject) -> str:
        place = f"{path}/{obj['metadata']['name']}"
        if server("GET", place).code == 404:
            server.create(path, obj)
        return place

    return ensure
