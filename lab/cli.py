"""The command line: kubewire up, down, status, plan, run, demo, node, kubectl, doctor, vm."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubewire.components.base import sources
from kubewire.lab.errors import BringUpFailed, LabError, UsageError, plain

if TYPE_CHECKING:
    from kubewire.scenarios.engine.file.spec import LabSpec

_DESCRIPTION = """\
Kubernetes networking on real packets, with nothing to pull.

Nodes are Mininet hosts, pods are kernel namespaces, the kernel forwards every packet. A lab lives in
namespaces of its own: it has no way out, and ending it leaves nothing behind.
"""

_EXAMPLES = """\
a first session:
  sudo kubewire demo                        the four networking problems, explained with packets
  sudo kubewire up                          a lab: control plane, three workers, router, outside client
  sudo kubewire kubectl get pods -A -o wide any kubectl command, with the lab's kubeconfig
  sudo kubewire node worker-1 -- ip route   any command in a node's namespaces
  sudo kubewire run -l                      the scenarios there are; without -l: run them all, with a report
  sudo kubewire down                        end the lab; nothing is left

exit codes: 0 done, 1 it failed (an expectation, a bring-up step), 2 wrong input, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code, prints errors as one message on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # said by the command's own parser: its usage line is the one that helps
        getattr(options, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if not hasattr(options, "command"):
        parser.print_help()
        return 2
    from kubewire.lab.launch import raise_on_signals

    if options.signals:
        raise_on_signals()
    try:
        code: int = options.command(options)
        return code
    except LabError as error:
        print(f"kubewire: {plain(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


class _Parser(argparse.ArgumentParser):
    """late_epilog makes the epilog when somebody asks for help: `up`'s takes imports that no other command needs."""

    late_epilog: Callable[[], str] | None = None

    def format_help(self) -> str:
        if self.late_epilog is not None:
            self.epilog = self.late_epilog()
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """The commands and what --help says about each."""
    parser = _Parser(
        prog="kubewire",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_lab_commands(commands)
    _add_inside_commands(commands)
    _add_scenario_commands(commands)
    _add_vm_commands(commands)
    return parser


def _command(
    commands: Any,
    name: str,
    command: Callable[[argparse.Namespace], int],
    text: str,
    *,
    epilog: str | Callable[[], str] = "",
    signals: bool = True,
) -> argparse.ArgumentParser:
    parser: _Parser = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if callable(epilog):
        parser.late_epilog = epilog
    else:
        parser.epilog = epilog
    parser.set_defaults(command=command, signals=signals, parser=parser)
    return parser


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="default", help="which lab (default: %(default)s); several can run at once")


def _add_lab_commands(commands: Any) -> None:
    up = _command(commands, "up", _up, "bring a lab up", epilog=up_epilog)
    up.add_argument(
        "-f",
        "--file",
        metavar="LAB.YAML",
        help="lab file, - for standard input (default: one segment, three workers, flannel)",
    )
    up.add_argument("--name", help="name of the lab (default: the lab file's name, else 'default')")
    up.add_argument("--workers", type=int, help="number of worker nodes, instead of the lab file's")
    up.add_argument("--api-port", type=_port, default=0, help="port on 127.0.0.1 for the API (default: a free one)")
    down = _command(commands, "down", _down, "end a lab; nothing of it is left on the machine")
    _name(down)
    down.add_argument("--all", action="store_true", help="every lab")
    status = _command(commands, "status", _status, "the labs, their hosts and components")
    status.add_argument("--name", help="one lab in detail")
    from kubewire.lab.commands import planning

    text = "do the ranges of nodes, pods and Services fit together, and for how much?"
    plan = _command(commands, "plan", planning.run, text, epilog=planning.EPILOG)
    planning.add_arguments(plan)
    doctor = _command(commands, "doctor", _doctor, "what this machine and its kernel can do for a lab")
    doctor.add_argument("--json", action="store_true", help="as JSON")


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port; there are 1 to 65535, and 0 for a free one")
    return number


def up_epilog() -> str:
    """What `up --help` ends with: every key of a lab file, from the description that the schema is made of as well."""
    from kubewire.scenarios.engine.file import reference

    return f"""\
a lab file (every key is optional; these are the defaults):
{textwrap.indent(reference.example(), "  ")}
{_networks()}

docs/lab-file.md says more about each key.
the lab stays until `kubewire down`. Its kubeconfig and logs are in its state directory (kubewire status --name N).
"""


def _networks() -> str:
    """The part of the help that lists the pod networks."""
    from kubewire.components.networks import registry

    lines = ["networks (cni.plugin), with backends (cni.backend; the first is the default) and further keys of cni:"]
    for addon in (network.addon for network in registry.NETWORKS):
        lines.append(f"  {addon.name:<10}{addon.summary}")
        if len(addon.backends) > 1:
            lines.append(f"            {', '.join(addon.backend_names)}")
        if addon.settings:
            lines.append(f"            keys: {', '.join(setting.name for setting in addon.settings)}")
    return "\n".join(lines)


_RUN_EPILOG = """\
examples:
  kubewire run -l                       what the catalogue has
  kubewire run hairpin                  one scenario, by name
  kubewire run dns services             subjects of the catalogue
  kubewire run -k "packet and not dns"  by words in names, titles and tags
  kubewire run --keep my.scenario.yaml  your own; look around in the lab when it fails
  kubewire run --resume -j 2            only what has not passed yet, two labs at once

each scenario gets a lab (equal labs are shared) that ends with the command
how to write one: scenarios/engine/README.md
exit codes: 0 all passed or were skipped with the reason, 1 some failed, 2 a file is wrong, 130 interrupted
"""


def _add_inside_commands(commands: Any) -> None:
    kubectl = _command(
        commands,
        "kubectl",
        _kubectl,
        "run kubectl with the lab's kubeconfig: kubewire kubectl get pods -A",
        signals=False,
    )
    _name(kubectl)
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="kubectl's own arguments")
    node = _command(
        commands,
        "node",
        _node,
        "run a command in a host's namespaces: kubewire node worker-1 -- iptables-save",
        signals=False,
    )
    _name(node)
    node.add_argument("host", help="control-plane, worker-1, router, client, dns ...")
    node.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command (default: a shell)")


def _add_scenario_commands(commands: Any) -> None:
    from kubewire.scenarios.engine import cli as engine

    run = _command(commands, "run", _run, "run scenarios and write the reports", epilog=_RUN_EPILOG)
    engine.add_arguments(run)
    run.add_argument(
        "--vm",
        default="never",
        metavar="KERNEL",
        help="where to run what this kernel cannot: auto, uml, uml-stock, qemu (default: skip it and say the command)",
    )
    demo = _command(commands, "demo", _demo, "the four networking problems, shown on packets, with an HTML report")
    demo.set_defaults(results=Path("results/demo"))
    test = _command(commands, "test", _test, "static checks and the whole test suite (in a checkout)", signals=False)
    test.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="...", help="for pytest, e.g. tests/lab -k sandbox"
    )
    lock = _command(
        commands, "lock", _lock, "renew requirements.lock from requirements.txt (in a checkout)", signals=False
    )
    lock.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="--upgrade all, or --upgrade NAME...")


