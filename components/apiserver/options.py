"""The flags: those of kube-apiserver that apply here, and two of our own."""

from __future__ import annotations

import argparse
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubewire.components.apiserver.access.modes import ALWAYS_ALLOW, MODES

#: The flags of the authenticating proxy whose values are lists.
_REQUEST_HEADERS = (
    "allowed-names",
    "username-headers",
    "uid-headers",
    "group-headers",
    "extra-headers-prefix",
)


@dataclass(frozen=True)
class Options:
    """The parsed flags; an empty path means that it is not set."""

    bind_address: str
    secure_port: int
    advertise_address: str
    tls_cert_file: str
    tls_private_key_file: str
    client_ca_file: str
    token_auth_file: str
    authorization_modes: tuple[str, ...]
    anonymous_auth: bool
    service_account_key_files: tuple[str, ...]
    service_account_signing_key_file: str
    service_account_issuer: str
    api_audiences: tuple[str, ...]
    service_cluster_ip_range: str
    service_node_port_range: str
    kubelet_client_certificate: str
    kubelet_client_key: str
    kubelet_certificate_authority: str
    proxy_client_cert_file: str
    proxy_client_key_file: str
    requestheader_client_ca_file: str
    requestheader_allowed_names: str
    requestheader_username_headers: str
    requestheader_uid_headers: str
    requestheader_group_headers: str
    requestheader_extra_headers_prefix: str
    storage_path: str
    listen_fds: tuple[int, ...]
    verbosity: int

    @property
    def advertised(self) -> str:
        return self.advertise_address or self.bind_address

    def trust(self) -> dict[str, str]:
        """The data of ConfigMap extension-apiserver-authentication; raises OSError."""
        data = {}
        if self.client_ca_file:
            data["client-ca-file"] = Path(self.client_ca_file).read_text()
        if self.requestheader_client_ca_file:
            data["requestheader-client-ca-file"] = Path(
                self.requestheader_client_ca_file
            ).read_text()
            for name in _REQUEST_HEADERS:
                given = getattr(self, f"requestheader_{name.replace('-', '_')}")
                data[f"requestheader-{name}"] = json.dumps(list(filter(None, given.split(","))))
        return data


def parse(argv: list[str]) -> Options:
    """Parses the flags; wrong ones end the process with argparse's message."""
    parser = argparse.ArgumentParser(
        prog="apiserver",
        description="The Kubernetes API server of kubewire.",
    )
    add = parser.add_argument
    add("--bind-address", default="0.0.0.0", help="address of --secure-port (default %(default)s)")
    add(
        "--secure-port",
        type=int,
        default=6443,
        help="HTTPS port (default %(default)s); 0 disables it, and --listen-fd is then required",
    )
    add("--advertise-address", default="", help="address in the Endpoints default/kubernetes")
    add("--tls-cert-file", required=True)
    add("--tls-private-key-file", required=True)
    add(
        "--client-ca-file",
        default="",
        help="CA of client certificates, whose CN is the user and whose O are the groups",
    )
    add("--token-auth-file", default="", help="CSV file of token,user,uid[,groups]")
    add(
        "--authorization-mode",
        default="AlwaysAllow",
        help="comma-separated list of AlwaysAllow, AlwaysDeny, Node and RBAC (default %(default)s)",
    )
    add(
        "--anonymous-auth",
        type=_truth,
        default=True,
        help="whether requests without credentials are those of system:anonymous; never with "
        "AlwaysAllow (default true)",
    )
    add(
        "--service-account-key-file",
        action="append",
        default=[],
        help="key that verifies service account tokens; may be repeated",
    )
    add("--service-account-signing-key-file", required=True)
    add("--service-account-issuer", default="https://kubernetes.default.svc.cluster.local")
    add("--api-audiences", default="", help="comma-separated list (default: the issuer)")
    add("--service-cluster-ip-range", default="10.96.0.0/12")
    add("--service-node-port-range", default="30000-32767")
    add("--kubelet-client-certificate", default="")
    add("--kubelet-client-key", default="")
    add("--kubelet-certificate-authority", default="")
    add(
        "--proxy-client-cert-file",
        default="",
        help="client certificate with which servers behind the aggregation layer are called",
    )
    add("--proxy-client-key-file", default="")
    add(
        "--requestheader-client-ca-file",
        default="",
        help="CA of that certificate, which those servers read from ConfigMap "
        "kube-system/extension-apiserver-authentication, with the names that follow",
    )
    for name in _REQUEST_HEADERS:
        add(f"--requestheader-{name}", default="", help="comma-separated list")
    add("--storage-path", required=True, help="SQLite file that stores all objects")
    add(
        "--listen-fd",
        type=int,
        action="append",
        default=[],
        help="descriptor of an inherited listening socket; may be repeated",
    )
    add("-v", "--v", dest="verbosity", type=int, default=0, help="4 and more log every request")
    given = vars(parser.parse_args(argv))
    audiences = tuple(filter(None, given.pop("api_audiences").split(",")))
    return _options(given, audiences)


def check(settings: Options) -> None:
    """Checks that the flags fit together; raises ValueError with upstream's text.

    This follows cmd/kube-apiserver/app/options/validation.go.
    """
    _check_modes(settings.authorization_modes)
    parts = settings.service_cluster_ip_range.split(",")
    ranges = [ipaddress.ip_network(part.strip()) for part in parts]
    if len(ranges) > 2:
        raise ValueError("--service-cluster-ip-range must not contain more than two entries")
    if len({network.version for network in ranges}) < len(ranges):
        flag = "--service-cluster-ip-range"
        raise ValueError(f"{flag}[0] and {flag}[1] must be of different IP family")
    public = settings.advertise_address
    if public and ipaddress.ip_address(public).version != ranges[0].version:
        raise ValueError(
            f'service IP family "{ranges[0]}" must match public address family "{public}"',
        )


def _check_modes(modes: tuple[str, ...]) -> None:
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f'authorization-mode "{mode}" is not a valid mode')
    if len(set(modes)) < len(modes):
        raise ValueError(
            f"authorization-mode {list(modes)} has mode specified more than once",
        )


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, is {text!r}")
    return text == "true"


def _options(given: dict[str, Any], audiences: tuple[str, ...]) -> Options:
    keys = given.pop("service_account_key_file")
    descriptors = given.pop("listen_fd")
    modes = tuple(given.pop("authorization_mode").split(","))
    # Upstream resets the flag, too: nobody may do everything without a name.
    anonymous = given.pop("anonymous_auth") and ALWAYS_ALLOW not in modes
    return Options(
        **given,
        authorization_modes=modes,
        anonymous_auth=anonymous,
        api_audiences=audiences or (str(given["service_account_issuer"]),),
        service_account_key_files=tuple(keys),
        listen_fds=tuple(descriptors),
    )
