"""Which component runs where with which flags: pure data from a lab's spec and plan."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kubewire.components import addon
from kubewire.components.addon import kubeconfig_path
from kubewire.components.kubeapi import kubeconfig
from kubewire.lab.bringup import router_packages, routers
from kubewire.lab.bringup.networks import installation_of, pod_addresses_of
from kubewire.lab.bringup.pki import Authority, signing_key
from kubewire.scenarios.engine.file import nodefiles, upstream
from kubewire.scenarios.engine.file.parts import Component
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.topologies.plan import Machine, TopologyPlan, bracketed, ranges

API_PORT = 6443
#: Of Debian's package etcd-server.
ETCD_PROGRAM = "/usr/bin/etcd"
ETC = "/etc/kubernetes"
PKI = f"{ETC}/pki"
ADMIN_CONF = f"{ETC}/admin.conf"
#: Not a host: where the switches are, outside of all hosts.
FABRIC = "fabric"
#: The descriptor under which the API server finds the door, a listening unix socket that
#: the process on the machine's loopback leads to (lab/sandbox/door.py).
DOOR_FD = 10
#: Where kubeadm's DaemonSet has it.
PROXY_CONFIG = "/var/lib/kube-proxy/config.conf"
#: The host outside the cluster that answers DNS for the world.
DNS_HOST = "dns"
#: The nameserver of a lab without that host: an address that nobody has (TEST-NET-1 of RFC 5737),
#: because CoreDNS does not start without one to forward to.
NO_NAMESERVER = ("192.0.2.53",)
APISERVER = "apiserver"
ETCD = "etcd"
#: Leads the door to an API server that cannot inherit it.
RELAY = "api-relay"
#: Upstream's names for components, in a lab file.
_UPSTREAM_NAMES = {
    "kube-apiserver": APISERVER,
    "kube-controller-manager": "controllers",
    "kube-scheduler": "scheduler",
    "flanneld": "flannel",
}
#: Flags of our API server alone, which another one does not get.
_OUR_FLAGS = ("--storage-path=", "--listen-fd=")
_ETCD_URL = "http://127.0.0.1:2379"
UPSTREAM_COREFILE = "/run/upstream/Corefile"


class Role(enum.Enum):
    """What a process is for."""

    CONTROL_PLANE = "control plane"
    NODE = "node"  # the kubelet and kube-proxy
    NETWORK = "network"  # all that the pod network runs
    ROUTING = "routing"  # the daemons on routers
    OUTSIDE = "outside"  # what answers outside the cluster
    USER = "user"  # what the lab file's components name


@dataclass(frozen=True)
class ComponentSpec:
    """A process on a host (or in the FABRIC): main is "package.module:function", or argv another
    program, with its environment. @pid:NAME@ in args is the pid of a host.

    door: it gets the API door as descriptor DOOR_FD.
    """

    name: str
    host: str
    role: Role = field(kw_only=True)
    main: str = ""
    args: tuple[str, ...] = ()
    door: bool = False
    argv: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def serves_api(self) -> bool:
        """Whether everything else needs it first."""
        return self.name in (APISERVER, ETCD, RELAY)

    @property
    def command(self) -> str:
        """For people."""
        return " ".join(self.argv or (self.main, *self.args))

    @property
    def id(self) -> str:
        return f"{self.name}@{self.host}"


@dataclass(frozen=True)
class NodeFile:
    """A file that bring-up writes into a host's own directories. mode as in chmod."""

    host: str
    path: str
    content: bytes
    mode: int = 0o600


@dataclass(frozen=True)
class ClusterAddresses:
    """The addresses kubeadm derives from the Service range: kubernetes is the first, kube-dns the
    tenth.

    Of two ranges, the first is asked: both Services have one address each, of the primary family.
    """

    api_service: str
    dns_service: str

    @classmethod
    def of(cls, service_cidr: str) -> ClusterAddresses:
        network = ranges(service_cidr)[0]
        return cls(str(network[1]), str(network[10]))


def component_specs(
    spec: LabSpec, plan: TopologyPlan, runtime_socket: str, catalogue: str
) -> Iterator[ComponentSpec]:
    """Every component of a lab, in the order in which kubeadm would bring them up."""
    programs = _programs(spec)
    for component in _own_components(spec, plan, runtime_socket, catalogue):
        program = programs.get((component.name, component.host))
        if program is None:
            yield component
            continue
        if component.name == APISERVER:
            etcd = programs.get((ETCD, component.host))
            yield _etcd(component.host, etcd.program if etcd else ETCD_PROGRAM)
            yield _relay(plan.nodes[0])
        yield _replaced(component, program)
    yield from user_components(spec)


