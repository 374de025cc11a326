"""The modules that the two forking parents import, and whose memory their children share."""

#: For containers. The list is short, because its pages are mapped in every container.
LIGHT = (
    "kubewire.components.runtime.pause",
    "kubewire.components.agnhost.main",
)

#: For components on nodes and for CoreDNS's pods: the libraries, then the components themselves.
#: Importing them after the fork would cost 20 to 100 ms and 5 to 10 MiB each. (A component that is
#: killed and started again therefore runs the code of the time when its lab was brought up.)
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
    "kubewire.components.kubeapi.client",
    "kubewire.components.kubelet.cni",
    "kubewire.components.kubeapi.events",
    "kubewire.components.kubelet.images.catalogue",
    "kubewire.components.kubeapi.informer",
    "kubewire.components.base.prometheus",
    "kubewire.components.kubeapi.selectors",
    "kubewire.components.controllers.workqueue",
    "kubewire.components.apiserver.main",
    "kubewire.components.controllers.main",
    "kubewire.components.coredns.main",
    "kubewire.components.networks.calico.main",
    "kubewire.components.networks.flannel.main",
    "kubewire.components.kube_proxy.main",
    "kubewire.components.kubelet.main",
    "kubewire.components.scheduler.main",
    "kubewire.components.networks.weave.main",
)
