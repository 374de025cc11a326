"""`kubewire plan`: checks that node, pod and Service ranges do not overlap, and computes how many
nodes and pods they allow. It starts no lab.

Kubernetes does not check this. With overlapping ranges a cluster comes up, and later some packets
reach a node instead of a pod, or never leave the node. The ranges come from a lab file or from
flags, which have the names of kubeadm's and kube-controller-manager's. For each overlap the report
says what would happen to packets. topologies.ranges does the arithmetic, also for lab files.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubewire.lab.errors import UsageError
from kubewire.topologies.ranges import (
    FAMILIES,
    MASK_SIZES,
    MAX_PODS,
    AddressPlan,
    PodRange,
    Range,
    ServiceRange,
    parse,
    parse_one,
)

EPILOG = """\
examples:
  kubewire plan                                check the default ranges of a lab
  kubewire plan -f lab.yaml                    check the ranges of a lab file
  kubewire plan --node-cidr 10.0.0.0/16 --pod-network-cidr 10.244.0.0/16 \\
      --service-cidr 10.96.0.0/12 --nodes 200
  kubewire plan --node-cidr fd00:1::/64 --pod-network-cidr fd00::/48 --service-cidr fd01::/108
  kubewire plan --other office=10.244.16.0/20  check also against networks outside the cluster