def _programs(spec: LabSpec) -> dict[tuple[str, str], Component]:
    """The programs of the lab file that replace components, by component and node."""
    return {
        (_UPSTREAM_NAMES.get(one.name, one.name), node): one
        for one in spec.components
        if one.program
        for node in nodefiles.chosen(one.nodes, spec.nodes)
    }


def unknown_program(spec: LabSpec) -> str:
    """The name of a program for which no component of the lab runs on any of its nodes; "" if
    there is none."""
    own = {(one.name, one.host) for one in _own_components(spec, spec.plan, "", "")}
    programs = _programs(spec)
    own |= {(ETCD, host) for name, host in own & programs.keys() if name == APISERVER}
    used = {program.name for key, program in programs.items() if key in own}
    return next((one.name for one in spec.components if one.program and one.name not in used), "")


def _replaced(component: ComponentSpec, program: Component) -> ComponentSpec:
    """The user's program in place of a component. An API server has its objects in etcd."""
    args = component.args
    if component.name == APISERVER:
        args = (
            *(arg for arg in args if not arg.startswith(_OUR_FLAGS)),
            f"--etcd-servers={_ETCD_URL}",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
        )
    return replace(
        component,
        main="",
        args=(),
        argv=(program.program, *args),
        environment=program.env,
        door=False,
    )


def _relay(node: Machine) -> ComponentSpec:
    where = (str(DOOR_FD), node.address, str(API_PORT))
    main = "kubewire.lab.bringup.relay:main"
    return ComponentSpec(RELAY, node.name, main, where, door=True, role=Role.CONTROL_PLANE)


def _etcd(node: str, program: str) -> ComponentSpec:
    peer = "http://127.0.0.1:2380"
    flags = {
        "--name": node,
        "--data-dir": "/var/lib/etcd/member",
        "--listen-client-urls": _ETCD_URL,
        "--advertise-client-urls": _ETCD_URL,
        "--listen-peer-urls": peer,
        "--initial-advertise-peer-urls": peer,
        "--initial-cluster": f"{node}={peer}",
    }
    return ComponentSpec(ETCD, node, argv=(program, *_flat(flags)), role=Role.CONTROL_PLANE)


def _own_components(
    spec: LabSpec, plan: TopologyPlan, runtime_socket: str, catalogue: str
) -> Iterator[ComponentSpec]:
    yield from _routers(spec, plan)
    control_plane = plan.nodes[0]
    yield _apiserver(spec, control_plane)
    yield _controllers(spec, control_plane)
    scheduler = {"--kubeconfig": f"{ETC}/scheduler.conf"} | _extra_flags(spec, "scheduler")
    main = "kubewire.components.scheduler.main:main"
    yield ComponentSpec(
        "scheduler", control_plane.name, main, _flat(scheduler), role=Role.CONTROL_PLANE
    )
    network = [_network_component(process) for process in installation_of(spec, plan).processes]
    yield from (component for component in network if component.host == FABRIC)
    for node in plan.nodes:
        yield from _node_components(spec, node, runtime_socket, catalogue)
        yield from (component for component in network if component.host == node.name)
    if upstream_dns(plan):
        resolver = "kubewire.components.coredns.main:main"
        yield ComponentSpec(
            "dns", DNS_HOST, resolver, ("-conf", UPSTREAM_COREFILE), role=Role.OUTSIDE
        )


def _network_component(process: addon.Process) -> ComponentSpec:
    host = FABRIC if process.role is addon.Role.FABRIC else process.host
    return ComponentSpec(process.name, host, process.main, process.arguments, role=Role.NETWORK)


def user_components(spec: LabSpec) -> Iterator[ComponentSpec]:
    """The processes that the lab file names for its nodes besides the lab's own."""
    for component in (one for one in spec.components if one.command):
        for node in nodefiles.chosen(component.nodes, spec.nodes):
            yield ComponentSpec(
                component.name,
                node,
                argv=component.command,
                environment=component.env,
                role=Role.USER,
            )


def taken_name(components: Iterable[ComponentSpec]) -> ComponentSpec | None:
    """A component of the lab file whose name another process of the same host has."""
    listed = list(components)
    own = {component.id for component in listed if component.role is not Role.USER}
    users = (component for component in listed if component.role is Role.USER)
    return next((component for component in users if component.id in own), None)


