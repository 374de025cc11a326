"""The descriptor of Amazon's VPC CNI: aws-node on every node, and their VPC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    Host,
    Installation,
    Problem,
    Process,
    Role,
    Setting,
    account,
    rule,
)
from kubewire.components.networks.aws_vpc_cni import environment
from kubewire.components.networks.podnetwork import IPv4Only, PodAddresses, PodNetwork
from kubewire.components.vpc import cloud
from kubewire.components.vpc.instances import LIMITS, max_pods

AGENT = "aws-node"
INSTANCE_TYPE = Setting(
    "instanceType",
    {
        "type": "string",
        "description": "The instance type of aws-vpc's nodes. It limits how many addresses they have.",
        "examples": ["t3.medium"],
    },
    "t3.medium",
)
ENVIRONMENT = Setting(
    "env",
    {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "The environment of the cloud network's agent.",
        "examples": [{"WARM_IP_TARGET": "2"}],
    },
    {},
)


@dataclass(frozen=True)
class Mode:
    """prefixes: an interface has /28 prefixes instead of single addresses."""

    prefixes: bool = False


#: Those of upstream's chart.
_RULES = (
    rule("get list watch", "crd.k8s.amazonaws.com", "eniconfigs"),
    rule("get list watch", "", "namespaces"),
    rule("get list watch", "", "pods"),
    rule("get list watch", "", "nodes"),
    rule("create list patch", "", "events"),
    rule("create list patch", "events.k8s.io", "events"),
    rule("get list patch update watch", "vpcresources.k8s.aws", "cninodes"),
)


def _install(cluster: Cluster, choice: Choice[Mode]) -> Installation:
    groups = choice.settings["env"].get("ENI_SECURITY_GROUPS", "").split()
    vpc = cloud.process(cluster, instance_type=choice.settings["instanceType"], groups=groups)
    return Installation(
        processes=(vpc, *(_aws_node(node, choice) for node in cluster.nodes)),
        objects=account("kube-system", AGENT, _RULES),
    )


def _aws_node(node: Host, choice: Choice[Mode]) -> Process:
    interfaces, addresses = LIMITS[choice.settings["instanceType"]]
    variables = dict(choice.settings["env"])
    if choice.mode.prefixes:
        variables = {"ENABLE_PREFIX_DELEGATION": "true"} | variables
    arguments = (
        f"--limits={interfaces},{addresses}",
        f"--interface={node.interface.name}",
        *(f"--env={name}={value}" for name, value in variables.items()),
    )
    user = "system:serviceaccount:kube-system:aws-node"
    return Process(Role.AGENT, node.name, AGENT, f"{__package__}.main:main", arguments, user)


def _addresses(choice: Choice[Mode]) -> PodAddresses:
    """Pods have addresses of the VPC, as many as the instance's interfaces can hold."""
    allowed = max_pods(choice.settings["instanceType"], prefixes=choice.mode.prefixes)
    return PodAddresses(from_cluster_cidr=False, max_pods=choice.settings["maxPods"] or allowed)


def _problems(choice: Choice[Mode]) -> Iterator[Problem]:
    if (given := choice.settings["instanceType"]) not in LIMITS:
        yield Problem("instanceType", f"{given} is not known; known are {', '.join(LIMITS)}")
    for text in environment.problems(choice.settings["env"]):
        yield Problem("env", text)


NETWORK = PodNetwork(
    AddOn(
        name="aws-vpc",
        package=__package__,
        upstream="amazon-vpc-cni-k8s",
        summary="the VPC carries pods' addresses",
        backends=(
            Backend("secondary-ip", Mode()),
            Backend("prefix-delegation", Mode(prefixes=True)),
        ),
        install=_install,
        settings=(INSTANCE_TYPE, cloud.MAX_PODS, ENVIRONMENT),
        problems=_problems,
    ),
    addresses=_addresses,
    ipv4_only=IPv4Only("is IPv4 here", nodes=True),
)
