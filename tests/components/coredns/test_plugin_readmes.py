"""Each plugin explains itself in the sections of CoreDNS's plugins, and what it explains is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubewire.components.coredns import corefile
from kubewire.components.coredns.instance import Instance
from kubewire.components.coredns.plugins import PLUGINS

FOLDER = Path(__file__).parents[3] / "components/coredns/plugins"
SECTIONS = ["Name", "Description", "Syntax", "Metrics", "Examples", "Differences from upstream"]


def readme(name: str) -> str:
    return (FOLDER / name / "README.md").read_text()


def test_every_folder_is_a_plugin_of_the_chain() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/__init__.py")} == set(PLUGINS)


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_a_plugin_has_a_readme_with_all_sections(name: str) -> None:
    text = readme(name)
    assert text.startswith(f"# {name}\n")
    assert f"\n*{name}* - " in text
    assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_the_examples_are_corefiles_that_use_the_plugin(name: str) -> None:
    examples = re.findall(r"```corefile\n(.*?)```", readme(name), re.S)
    assert examples
    for example in examples:
        blocks = corefile.parse(example, "README.md", frozenset(PLUGINS))
        instance = Instance.build(blocks)
        assert name in [plugin.name for plugin in instance.plugins]


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_every_property_of_the_syntax_is_known(name: str) -> None:
    """A property in the README that the plugin calls unknown would be an invention."""
    (syntax,) = re.findall(r"## Syntax\n```\n(.*?)```", readme(name), re.S)
    source = (FOLDER / name / "__init__.py").read_text()
    properties = re.findall(r"^    ([a-z_]+)", syntax, re.M)
    assert [word for word in properties if f'"{word}"' not in source] == []


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_the_metrics_are_those_that_the_plugin_registers(name: str) -> None:
    told = readme(name).split("## Metrics\n")[1].split("\n## ")[0]
    source = "".join(path.read_text() for path in (FOLDER / name).glob("*.py"))
    registered = set(re.findall(r'"(coredns_\w+)"', source))
    assert set(re.findall(r"^- `(coredns_\w+)", told, re.M)) == registered