def _routers(spec: LabSpec, plan: TopologyPlan) -> Iterator[ComponentSpec]:
    if spec.topology.routing == "static":
        return
    root = router_packages.location()
    assert root is not None, "kubewire.lab.launch has seen to it"
    environment = tuple(router_packages.environment(root).items())
    for router in routers.routers(plan):
        for daemon in routers.daemons(spec.topology.routing):
            argv = tuple(word.replace(routers.ROOT, str(root)) for word in daemon.argv)
            yield ComponentSpec(
                daemon.name,
                router.machine.name,
                daemon.main,
                daemon.args,
                argv=argv,
                environment=environment,
                role=Role.ROUTING,
            )


def _apiserver(spec: LabSpec, node: Machine) -> ComponentSpec:
    flags = {
        "--bind-address": node.address,
        "--secure-port": str(API_PORT),
        "--advertise-address": node.address,
        "--tls-cert-file": f"{PKI}/apiserver.crt",
        "--tls-private-key-file": f"{PKI}/apiserver.key",
        "--client-ca-file": f"{PKI}/ca.crt",
        "--service-account-key-file": f"{PKI}/sa.pub",
        "--service-account-signing-key-file": f"{PKI}/sa.key",
        "--service-account-issuer": f"https://kubernetes.default.svc.{spec.network.clusterDomain}",
        "--service-cluster-ip-range": spec.network.serviceCIDR,
        "--service-node-port-range": spec.network.serviceNodePortRange,
        "--kubelet-client-certificate": f"{PKI}/apiserver-kubelet-client.crt",
        "--kubelet-client-key": f"{PKI}/apiserver-kubelet-client.key",
        "--kubelet-certificate-authority": f"{PKI}/ca.crt",
        "--proxy-client-cert-file": f"{PKI}/front-proxy-client.crt",
        "--proxy-client-key-file": f"{PKI}/front-proxy-client.key",
        "--requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "--requestheader-allowed-names": "front-proxy-client",
        "--requestheader-username-headers": "X-Remote-User",
        "--requestheader-group-headers": "X-Remote-Group",
        "--requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "--authorization-mode": spec.authorization,
        "--storage-path": "/var/lib/etcd/store.db",
        "--listen-fd": str(DOOR_FD),
    }
    main = "kubewire.components.apiserver.main:main"
    return ComponentSpec(
        "apiserver", node.name, main, _flat(flags), door=True, role=Role.CONTROL_PLANE
    )


def _controllers(spec: LabSpec, node: Machine) -> ComponentSpec:
    flags = {
        "--kubeconfig": f"{ETC}/controller-manager.conf",
        "--allocate-node-cidrs": str(pod_addresses_of(spec).from_cluster_cidr).lower(),
        "--cluster-cidr": spec.network.clusterCIDR,
        **_mask_sizes(spec),
        "--service-cluster-ip-range": spec.network.serviceCIDR,
        "--root-ca-file": f"{PKI}/ca.crt",
        "--cluster-signing-cert-file": f"{PKI}/ca.crt",
        "--cluster-signing-key-file": f"{PKI}/ca.key",
        "--use-service-account-credentials": "true",
        **_extra_flags(spec, "controllerManager"),
    }
    main = "kubewire.components.controllers.main:main"
    return ComponentSpec("controllers", node.name, main, _flat(flags), role=Role.CONTROL_PLANE)


def _extra_flags(spec: LabSpec, key: str) -> dict[str, str]:
    """A lab file's own, as kubeadm's extraArgs: they win over what bring-up passes."""
    return upstream.flags(upstream.settings()[key].effective(getattr(spec, key).data))


def _mask_sizes(spec: LabSpec) -> dict[str, str]:
    """Of two families each has its own flag; --node-cidr-mask-size is refused then."""
    versions = [network.version for network in ranges(spec.network.clusterCIDR)]
    if len(versions) == 1:
        return {"--node-cidr-mask-size": str(spec.network.mask_size(versions[0]))}
    return {
        f"--node-cidr-mask-size-ipv{version}": str(spec.network.mask_size(version))
        for version in versions
    }


