"""Every component explains itself in the same sections, its example is run by a test, and links lead somewhere."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from kubewire.lab.cli import up_epilog
from kubewire.scenarios.engine.file.spec import LabSpec, Network

ROOT = Path(__file__).parent.parent
COMPONENTS = [
    *sorted(path.parent for path in (ROOT / "components").glob("*/__init__.py")),
    *sorted(path.parent for path in (ROOT / "components/networks").glob("*/README.md")),
    ROOT / "components/apiserver/kinds",
    ROOT / "components/apiserver/openapi",
]
SECTIONS = {
    "where on the packet path": r"(Where it sits|(Where o|O)n the packet path)",
    "configuration or flags": r"(Configuration|Flags|Flags and configuration)",
    "example": r"Example\b.*",
    "differences from upstream": r"Differences from upstream",
    "links": r"(Links|Sources|Specs|Specifications)",
}
OTHERS = ("lab", "topologies", "scenarios", "scenarios/engine", "scenarios/catalogue", "tests", "vm", "benchmarks")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", COMPONENTS, ids=name)
def test_a_component_has_a_readme_with_all_sections(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text.startswith("# ")
    missing = [what for what, heading in SECTIONS.items() if not re.search(rf"^## {heading}$", text, re.M)]
    assert missing == []


@pytest.mark.parametrize("folder", COMPONENTS, ids=name)
def test_a_test_runs_the_example_of_a_readme(folder: Path) -> None:
    tests = ROOT / "tests" / folder.relative_to(ROOT)
    assert [path for path in tests.glob("test_*.py") if re.search(r"readme", path.read_text(), re.I)]


@pytest.mark.parametrize("folder", OTHERS)
def test_other_folders_have_a_readme(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


def documents() -> Iterator[Path]:
    """The Markdown files of the project."""
    for path in sorted(ROOT.rglob("*.md")):
        inside = path.relative_to(ROOT).parts
        if not inside[0].startswith(".") and inside[0] not in ("results", "build"):
            yield path


def links(text: str) -> Iterator[str]:
    """Targets of inline links and pictures, without those in code."""
    text = re.sub(r"^```.*?^```|^(?: {4}|\t).*$", "", text, flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`(?!\])", "", text)
    yield from (match[1] for match in re.finditer(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)", text))


def anchors(path: Path) -> set[str]:
    """What GitHub makes of headings."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", [*documents()], ids=name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in links(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


def lab_file_of_the_page() -> str:
    text = (ROOT / "docs/lab-file.md").read_text()
    return re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S)[0]


def lab_file_of_the_help() -> str:
    return re.findall(r"defaults\):\n((?:^  .*\n)+)", up_epilog(), re.M)[0]


@pytest.mark.parametrize("text", [lab_file_of_the_page, lab_file_of_the_help])
def test_a_lab_file_that_is_shown_is_one_and_has_every_key(text: Callable[[], str]) -> None:
    data = yaml.safe_load(textwrap.dedent(text()))
    spec = LabSpec.parse(data, "the text")
    assert spec.network == LabSpec().network and spec.cni == LabSpec().cni and spec.dns == LabSpec().dns
    assert set(data) == {field.name for field in dataclasses.fields(LabSpec)}
    # Keys without a default (they are for dual-stack alone) stand in comments.
    assert set(data["network"]) == {field.name for field in dataclasses.fields(Network) if field.default is not None}
    assert all(field.name in text() for field in dataclasses.fields(Network))
