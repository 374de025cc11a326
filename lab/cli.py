"""The command line: kubewire up, down, status, plan, run, demo, node, kubectl, doctor, vm.

Each command imports what it needs when it runs, so that `kubewire --help` and the short commands
start quickly.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubewire.components.base import sources
from kubewire.lab import passing
from kubewire.lab.errors import BringUpFailed, LabError, UsageError, plain

if TYPE_CHECKING:
    from kubewire.scenarios.engine.file.spec import LabSpec

#: Names the lab of the commands that are given no --name.
_LAB_VARIABLE = "KUBEWIRE_LAB"
_DESCRIPTION = """\
Kubernetes networking on real packets, with nothing to pull.

Nodes are Mininet hosts, pods are kernel namespaces, and the kernel forwards every packet. A lab
runs in namespaces of its own: it cannot reach any network, and it leaves nothing behind when it
ends.
"""

_EXAMPLES = """\
a first session:
  sudo kubewire demo                        show the four networking problems on packets
  sudo kubewire up                          start a lab: control plane, three workers, router,
                                            outside client
  sudo kubewire kubectl get pods -A -o wide run any kubectl command with the lab's kubeconfig
  sudo kubewire node worker-1 -- ip route   run any command in a node's namespaces
  sudo kubewire run -l                      list the scenarios; without -l, run them all and
                                            write a report
  sudo kubewire down                        end the lab and remove everything of it

