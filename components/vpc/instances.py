"""The limits of instance types: network interfaces, and IPv4 addresses on each of them.

(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/AvailableIpPerENI.html;
amazon-vpc-cni-k8s, misc/eni-max-pods.txt)
"""

from __future__ import annotations

#: Type -> (network interfaces, IPv4 addresses on each).
LIMITS: dict[str, tuple[int, int]] = {
    "t3.nano": (2, 2),
    "t3.micro": (2, 2),
    "t3.small": (3, 4),
    "t3.medium": (3, 6),
    "t3.large": (3, 12),
    "t3.xlarge": (4, 15),
    "t3.2xlarge": (4, 15),
    "m5.large": (3, 10),
    "m5.xlarge": (4, 15),
    "m5.2xlarge": (4, 15),
    "m5.4xlarge": (8, 30),
    "m5.8xlarge": (8, 30),
    "c5.large": (3, 10),
    "c5.xlarge": (4, 15),
    "c5.4xlarge": (8, 30),
    "r5.large": (3, 10),
    "r5.xlarge": (4, 15),
}
_PREFIX_ADDRESSES = 16
#: For types that are not AWS's: an interface in Azure has up to 256 addresses.
_OTHERS = (8, 256)


def limits_of(kind: str) -> tuple[int, int]:
    """The number of network interfaces, and of IPv4 addresses on each."""
    return LIMITS.get(kind, _OTHERS)


def max_pods(kind: str, *, prefixes: bool = False) -> int:
    """The kubelet's maxPods on an instance of a type: the addresses of all interfaces but their
    primary ones, and two pods of the host network. With prefixes at most 110, as EKS recommends for
    small instances."""
    interfaces, addresses = LIMITS[kind]
    if prefixes:
        return min(110, interfaces * (addresses - 1) * _PREFIX_ADDRESSES + 2)
    return interfaces * (addresses - 1) + 2
