"""Every key of a lab file: what it does, and what its type (of the dataclasses in spec.py) does not
say of its values.

The schema, the list that `kubewire up --help` prints and docs/lab-file.md are made of this table
and the dataclasses (scenarios/engine/file/reference.py). Types and defaults are the dataclasses'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubewire.components.kube_proxy import modes


@dataclass(frozen=True)
class Key:
    """does: sentences for people. form: what a value must be, where an error says so ("an IP range
    such as ...").

    limits: keywords of JSON Schema beside the type's. definition: the name of an entry of
    DEFINITIONS that stands for the type. shorthand: the definition of a value that may stand for
    the whole mapping. shown: the value that an example has, where the default says too little.
    more: what only the page tells. choices: the values that exist, where another part of kubewire
    lists them; otherwise the type says them.
    """

    does: str
    form: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)
    definition: str = ""
    shorthand: str = ""
    shown: Any = None
    more: str = ""
    of_upstream: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()


#: Types of texts that more than one key has.
DEFINITIONS: Mapping[str, Mapping[str, Any]] = {
    "cidr": {
        "type": "string",
        "pattern": "^[0-9a-fA-F.:]+/[0-9]+(,[0-9a-fA-F.:]+/[0-9]+)?$",
        "form": "an IP range such as 10.244.0.0/16 or fd00:10:244::/56, "
        "or one of each family with a comma between them",
    },
    "text": {"type": "string"},
    "absolutePath": {
        "type": "string",
        "pattern": "^/[^/]",
        "form": "an absolute path such as /srv/app, and not / itself",
    },
}


def _link(path: str) -> dict[str, Key]:
    """The properties of a link, below a key."""
    return {
        f"{path}.bandwidth": Key(
            "The bandwidth in Mbit/s. Without it, a link is as fast as the machine allows.",
            "Mbit/s, more than 0 and at most 1000",
            {"exclusiveMinimum": 0, "maximum": 1000},
            shown=100,
            more="Each end of a link gets a token bucket filter.",
        ),
        f"{path}.delay": Key(
            "How long a packet takes in one direction.",
            "a time such as 10ms or 500us",
            {"pattern": "^[0-9]+(\\.[0-9]+)?(us|ms|s)$"},
            shown="10ms",
        ),
        f"{path}.loss": Key(
            "The percentage of packets that are lost in each direction.",
            limits={"minimum": 0, "maximum": 100},
            shown=1,
        ),
        f"{path}.mtu": Key(
            "The largest IP packet in bytes (MTU).",
            limits={"minimum": 68, "maximum": 65535},
            shown=1400,
        ),
    }


#: Path of a key -> the key, in the order in which people read them. "*" stands for a name that the
#: user chooses, "[]" for each item of a list.
KEYS: Mapping[str, Key] = {
    "name": Key(
        "The lab's name. --name on the command line overrides it.",
        "a name of lower-case letters, digits and '-' (40 at most)",
        {"pattern": "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"},
        shown="default",
    ),
    "kubernetes": Key(
        "With false, there are only hosts and links: nothing runs on them, and there is no API."
    ),
    "topology": Key(
        "The hosts and the links between them: a shape, or your own.",
        more="[Topologies](../topologies/README.md) explains how to describe one, with examples.",
    ),
    "topology.shape": Key(
        "The shape of the network: all hosts on one switch, or two racks with a router each."
    ),
    "topology.workers": Key(
        "Worker nodes of a shape; the control plane is one node more.",
        limits={"minimum": 0, "maximum": 250},
    ),
    "topology.routing": Key(
        "How routers learn routes: they are configured, or a BGP daemon runs on each."
    ),
    "topology.links": Key(
        "Properties of every link that does not have its own. Both directions have them."
    ),
    **_link("topology.links"),
    "topology.hosts": Key(
        "Your own hosts by name, instead of a shape.",
        limits={"minProperties": 1, "maxProperties": 300},
        shown={"control-plane": {"role": "control-plane", "interfaces": {"eth0": {"to": "lan"}}}},
        more="One has role: control-plane. A host named dns of role: outside answers DNS for what lies outside the "
        "cluster, as in the shapes.",
    ),
    "topology.hosts.*": Key("A host."),
    "topology.hosts.*.role": Key(
        "What it is: a node, a router that forwards, or a machine outside the cluster."
    ),
    "topology.hosts.*.zone": Key("A node's label topology.kubernetes.io/zone."),
    "topology.hosts.*.asn": Key(
        "A router's AS number. With topology.routing it speaks BGP with the routers and the nodes of its links.",
        limits={"minimum": 1, "maximum": 4294967295},
    ),
    "topology.hosts.*.interfaces": Key(
        "Its network interfaces by name. The first one has a node's address."
    ),
    "topology.hosts.*.interfaces.*": Key(
        "An interface: where it leads, or a mapping.",
        shorthand="text",
    ),
    "topology.hosts.*.interfaces.*.to": Key(
        "A switch, or HOST:INTERFACE, the other end of a cable."
    ),
    "topology.hosts.*.interfaces.*.addresses": Key(
        "Its addresses with prefix lengths. Left out, it gets one of its segment's subnet, or of network.nodeCIDR."
    ),
    **_link("topology.hosts.*.interfaces.*"),
    "topology.hosts.*.routes": Key(
        "Its routes: default or a range, and the gateway or an interface. Left out, they are the shortest ways.",
    ),
    "topology.switches": Key("Your own switches by name.", shown={"lan": {}}),
    "topology.switches.*": Key("A switch."),
    "topology.switches.*.to": Key(
        "Other switches that a link leads to. With a loop, spanning tree runs."
    ),
    **_link("topology.switches.*"),
    "topology.mininet": Key(
        "Instead of hosts: a Mininet Topo class, as mn --custom FILE --topo TOPO takes it."
    ),
    "topology.mininet.file": Key("The Python file, relative to the lab file.", shown="topo.py"),
    "topology.mininet.topo": Key(
        "A class of the file or a name in its topos, with arguments.", shown="mytopo,3"
    ),
    "network": Key(
        "Address ranges, under Kubernetes' names.",
        more="A range is one CIDR, or an IPv4 and an IPv6 one with a comma between them, the primary family's first.",
    ),
    "network.ipFamily": Key(
        "The IP families of the ranges that the file leaves out. The IPv6 ranges are kind's."
    ),
    "network.nodeCIDR": Key("The nodes' range.", definition="cidr"),
    "network.clusterCIDR": Key("The pods' range.", definition="cidr"),
    "network.nodeCIDRMaskSize": Key(
        "The prefix length of each node's pod range, for one IP family. IPv6 has 64.",
        limits={"minimum": 8, "maximum": 126},
    ),
    "network.nodeCIDRMaskSizeIPv4": Key(
        "The same for IPv4 in a dual-stack lab.", limits={"minimum": 8, "maximum": 30}, shown=24
    ),
    "network.nodeCIDRMaskSizeIPv6": Key(
        "The same for IPv6 in a dual-stack lab.", limits={"minimum": 8, "maximum": 126}, shown=64
    ),
    "network.serviceCIDR": Key("The Services' range.", definition="cidr"),
    "network.serviceNodePortRange": Key(
        "The ports of Services of type NodePort.",
        "a port range such as 30000-32767",
        {"pattern": "^[0-9]+-[0-9]+$"},
    ),
    "network.clusterDomain": Key(
        "The domain of the cluster's DNS names.",
        "a DNS domain such as cluster.local",
        {"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"},
    ),
    "network.allowOverlap": Key(
        "With true, ranges may overlap, to observe the consequences. `kubewire plan` predicts them.",
        more="`kubewire up` then reports what does not become ready, leaves the lab running and exits with code 0.",
    ),
    "cni": Key(
        "The pod network.",
        more="[The networks](../components/networks/README.md) are listed with the backends of each.",
    ),
    "cni.plugin": Key("Which network. With none, nodes stay NotReady until somebody installs one."),
    "cni.backend": Key(
        "How packets cross between nodes. Each network has its own backends; the first is the default."
    ),
    "policy": Key(
        "What enforces network policies.",
        more="[The engines](../components/policy/README.md) are listed with the networks that each is for.",
    ),
    "policy.engine": Key(
        "Which engine. The default is what the pod network ships; with none, policies have no effect."
    ),
    "policy.backend": Key(
        "How the engine works in the kernel. Each engine has its own backends; the first is the default."
    ),
    "kubeProxy": Key("kube-proxy, which runs on every node."),
    "kubeProxy.mode": Key(
        "The proxy mode. With none, no kube-proxy runs.",
        choices=(*(mode.name for mode in modes.MODES), "none"),
    ),
    "kubeProxy.*": Key(
        "Any other field of KubeProxyConfiguration, in the form of kube-proxy's file.",
        shown={"nodePortAddresses": ["primary"]},
        of_upstream="kubeProxy",
    ),
    "kubelet": Key(
        "Any field of KubeletConfiguration, for the kubelet of every node, such as maxPods: 20.",
        of_upstream="kubelet",
    ),
    "authorization": Key(
        "The API server's --authorization-mode. With AlwaysAllow every authenticated user may do "
        "everything.",
        choices=("Node,RBAC", "AlwaysAllow"),
    ),
    "controllerManager": Key(
        "Flags of kube-controller-manager without their dashes, such as node-monitor-grace-period: 20s.",
        of_upstream="controllerManager",
    ),
    "scheduler": Key(
        "Flags of kube-scheduler without their dashes, such as v: 4.",
        of_upstream="scheduler",
    ),
    "dns": Key("The cluster's DNS."),
    "dns.replicas": Key(
        "How many pods of CoreDNS run. With 0 there is no cluster DNS.",
        limits={"minimum": 0, "maximum": 10},
    ),
    "dns.corefile": Key(
        "The Corefile of CoreDNS, instead of kubeadm's.",
        shown=".:53 { ... }",
        more="kubeadm's is in [coredns.yaml](../components/coredns/coredns.yaml), and "
        "[CoreDNS's README](../components/coredns/README.md) lists the plugins. The probes of its pods use the plugins "
        "ready and health.",
    ),
    "images": Key(
        "Image names, and the program of this machine that each stands for.",
        shown={"my/app:1": {"argv": ["/usr/bin/python3", "/srv/app.py"]}},
        more="They are added to those of [images.yaml](../components/kubelet/images/images.yaml), in its form. A name "
        "without a tag stands for every tag, and a * for any text (example/*). An exact name comes before a pattern, "
        "and a longer pattern before a shorter one.",
    ),
    "images.*": Key(
        "The image with this name.", "an image needs argv or main", {"minProperties": 1}
    ),
    "images.*.argv": Key("Its entrypoint: a program and arguments.", limits={"minItems": 1}),
    "images.*.main": Key(
        "In place of argv: a Python function. It is forked, which takes less time and memory.",
        "a Python function as package.module:function",
        {"pattern": "^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"},
    ),
    "images.*.env": Key("Its environment."),
    "images.*.entrypoint": Key(
        "The same as argv, by the name that images have for it: a Pod's command replaces it."
    ),
    "images.*.cmd": Key(
        "Arguments of the entrypoint, or the command without one: a Pod's args replace them."
    ),
    "images.*.programs": Key(
        "Commands that are Python functions, as main: command -> package.module:function."
    ),
    "images.*.workingDir": Key("The folder in which it starts, as an absolute path."),
    "images.*.user": Key(
        "The number of its user, which runAsUser replaces (root without one).",
        limits={"minimum": 0},
    ),
    "images.*.preload": Key("Which modules are in memory when a function is forked."),
    "images.*.tools": Key(
        "What the fork server adds, busybox or agnhost, and the path at which it is."
    ),
    "images.*.aliases": Key("Other names of this image."),
    "share": Key("Files and folders of this machine that hosts and pods see, under the same path."),
    "share[]": Key("A path, or a mapping with a path.", shorthand="absolutePath"),
    "share[].path": Key("The file or folder.", definition="absolutePath"),
    "share[].readOnly": Key("With false, the lab may change the file or folder."),
    "hostUsers": Key(
        "With true, the lab's root is this machine's root, because it has no user namespace (docs/security.md).",
        shown=False,
        more="Without the key it is true for kubeProxy mode ipvs, which needs it, and false for other modes.",
    ),
    "manifests": Key(
        "Files, folders and objects that are applied at the end of bring-up, in this order.",
        "list of paths and objects",
        schema={"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
        more="A path is relative to the lab file. Of a folder, its .yaml, .yml and .json files are taken by name. "
        "A lab is up when the Deployments, DaemonSets, StatefulSets and Pods among them are ready.",
    ),
    "files": Key(
        "Files on nodes, such as /etc/motd: hello. They exist before any process starts.",
        more="What a node has of its own is in [architecture](architecture.md#on-a-node-mininet-host-own-net-and-mnt-"
        "namespace-pid-namespace-is-the-labs); other folders are the same on all hosts. A file that bring-up "
        "writes, such as /var/lib/kubelet/config.yaml, is replaced.",
    ),
    "files.*": Key("The file of this path: a text, or a mapping.", shorthand="text"),
    "files.*.content": Key("The content of the file."),
    "files.*.from": Key("In place of content: a file of this machine, relative to the lab file."),
    "files.*.nodes": Key("The nodes that get it, as a pattern such as worker-*."),
    "files.*.mode": Key(
        "Its mode.", "a mode in octal digits such as 0644", {"pattern": "^0?[0-7]{3}$"}
    ),
    "components": Key(
        "Your own processes on nodes, also in place of the lab's components. They start with kube-proxy and the "
        "kubelet, and are not restarted.",
        more="`kubewire status` shows them, and their output is in logs/NAME@NODE.log. One that fails before the lab "
        "is ready ends bring-up. To reach the API, every node has /etc/kubernetes/kubelet.conf, and the control plane "
        "also /etc/kubernetes/admin.conf.",
    ),
    "components[]": Key("A process."),
    "components[].name": Key(
        "Its name. Another process of the node must not have it.",
        "a name of lower-case letters, digits and '-' (40 at most)",
        {"pattern": "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"},
    ),
    "components[].command": Key(
        "The program and its arguments. The lab sees /usr, and what share shows.",
        limits={"minItems": 1},
    ),
    "components[].program": Key(
        "In place of command: a program of this machine that runs instead of the lab's own component of that name, "
        "with the same flags, certificates and kubeconfigs.",
        "an absolute path such as /srv/kube-proxy",
        {"pattern": "^/[^\\0]*[^/\\0]$"},
        more="The lab sees it under its path, without a share. [Real parts](real-parts.md) tells more of "
        "them.",
    ),
    "components[].nodes": Key("The nodes that run it, as a pattern such as worker-*."),
    "components[].env": Key("Its environment, besides that of the node."),
}
