"""agnhost inclusterclient: asks the API server for /healthz with the pod's token, again and again.

Before each request it logs a hash of the header Authorization, by which a test sees that the
kubelet has renewed the token (inclusterclient/main.go). Modules for HTTPS are imported when they
are used: agnhost's other subcommands run without them, in many pods at once.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .flags import Flag, parse
from .golang import fatal

if TYPE_CHECKING:
    import ssl

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS = 32.0


def server() -> str:
    """The API server's URL, from the pod's environment. Raises SystemExit outside of a pod."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise fatal(
            "err: unable to load in-cluster configuration, "
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def trusted(account: Path = ACCOUNT) -> ssl.SSLContext:
    """Trusts the cluster's authority only."""
    import ssl

    return ssl.create_default_context(cafile=str(account / "ca.crt"))


def fetch(url: str, context: ssl.SSLContext, token: str = "") -> bytes:
    """The body of an answer. Raises OSError, also for a status that is not a success."""
    import urllib.request

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_SECONDS, context=context) as answer:
        body: bytes = answer.read()
        return body


def header_hash(token: str) -> str:
    """What upstream logs of the header: its salted SHA-256, in base64url without padding."""
    import hashlib

    digest = hashlib.sha256(f"salt|Bearer {token}".encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def main(argv: list[str]) -> int:
    """Polls until it is ended by a signal."""
    flag = Flag("poll-interval", 30, "poll interval of call to /healthz in seconds")
    values, _ = parse("inclusterclient", (flag,), argv)
    _log("I", "started")
    url = server()
    context = trusted()
    while True:
        time.sleep(int(values["poll-interval"]))
        _log("I", "calling /healthz")
        token = (ACCOUNT / "token").read_text().strip()
        _log("I", f"authz_header={header_hash(token)}")
        try:
            fetch(f"{url}/healthz", context, token)
        except OSError as error:
            _log("E", "status=failed")
            _log("E", f"error checking /healthz: {error}")


def _log(level: str, text: str) -> None:
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1e6):06d}"
    sys.stderr.write(f"{level}{stamp} {os.getpid():7d} main.go:70] {text}\n")
    sys.stderr.flush()
