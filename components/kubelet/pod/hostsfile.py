"""A pod's host name and its managed /etc/hosts (upstream: pkg/kubelet/kubelet_pods.go)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import HostAlias, Pod

#: Upstream's limit for a host name. Linux allows 64 bytes (HOST_NAME_MAX, sethostname(2)).
MAX_HOSTNAME = 63

MANAGED_HEADER = "# Kubernetes-managed hosts file.\n"
HOST_NETWORK_HEADER = "# Kubernetes-managed hosts file (host network).\n"


class HostnameError(ValueError):
    """setHostnameAsFQDN asks for a name that is longer than Linux allows."""


def hostname(pod: Pod, node_name: str) -> str:
    """The short name: spec.hostname, else the pod's name cut to 63 bytes.

    On the host network it is the node's name.
    """
    if pods.host_network(pod):
        return node_name
    own = pod["spec"].get("hostnameOverride") or pod["spec"].get("hostname")
    if own:
        return str(own)
    return pods.name(pod)[:MAX_HOSTNAME].rstrip("-.")


def fqdn(pod: Pod, node_name: str, cluster_domain: str) -> str:
    """HOSTNAME.SUBDOMAIN.NAMESPACE.svc.DOMAIN; "" without a subdomain."""
    subdomain = pod["spec"].get("subdomain")
    if not subdomain or pod["spec"].get("hostnameOverride") or pods.host_network(pod):
        return ""
    short = hostname(pod, node_name)
    return f"{short}.{subdomain}.{pods.namespace(pod)}.svc.{cluster_domain}"


def kernel_hostname(pod: Pod, node_name: str, cluster_domain: str) -> str:
    """The argument of sethostname(2). Raises HostnameError for an FQDN of more than 64 bytes."""
    full = fqdn(pod, node_name, cluster_domain)
    if not (pod["spec"].get("setHostnameAsFQDN") and full):
        return hostname(pod, node_name)
    if len(full) > MAX_HOSTNAME + 1:
        failure = "failed to construct FQDN from pod hostname and cluster domain"
        limit = f"{MAX_HOSTNAME + 1} characters is the max, {len(full)} characters requested"
        raise HostnameError(f"{failure}, FQDN {full} is too long ({limit})")
    return full


def render(
    pod: Pod,
    ips: Sequence[str],
    node_name: str,
    cluster_domain: str,
    node_hosts: str = "",
) -> str:
    """The file's text. node_hosts: the node's /etc/hosts, the basis for host network pods."""
    aliases = _alias_lines(pod["spec"].get("hostAliases") or [])
    if pods.host_network(pod):
        return HOST_NETWORK_HEADER + node_hosts + aliases
    short = hostname(pod, node_name)
    full = fqdn(pod, node_name, cluster_domain)
    names = f"{full}\t{short}" if full else short
    standard = (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
    )
    return MANAGED_HEADER + standard + "".join(f"{ip}\t{names}\n" for ip in ips) + aliases


def _alias_lines(aliases: Sequence[HostAlias]) -> str:
    if not aliases:
        return ""
    lines = [f"{alias['ip']}\t{chr(9).join(alias.get('hostnames') or [])}\n" for alias in aliases]
    return "\n# Entries added by HostAliases.\n" + "".join(lines)
