"""mypy refuses a misspelt field of an API object in each part that reads the types, and nothing else there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Mistake:
    """A field that is written otherwise in a copy of a module, and what mypy says about it."""

    module: str
    right: str
    wrong: str
    said: str

    @property
    def file(self) -> str:
        """As mypy names it: below mypy_path of pyproject.toml."""
        return f"src/kubewire/{self.module}"

    @property
    def imported(self) -> str:
        return f"kubewire/{self.module}".removesuffix(".py").replace("/", ".")


MISTAKES = [
    Mistake(
        "components/kube_proxy/state/objects.py",
        'spec.get("sessionAffinity")',
        'spec.get("sessionAfinity")',
        'TypedDict "ServiceSpec" has no key "sessionAfinity"',
    ),
    Mistake(
        "components/controllers/pods.py",
        '(pod.get("status") or {}).get("phase")',
        '(pod.get("status") or {}).get("phaze")',
        'TypedDict "PodStatus" has no key "phaze"',
    ),
    Mistake(
        "components/kubelet/pods.py",
        'pod["spec"].get("restartPolicy")',
        'pod["spec"].get("restartPolicie")',
        'TypedDict "PodSpec" has no key "restartPolicie"',
    ),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """mypy's errors about the modules, each of which it reads from a copy with the mistake."""
    folder = tmp_path_factory.mktemp("misspelt")
    shadows: list[str] = []
    for number, mistake in enumerate(MISTAKES):
        source = (ROOT / mistake.file).read_text()
        assert source.count(mistake.right) == 1, f"{mistake.module} does not have {mistake.right} once"
        copy = folder / f"{number}.py"
        copy.write_text(source.replace(mistake.right, mistake.wrong))
        shadows += ["--shadow-file", mistake.file, str(copy)]
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache"), "--follow-imports", "silent"]
    modules = [word for mistake in MISTAKES for word in ("-m", mistake.imported)]
    done = subprocess.run([*command, *shadows, *modules], cwd=ROOT, capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if " note: " not in line]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.module)
def test_a_misspelt_field_fails_mypy(mistake: Mistake, said: list[str]) -> None:
    assert [line for line in said if mistake.said in line and mistake.module in line], "\n".join(said)


@pytest.mark.parametrize("part", ["kube_proxy", "controllers", "kubelet"])
def test_a_process_does_not_load_the_types(part: str) -> None:
    code = f"import sys, kubewire.components.{part}.main; print('kubewire.components.kubeapi.types' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_mypy_says_nothing_else_about_these_modules(said: list[str]) -> None:
    errors = [line for line in said if ": error: " in line]
    assert len(errors) == len(MISTAKES), "\n".join(errors)