exit codes: 0 done; 1 failed (an expectation or a step of bring-up); 2 wrong input;
130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code. An error is printed as one message on stderr."""
    parser = build_parser()
    options = _parse(parser, sys.argv[1:] if argv is None else argv)
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


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    line = passing.divide(arguments)
    options, unknown = parser.parse_known_args(line.own)
    if unknown:  # reported by the parser of the command, whose usage line helps most
        getattr(options, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if line.passed is not None:
        options.arguments = list(line.passed)
    return options


class _Parser(argparse.ArgumentParser):
    """A parser whose late_epilog, if set, makes the epilog only when help is shown: the epilog of
    `up` needs imports that no other command needs."""

    late_epilog: Callable[[], str] | None = None

    def format_help(self) -> str:
        if self.late_epilog is not None:
            self.epilog = self.late_epilog()
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands and their help."""
    parser = _Parser(
        prog="kubewire",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--name",
        default=argparse.SUPPRESS,
        help="name of the lab, for every command that has --name "
        f"(default: ${_LAB_VARIABLE}, or else 'default')",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_lab_commands(commands)
    _add_inside_commands(commands)
    _add_scenario_commands(commands)
    _add_policy_commands(commands)
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
    parser.add_argument(
        "--name",
        default=os.environ.get(_LAB_VARIABLE) or "default",
        help=f"name of the lab (default: %(default)s; ${_LAB_VARIABLE} sets it); several labs can "
        "run at once",
    )


def _add_lab_commands(commands: Any) -> None:
    up = _command(commands, "up", _up, "start a lab, which stays until `down`", epilog=up_epilog)
    up.add_argument(
        "-f",
        "--file",
        metavar="LAB.YAML",
        help="lab file; - reads standard input (default: one segment, three workers, flannel)",
    )
    up.add_argument(
        "--name",
        default=os.environ.get(_LAB_VARIABLE) or None,
        help=f"name of the lab (default: ${_LAB_VARIABLE}, then the `name` in the lab file, or "
        "else 'default')",
    )
    up.add_argument(
        "--workers",
        type=int,
        help="number of worker nodes; takes precedence over the lab file",
    )
    up.add_argument(
        "--api-port",
        type=_port,
        default=0,
        help="port on 127.0.0.1 for the API server (default: a free port)",
    )
    down = _command(commands, "down", _down, "end a lab and remove everything of it")
    _name(down)
    down.add_argument("--all", action="store_true", help="end all labs")
    status = _command(commands, "status", _status, "list the labs, or show one in detail")
    status.add_argument("--name", help="show the hosts and components of this lab")
    from kubewire.lab.commands import planning

    text = "check that node, pod and Service ranges do not overlap; show how many pods they allow"
    plan = _command(commands, "plan", planning.run, text, epilog=planning.EPILOG)
    planning.add_arguments(plan)
    text = "check what this machine and its kernel can do for a lab"
    doctor = _command(commands, "doctor", _doctor, text)
    doctor.add_argument("--json", action="store_true", help="print the report as JSON")


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(
            f"{number} is not a port; give one from 1 to 65535, or 0 for a free port",
        )
    return number


def up_epilog() -> str:
    """The end of `up --help`: all keys of a lab file. They come from the same description as the
    schema of a lab file."""
    from kubewire.scenarios.engine.file import reference

    return f"""\
a lab file (every key is optional; these are the defaults):
{textwrap.indent(reference.example(), "  ")}
{_networks()}

docs/lab-file.md describes each key.
The lab stays until `kubewire down`. Its state directory holds the kubeconfig and the logs;
`kubewire status --name N` prints its path.
"""


def _networks() -> str:
    """The part of the help that lists the pod networks."""
    from kubewire.components.networks import registry

    lines = [
        "pod networks (cni.plugin), with their backends (cni.backend; the first is the default)",
        "and their further keys below cni:",
    ]
    for addon in (network.addon for network in registry.NETWORKS):
        lines.append(f"  {addon.name:<10}{addon.summary}")
        if len(addon.backends) > 1:
            lines.append(f"            {', '.join(addon.backend_names)}")
        if addon.settings:
            lines.append(
                f"            keys: {', '.join(setting.name for setting in addon.settings)}",
            )
    return "\n".join((*lines, "", *_policy_engines()))


def _policy_engines() -> Iterator[str]:
    """The part of the help that lists the policy engines."""
    from kubewire.components.policy import registry

    yield "policy engines (policy.engine), with the pod networks that each is for:"
    for engine in registry.ENGINES:
        yield f"  {engine.name:<22}{engine.addon.summary}"
        yield f"{'':<24}{', '.join(engine.networks) or 'every network'}"


_RUN_EPILOG = """\
examples:
  kubewire run -l                       list the scenarios of the catalogue
  kubewire run hairpin                  run one scenario, by its name
  kubewire run dns services             run all scenarios of these folders of the catalogue
  kubewire run -k "packet and not dns"  choose by words in names, titles and tags
  kubewire run --keep my.scenario.yaml  run your own file; keep its lab if a scenario fails
  kubewire run --resume -j 2            run only what has not passed yet, in two labs at once

Each scenario runs in a lab that ends with the command. Scenarios with equal lab files share one.
scenarios/engine/README.md explains how to write a scenario.
exit codes: 0 all scenarios passed or were skipped with a reason; 1 some failed;
2 a file is wrong; 130 interrupted
"""


def _add_inside_commands(commands: Any) -> None:
    for name, run, example in (
        ("kubectl", _kubectl, "get pods -A"),
        ("helm", _helm, "install web ./chart"),
    ):
        text = f"run {name} with the lab's kubeconfig, e.g. kubewire {name} {example}"
        program = _command(commands, name, run, text, signals=False)
        _name(program)
        _passed(program, "...", f"arguments for {name}, options too")
    text = "run a command in a host's namespaces, e.g. kubewire node worker-1 -- iptables-save"
    node = _command(commands, "node", _node, text, signals=False)
    _name(node)
    node.add_argument("host", help="name of a host: control-plane, worker-1, router, client, ...")
    _passed(node, "-- CMD", "the command (default: a shell)")


def _passed(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """Shows in the help what passing.divide() takes off the line before argparse reads it."""
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar=metavar, help=text)


def _add_scenario_commands(commands: Any) -> None:
    from kubewire.scenarios.engine import cli as engine

    run = _command(commands, "run", _run, "run scenarios and write the reports", epilog=_RUN_EPILOG)
    engine.add_arguments(run)
    run.add_argument(
        "--vm",
        default="never",
        metavar="KERNEL",
        help="where to run scenarios that this kernel cannot run: auto, uml, uml-stock, qemu "
        "(default: skip them and print the command that runs them)",
    )
    demo = _command(
        commands,
        "demo",
        _demo,
        "show the four networking problems on packets, and write an HTML report",
    )
    demo.set_defaults(results=Path("results/demo"))
    test = _command(
        commands,
        "test",
        _test,
        "run the static checks and the test suite (in a checkout)",
        signals=False,
    )
    _passed(test, "...", "arguments for pytest, e.g. -k sandbox tests/lab")
    lock = _command(
        commands,
        "lock",
        _lock,
        "make requirements.lock from requirements.txt (in a checkout)",
        signals=False,
    )
    lock.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="--upgrade all, or --upgrade NAME..., takes the newest versions",
    )


def _add_policy_commands(commands: Any) -> None:
    from kubewire.lab.commands import policy_arguments

    text = "network policies: who reaches whom, why, what a change would do, and mistakes"
    policy = _command(commands, "policy", _help_of, text, epilog=policy_arguments.EPILOG)
    policy.set_defaults(parser=policy)
    inner = policy.add_subparsers(title="commands", metavar="COMMAND")
    policy_arguments.add_arguments(inner, _command, _name)


