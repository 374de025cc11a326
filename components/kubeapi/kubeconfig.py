"""kubeconfig files and the in-cluster service account, as client-go reads them
(https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/)."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kubewire.components.base import yamlfile

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(Exception):
    """The kubeconfig cannot be used; the text names the file and the fault."""


@dataclass(frozen=True)
class Credentials:
    """The address of an API server and the client's identity. PEM texts are bytes, empty if unused.

    token_file, if set, is read for every request: the kubelet renews projected tokens in place.
    """

    server: str
    ca: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    token_file: str = ""
    insecure: bool = False
    namespace: str = "default"

    def bearer_token(self) -> str:
        if self.token_file:
            return Path(self.token_file).read_text().strip()
        return self.token

    def ssl_context(self) -> ssl.SSLContext:
        """A client context that trusts only the cluster's CA."""
        context = (
            ssl.create_default_context(cadata=self.ca.decode() or None)
            if self.ca
            else ssl.create_default_context()
        )
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            # ssl loads a client certificate only from a file; it exists for this call only.
            with tempfile.TemporaryDirectory(prefix="kubewire-") as folder:
                chain = Path(folder, "client.pem")
                chain.touch(mode=0o600)
                chain.write_bytes(self.certificate + b"\n" + self.key)
                context.load_cert_chain(chain)
        return context


class _Entry:
    """A mapping of a kubeconfig; its values must have the types of client-go's fields."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise KubeconfigError(f"{where}: must be a mapping, is {type(value).__name__}")
        self._value = value
        self.where = where

    def text(self, key: str) -> str:
        value = self._value.get(key)
        if value is not None and not isinstance(value, str):
            raise KubeconfigError(
                f"{self.where}.{key}: must be a string, is {type(value).__name__}",
            )
        return value or ""

    def truth(self, key: str) -> bool:
        value = self._value.get(key)
        if value is not None and not isinstance(value, bool):
            raise KubeconfigError(f"{self.where}.{key}: must be true or false, is {value!r}")
        return bool(value)

    def named(self, kind: str, name: str) -> _Entry:
        """The entry with this name in the list of a kind ("cluster"). Raises KubeconfigError."""
        entries = self._value.get(f"{kind}s") or []
        at = f"{self.where}: {kind}s"
        if not isinstance(entries, list):
            raise KubeconfigError(f"{at}: must be a list, is {type(entries).__name__}")
        for number, item in enumerate(entries):
            if (entry := _Entry(item, f"{at}[{number}]")).text("name") == name:
                return _Entry(entry._value.get(kind) or {}, f"{entry.where}.{kind}")
        raise KubeconfigError(f"{self.where}: {kind} {name!r} is not among its {kind}s")

    def pem(self, key: str, folder: Path) -> bytes:
        try:
            if data := self.text(f"{key}-data"):
                return base64.b64decode(data)
            path = self.text(key)
            return Path(folder, path).read_bytes() if path else b""
        except (OSError, ValueError) as error:
            raise KubeconfigError(f"{self.where}.{key}: {error}") from error


def load(path: str | Path) -> Credentials:
    """The credentials of a kubeconfig's current context. Raises KubeconfigError with the file's
    name."""
    where = str(path)
    try:
        config = yamlfile.read(Path(path))
    except yamlfile.YamlFileError as error:
        raise KubeconfigError(str(error)) from error
    except (OSError, ValueError) as error:
        raise KubeconfigError(f"{where}: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigError(
            f"{where}: not a kubeconfig (a mapping with clusters, users and contexts)",
        )
    top = _Entry(config, where)
    context = top.named("context", top.text("current-context"))
    cluster = top.named("cluster", context.text("cluster"))
    user = top.named("user", context.text("user")) if context.text("user") else _Entry({}, where)
    if not (server := cluster.text("server")):
        raise KubeconfigError(
            f"{cluster.where}.server: missing, a URL such as https://10.0.0.1:6443 is wanted",
        )
    folder = Path(path).parent
    return Credentials(
        server=server.rstrip("/"),
        ca=cluster.pem("certificate-authority", folder),
        certificate=user.pem("client-certificate", folder),
        key=user.pem("client-key", folder),
        token=user.text("token"),
        token_file=user.text("tokenFile"),
        insecure=cluster.truth("insecure-skip-tls-verify"),
        namespace=context.text("namespace") or "default",
    )


def in_cluster() -> Credentials:
    """The credentials of the pod's own service account: environment and projected token
    (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)."""
    try:
        host = os.environ["KUBERNETES_SERVICE_HOST"]
        port = os.environ["KUBERNETES_SERVICE_PORT"]
        ca = (SERVICE_ACCOUNT / "ca.crt").read_bytes()
        namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except (KeyError, OSError) as error:
        raise KubeconfigError(
            f"unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be "
            f"defined and {SERVICE_ACCOUNT} mounted: {error}",
        ) from error
    host = f"[{host}]" if ":" in host else host
    return Credentials(
        server=f"https://{host}:{port}",
        ca=ca,
        token_file=str(SERVICE_ACCOUNT / "token"),
        namespace=namespace,
    )


def dump(name: str, credentials: Credentials, user: str) -> str:
    """The text of a kubeconfig file with all data inline."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    user_entry: dict[str, Any] = {}
    if credentials.certificate:
        user_entry = {
            "client-certificate-data": encoded(credentials.certificate),
            "client-key-data": encoded(credentials.key),
        }
    if credentials.token:
        user_entry["token"] = credentials.token
    context = {"cluster": name, "user": user}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": credentials.server,
                        "certificate-authority-data": encoded(credentials.ca),
                    },
                }
            ],
            "users": [{"name": user, "user": user_entry}],
            "contexts": [{"name": f"{user}@{name}", "context": context}],
            "current-context": f"{user}@{name}",
        },
        sort_keys=False,
    )
