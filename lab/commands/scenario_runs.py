"""`kubewire run` and `kubewire demo`: run scenarios on labs that end with this process."""

from __future__ import annotations

import argparse
from pathlib import Path

from kubewire.lab.commands.virtual import AUTO, CHOICES
from kubewire.lab.commands.vm_runs import VirtualMachines
from kubewire.lab.errors import UsageError
from kubewire.lab.handle import LabStarter
from kubewire.lab.needs.doctor import missing_feature
from kubewire.scenarios.engine import cli as engine
from kubewire.scenarios.engine.events.options import RunOptions

DEMO = "four-networking-problems"


def run(options: argparse.Namespace) -> int:
    """Run scenarios. Returns 0 if all passed or were skipped with a reason, 1 if an expectation
    failed, 2 if a file is wrong, 130 if interrupted."""
    if options.vm not in ("never", *CHOICES):
        raise UsageError(f"--vm {options.vm}: choose one of never, {', '.join(CHOICES)}")
    delegate = options.vm != "never"
    elsewhere = VirtualMachines(options.vm if delegate else AUTO)
    chosen = engine.options_of(options, missing_feature, elsewhere, delegate=delegate)
    return engine.run(engine.files_of(options.scenarios), LabStarter(), chosen)


def demo(_: argparse.Namespace) -> int:
    """Show the four networking problems with all evidence, and write an HTML report."""
    options = RunOptions(results=Path("results/demo"), verbose=True, missing=missing_feature)
    return engine.run(engine.files_of([DEMO]), LabStarter(), options)