def _node_components(
    spec: LabSpec, node: Machine, runtime_socket: str, catalogue: str
) -> Iterator[ComponentSpec]:
    labels = [f"topology.kubernetes.io/zone={node.zone}"] if node.zone else []
    kubelet = {
        "--kubeconfig": f"{ETC}/kubelet.conf",
        "--hostname-override": node.name,
        "--node-ip": ",".join(node.addresses),
        "--config": "/var/lib/kubelet/config.yaml",
        "--container-runtime-endpoint": f"unix://{runtime_socket}",
    }
    if catalogue:
        kubelet["--image-catalogue"] = catalogue
    if node.role == "control-plane":
        kubelet["--register-with-taints"] = "node-role.kubernetes.io/control-plane=:NoSchedule"
    if labels:
        kubelet["--node-labels"] = ",".join(labels)
    main = "kubewire.components.kubelet.main:main"
    yield ComponentSpec("kubelet", node.name, main, _flat(kubelet), role=Role.NODE)
    if spec.kubeProxy.mode != "none":
        proxy = {"--config": PROXY_CONFIG, "--hostname-override": node.name}
        main = "kubewire.components.kube_proxy.main:main"
        yield ComponentSpec("kube-proxy", node.name, main, _flat(proxy), role=Role.NODE)


def _flat(flags: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{flag}={value}" for flag, value in flags.items())


def _api_url(node: Machine) -> str:
    return f"https://{bracketed(node.address)}:{API_PORT}"


def node_files(
    spec: LabSpec, plan: TopologyPlan, authority: Authority, name: str
) -> Iterator[NodeFile]:
    """Certificates, kubeconfigs and configuration files of every host, as kubeadm and an installer
    leave them."""
    control_plane = plan.nodes[0]
    yield from _control_plane_files(spec, control_plane, authority, name)
    server = _api_url(control_plane)
    yield from upstream_dns(plan)
    if spec.topology.routing != "static":
        for router in routers.routers(plan):
            for path, content in routers.files(spec.topology.routing, router).items():
                yield NodeFile(router.machine.name, path, content, 0o644)
    network = installation_of(spec, plan)
    agents = [process for process in network.processes if process.role is addon.Role.AGENT]
    # A component's identity is the same on every node, as kube-proxy's and flannel's service
    # accounts are.
    users = {"kube-proxy": "system:kube-proxy"} | {agent.name: agent.user for agent in agents}
    shared = [
        (part, kubeconfig_for(authority, name, server, user, _groups(user)))
        for part, user in users.items()
    ]
    for node in plan.nodes:
        identity = kubeconfig_for(
            authority, name, server, f"system:node:{node.name}", ("system:nodes",)
        )
        yield NodeFile(node.name, f"{ETC}/kubelet.conf", identity)
        for part, content in shared:
            yield NodeFile(node.name, kubeconfig_path(part), content)
        serving = authority.server(
            f"system:node:{node.name}", [node.name, *node.addresses, "127.0.0.1"]
        )
        yield NodeFile(node.name, "/var/lib/kubelet/pki/kubelet.crt", serving.certificate)
        yield NodeFile(node.name, "/var/lib/kubelet/pki/kubelet.key", serving.key)
        yield NodeFile(node.name, f"{PKI}/ca.crt", authority.certificate, 0o644)
        yield NodeFile(
            node.name, "/var/lib/kubelet/config.yaml", _json(kubelet_configuration(spec)), 0o644
        )
        if spec.kubeProxy.mode != "none":
            yield NodeFile(node.name, PROXY_CONFIG, _json(proxy_configuration(spec)), 0o644)
        for file in network.files:
            if file.host == node.name:
                yield NodeFile(node.name, file.path, file.content, 0o644)


def _groups(user: str) -> tuple[str, ...]:
    """Those that the user's token would give: an agent has the rights of a ServiceAccount."""
    if not user.startswith("system:serviceaccount:"):
        return ()
    return "system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}"


def user_files(spec: LabSpec) -> Iterator[NodeFile]:
    """What the lab file says is on its nodes."""
    for path, file in spec.files:
        for node in nodefiles.chosen(file.nodes, spec.nodes):
            yield NodeFile(node, path, file.content.encode(), int(file.mode, 8))


def upstream_dns(plan: TopologyPlan) -> list[NodeFile]:
    """What the world's DNS knows: the hosts outside the cluster, under example.com (RFC 2606).

    Nothing if no host outside is named dns.
    """
    server = plan.find(DNS_HOST)
    if server is None or server.role != "outside":
        return []
    client = plan.find("client")
    www = [
        f"        {address} example.com www.example.com"
        for address in (client.addresses if client else ())
    ]
    names = [
        f"        {address} {machine.name}.example.com"
        for machine in plan.machines
        if machine.role == "outside"
        for address in machine.addresses
    ]
    # hosts alone says SERVFAIL of what it does not know; a world that is whole says NXDOMAIN, with how long to keep
    # it. That is template's to say, and template comes before hosts: so it has a server of its own behind.
    soa = '". 60 IN SOA ns.example.com. hostmaster.example.com. 1 7200 1800 86400 60"'
    hosts = [".:53 {", "    errors", "    hosts {", *www, *names, "        fallthrough", "    }"]
    others = ["    forward . 127.0.0.1:5300", "}", ".:5300 {", "    template ANY ANY {"]
    nothing = ["        rcode NXDOMAIN", f"        authority {soa}", "    }", "}", ""]
    corefile = "\n".join([*hosts, *others, *nothing])
    return [NodeFile(DNS_HOST, UPSTREAM_COREFILE, corefile.encode(), 0o644)]


def _control_plane_files(
    spec: LabSpec, node: Machine, authority: Authority, name: str
) -> Iterator[NodeFile]:
    addresses = ClusterAddresses.of(spec.network.serviceCIDR)
    domain = spec.network.clusterDomain
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{domain}",
    ]
    serving = authority.server(
        "kube-apiserver",
        [node.name, "localhost", *names, *node.addresses, addresses.api_service, "127.0.0.1"],
    )
    client = authority.client("kube-apiserver-kubelet-client", ("system:masters",))
    front_proxy = Authority("front-proxy-ca")
    aggregator = front_proxy.client("front-proxy-client")
    private, public = signing_key()
    server = _api_url(node)
    for path, content in {
        f"{PKI}/ca.key": authority.key,
        f"{PKI}/apiserver.crt": serving.certificate,
        f"{PKI}/apiserver.key": serving.key,
        f"{PKI}/apiserver-kubelet-client.crt": client.certificate,
        f"{PKI}/apiserver-kubelet-client.key": client.key,
        f"{PKI}/front-proxy-ca.crt": front_proxy.certificate,
        f"{PKI}/front-proxy-ca.key": front_proxy.key,
        f"{PKI}/front-proxy-client.crt": aggregator.certificate,
        f"{PKI}/front-proxy-client.key": aggregator.key,
        f"{PKI}/sa.key": private,
        f"{PKI}/sa.pub": public,
        ADMIN_CONF: kubeconfig_for(
            authority, name, server, "kubernetes-admin", ("system:masters",)
        ),
        f"{ETC}/controller-manager.conf": kubeconfig_for(
            authority, name, server, "system:kube-controller-manager", ()
        ),
        f"{ETC}/scheduler.conf": kubeconfig_for(
            authority, name, server, "system:kube-scheduler", ()
        ),
    }.items():
        yield NodeFile(node.name, path, content)


