"""kube-apiserver's flags, those of them that apply, and two of ours."""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """Paths are as given; an empty one means not set."""

    bind_address: str
    secure_port: int
    advertise_address: str
    tls_cert_file: str
    tls_private_key_file: str
    client_ca_file: str
    token_auth_file: str
    service_account_key_files: tuple[str, ...]
    service_account_signing_key_file: str
    service_account_issuer: str
    api_audiences: tuple[str, ...]
    service_cluster_ip_range: str
    service_node_port_range: str
    kubelet_client_certificate: str
    kubelet_client_key: str
    kubelet_certificate_authority: str
    storage_path: str
    listen_fds: tuple[int, ...]
    verbosity: int

    @property
    def advertised(self) -> str:
        return self.advertise_address or self.bind_address


def parse(argv: list[str]) -> Options:
    """Exits with argparse's message on bad flags."""
    parser = argparse.ArgumentParser(prog="apiserver", description="The Kubernetes API server of kubewire.")
    add = parser.add_argument
    add("--bind-address", default="0.0.0.0", help="address of --secure-port (default %(default)s)")
    add("--secure-port", type=int, default=6443, help="HTTPS port; 0 for none (then --listen-fd is needed)")
    add("--advertise-address", default="", help="address of Endpoints default/kubernetes")
    add("--tls-cert-file", required=True)
    add("--tls-private-key-file", required=True)
    add("--client-ca-file", default="", help="authenticates client certificates (CN is the user, O the groups)")
    add("--token-auth-file", default="", help="CSV: token,user,uid[,groups]")
    add("--service-account-key-file", action="append", default=[], help="checks tokens; repeatable")
    add("--service-account-signing-key-file", required=True)
    add("--service-account-issuer", default="https://kubernetes.default.svc.cluster.local")
    add("--api-audiences", default="", help="comma separated (default: the issuer)")
    add("--service-cluster-ip-range", default="10.96.0.0/12")
    add("--service-node-port-range", default="30000-32767")
    add("--kubelet-client-certificate", default="")
    add("--kubelet-client-key", default="")
    add("--kubelet-certificate-authority", default="")
    add("--storage-path", required=True, help="SQLite file with every object")
    add("--listen-fd", type=int, action="append", default=[], help="inherited listening socket; repeatable")
    add("-v", "--v", dest="verbosity", type=int, default=0, help="log level: 4 logs every request")
    given = vars(parser.parse_args(argv))
    audiences = tuple(filter(None, given.pop("api_audiences").split(",")))
    return _options(given, audiences)


def check(settings: Options) -> None:
    """What fits together (cmd/kube-apiserver/app/options/validation.go). Raises ValueError with upstream's text."""
    ranges = [ipaddress.ip_network(part.strip()) for part in settings.service_cluster_ip_range.split(",")]
    if len(ranges) > 2:
        raise ValueError("--service-cluster-ip-range must not contain more than two entries")
    if len({one.version for one in ranges}) < len(ranges):
        text = "--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family"
        raise ValueError(text)
    public = settings.advertise_address
    if public and ipaddress.ip_address(public).version != ranges[0].version:
        raise ValueError(f'service IP family "{ranges[0]}" must match public address family "{public}"')


def _options(given: dict[str, Any], audiences: tuple[str, ...]) -> Options:
    keys, descriptors = given.pop("service_account_key_file"), given.pop("listen_fd")
    return Options(
        **given,
        api_audiences=audiences or (str(given["service_account_issuer"]),),
        service_account_key_files=tuple(keys),
        listen_fds=tuple(descriptors),
    )
