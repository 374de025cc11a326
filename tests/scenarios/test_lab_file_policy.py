"""The key `policy` of a lab file: its defaults by pod network, and what does not fit together."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.scenarios.engine.file.spec import LabSpec, SpecError


@pytest.mark.parametrize(
    ("lab", "engine", "settings"),
    [
        ({}, "none", {}),
        ({"cni": {"plugin": "weave"}}, "weave-npc", {}),
        ({"cni": {"plugin": "weave"}, "policy": {"engine": "none"}}, "none", {}),
        ({"cni": {"plugin": "azure"}, "policy": {"engine": "azure-npm"}}, "azure-npm", {}),
        ({"policy": {"engine": "kube-network-policies"}}, "kube-network-policies", {"failOpen": True}),
        (
            {"policy": {"engine": "kube-network-policies", "failOpen": False}},
            "kube-network-policies",
            {"failOpen": False},
        ),
    ],
    ids=["flannel", "weave", "weave without", "azure", "by name", "with a setting"],
)
def test_the_engine_and_its_settings(lab: dict[str, Any], engine: str, settings: dict[str, Any]) -> None:
    spec = LabSpec.parse(lab)
    assert (spec.policy_engine.name, dict(spec.policy_choice.settings)) == (engine, settings)
    assert LabSpec.parse(spec.as_dict()) == spec


def test_naming_the_default_is_the_same_lab() -> None:
    plain: dict[str, Any] = {"cni": {"plugin": "weave"}}
    named = {**plain, "policy": {"engine": "weave-npc"}}
    assert LabSpec.parse(plain) == LabSpec.parse(named)


@pytest.mark.parametrize(
    ("lab", "said"),
    [
        ({"policy": {"engine": "azure-npm"}}, r"policy\.engine: azure-npm is for azure, not for flannel"),
        ({"policy": {"engine": "felix"}}, r'policy\.engine: "felix" is not known; allowed: weave-npc, '),
        ({"policy": {"failOpen": False}}, r"policy\.failOpen: is for kube-network-policies, not for none"),
        ({"policy": {"failOpen": True}}, r"policy\.failOpen: is for kube-network-policies, not for none"),
        (
            {"policy": {"engine": "kube-network-policies", "backend": "iptables"}},
            r"policy\.backend: kube-network-policies has nfqueue; not iptables",
        ),
    ],
    ids=["another network's", "unknown", "a setting of another, false", "a setting of another", "a backend of another"],
)
def test_what_does_not_fit_together(lab: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        LabSpec.parse(lab)
