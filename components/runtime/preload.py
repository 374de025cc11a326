"""What the two forking parents import before they fork: the one place that decides who shares what memory."""

#: For containers: small, every page of it is in each pod's accounts.
LIGHT = (
    "components.runtime.pause",
    "components.agnhost.main",
)

#: For components on nodes and for CoreDNS's pods: the libraries, then the components themselves; imported after the
#: fork they would cost 20 to 100 ms and 5 to 10 MiB each. (A component that is killed and started again runs the code
#: with which its lab was brought up.)
COMPONENTS = (
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
    "components.machinery.client",
    "components.kubelet.cni",
    "components.machinery.events",
    "components.kubelet.catalogue",
    "components.machinery.informer",
    "components.machinery.prometheus",
    "components.machinery.selectors",
    "components.controllers.workqueue",
    "components.apiserver.main",
    "components.controllers.main",
    "components.coredns.main",
    "components.calico.main",
    "components.flannel.main",
    "components.kube_proxy.main",
    "components.kubelet.main",
    "components.scheduler.main",
    "components.weave.main",
)
