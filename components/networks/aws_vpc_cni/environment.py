"""The environment of the DaemonSet aws-node: which of upstream's documented variables do what they
say here, which change nothing, and which are refused. Pure.

A variable that is taken in silence and ignored costs its user hours. So a name that upstream does
not know is refused with the nearest one that it knows, and one that asks for what does not exist
here is refused with the reason.

(amazon-vpc-cni-k8s: README.md, "CNI Configuration Variables"; cmd/aws-vpc-cni/main.go)
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from kubewire.components.base.golang import parse_bool

_EXCLUDED = "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"
_EXTERNAL = "AWS_EXTERNAL_SERVICE_CIDRS"
_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")
#: Prefixes of other interfaces of a node.
_RESERVED_PREFIXES = ("eth", "vlan", "lo")


class WrongValue(ValueError):
    """What a variable's value must be; the text follows the variable's name."""


def _boolean(text: str) -> None:
    try:
        parse_bool(text)
    except ValueError:
        raise WrongValue(f'must be "true" or "false", not {text!r}') from None


def _number(low: int, high: int | None = None) -> Callable[[str], None]:
    def check(text: str) -> None:
        beyond = high is not None and text.isdecimal() and int(text) > high
        if not text.isdecimal() or int(text) < low or beyond:
            most = "" if high is None else f" to {high}"
            raise WrongValue(f"must be a number from {low}{most}, not {text!r}")

    return check


def _one_of(*values: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text.lower() not in {value.lower() for value in values}:
            raise WrongValue(f"must be one of {', '.join(values)}, not {text!r}")

    return check


def _only(value: str, why: str) -> Callable[[str], None]:
    """A variable whose other values ask for what does not exist here."""

    def check(text: str) -> None:
        if text.lower() != value:
            kept = (
                f"only {value!r} is possible here, because "
                if value
                else "cannot be set here, because "
            )
            raise WrongValue(f"{kept}{why}")

    return check


def _prefix(text: str) -> None:
    if not 0 < len(text) <= 4 or text in _RESERVED_PREFIXES or not text.isalnum():
        reserved = ", ".join(_RESERVED_PREFIXES)
        raise WrongValue(f"must be one to four letters or digits, and none of {reserved}")


def _address(text: str) -> None:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise WrongValue(f"must be HOST:PORT, not {text!r}; unix sockets are not possible here")


def _anything(_: str) -> None:
    """Any value is taken."""


_NO_POLICY = "there is no network policy agent here"
_NO_SECONDARY_CARD = "instances have one network card here"
_NO_API = "ipamd does not use the Kubernetes API here"
_NO_IPV6 = "this network is IPv4 here"
_NO_BRANCH = "there are no branch interfaces here"
#: What each variable of upstream's documentation may be here.
VARIABLES: Mapping[str, Callable[[str], None]] = {
    # These do what they say.
    "AWS_VPC_CNI_NODE_PORT_SUPPORT": _boolean,
    "AWS_VPC_ENI_MTU": _number(576, 9001),
    "AWS_VPC_K8S_CNI_EXTERNALSNAT": _boolean,
    "AWS_VPC_K8S_CNI_LOGLEVEL": _one_of(*_LEVELS),
    "AWS_VPC_K8S_CNI_RANDOMIZESNAT": _one_of("hashrandom", "prng", "none"),
    "AWS_VPC_K8S_CNI_VETHPREFIX": _prefix,
    "AWS_VPC_K8S_PLUGIN_LOG_FILE": _anything,
    "AWS_VPC_K8S_PLUGIN_LOG_LEVEL": _one_of(*_LEVELS),
    _EXCLUDED: _anything,
    _EXTERNAL: _anything,
    "DISABLE_INTROSPECTION": _boolean,
    "DISABLE_NETWORK_RESOURCE_PROVISIONING": _boolean,
    "DISABLE_POD_V6": _boolean,
    "ENABLE_BANDWIDTH_PLUGIN": _boolean,
    "ENABLE_PREFIX_DELEGATION": _boolean,
    "INTROSPECTION_BIND_ADDRESS": _address,
    "IP_COOLDOWN_PERIOD": _number(0),
    "MAX_ENI": _number(0),
    "MINIMUM_IP_TARGET": _number(0),
    "POD_MTU": _number(576, 9001),
    "WARM_ENI_TARGET": _number(0),
    "WARM_IP_TARGET": _number(0),
    "WARM_PREFIX_TARGET": _number(0),
    # Ours: the groups of secondary interfaces, which upstream takes from an ENIConfig.
    "ENI_SECURITY_GROUPS": _anything,
    # These have nothing to change here, whatever they say.
    "AWS_MANAGE_ENIS_NON_SCHEDULABLE": _boolean,
    "AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER": _boolean,
    "CLUSTER_NAME": _anything,
    "DISABLE_LEAKED_ENI_CLEANUP": _boolean,
    "DISABLE_METRICS": _boolean,
    "DISABLE_TCP_EARLY_DEMUX": _boolean,
    "ENABLE_NFTABLES": _boolean,
    "ENABLE_SUBNET_DISCOVERY": _boolean,
    "VPC_CNI_VERSION": _anything,
    # These ask for what does not exist here.
    "ADDITIONAL_ENI_TAGS": _only("{}", "interfaces have no tags here"),
    "ANNOTATE_POD_IP": _only("false", _NO_API),
    "AWS_EC2_ENDPOINT": _only("", "EC2's API has one address here"),
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": _only("false", f"{_NO_API}; see ENI_SECURITY_GROUPS"),
    "AWS_VPC_K8S_CNI_LOG_FILE": _only("stderr", "ipamd's log is a file of the lab"),
    "CLUSTER_ENDPOINT": _only("", _NO_API),
    "ENABLE_IMDS_ONLY_MODE": _only("false", "interfaces cannot be attached in advance here"),
    "ENABLE_IPv4": _only("true", _NO_IPV6),
    "ENABLE_IPv6": _only("false", _NO_IPV6),
    "ENABLE_MULTI_NIC": _only("false", _NO_SECONDARY_CARD),
    "ENABLE_POD_ENI": _only("false", _NO_BRANCH),
    "ENABLE_V4_EGRESS": _only("true", "pods have IPv4 addresses here"),
    "ENABLE_V6_EGRESS": _only("false", _NO_IPV6),
    "ENI_CONFIG_ANNOTATION_DEF": _only("", _NO_API),
    "ENI_CONFIG_LABEL_DEF": _only("", _NO_API),
    "HOST_CNI_BIN_PATH": _only("/host/opt/cni/bin", "the kubelet looks in /opt/cni/bin"),
    "HOST_CNI_CONFDIR_PATH": _only("/host/etc/cni/net.d", "the kubelet looks in /etc/cni/net.d"),
    "NETWORK_POLICY_ENFORCING_MODE": _only("standard", _NO_POLICY),
    "POD_SECURITY_GROUP_ENFORCING_MODE": _only("strict", _NO_BRANCH),
}


def problems(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable that does not exist, or has a value that is not possible
    here."""
    for name, text in environment.items():
        if name not in VARIABLES:
            yield f"{name} is no variable of aws-node{_nearest(name)}"
            continue
        try:
            if text:  # an empty value counts as none, as upstream
                VARIABLES[name](text)
        except WrongValue as error:
            yield f"{name} {error}"


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name.upper(), {one.upper() for one in VARIABLES}, n=1)
    by_folded = {one.upper(): one for one in VARIABLES}
    return f"; did you mean {by_folded[close[0]]}?" if close else ""


