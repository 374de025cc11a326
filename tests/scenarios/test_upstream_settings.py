"""What of upstream's programs a lab file sets: taken, refused, or taken with a warning."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.scenarios.engine.file import upstream
from kubewire.scenarios.engine.file.spec import LabSpec, SpecError

EVERYTHING = {
    "kubeProxy": {
        "mode": "ipvs",
        "nodePortAddresses": ["172.18.0.0/16"],
        "iptables": {"masqueradeAll": True, "minSyncPeriod": "2s"},
        "ipvs": {"scheduler": "wrr"},
        "conntrack": {"tcpBeLiberal": True},
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "veth"},
    },
    "kubelet": {"maxPods": 20, "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"}},
    "controllerManager": {"node-monitor-grace-period": "20s", "leader-elect": False, "max-endpoints-per-slice": 10},
    "scheduler": {"v": 4},
}


def test_fields_and_flags_are_taken_and_written_out_again() -> None:
    spec = LabSpec.parse(EVERYTHING)
    assert spec.kubeProxy.mode == "ipvs" and list(spec.ineffective()) == []
    assert LabSpec.parse(spec.as_dict()) == spec != LabSpec.parse({"kubeProxy": {"mode": "ipvs"}})
    assert {key: spec.as_dict()[key] for key in EVERYTHING} == EVERYTHING
    assert hash(spec) == hash(LabSpec.parse(EVERYTHING))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(
            {"kubeProxy": {"nodePortAdresses": []}},
            "kubeProxy.nodePortAdresses: unknown key (did you mean nodePortAddresses?); allowed here: bindAddress",
            id="a field of kube-proxy's",
        ),
        pytest.param(
            {"kubeProxy": {"iptables": {"masqueradeall": True}}},
            "kubeProxy.iptables.masqueradeall: unknown key (did you mean masqueradeAll?)",
            id="a nested field",
        ),
        pytest.param(
            {"kubeProxy": {"conntrack": {"tcpBeLiberal": "yes"}}},
            'kubeProxy.conntrack.tcpBeLiberal: must be true or false, not "yes"',
            id="a type",
        ),
        pytest.param(
            {"kubeProxy": {"nodePortAddresses": ["all"]}},
            "kubeProxy: KubeProxyConfiguration.NodePortAddresses[0]: Invalid value",
            id="a value, in upstream's words",
        ),
        pytest.param(
            {"kubeProxy": {"iptables": {"minSyncPeriod": "soon"}}},
            "kubeProxy: iptables.minSyncPeriod: Invalid value: 'soon': time: invalid duration",
            id="no duration",
        ),
        pytest.param(
            {"kubelet": {"maxpods": 20}}, "kubelet.maxpods: unknown key (did you mean maxPods?)", id="the kubelet's"
        ),
        pytest.param(
            {"kubelet": {"maxPods": "x"}}, 'kubelet: maxPods: "x": must be an integer', id="a kubelet's value"
        ),
        pytest.param(
            {"controllerManager": {"node-monitor-grace": "20s"}},
            "controllerManager.node-monitor-grace: unknown key (did you mean node-monitor-grace-period?); allowed here: ",
            id="a flag",
        ),
        pytest.param(
            {"controllerManager": {"node-monitor-grace-period": "20"}},
            "controllerManager: --node-monitor-grace-period: time: missing unit in duration",
            id="a flag's value",
        ),
        pytest.param({"scheduler": {"v": "much"}}, "scheduler: -v/--v: invalid int value", id="the scheduler's flag"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(data: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        LabSpec.parse(data, "lab.yaml")
    assert str(error.value).startswith("lab.yaml: ") and said in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kubeProxy": {"oomScoreAdj": 0}}, "kubeProxy.oomScoreAdj has no effect: it is upstream's, and nothing here"),
        ({"kubeProxy": {"winkernel": {"networkName": "x"}}}, "kubeProxy.winkernel.networkName has no effect: "),
        ({"kubeProxy": {"hostnameOverride": "x"}}, "has no effect: each kube-proxy gets its node's name by"),
        (
            {"kubeProxy": {"ipvs": {"scheduler": "wrr"}}},
            "kubeProxy.ipvs has no effect: it is for mode ipvs, and the mode is iptables",
        ),
        (
            {"kubeProxy": {"mode": "none", "nodePortAddresses": []}},
            "kubeProxy: nodePortAddresses has no effect: with mode none no kube-proxy runs",
        ),
        ({"kubelet": {"cpuManagerPolicy": "static"}}, "kubelet.cpuManagerPolicy has no effect: "),
        ({"controllerManager": {"node-sync-period": "1s"}}, "controllerManager.node-sync-period has no effect: "),
        ({"scheduler": {"config": "/x"}}, "scheduler.config has no effect: "),
    ],
)
def test_a_name_that_has_no_effect_is_taken_with_a_warning(data: dict[str, Any], said: str) -> None:
    (warning,) = LabSpec.parse(data).ineffective()
    assert said in warning


@pytest.mark.parametrize("key", upstream.settings())
def test_no_name_has_an_effect_and_none(key: str) -> None:
    of = upstream.settings()[key]
    known = {name for name, schema in of.properties.items() if not schema.get("properties")}
    assert {name.partition(".")[0] for name in of.without_effect} <= of.properties.keys()
    assert known - of.without_effect