For dual-stack, give an IPv4 and an IPv6 range with a comma between them.
exit codes: 0 the ranges fit; 1 they do not, and the reasons are printed; 2 wrong input
"""
#: Private blocks (RFC 1918, RFC 6598). The picture groups ranges by the block that contains them.
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
_BLOCKS = [ipaddress.ip_network(text) for text in _PRIVATE]
_CELLS = 48
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags. A range that is not given is that of the lab file, or the default of a lab."""
    add = parser.add_argument
    add("-f", "--file", metavar="LAB.YAML", help="take ranges, masks and nodes from a lab file")
    add("--node-cidr", metavar="CIDR", help="range of the nodes' addresses")
    add(
        "--pod-network-cidr",
        "--cluster-cidr",
        dest="pod_cidr",
        metavar="CIDR",
        help="range of the pods' addresses",
    )
    add(
        "--service-cidr",
        "--service-cluster-ip-range",
        dest="service_cidr",
        metavar="CIDR",
        help="range of the Services' ClusterIPs",
    )
    add(
        "--node-cidr-mask-size",
        type=int,
        metavar="BITS",
        help="prefix length of each node's podCIDR, with one IP family",
    )
    add(
        "--node-cidr-mask-size-ipv4",
        type=int,
        metavar="BITS",
        help="prefix length of each node's IPv4 podCIDR in dual-stack (default: 24)",
    )
    add(
        "--node-cidr-mask-size-ipv6",
        type=int,
        metavar="BITS",
        help="prefix length of each node's IPv6 podCIDR in dual-stack (default: 64)",
    )
    add(
        "--nodes",
        type=int,
        metavar="N",
        help="number of nodes, including the control plane (default: 4)",
    )
    add(
        "--max-pods",
        type=int,
        default=MAX_PODS,
        metavar="N",
        help="maximum of pods per node (default: the kubelet's maxPods, %(default)s)",
    )
    add(
        "--other",
        action="append",
        default=[],
        metavar="NAME=CIDR",
        help="a network outside the cluster that must not overlap with it; repeatable",
    )
    add("--allow-overlap", action="store_true", help="report overlaps, but do not fail")
    add(
        "-o",
        "--output",
        choices=("text", "json", "yaml"),
        default="text",
        help="output format (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Print the plan. Returns 1 if a cluster with it cannot work. Raises UsageError."""
    plan, allowed = plan_of(options)
    overlaps = [str(one) for one in plan.overlaps()]
    problems = plan.problems() + ([] if allowed else overlaps)
    if options.output == "text":
        print("\n".join(text(plan, problems, overlaps if allowed else [])))
    else:
        print(_serialised(as_dict(plan, problems, overlaps), options.output))
    return 1 if problems else 0


def plan_of(options: argparse.Namespace) -> tuple[AddressPlan, bool]:
    """The plan, and whether overlaps are allowed. Raises UsageError."""
    from kubewire.scenarios.engine.file.spec import LabSpec, SpecError

    try:
        spec = LabSpec.of_form(options.file) if options.file else LabSpec()
    except (SpecError, OSError) as error:
        raise UsageError(str(error)) from None
    network = spec.network
    pods = _ranges("--pod-network-cidr", options.pod_cidr or network.clusterCIDR)
    masks = dict(MASK_SIZES)
    if options.file:
        masks = {version: network.mask_size(version) for version in (4, 6)}
    masks |= _given_masks(options, pods)
    nodes = len(spec.nodes) if options.nodes is None else options.nodes
    if nodes < 1 or options.max_pods < 1:
        raise UsageError("--nodes and --max-pods must be at least 1")
    plan = AddressPlan(
        nodes=_ranges("--node-cidr", options.node_cidr or network.nodeCIDR),
        pods=pods,
        services=_ranges("--service-cidr", options.service_cidr or network.serviceCIDR),
        masks=masks,
        node_count=nodes,
        max_pods=options.max_pods,
        others=_others(options),
    )
    return plan, options.allow_overlap or network.allowOverlap


def _ranges(flag: str, text: str) -> tuple[Range, ...]:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def _given_masks(options: argparse.Namespace, pods: Sequence[Range]) -> dict[int, int]:
    """IP version -> prefix length, from the three flags as kube-controller-manager reads them.
    Raises UsageError."""
    given = {4: options.node_cidr_mask_size_ipv4, 6: options.node_cidr_mask_size_ipv6}
    only = options.node_cidr_mask_size
    if only is not None and len(pods) > 1:
        raise UsageError(
            "--node-cidr-mask-size is for one IP family; the pod range has two, so use "
            "--node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6"
        )
    if only is not None:
        given = {pods[0].version: only}
    return {version: size for version, size in given.items() if size is not None}


def _others(options: argparse.Namespace) -> dict[str, list[Range]]:
    found: dict[str, list[Range]] = {}
    for text in options.other:
        name, sign, cidr = text.partition("=")
        if not sign or not name:
            raise UsageError(f"--other {text}: must be NAME=CIDR")
        try:
            found.setdefault(name, []).append(parse_one(cidr))
        except ValueError as error:
            raise UsageError(f"--other {name}: {error}") from None
    return found


def text(plan: AddressPlan, problems: Sequence[str], allowed: Sequence[str] = ()) -> Iterator[str]:
    """The lines of the report. allowed: overlaps that the user allows."""
    yield from _picture(plan)
    yield ""
    total = plan.node_count * plan.max_pods
    yield f"{plan.node_count:,} nodes, up to {plan.max_pods:,} pods each: {total:,} pods"
    for pods in plan.pod_ranges:
        if pods.fits:
            yield from _pods(pods, plan)
    for services in plan.service_ranges:
        yield from _services(services)
    yield ""
    yield from (f"! allowed: {line}" for line in allowed)
    yield from (f"✗ {line}" for line in problems)
    if not problems:
        yield "✓ the ranges fit"


def _pods(pods: PodRange, plan: AddressPlan) -> Iterator[str]:
    left = pods.parts - plan.node_count
    room = f"{left:,} are left" if left >= 0 else f"{-left:,} nodes get none"
    each = _number(pods.pods_of_a_node)
    yield f"pods {pods.whole}: {pods.parts:,} podCIDRs of /{pods.mask}, {room}; {each} pods in each"
    if plan.max_pods <= pods.pods_of_a_node < 2 * plan.max_pods:
        yield "  fewer than twice maxPods: a new pod soon gets the address of a pod that has ended"
    count = min(plan.node_count, pods.parts)
    numbers = list(range(count))
    if count > 2 * _SHOWN:  # the first ones, "...", the last ones
        numbers = [*range(_SHOWN), -1, *range(count - _SHOWN, count)]
    for number in numbers:
        yield "  ..." if number < 0 else f"  node {number + 1:<6,} {pods.part(number)}"


def _services(services: ServiceRange) -> Iterator[str]:
    yield f"Services {services.whole}: {services.addresses:,} addresses"
    yield f"  kubernetes  {services.address(1)}"
    yield f"  kube-dns    {services.address(10)}"
    if band := services.static_band:
        asked = f"{services.address(1)} to {services.address(band)}"
        yield f"  {asked} ({band}) for Services that choose their ClusterIP, the others for all"


def _number(count: int) -> str:
    return f"{count:,}" if count < 1 << 40 else f"2^{count.bit_length() - 1}"


def _picture(plan: AddressPlan) -> Iterator[str]:
    """Draw where the ranges lie in their block, a line for each range."""
    flat = [(name, one) for name, several in plan.named.items() for one in several]
    width = max(len(name) for name, _ in flat)
    wide = max(len(str(one)) for _, one in flat)
    blocks: dict[Range, list[tuple[str, Range]]] = {}
    for name, one in flat:
        blocks.setdefault(_block(one, [other for _, other in flat]), []).append((name, one))
    for block, inside in blocks.items():
        yield f"in {block}"
        for name, one in inside:
            yield f"  {name:<{width}}  {one!s:<{wide}}  {_bar(block, one)}"


def _block(one: Range, ranges: Sequence[Range]) -> Range:
    """The block in which a range is drawn: one of _BLOCKS or the /8 that contains it; in IPv6 the
    smallest block that contains all ranges."""
    for block in _BLOCKS:
        if one.version == block.version and one.subnet_of(block):  # type: ignore[arg-type]
            return block
    if one.version == 4:
        return one.supernet(new_prefix=min(8, one.prefixlen))
    others = [int(other.network_address) for other in ranges if other.version == 6]
    common = 128 - (min(others) ^ max(others)).bit_length()
    return one.supernet(new_prefix=min(common, one.prefixlen))


def _bar(block: Range, one: Range) -> str:
    def cell(address: int) -> int:
        return (address - int(block.network_address)) * _CELLS // block.num_addresses

    first = cell(int(one.network_address))
    last = cell(int(one.broadcast_address))
    return "".join("█" if first <= number <= last else "·" for number in range(_CELLS))


def as_dict(plan: AddressPlan, problems: Sequence[str], overlaps: Sequence[str]) -> dict[str, Any]:
    """The report as data, for scripts."""
    return {
        "nodes": {"count": plan.node_count, "cidrs": [str(one) for one in plan.nodes]},
        "pods": [_pods_dict(pods, plan) for pods in plan.pod_ranges],
        "maxPods": plan.max_pods,
        "services": [_services_dict(services) for services in plan.service_ranges],
        "others": {name: [str(one) for one in several] for name, several in plan.others.items()},
        "overlaps": list(overlaps),
        "problems": list(problems),
    }


def _pods_dict(pods: PodRange, plan: AddressPlan) -> dict[str, Any]:
    found: dict[str, Any] = {
        "cidr": str(pods.whole),
        "family": FAMILIES[pods.whole.version],
        "nodeMaskSize": pods.mask,
    }
    if pods.fits:
        last = min(plan.node_count, pods.parts) - 1
        parts = {"firstNode": str(pods.part(0)), "lastNode": str(pods.part(last))}
        found |= {"parts": pods.parts, "podsPerNode": pods.pods_of_a_node} | parts
    return found


def _services_dict(services: ServiceRange) -> dict[str, Any]:
    return {
        "cidr": str(services.whole),
        "family": FAMILIES[services.whole.version],
        "addresses": services.addresses,
        "staticBand": services.static_band,
        "kubernetes": services.address(1),
        "kubeDNS": services.address(10),
    }


def _serialised(data: Mapping[str, Any], form: str) -> str:
    if form == "json":
        return json.dumps(data, indent=2)
    import yaml

    return yaml.safe_dump(data, sort_keys=False).rstrip()