@dataclass(frozen=True)
class Configuration:
    """What the variables say. excluded: ranges that are not translated; external: ranges that are
    reached by the first interface. mtu 0: that of the node's first interface."""

    external_snat: bool = False
    excluded: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    randomize: str = "prng"
    node_ports: bool = True
    veth_prefix: str = "eni"
    eni_mtu: int = 0
    pod_mtu: int = 0
    level: str = "DEBUG"
    plugin_log: str = "/var/log/aws-routed-eni/plugin.log"
    plugin_level: str = "DEBUG"
    introspection: tuple[str, int] | None = ("127.0.0.1", 61679)
    provisions: bool = True
    bandwidth: bool = False
    without_ipv6: bool = False
    cooldown: float = 30.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Configuration:
        """Raises ValueError with all problems."""
        if found := list(problems(environment)):
            raise ValueError("; ".join(found))

        def text(name: str, default: str) -> str:
            return environment.get(name) or default

        def switch(name: str, default: str = "false") -> bool:
            return parse_bool(text(name, default))

        host, _, port = text("INTROSPECTION_BIND_ADDRESS", "127.0.0.1:61679").rpartition(":")
        return cls(
            external_snat=switch("AWS_VPC_K8S_CNI_EXTERNALSNAT"),
            excluded=tuple(_ranges(text(_EXCLUDED, ""))),
            external=tuple(_ranges(text(_EXTERNAL, ""))),
            randomize=text("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "prng").lower(),
            node_ports=switch("AWS_VPC_CNI_NODE_PORT_SUPPORT", "true"),
            veth_prefix=text("AWS_VPC_K8S_CNI_VETHPREFIX", "eni"),
            eni_mtu=int(text("AWS_VPC_ENI_MTU", "0")),
            pod_mtu=int(text("POD_MTU", text("AWS_VPC_ENI_MTU", "0"))),
            level=text("AWS_VPC_K8S_CNI_LOGLEVEL", "DEBUG").upper(),
            plugin_log=environment.get("AWS_VPC_K8S_PLUGIN_LOG_FILE", cls.plugin_log),
            plugin_level=text("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "DEBUG"),
            introspection=None if switch("DISABLE_INTROSPECTION") else (host, int(port)),
            provisions=not switch("DISABLE_NETWORK_RESOURCE_PROVISIONING"),
            bandwidth=switch("ENABLE_BANDWIDTH_PLUGIN"),
            without_ipv6=switch("DISABLE_POD_V6"),
            cooldown=float(text("IP_COOLDOWN_PERIOD", "30")),
        )


def skipped(environment: Mapping[str, str]) -> list[str]:
    """The members of lists of ranges that are no IPv4 range; upstream skips them, too."""
    return [
        part
        for name in (_EXCLUDED, _EXTERNAL)
        for part in _parts(environment.get(name, ""))
        if not _is_range(part)
    ]


def _ranges(text: str) -> Iterable[str]:
    found = (str(ipaddress.IPv4Network(part, False)) for part in _parts(text) if _is_range(part))
    return dict.fromkeys(found)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_range(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return False
    return "/" in text
