"""The modules that the two forking parents import, and whose memory their children share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: For containers. The list is short, because its pages are mapped in every container.
LIGHT = (
    "kubewire.components.runtime.pause",
    "kubewire.components.agnhost.main",
)

#: For components on nodes and for CoreDNS's pods: the libraries, and what the components import
#: only when they need it. Importing all that after the fork would cost 20 to 100 ms and 5 to 10 MiB
#: each. (A component that is killed and started again therefore runs the code of the time when its
#: lab was brought up.)
_LIBRARIES = (
    "aiohttp",
    "aiohttp.web",
    "argparse",
    "asyncio",
    "concurrent.futures.thread",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509",
    "dnslib",
    "encodings.idna",
    "ipaddress",
    "json",
    "logging",
    "orjson",
    "sqlite3",
    "ssl",
    "yaml",
    "kubewire.components.kubeapi.client",
    "kubewire.components.kubelet.cni",
    "kubewire.components.kubeapi.events",
    "kubewire.components.kubelet.images.catalogue",
    "kubewire.components.kubeapi.informer",
    "kubewire.components.base.prometheus",
    "kubewire.components.kubeapi.selectors",
    "kubewire.components.controllers.workqueue",
)
_COMPONENTS = Path(__file__).parent.parent


def components() -> tuple[str, ...]:
    """The libraries, then main.py of every component and of every pod network."""
    return (*_LIBRARIES, *_mains())


def _mains() -> Iterator[str]:
    for path in sorted(_COMPONENTS.glob("**/main.py")):
        module = ".".join(
            ("kubewire.components", *path.relative_to(_COMPONENTS).with_suffix("").parts)
        )
        if module not in LIGHT and module != f"{__package__}.main":
            yield module
