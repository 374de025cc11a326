"""What a lab file may say about Weave, and what it becomes."""

import pytest

from kubewire.lab.bringup.networks import installation_of
from kubewire.lab.errors import UsageError
from kubewire.lab.needs import kernel_needs
from kubewire.scenarios.engine.file.spec import LabSpec, SpecError


@pytest.mark.parametrize("family", ["ipv6", "dual", "dual-ipv6-first"])
def test_ipv6_is_refused(family):
    with pytest.raises(SpecError, match=r"weave is IPv4 only, as upstream; take flannel or calico for IPv6 pods"):
        LabSpec.parse({"cni": {"plugin": "weave"}, "network": {"ipFamily": family}})


def test_what_is_no_backend_of_weave_is_refused():
    with pytest.raises(SpecError, match="weave has vxlan, fastdp-encrypted, sleeve, sleeve-encrypted; not host-gw"):
        LabSpec.parse({"cni": {"plugin": "weave", "backend": "host-gw"}})


def test_encryption_asks_the_kernel_for_esp():
    spec = LabSpec.parse({"cni": {"plugin": "weave", "backend": "fastdp-encrypted"}})
    with pytest.raises(UsageError, match=r"cni\.backend: fastdp-encrypted cannot be used here: no esp"):
        kernel_needs.ensure(spec, missing=lambda feature: f"no {feature}")


@pytest.mark.parametrize(
    ("backend", "secrets"), [("vxlan", 0), ("fastdp-encrypted", 1), ("sleeve", 0), ("sleeve-encrypted", 1)]
)
def test_the_password_is_a_secret_only_where_it_is_used(backend, secrets):
    spec = LabSpec.parse({"topology": {"workers": 4}, "cni": {"plugin": "weave", "backend": backend}})
    installation = installation_of(spec, spec.plan)
    arguments = installation.processes[1].arguments
    assert "--ipalloc-init=consensus=5" in arguments
    assert ("--password-secret=weave-passwd" in arguments) == bool(secrets)
    assert ("--no-fastdp" in arguments) == backend.startswith("sleeve")
    assert sum(obj["kind"] == "Secret" for obj in installation.objects) == secrets
