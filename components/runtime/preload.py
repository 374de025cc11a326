"""What the two forking parents import before they fork: the one place that decides who shares what memory."""

#: For containers: small, every page of it is in each pod's accounts.
LIGHT = (
    "components.runtime.pause",
    "components.agnhost.main",
)

#: For components on nodes and for CoreDNS's pods. Third-party and standard modules only, plus machinery: a component's
#: own modules are imported after the fork, so that a lab started again runs the code as it is now.
COMPONENTS = (
    "aiohttp",
    "aiohttp.web",
    "argparse",
    "asyncio",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509",
    "dnslib",
    "ipaddress",
    "json",
    "logging",
    "orjson",
    "sqlite3",
    "ssl",
    "yaml",
    "components.machinery.client",
    "components.machinery.cni",
    "components.machinery.events",
    "components.machinery.images",
    "components.machinery.informer",
    "components.machinery.prometheus",
    "components.machinery.selectors",
    "components.machinery.workqueue",
)
