"""What is wrong with a lab file that its schema cannot say: keys that contradict each other or what
the rest of the file describes.

Each problem is the path of its key and a sentence that says what would be right. What is imported
within functions takes tens of milliseconds, and few lab files need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kubewire.components.networks import registry
from kubewire.components.policy import registry as engines
from kubewire.scenarios.engine.file import nodefiles, rangechecks, topologyfile
from kubewire.scenarios.engine.file.document import KeyPath
from kubewire.scenarios.engine.file.parts import CNI
from kubewire.topologies.plan import PlanError, TopologyPlan
from kubewire.topologies.ranges import Range

if TYPE_CHECKING:
    from kubewire.scenarios.engine.file.spec import LabSpec


def contradictions(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    """All of them, those of the address ranges first."""
    ranges, wrong = rangechecks.parsed(spec.network)
    yield from wrong
    yield from rangechecks.problems(spec.network, ranges, len(spec.nodes))
    yield from _places(spec, ranges)
    yield from _pod_network(spec.cni, ranges)
    yield from _policy_engine(spec)
    yield from _upstream(spec)
    if spec.manifests and not spec.kubernetes:
        yield ("manifests",), "need an API, and kubernetes: false leaves it out"
    yield from nodefiles.problems(spec.files, spec.nodes)
    yield from _components(spec)
    if spec.dns.corefile:
        from kubewire.components.coredns import check as coredns  # its plugins take 100 ms

        for text in coredns.problems(spec.dns.corefile):
            yield ("dns", "corefile"), text
    if spec.hostUsers is False and (why := spec.kubeProxy.needs_host_users):
        text = f"kubeProxy.mode: {spec.kubeProxy.mode} needs it, for {why}"
        yield ("hostUsers",), f"false is not possible here; {text}"
    yield from _images(spec)


def _pod_network(cni: CNI, ranges: Mapping[str, Sequence[Range]]) -> Iterator[tuple[KeyPath, str]]:
    addon = cni.network.addon
    if cni.backend not in addon.backend_names:
        text = f"{cni.plugin} has {', '.join(addon.backend_names)}; not {cni.backend}"
        if not cni.network.connects_pods:
            text = f"means nothing without a plugin; leave it out or set cni.plugin: {CNI.plugin}"
        yield ("cni", "backend"), text
    own = {setting.name for setting in addon.settings}
    for name, _ in cni.settings:
        if name not in own:
            yield (
                ("cni", name),
                f"is for {' and '.join(registry.networks_with(name))}, not for {cni.plugin}",
            )
    pods_have_ipv6 = any(network.version == 6 for network in ranges.get("clusterCIDR", ()))
    nodes_have_ipv6 = any(network.version == 6 for network in ranges.get("nodeCIDR", ()))
    limit = cni.network.ipv4_only
    if limit is not None and (pods_have_ipv6 or (limit.nodes and nodes_have_ipv6)):
        others = " or ".join(registry.dual_stack_networks())
        yield ("cni", "plugin"), f"{cni.plugin} {limit.reason}; take {others} for IPv6 pods"
    if cni.backend not in addon.backend_names:
        return
    for problem in addon.problems(cni.choice):
        yield ("cni", problem.setting), problem.text
    if pods_have_ipv6 and cni.choice.backend.ipv4_only:
        yield ("cni", "backend"), cni.choice.backend.ipv4_only


def _policy_engine(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    engine = spec.policy_engine
    network = spec.cni.plugin
    if not engine.works_with(network):
        names = " and ".join(engine.networks)
        yield ("policy", "engine"), f"{engine.name} is for {names}, not for {network}"
    own = {setting.name for setting in engine.addon.settings}
    for name, _ in spec.policy.settings:
        if name not in own:
            names = " and ".join(engines.engines_with(name))
            yield ("policy", name), f"is for {names}, not for {engine.name}"
    backend = spec.policy.backend_of(network)
    if backend not in engine.addon.backend_names:
        known = ", ".join(engine.addon.backend_names)
        yield ("policy", "backend"), f"{engine.name} has {known}; not {backend}"
        return
    for problem in engine.addon.problems(spec.policy_choice):
        yield ("policy", problem.setting), problem.text


def _upstream(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    """What upstream's programs would refuse, in their words."""
    for key, data in spec.of_upstream():
        if not data:
            continue
        from kubewire.scenarios.engine.file import upstream

        of = upstream.settings()[key]
        if key == "kubeProxy" and spec.kubeProxy.mode != "none":
            data |= {"mode": spec.kubeProxy.mode}
        for text in of.wrong(of.effective(data)):
            yield (key,), text


def _images(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    if not spec.images:
        return
    from kubewire.components.kubelet.images.catalogue import Catalogue, InvalidCatalogue

    for name, image in spec.images:
        if image.argv and image.main:
            yield ("images", name), "has both argv and main; give one"
        elif not (image.argv or image.main or image.entrypoint or image.cmd):
            yield ("images", name), "needs argv or main"
        else:
            try:
                Catalogue.parse({name: image.as_dict()}, "images")
            except InvalidCatalogue as error:
                yield ("images", name), str(error).removeprefix(f"images: {name}").lstrip(".: ")


def _components(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    there: dict[tuple[str, str], int] = {}
    for number, component in enumerate(spec.components):
        if bool(component.command) == bool(component.program):
            text = f"{component.name} needs either command or program"
            yield ("components", number), text
        matching = nodefiles.chosen(component.nodes, spec.nodes)
        if not matching:
            text = f"{component.nodes} matches no node; there are {', '.join(spec.nodes)}"
            yield ("components", number, "nodes"), text
        for node in matching:
            first = there.setdefault((component.name, node), number)
            if first != number:
                yield (
                    ("components", number, "name"),
                    f"{component.name} is on {node} already, by components[{first}]",
                )
                break


def _places(spec: LabSpec, ranges: Mapping[str, Sequence[Range]]) -> Iterator[tuple[KeyPath, str]]:
    """Whether every host of the topology can have its place and an address."""
    wrong = [*topologyfile.problems(spec.topology, ranges.get("nodeCIDR", ()))]
    yield from ((("topology", *where), text) for where, text in wrong)
    if wrong or "nodeCIDR" not in ranges:
        return
    try:
        plan = spec.plan
    except PlanError as error:
        yield ("network", "nodeCIDR"), str(error)
        return
    if spec.topology.hosts:
        yield from (
            (("topology", *where), text)
            for where, text in topologyfile.node_problems(plan, ranges["nodeCIDR"])
        )
        yield from _cloud(spec, plan)


def _cloud(spec: LabSpec, plan: TopologyPlan) -> Iterator[tuple[KeyPath, str]]:
    """Whether a cloud's network finds its subnets: switches with nodes and a router."""
    if (
        not spec.cni.network.connects_pods
        or spec.cni.backend not in spec.cni.network.addon.backend_names
    ):
        return
    if spec.cni.network.addresses(spec.cni.choice).from_cluster_cidr:
        return
    with_router = {
        one.switch
        for machine in plan.machines
        if machine.role == "router"
        for one in machine.interfaces
    }
    lonely = [
        node.name for node in plan.nodes if node.interfaces[0].switch not in with_router - {""}
    ]
    router = plan.find("router")
    if lonely or router is None or router.role != "router":
        text = "needs a router named router, and one on the switch of each node's first interface"
        yield ("cni", "plugin"), f"{spec.cni.plugin} {text}"