def _add_vm_commands(commands: Any) -> None:
    text = "run kubewire in a virtual machine whose kernel has every module"
    vm = _command(commands, "vm", _help_of, text)
    vm.set_defaults(parser=vm)
    inner = vm.add_subparsers(title="commands", metavar="COMMAND")
    run = _command(
        inner,
        "run",
        _vm_run,
        "run a kubewire command line, or any program, in a virtual machine",
        epilog=_VM_EPILOG,
    )
    text = "open a shell in a virtual machine, on this terminal"
    shell = _command(inner, "shell", _vm_shell, text, signals=False)
    for parser in (run, shell):
        _kernel(parser, "kernel to boot (default: the lightest that has the needed features)")
        parser.add_argument(
            "--memory",
            type=int,
            default=2048,
            metavar="MIB",
            help="memory of the machine in MiB (default: %(default)s)",
        )
        parser.add_argument(
            "--virtual-time",
            action="store_true",
            help="skip idle time: an hour of waiting passes in seconds",
        )
    run.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="end the machine after this time (default: never)",
    )
    run.add_argument(
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of this machine that the command may write; repeatable",
    )
    run.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="the command to run",
    )
    text = "build the kernels (as root, also install the packages that building needs)"
    build = _command(inner, "build", _vm_build, text)
    _kernel(build, "kernel to build (default: uml and uml-stock)")
    _command(inner, "status", _vm_status, "list the built kernels, with size and checksum")


def _kernel(parser: argparse.ArgumentParser, text: str) -> None:
    choices = ("auto", "uml", "uml-stock", "qemu")
    parser.add_argument("--kernel", default="auto", choices=choices, help=text)


_VM_EPILOG = """\
examples:
  kubewire vm run -- run ipvs-smoke             run a scenario on a kernel that has IPVS
  kubewire vm run -- doctor                     run any kubewire command line
  kubewire vm run -- ip link add x0 type vrf table 10      run any program
  kubewire vm run --virtual-time -- sleep 3h    returns within seconds

The virtual machine sees this machine's files read-only. Files that it writes are lost, except the
reports of `run` and `demo` and the folders given with --output. It has no network device. It ends
with the command, with ctrl-C, after --timeout, or when the process that started it ends.
exit codes: that of the command; 1 if the machine ended without one
"""


def _help_of(options: argparse.Namespace) -> int:
    options.parser.print_help()
    return 2


def _vm_run(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import virtual

    return virtual.run(options, _parse_own)


def _parse_own(arguments: Sequence[str]) -> argparse.Namespace | None:
    """Parse arguments if they are a command line of kubewire; None if they name another program."""
    parser = build_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and arguments[0] in action.choices:
            return _parse(parser, arguments)
    return None


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
    for warning in (
        *spec.opened(),
        *spec.ineffective(),
        *spec.wanted_overlaps(),
        *spec.unreachable(),
    ):
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
        return LabSpec.parse(
            data,
            f"{options.file} with --workers" if options.file else "--workers",
        )
    except OSError as error:
        raise UsageError(f"lab file {options.file}: {error.strerror}") from None
    except SpecError as error:
        raise UsageError(str(error)) from None


def _down(options: argparse.Namespace) -> int:
    from kubewire.lab.state import all_labs, down, find

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
    return _with_kubeconfig("kubectl", options, "on Debian: apt install kubernetes-client")


def _helm(options: argparse.Namespace) -> int:
    return _with_kubeconfig("helm", options, "https://helm.sh/docs/intro/install/ says how")


def _with_kubeconfig(name: str, options: argparse.Namespace, install: str) -> int:
    import shutil

    from kubewire.lab.state import running

    state, _ = running(options.name)
    program = shutil.which(name)
    if program is None:
        raise UsageError(f"{name} is not installed on this machine; {install}")
    os.environ["KUBECONFIG"] = str(state.kubeconfig)
    os.execv(program, [name, *options.arguments])


def _node(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import nodes
    from kubewire.lab.state import running

    state, record = running(options.name)
    return nodes.run(state, record, options.host, options.arguments or ["bash"])


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
    """Make the lock file. The launcher of a checkout runs lock.main directly, because it must work
    before anything is installed."""
    from kubewire.lab.setup import lock

    if not sources.IS_CHECKOUT:
        raise UsageError(
            "an installed kubewire has no requirements.lock; run ./kubewire lock in a checkout",
        )
    return lock.main(sources.FOLDER, options.arguments)


class StepPrinter:
    """Prints the steps of bring-up for people: one line each, rewritten in place on a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._step = ""
        #: Whether a part of the lab did not come up and the lab was left running nevertheless.
        self.incomplete = False

    def __call__(self, event: dict[str, Any]) -> None:
        if incomplete := event.get("incomplete"):
            self.incomplete = True
            self.finish()
            what = str(BringUpFailed(**incomplete)).removeprefix("step failed: ")
            print(
                f"kubewire: warning: the lab is incomplete and keeps running: {plain(what)}",
                file=self._stream,
            )
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
        """Clear the line of a step that has not ended."""
        if self._live:
            self._stream.write("\r\033[K")
            self._stream.flush()


if __name__ == "__main__":
    sys.exit(main())
