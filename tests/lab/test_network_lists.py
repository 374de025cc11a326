"""What lists the pod networks says what the registry has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.networks import registry
from kubewire.components.networks.podnetwork import PodNetwork
from kubewire.lab import cli
from kubewire.lab.setup import network_lists
from kubewire.lab.setup.network_lists import LISTINGS, Listing
from kubewire.scenarios.engine.file.spec import LabSpec

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.file)
def test_a_file_has_the_list_that_the_command_writes(listing: Listing) -> None:
    written = network_lists.content(listing, ROOT)
    assert (ROOT / listing.file).read_text() == written, "run python -m kubewire.lab.setup.network_lists"


def test_the_schema_is_the_registrys() -> None:
    whole = json.loads((ROOT / "scenarios/engine/file/lab.schema.json").read_text())
    properties = whole["$defs"]["lab"]["properties"]["cni"]["properties"]
    assert list(properties) == list(registry.schema()["properties"])
    for name, schema in registry.schema()["properties"].items():
        assert schema.items() <= properties[name].items()


def test_a_file_without_the_place_of_its_list_is_an_error(tmp_path: Path) -> None:
    listing = LISTINGS[0]
    (tmp_path / listing.file).parent.mkdir(parents=True)
    (tmp_path / listing.file).write_text("# networks\n")
    with pytest.raises(LookupError, match=r"README\.md: found 0 lists of networks"):
        network_lists.content(listing, tmp_path)


def test_the_help_names_every_network_with_its_backends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["up", "--help"])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    for network in registry.NETWORKS:
        assert {network.name, *network.addon.backend_names, *(one.name for one in network.addon.settings)} <= words


def test_two_networks_mean_the_same_by_a_setting_of_one_name() -> None:
    for network in registry.NETWORKS:
        for setting in network.addon.settings:
            assert setting in registry.settings()


@pytest.mark.parametrize("network", registry.NETWORKS, ids=lambda network: network.name)
def test_a_lab_file_that_names_only_the_network_has_its_defaults(network: PodNetwork[Any]) -> None:
    cni = LabSpec.parse({"cni": {"plugin": network.name}}).cni
    assert cni.backend == network.addon.backend_names[0]
    assert cni.choice.settings == {setting.name: setting.default for setting in network.addon.settings}
