"""kubeconfig files and the in-cluster service account, as client-go reads them
(https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/)."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: libyaml where PyYAML was built with it: several times faster, and each process on each node reads one of these.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the text names the file and what is missing."""


@dataclass(frozen=True)
class Credentials:
    """Where an API server is and how to prove who we are. PEM texts are bytes; empty when unused.

    token_file, when set, is read again for each request: the kubelet renews projected tokens in place.
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
            ssl.create_default_context(cadata=self.ca.decode() or None) if self.ca else ssl.create_default_context()
        )
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            # ssl loads a client certificate only from files; they live for this call alone.
            with tempfile.TemporaryDirectory(prefix="kubewire-") as folder:
                chain = Path(folder, "client.pem")
                chain.touch(mode=0o600)
                chain.write_bytes(self.certificate + b"\n" + self.key)
                context.load_cert_chain(chain)
        return context


def _named(entries: Any, name: str, kind: str, where: str) -> Mapping[str, Any]:
    for entry in entries or ():
        if entry.get("name") == name:
            return entry.get(kind) or {}
    raise KubeconfigError(f"{where}: {kind} {name!r} is not among its {kind}s")


def _pem(entry: Mapping[str, Any], key: str, folder: Path) -> bytes:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data)
    if path := entry.get(key):
        return Path(folder, path).read_bytes()
    return b""


def load(path: str | Path) -> Credentials:
    """The current context of a kubeconfig. Raises KubeconfigError with the file's name."""
    where = str(path)
    try:
        config = yaml.load(Path(path).read_text(), Loader=_LOADER)
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"{where}: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigError(f"{where}: not a kubeconfig (a mapping with clusters, users and contexts)")
    context = _named(config.get("contexts"), config.get("current-context", ""), "context", where)
    cluster = _named(config.get("clusters"), context.get("cluster", ""), "cluster", where)
    user = _named(config.get("users"), context.get("user", ""), "user", where) if context.get("user") else {}
    folder = Path(path).parent
    return Credentials(
        server=cluster["server"].rstrip("/"),
        ca=_pem(cluster, "certificate-authority", folder),
        certificate=_pem(user, "client-certificate", folder),
        key=_pem(user, "client-key", folder),
        token=user.get("token", ""),
        token_file=user.get("tokenFile", ""),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        namespace=context.get("namespace") or "default",
    )


def in_cluster() -> Credentials:
    """The pod's own service account: environment and projected token
    (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)."""
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        ca = (SERVICE_ACCOUNT / "ca.crt").read_bytes()
        namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except (KeyError, OSError) as error:
        raise KubeconfigError(
            f"unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be "
            f"defined and {SERVICE_ACCOUNT} mounted: {error}"
        ) from error
    host = f"[{host}]" if ":" in host else host
    return Credentials(
        server=f"https://{host}:{port}", ca=ca, token_file=str(SERVICE_ACCOUNT / "token"), namespace=namespace
    )


def dump(name: str, credentials: Credentials, user: str) -> str:
    """A kubeconfig file's text with everything inline."""

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
