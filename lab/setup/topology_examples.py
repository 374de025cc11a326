"""Writes each shape as a lab file of its own hosts, topologies/examples/SHAPE.yaml: a start for
one's own topology."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kubewire.components.base import sources
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.topologies import description
from kubewire.topologies.shapes import SHAPES

EXAMPLES = sources.FOLDER / "topologies/examples"
_HEAD = """\
# topology.shape: {shape} written out, with {workers} workers. Made by python -m kubewire.lab.setup.generate.
# yaml-language-server: $schema=../../scenarios/engine/file/lab.schema.json
"""


class _Flow(dict[str, Any]):
    """A mapping on one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    _Flow,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True),
)


def text(shape: str, workers: int = 3) -> str:
    """The lab file of a shape."""
    found = description.as_dict(SHAPES[shape](workers, LabSpec().network.nodeCIDR))
    for host in found["hosts"].values():
        host["interfaces"] = {name: _Flow(port) for name, port in host["interfaces"].items()}
    data = {"topology": {"hosts": found["hosts"], "switches": _Flow(found["switches"])}}
    body: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120)
    return _HEAD.format(shape=shape, workers=workers) + body


def files() -> dict[Path, str]:
    return {EXAMPLES / f"{shape}.yaml": text(shape) for shape in SHAPES}


def main() -> int:
    """Writes the files that differ, and says so. Returns 0, or 2 if this is not a checkout."""
    return sources.write_generated(files())
