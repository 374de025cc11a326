"""`kubewire plan`: whether the ranges of nodes, pods and Services fit together, and for how much. Nothing is built.

The ranges come from a lab file or from flags named as kubeadm's and kube-controller-manager's; what overlaps is refused
with what would become of the packets. The arithmetic is topologies.ranges, which lab files are checked with as well.
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
  kubewire plan                                       a lab's defaults
  kubewire plan -f lab.yaml                           what a lab file says
  kubewire plan --node-cidr 10.0.0.0/16 --pod-network-cidr 10.244.0.0/16 --service-cidr 10.96.0.0/12 --nodes 200
  kubewire plan --node-cidr 172.31.0.0/16 --pod-network-cidr 192.168.0.0/16 --service-cidr 10.100.0.0/16
  kubewire plan --node-cidr fd00:1::/64 --pod-network-cidr fd00::/48 --service-cidr fd01::/108
  kubewire plan --other office=10.244.16.0/20         networks that must not collide with the cluster

dual-stack: an IPv4 and an IPv6 range with a comma between them.
exit codes: 0 it fits, 1 it does not (with the reasons), 2 wrong input
"""
#: Blocks that are drawn on a line of their own (RFC 1918, 6598, 4193).
_BLOCKS = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]
_CELLS = 48
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a range is given by; without --file and flags they are those of a lab."""
    add = parser.add_argument
    add("-f", "--file", metavar="LAB.YAML", help="take ranges, masks and nodes from a lab file")
    add("--node-cidr", metavar="CIDR", help="the machines' addresses")
    add("--pod-network-cidr", "--cluster-cidr", dest="pod_cidr", metavar="CIDR", help="the pods' addresses")
    add("--service-cidr", "--service-cluster-ip-range", dest="service_cidr", metavar="CIDR", help="the ClusterIPs")
    add("--node-cidr-mask-size", type=int, metavar="BITS", help="of each node's part of the pod range")
    add("--node-cidr-mask-size-ipv4", type=int, metavar="BITS", help="of dual-stack (default: 24)")
    add("--node-cidr-mask-size-ipv6", type=int, metavar="BITS", help="of dual-stack (default: 64)")
    add("--nodes", type=int, metavar="N", help="how many nodes, control plane included (default: 4)")
    add(
        "--max-pods",
        type=int,
        default=MAX_PODS,
        metavar="N",
        help="pods of a node (the kubelet's maxPods: %(default)s)",
    )
    add("--other", action="append", default=[], metavar="NAME=CIDR", help="a network that must not collide; repeatable")
    add("--allow-overlap", action="store_true", help="show overlaps, but let them pass")
    add("-o", "--output", choices=("text", "json", "yaml"), default="text", help="form (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Prints the plan; 1 when it cannot work. Raises UsageError."""
    plan, allowed = plan_of(options)
    overlaps = [str(one) for one in plan.overlaps()]
    problems = plan.problems() + ([] if allowed else overlaps)
    if options.output == "text":
        print("\n".join(text(plan, problems, overlaps if allowed else [])))
    else:
        print(_serialised(as_dict(plan, problems, overlaps), options.output))
    return 1 if problems else 0


def plan_of(options: argparse.Namespace) -> tuple[AddressPlan, bool]:
    """And whether overlaps are wanted. Raises UsageError."""
    from kubewire.scenarios.engine.file.spec import LabSpec, SpecError

    try:
        spec = LabSpec.of_form(options.file) if options.file else LabSpec()
    except (SpecError, OSError) as error:
        raise UsageError(str(error)) from None
    network = spec.network
    pods = _ranges("--pod-network-cidr", options.pod_cidr or network.clusterCIDR)
    masks = {version: network.mask_size(version) if options.file else MASK_SIZES[version] for version in (4, 6)}
    masks |= _given_masks(options, pods)
    nodes = len(spec.nodes) if options.nodes is None else options.nodes
    if nodes < 1 or options.max_pods < 1:
        raise UsageError("--nodes and --max-pods: at least 1")
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
    """As kube-controller-manager takes the three flags. Raises UsageError."""
    given = {4: options.node_cidr_mask_size_ipv4, 6: options.node_cidr_mask_size_ipv6}
    one = options.node_cidr_mask_size
    if one is not None and len(pods) > 1:
        raise UsageError(
            "--node-cidr-mask-size is for one IP family; with two take --node-cidr-mask-size-ipv4 and -ipv6"
        )
    if one is not None:
        given = {pods[0].version: one}
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


# --- as text


def text(plan: AddressPlan, problems: Sequence[str], allowed: Sequence[str] = ()) -> Iterator[str]:
    """Lines. allowed: overlaps that are no problem because they are wanted."""
    yield from _picture(plan)
    yield ""
    yield f"{plan.node_count:,} nodes, up to {plan.max_pods:,} pods each: {plan.node_count * plan.max_pods:,} pods"
    for pods in plan.pod_ranges:
        if pods.fits:
            yield from _pods(pods, plan)
    for services in plan.service_ranges:
        yield from _services(services)
    yield ""
    yield from (f"! wanted: {line}" for line in allowed)
    yield from (f"✗ {line}" for line in problems)
    if not problems:
        yield "✓ it fits"


def _pods(pods: PodRange, plan: AddressPlan) -> Iterator[str]:
    left = pods.parts - plan.node_count
    room = f"{left:,} are left" if left >= 0 else f"{-left:,} nodes get none"
    each = _number(pods.pods_of_a_node)
    yield f"pods {pods.whole}: {pods.parts:,} parts of /{pods.mask}, {room}; {each} pods in each"
    if plan.max_pods <= pods.pods_of_a_node < 2 * plan.max_pods:
        yield "  fewer than twice maxPods: the address of a pod that has ended is soon another one's"
    count = min(plan.node_count, pods.parts)
    numbers = range(count) if count <= 2 * _SHOWN else [*range(_SHOWN), -1, *range(count - _SHOWN, count)]
    for number in numbers:
        yield "  ..." if number < 0 else f"  node {number + 1:<6,} {pods.part(number)}"


def _services(services: ServiceRange) -> Iterator[str]:
    yield f"Services {services.whole}: {services.addresses:,} addresses"
    yield f"  kubernetes  {services.address(1)}"
    yield f"  kube-dns    {services.address(10)}"
    if band := services.static_band:
        asked = f"{services.address(1)} to {services.address(band)}"
        yield f"  {asked} ({band}) for who asks for one, the others for everybody"


def _number(count: int) -> str:
    return f"{count:,}" if count < 1 << 40 else f"2^{count.bit_length() - 1}"


def _picture(plan: AddressPlan) -> Iterator[str]:
    """Where the ranges lie in their block, a line each."""
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
    """One of _BLOCKS, the /8 around it, or in IPv6 what is around all of them."""
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

    first, last = cell(int(one.network_address)), cell(int(one.broadcast_address))
    return "".join("█" if first <= number <= last else "·" for number in range(_CELLS))


# --- as data


def as_dict(plan: AddressPlan, problems: Sequence[str], overlaps: Sequence[str]) -> dict[str, Any]:
    """Numbers without words, for scripts."""
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
    found: dict[str, Any] = {"cidr": str(pods.whole), "family": FAMILIES[pods.whole.version], "nodeMaskSize": pods.mask}
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
