"""Which flags of the API server go together: Service ranges and the address it advertises."""

from __future__ import annotations

import pytest

from kubewire.components.apiserver.options import Options, check, parse


def options(ranges: str, advertised: str = "") -> Options:
    needed = [
        "--tls-cert-file=c",
        "--tls-private-key-file=k",
        "--service-account-signing-key-file=s",
        "--storage-path=d",
    ]
    return parse([*needed, f"--service-cluster-ip-range={ranges}", f"--advertise-address={advertised}"])


@pytest.mark.parametrize(
    ("ranges", "advertised"),
    [
        ("10.96.0.0/12", "172.18.0.2"),
        ("fd00:10:96::/112", "fd00:18::2"),
        ("10.96.0.0/12,fd00:10:96::/112", "172.18.0.2"),
        ("fd00:10:96::/112,10.96.0.0/12", "fd00:18::2"),
        ("fd00:10:96::/112", ""),
    ],
)
def test_ranges_of_the_families_of_the_address(ranges: str, advertised: str) -> None:
    check(options(ranges, advertised))


@pytest.mark.parametrize(
    ("ranges", "advertised", "said"),
    [
        (
            "10.96.0.0/12,10.112.0.0/12",
            "172.18.0.2",
            r"^--service-cluster-ip-range\[0\] and --service-cluster-ip-range\[1\] must be of different IP family$",
        ),
        ("10.96.0.0/12,fd00::/112,10.112.0.0/12", "172.18.0.2", "must not contain more than two entries"),
        (
            "fd00:10:96::/112,10.96.0.0/12",
            "172.18.0.2",
            r'^service IP family "fd00:10:96::/112" must match public address family "172\.18\.0\.2"$',
        ),
    ],
)
def test_ranges_that_cannot_be(ranges: str, advertised: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(options(ranges, advertised))