def kubeconfig_for(
    authority: Authority, name: str, server: str, user: str, groups: tuple[str, ...]
) -> bytes:
    """A kubeconfig with a client certificate of its own."""
    pair = authority.client(user, groups)
    credentials = kubeconfig.Credentials(
        server=server, ca=authority.certificate, certificate=pair.certificate, key=pair.key
    )
    return kubeconfig.dump(name, credentials, user).encode()


def kubelet_configuration(spec: LabSpec) -> dict[str, Any]:
    """KubeletConfiguration with kubeadm's values
    (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/)."""
    max_pods = pod_addresses_of(spec).max_pods
    own = ({"maxPods": max_pods} if max_pods else {}) | {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "clusterDNS": [ClusterAddresses.of(spec.network.serviceCIDR).dns_service],
        "clusterDomain": spec.network.clusterDomain,
        "tlsCertFile": "/var/lib/kubelet/pki/kubelet.crt",
        "tlsPrivateKeyFile": "/var/lib/kubelet/pki/kubelet.key",
        "authentication": {"x509": {"clientCAFile": f"{PKI}/ca.crt"}},
    }
    return upstream.merged(own, upstream.settings()["kubelet"].effective(spec.kubelet.data))


def proxy_configuration(spec: LabSpec) -> dict[str, Any]:
    """KubeProxyConfiguration
    (https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/)."""
    own = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{ETC}/kube-proxy.conf"},
        "mode": spec.kubeProxy.mode,
    }
    if pod_addresses_of(spec).from_cluster_cidr:
        own["clusterCIDR"] = spec.network.clusterCIDR
    return upstream.merged(
        own, upstream.settings()["kubeProxy"].effective(spec.kubeProxy.configuration.data)
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