def _add_vm_commands(commands: Any) -> None:
    vm = _command(commands, "vm", _vm_help, "kubewire in a virtual machine whose kernel has every module")
    vm.set_defaults(parser=vm)
    inner = vm.add_subparsers(title="commands", metavar="COMMAND")
    run = _command(inner, "run", _vm_run, "run a kubewire command line, or any program, in it", epilog=_VM_EPILOG)
    shell = _command(inner, "shell", _vm_shell, "a shell in it, on this terminal", signals=False)
    for parser in (run, shell):
        _kernel(parser, "default: the lightest one that has what is needed")
        parser.add_argument("--memory", type=int, default=2048, metavar="MIB", help="default: %(default)s")
        parser.add_argument("--virtual-time", action="store_true", help="skip idle time: an hour passes in seconds")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="end it then (default: never)")
    run.add_argument(
        "--output", type=Path, action="append", default=[], metavar="DIR", help="a folder it may write to; comes back"
    )
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run")
    build = _command(inner, "build", _vm_build, "make its kernels (as root: also install what that takes)")
    _kernel(build, "default: uml and uml-stock")
    _command(inner, "status", _vm_status, "the kernels there are, with size and checksum")


def _kernel(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--kernel", default="auto", choices=("auto", "uml", "uml-stock", "qemu"), help=text)


_VM_EPILOG = """\
examples:
  kubewire vm run -- run ipvs-smoke             a scenario, on a kernel that has IPVS
  kubewire vm run -- doctor                     any kubewire command line
  kubewire vm run -- ip link add x0 type vrf table 10      any program
  kubewire vm run --virtual-time -- sleep 3h    in no time

It sees this machine's files, read-only. What it writes is lost, except the reports of run and demo and --output.
It has no network device. It ends with the command, with ctrl-C, with --timeout, or with whoever started it.
exit codes: the command's; 1 when the machine ended without one
"""


def _vm_help(options: argparse.Namespace) -> int:
    options.parser.print_help()
    return 2


def _vm_run(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import virtual

    return virtual.run(options, _parse_own)


def _parse_own(arguments: Sequence[str]) -> argparse.Namespace | None:
    """A command line of kubewire's own, parsed; None for another program's."""
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return parser.parse_args(arguments) if arguments[0] in commands.choices else None


def _vm_shell(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import virtual

    return virtual.shell(options)


def _vm_build(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import virtual

    return virtual.make(options)


def _vm_status(_: argparse.Namespace) -> int:
    from kubewire.lab.commands import virtual

    return virtual.show()


def _up(options: argparse.Namespace) -> int:
    from kubewire.components.kube_proxy import modes
    from kubewire.lab.launch import up

    spec = _load_spec(options)
    name = (spec.name or "default") if options.name is None else options.name
    for warning in (*spec.opened(), *spec.ineffective(), *spec.wanted_overlaps(), *spec.unreachable()):
        print(f"kubewire: warning: {warning}", file=sys.stderr)
    printer = StepPrinter(sys.stderr)
    began = time.monotonic()
    state = up(spec, name, printer, api_port=options.api_port).state
    printer.finish()
    flag = "" if name == "default" else f" --name {name}"
    how = " and incomplete" if printer.incomplete else ""
    print(f"lab {name} is up{how} ({spec.label()}) after {time.monotonic() - began:.1f} s")
    print(f"  export KUBECONFIG={state.kubeconfig}")
    print(f"  kubewire kubectl{flag} get pods -A -o wide")
    mode = modes.find(spec.kubeProxy.mode)
    rules = mode.show if mode else "iptables-save"
    print(f"  kubewire node{flag} {spec.nodes[:2][-1]} -- {rules}")
    print(f"  kubewire down{flag}")
    return 0


def _load_spec(options: argparse.Namespace) -> LabSpec:
    from kubewire.scenarios.engine.file.spec import LabSpec, SpecError

    try:
        spec = LabSpec.load(options.file) if options.file else LabSpec()
        if options.workers is None:
            return spec
        data = spec.as_dict()
        data["topology"]["workers"] = options.workers
        return LabSpec.parse(data, f"{options.file} with --workers" if options.file else "--workers")
    except OSError as error:
        raise UsageError(f"lab file {options.file}: {error.strerror}") from None
    except SpecError as error:
        raise UsageError(str(error)) from None


def _down(options: argparse.Namespace) -> int:
    from kubewire.lab.launch import down
    from kubewire.lab.state import all_labs, find

    labs = list(all_labs()) if options.all else [find(options.name)]
    if options.all and not labs:
        print("no labs")
    for state in labs:
        print(f"lab {state.name} is down" if down(state) else f"no lab {state.name}; nothing to do")
    return 0


def _status(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import status

    return status.show(options.name)


def _doctor(options: argparse.Namespace) -> int:
    from kubewire.lab.needs import doctor

    return doctor.show(as_json=options.json)


def _kubectl(options: argparse.Namespace) -> int:
    import shutil

    from kubewire.lab.state import running

    state, _ = running(options.name)
    program = shutil.which("kubectl")
    if program is None:
        raise UsageError("there is no kubectl on this machine; on Debian: apt install kubernetes-client")
    os.environ["KUBECONFIG"] = str(state.kubeconfig)
    os.execv(program, ["kubectl", *options.arguments])


def _node(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import nodes
    from kubewire.lab.state import running

    state, record = running(options.name)
    command = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    return nodes.run(state, record, options.host, command or ["bash"])


def _run(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import scenario_runs

    return scenario_runs.run(options)


def _demo(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import scenario_runs

    return scenario_runs.demo(options)


def _test(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import testing

    return testing.run(options.arguments)


def _lock(options: argparse.Namespace) -> int:
    """The launcher of a checkout runs it by itself, before anything is installed."""
    from kubewire.lab.setup import lock

    if not sources.IS_CHECKOUT:
        raise UsageError("the lock is part of a checkout; run ./kubewire lock there")
    return lock.main(sources.FOLDER, options.arguments)


class StepPrinter:
    """Bring-up's steps for a person: one line each, rewritten in place on a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._live = stream, stream.isatty()
        self._step = ""
        #: Whether something of the lab did not come up, and the lab is left standing.
        self.incomplete = False

    def __call__(self, event: dict[str, Any]) -> None:
        if incomplete := event.get("incomplete"):
            self.incomplete = True
            self.finish()
            what = str(BringUpFailed(**incomplete)).removeprefix("step failed: ")
            print(f"kubewire: warning: the lab is left standing, incomplete: {plain(what)}", file=self._stream)
        elif event.get("state") == "start":
            self._step = event["step"]
            self._show(f"  … {self._step}")
        elif event.get("state") == "done":
            self._show(f"  ✓ {event['step']}  {float(event['seconds']):.2f} s", final=True)
        elif note := event.get("note"):
            self._show(f"  … {self._step}: {note}")

    def _show(self, text: str, *, final: bool = False) -> None:
        text = plain(text)
        if self._live:
            self._stream.write(f"\r\033[K{text}" + ("\n" if final else ""))
            self._stream.flush()
        elif final:
            print(text, file=self._stream)

    def finish(self) -> None:
        """Leave the line clean when the last step was not final."""
        if self._live:
            self._stream.write("\r\033[K")
            self._stream.flush()


if __name__ == "__main__":
    sys.exit(main())
