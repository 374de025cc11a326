"""Whole runs on a real small network (tests.scenarios.netlab): what passes, what fails, and what is left."""

import json
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import (
    CaseFinished,
    LabKept,
    LabReady,
    LabStopped,
    RunFinished,
    StepStarted,
)
from kubewire.scenarios.engine.loader import load_all
from kubewire.scenarios.engine.run.runner import Run, run
from kubewire.scenarios.engine.run.steps import perform
from kubewire.scenarios.engine.run.steps.objects import apply_objects
from kubewire.scenarios.engine.run.steps.stage import Stage
from kubewire.scenarios.engine.scene.api import Cluster
from kubewire.scenarios.engine.scene.scene import Scene
from tests.scenarios.netlab import SERVICE_IP, NetLab, NetLabs
from tests.scratch import isolated

pytestmark = pytest.mark.packet
CATALOGUE = Path(__file__).parents[2] / "scenarios" / "catalogue"


class Recorder:
    """A renderer that keeps what it is told."""

    def __init__(self):
        self.events = []

    def handle(self, event):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def recorded(text: str, results: str = "/tmp/results", **options):
    """A scenario as text, run in this process' namespaces: (RunResult, Recorder, NetLabs)."""
    file = Path("/tmp/x.scenario.yaml")
    file.write_text(f"name: x\ntitle: t\n{text}")
    recorder, labs = Recorder(), NetLabs()
    result = Run(load_all([file]), labs, RunOptions(results=Path(results), **options), [recorder]).run()
    return result, recorder, labs


def outcome(text: str):
    """(status, problem) of the only case, from fresh namespaces."""

    def body():
        result, _, _ = recorded(text)
        (case,) = result.cases
        return case.status, case.problem, [item.seen for one in case.expectations for item in one.evidence]

    return isolated(body)


PODS = "fixtures: {pods: {a: {node: worker-1, image: netshoot}, b: {node: worker-2}}}\n"


def test_the_packet_life_cycle_passes_and_leaves_reports_and_a_capture():
    def body():
        code = run(
            [CATALOGUE / "packet-life" / "pod-to-pod-across-nodes.scenario.yaml"],
            NetLabs(),
            RunOptions(results=Path("/tmp/results"), quiet=True),
        )
        results = Path("/tmp/results")
        capture = results / "captures" / "pod-to-pod-across-nodes-path.pcapng"
        lines = os.popen(f"tcpdump -nr {capture} 2>/dev/null").read().splitlines()
        return (
            code,
            len(lines),
            (results / "report.html").read_text(),
            (results / "junit.xml").read_bytes(),
            json.loads((results / "results.json").read_text()),
        )

    code, packets, html, junit, results = isolated(body)
    assert code == 0
    assert packets > 20
    assert html.count("<svg") == 1 and "http-equiv" not in html and 'src="http' not in html
    suite = ElementTree.fromstring(junit)
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    (case,) = results["cases"]
    path = next(e for s in case["steps"] for e in s["expectations"] if e["name"].startswith("the same packet, at ten"))
    interfaces = [one["interface"] for one in path["evidence"][0]["packets"]]
    assert len(interfaces) == 10 and interfaces[3] == "worker-1:flannel.1"


def test_a_service_is_translated_on_the_clients_node_and_back():
    text = f"""{PODS}
steps:
  - capture: {{start: way, on: ["pod:a:eth0", "worker-1:cni0", "worker-1:eth0", "pod:b:eth0"], filter: not arp}}
  - expect:
      - from: pod:a
        http: {{url: "http://{SERVICE_IP}/clientip", matches: "^${{pod/a.ip}}:"}}
      - packets:
          path: ["pod:a:eth0", "worker-1:cni0", "worker-1:eth0", "pod:b:eth0"]
          match: {{protocol: tcp, flags: S, destination: "{SERVICE_IP}", dport: 80}}
          nat: destination
      - packets:
          path: ["pod:b:eth0", "worker-1:eth0", "worker-1:cni0", "pod:a:eth0"]
          match: {{protocol: tcp, flags: SA}}
          nat: source
      - packets: {{on: [worker-1:eth0, "pod:b:eth0"], match: {{destination: "{SERVICE_IP}"}}, count: 0}}
      - from: worker-1
        conntrack: {{protocol: tcp, destination: "{SERVICE_IP}", dport: 80, replySource: "${{pod/b.ip}}", nat: destination}}
      - from: worker-2
        conntrack: {{protocol: tcp, destination: "${{pod/b.ip}}", dport: 8080, nat: none}}
      - from: worker-1
        rules:
          table: nat
          walk: {{chain: PREROUTING, protocol: tcp, destination: "{SERVICE_IP}", dport: 80}}
          reaches: ["-j KUBE-SVC-TEST", "--to-destination ${{pod/b.ip}}:8080"]
          avoids: "10.96.0.99"
      - addresses: {{address: "{SERVICE_IP}", count: 0}}
"""
    status, problem, _ = outcome(text)
    assert (status, problem) == ("passed", "")


#: expectation -> what is said when it does not hold
WRONG = {
    "{from: pod:a, http: 'http://${pod/b.ip}:8099/'}": "refused",
    "{from: pod:a, http: {url: 'http://${pod/b.ip}:8080/hostname', equals: c}}": 'expected "c", got "b"',
    "{from: pod:a, udp: {to: 'pod:b', port: 8081, equals: c}}": 'expected "c", got "b"',
    "{from: pod:a, tcp: {to: 'pod:b', port: 8080, error: refused}}": "expected it to fail",
    "{from: pod:a, tcp: 'pod:b:99'}": "refused",
    "{from: pod:a, tcp: 'pods:app=b:8080', not: true}": "this should not happen",
    "{from: pod:a, ping: {to: 10.244.2.77, timeout: 300ms}}": "timeout",
    "{from: pod:a, ping: {to: 'pod:b', size: 1600, df: true}}": "too-big",
    "{from: pod:a, not: true, ping: 'pod:b'}": "this should not happen",
    "{from: pod:a, consistently: 300ms, not: true, ping: {to: 'pod:b'}}": "this should not happen",
    "{from: pod:none, not: true, ping: 10.0.0.1}": "not found",
    "{from: worker-1, routes: {to: 10.9.0.0/16}}": "expected 1 or more, got 0",
    "{from: worker-1, neighbours: {to: 10.244.2.0, count: 0}}": "expected exactly 0, got 1",
    "{from: worker-1, fdb: {dev: flannel.1, dst: 172.18.0.9}}": "expected 1 or more, got 0",
    "{from: worker-1, exec: {command: 'exit 3'}}": "expected exit code 0, got 3",
    "{from: worker-1, rules: {contains: KUBE-SVC-NONE}}": "none of the",
    "{from: worker-1, rules: {absent: KUBE-SVC-TEST}}": "should not be there",
    "{from: worker-1, rules: {table: nat, walk: {chain: PREROUTING, dport: 81}, reaches: DNAT}}": "the walk does not reach DNAT",
    "{from: worker-1, conntrack: {destination: 9.9.9.9}}": "expected 1 or more such entries, got 0",
    "{addresses: {address: '${pod/b.ip}', on: 'pod:a:eth0'}}": "expected pod:a:eth0, got pod:b:eth0",
    "{resource: {of: pod/b, jsonpath: '{.status.phase}', equals: Failed}}": 'expected "Failed", got "Running"',
    "{resource: {of: pod/b, exists: false}}": "should not be there",
    "{events: {about: pod/b, reason: Started}}": "expected 1 or more such events, got 0",
    "{from: 'pod:none', ping: 10.0.0.1}": "not found",
    "{from: moon, ping: 10.0.0.1}": "cannot run programs on 'moon'",
    "{from: pod:a, ping: '${pod/bb.ip}'}": "not found",
    "{from: pod:a, ping: '${pdo/b.ip}'}": "resource type",
    "{packets: {on: 'pod:b:eth0', match: {dport: 9}}}": "expected 1 or more, got 0",
    "{packets: {on: 'pod:b:eth0', match: {protocol: tcp, flags: S, dport: 8080}, count: 0}}": "expected exactly 0, got",
    "{packets: {on: 'worker-1:eth0', match: {flags: S}, outer: {vni: 2}}}": "the most similar: 172.18.0.3",
    "{packets: {on: 'worker-1:eth0', match: {flags: S}, encapsulated: false}}": "expected 1 or more, got 0",
    "{packets: {path: ['pod:b:eth0', 'worker-1:eth0', 'pod:a:eth0'], match: {flags: S}}}": "then not at worker-1:eth0",
    "{packets: {path: ['pod:a:eth0', 'pod:b:eth0'], match: {flags: S}, nat: destination}}": "expected NAT destination, got none",
    "{packets: {on: 'worker-2:eth0'}}": "does not include worker-2:eth0",
    "{packets: {capture: d, on: 'worker-2:eth0'}}": "no capture 'd' has been started; captures: c",
}


@pytest.fixture(scope="module")
def wrong():
    """expectation -> (status, message), all looked at in one lab after one request from a to b."""
    steps = "".join(f"  - expect: {text}\n" for text in WRONG)
    text = f"""{PODS}timeouts: {{within: 100ms}}
steps:
  - capture: {{start: c, on: ["pod:a:eth0", "worker-1:eth0", "pod:b:eth0"]}}
  - expect: {{from: pod:a, http: "http://${{pod/b.ip}}:8080/", within: 10s}}
{steps}"""

    def body():
        file = Path("/tmp/x.scenario.yaml")
        file.write_text(f"name: x\ntitle: t\n{text}")
        (case,) = load_all([file])
        with NetLabs()(case.lab, "x") as lab:
            scene = Scene(lab, Cluster.of(lab.kubeconfig), "x", "x")
            apply_objects(scene, ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}},))
            apply_objects(scene, case.variant.objects)
            stage = Stage(scene, case, [])
            start, request, *others = [perform(stage, step) for step in case.variant.steps]
            scene.captures["c"].stop()
            return (start.status, request.status), [(one.status, one.expectations[0].message) for one in others]

    prepared, results = isolated(body)
    assert prepared == ("passed", "passed")
    return dict(zip(WRONG, results, strict=True))


@pytest.mark.parametrize("expectation", WRONG)
def test_an_expectation_that_does_not_hold_says_what_was_seen_instead(expectation, wrong):
    status, message = wrong[expectation]
    assert status in ("failed", "error")
    assert WRONG[expectation] in message


def test_all_pairs_are_looked_at():
    _, problem, seen = outcome(
        "fixtures: {pods: {p: {on: workers}}}\nlab: {topology: {workers: 2}}\n"
        'steps: [{expect: {from: "pods:app=p", http: {to: "pods:app=p", port: 8080, path: /clientip, matches: "^${from.ip}:"}}}]\n'
    )
    assert problem == ""
    assert len(seen) == 4


def test_a_variant_whose_expectation_must_fail_fails_when_it_holds():
    shared = f"{PODS}steps: [{{expect: {{id: up, from: pod:a, ping: 'pod:b', within: 300ms}}}}]\n"

    def body():
        result, _, _ = recorded(shared + "variants: {broken: {fails: up}, control: {}}\n")
        return {case.case.variant.name: (case.status, case.problem) for case in result.cases}

    assert isolated(body) == {
        "broken": ("failed", "ping: holds, but the variant lists it in `fails`"),
        "control": ("passed", ""),
    }


def test_cases_with_one_lab_share_it_and_each_has_a_namespace_of_its_own():
    def body():
        text = f"{PODS}steps: [{{expect: {{from: pod:a, ping: 'pod:b'}}}}]\nvariants: {{fixed: {{}}, control: {{}}}}\n"
        result, recorder, labs = recorded(text)
        left = [key for key in labs.labs[0].api.objects if key[0] in ("namespaces", "pods")]
        return result.labs, len(recorder.of(LabReady)), {case.namespace for case in result.cases}, left

    assert isolated(body) == (1, 1, {"x-fixed", "x-control"}, [])


def test_an_isolated_scenario_has_a_lab_to_itself():
    def body():
        text = "isolated: true\nsteps: [{note: hi}]\nvariants: {fixed: {}, control: {}}\n"
        file = Path("/tmp/x.scenario.yaml")
        file.write_text(f"name: x\ntitle: t\n{text}")
        recorder = Recorder()
        result = Run(load_all([file]), FakeLabs(), RunOptions(results=Path("/tmp/r")), [recorder]).run()
        return result.labs, len(recorder.of(LabStopped))

    assert isolated(body) == (2, 2)


class FakeLabs(NetLabs):
    """Labs that cannot be entered a second time in one network namespace are made once."""

    def __call__(self, spec, name):
        from contextlib import contextmanager

        @contextmanager
        def same():
            if not self.labs:
                with NetLabs.__call__(self, spec, name) as lab:
                    pass
            lab = self.labs[0]
            yield lab

        return same()


def test_a_component_that_a_step_took_down_is_started_again():
    def body():
        text = "steps:\n  - component: {name: kube-proxy, on: workers, action: kill}\n  - component: {name: kube-proxy, on: worker-1, action: start}\n"
        _, _, labs = recorded(text)
        return labs.labs[0].components

    assert isolated(body) == [
        ("kube-proxy", "worker-1", "kill"),
        ("kube-proxy", "worker-2", "kill"),
        ("kube-proxy", "worker-1", "start"),
        ("kube-proxy", "worker-2", "start"),
    ]


def test_resume_runs_only_what_has_not_passed():
    def body():
        text = f"{PODS}timeouts: {{within: 100ms}}\nsteps: [{{expect: {{id: up, from: pod:a, ping: 'pod:b'}}}}]\n"
        text += "variants: {fixed: {}, broken: {fails: up}}\n"
        from kubewire.scenarios.engine.render.jsonfile import JsonFile

        file = Path("/tmp/x.scenario.yaml")
        file.write_text(f"name: x\ntitle: t\n{text}")
        labs, runs = FakeLabs(), []
        for resume in (False, True, True):
            options = RunOptions(results=Path("/tmp/results"), resume=resume)
            recorder = Recorder()
            Run(load_all([file]), labs, options, [JsonFile(options.results), recorder]).run()
            runs.append([(event.result.case.id, event.result.status) for event in recorder.of(CaseFinished)])
            if len(runs) == 2:
                file.write_text(file.read_text() + "tags: [changed]\n")
        return runs

    everything = [("x[fixed]", "passed"), ("x[broken]", "failed")]
    assert isolated(body) == [everything, [("x[broken]", "failed")], everything]


def test_ctrl_c_ends_the_run_and_the_lab():
    def body():
        file = Path("/tmp/x.scenario.yaml")
        file.write_text(
            f"name: x\ntitle: t\n{PODS}steps: [{{expect: {{from: pod:a, within: 60s, ping: {{to: 10.244.2.77}}}}}}]\n"
        )

        class Interrupter(Recorder):
            def handle(self, event):
                super().handle(event)
                if isinstance(event, StepStarted) and event.number == 1:
                    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

        recorder = Interrupter()
        ended = []

        class Labs(NetLabs):
            def __call__(self, spec, name):
                from contextlib import contextmanager

                @contextmanager
                def inner():
                    with NetLabs.__call__(self, spec, name) as lab:
                        try:
                            yield lab
                        finally:
                            ended.append(name)

                return inner()

        result = Run(load_all([file]), Labs(), RunOptions(results=Path("/tmp/results")), [recorder]).run()
        return (
            result.interrupted,
            result.seconds < 20,
            len(ended),
            result.cases[0].status,
            len(recorder.of(RunFinished)),
        )

    assert isolated(body) == (True, True, 1, "skipped", 1)


def two_labs(steps: str) -> list[Path]:
    """Two files that do not share a lab."""
    files = []
    for name in ("one", "two"):
        file = Path(f"/tmp/{name}.scenario.yaml")
        file.write_text(f"name: {name}\ntitle: t\nisolated: true\ntimeouts: {{within: 100ms}}\nsteps: {steps}\n")
        files.append(file)
    return files


class SharedNetLab:
    """A LabFactory that gives the same lab to all who ask, side by side: a process can hold one NetLab only."""

    def __init__(self, labs: NetLabs):
        self.labs, self.lock = labs, threading.Lock()
        self.entered = self.left = 0
        self.lab: NetLab | None = None

    @contextmanager
    def __call__(self, spec, name):
        with self.lock:
            self.entered += 1
            if self.lab is None:
                self.opened = self.labs(spec, name)
                self.lab = self.opened.__enter__()
        try:
            yield self.lab
        finally:
            with self.lock:
                self.left += 1


@pytest.mark.parametrize(
    ("steps", "keep"),
    [
        pytest.param("[{wait: {for: pod/none, within: 60s}}]", False, id="while steps wait"),
        pytest.param(
            "[{expect: {within: 60s, resource: {of: pod/none}}}]", False, id="while expectations are looked at"
        ),
        pytest.param("[{expect: {resource: {of: pod/none}}}]", True, id="while failed labs are kept"),
    ],
)
def test_ctrl_c_ends_labs_that_run_side_by_side(steps, keep):
    def body():
        class Interrupter(Recorder):
            def handle(self, event):
                super().handle(event)
                both = sum(1 for step in self.of(StepStarted) if step.number == 1) == 2
                if both and (self.of(LabKept) or not keep) and not self.sent:
                    self.sent = True
                    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

            sent = False

        factory, options = SharedNetLab(NetLabs()), RunOptions(results=Path("/tmp/r"), jobs=2, keep=keep)
        result = Run(load_all(two_labs(steps)), factory, options, [Interrupter()]).run()
        return result.interrupted, result.seconds < 20, factory.entered == factory.left == 2

    assert isolated(body) == (True, True, True)


def test_namespaces_of_the_manifests_go_with_the_case_also_when_it_fails():
    def body():
        far = '{apiVersion: v1, kind: Namespace, metadata: {name: "${namespace}-far"}}'
        result, _, labs = recorded(f"manifests: [{far}]\nsteps: [{{exec: {{from: worker-1, command: exit 1}}}}]\n")
        return result.cases[0].status, [name for kind, _, name in labs.labs[0].api.objects if kind == "namespaces"]

    assert isolated(body) == ("failed", [])


def test_a_reference_may_stand_inside_another():
    text = f"""{PODS}
steps:
  - expect: {{from: worker-1, exec: {{command: "echo ${{node/${{from.name}}.network}} ${{node/worker-2.gateway}}"}}}}
"""
    status, problem, seen = outcome(text)
    assert (status, problem) == ("passed", "")
    assert '"10.244.1.0 10.244.2.1"' in seen[0]


def test_a_pod_that_does_not_become_ready_is_told_in_its_containers_words():
    waiting = "{name: a, state: {waiting: {reason: ErrImagePull, message: no image x}}}"
    status = f"{{conditions: [{{type: Ready, status: 'False'}}], containerStatuses: [{waiting}]}}"
    text = f"""{PODS}
steps:
  - patch: {{object: pod/a, patch: {{status: {status}}}}}
  - wait: {{for: pod/a, condition: Ready, within: 100ms}}
"""
    assert outcome(text)[:2] == (
        "failed",
        "wait: pod/a is Ready: not within 100 ms: a has Ready=False (ErrImagePull: no image x)",
    )


@pytest.mark.parametrize(
    "step",
    [
        "wait: {for: pod/none, within: 60s}",
        "expect: {within: 60s, resource: {of: pod/none}}",
        "exec: {from: worker-1, command: sleep 60, timeout: 60}",
    ],
)
def test_a_step_ends_when_the_time_of_its_case_is_over(step):
    def body():
        result, _, _ = recorded(f"timeouts: {{case: 3s}}\nsteps: [{{{step}}}, {{note: never}}]\n")
        (case,) = result.cases
        return case.status, case.seconds < 15, case.problem

    status, soon, problem = isolated(body)
    assert (status, soon) == ("failed", True)
    assert "the time of the case is over" in problem or "took longer than" in problem


def test_keep_waits_inside_the_failed_lab():
    def body():
        file = Path("/tmp/x.scenario.yaml")
        file.write_text(
            f"name: x\ntitle: t\n{PODS}timeouts: {{within: 100ms}}\nsteps: [{{expect: {{from: pod:a, tcp: 'pod:b:99'}}}}]\n"
        )
        asked, labs = [], NetLabs()

        def wait(prompt):
            asked.append((prompt[:11], ("pods", "x", "a") in labs.labs[0].api.objects))

        recorder = Recorder()
        Run(load_all([file]), labs, RunOptions(results=Path("/tmp/r"), keep=True), [recorder], wait).run()
        (kept,) = [event for event in recorder.events if type(event).__name__ == "LabKept"]
        return asked, kept.commands[1]

    asked, command = isolated(body)
    assert asked == [("Press Enter", True)]
    assert command == "kubectl get pods -o wide -n x"


def test_a_lab_that_does_not_come_up_fails_its_cases():
    def body():
        file = Path("/tmp/x.scenario.yaml")
        file.write_text("name: x\ntitle: t\nsteps: [{note: hi}]\n")

        def factory(spec, name):
            raise RuntimeError("worker-1: no such device")

        result = Run(load_all([file]), factory, RunOptions(results=Path("/tmp/r")), []).run()
        return result.cases[0].status, result.cases[0].reason

    assert isolated(body) == ("error", "the lab did not come up: worker-1: no such device")


BAD_CAPTURES = {
    'on: ["worker-1:nope"]': "no interface nope; there are lo",
    'on: ["moon:eth0"]': "no host moon",
    'on: ["pod:none:eth0"]': "not found",
    'on: ["eth0"]': "does not name an interface; write HOST:INTERFACE",
    'on: ["worker-2:veth@pod:a"]': "the pod runs on worker-1",
    'on: ["worker-1:eth0"], filter: "tpc port 1"': "filter 'tpc port 1'",
}


def test_a_capture_that_cannot_be_says_why_and_leaves_no_program():
    def body():
        text = f"{PODS}steps:\n" + "".join(f"  - capture: {{start: c, {args}}}\n" for args in BAD_CAPTURES)
        file = Path("/tmp/x.scenario.yaml")
        file.write_text(f"name: x\ntitle: t\n{text}")
        (case,) = load_all([file])
        with NetLabs()(case.lab, "x") as lab:
            scene = Scene(lab, Cluster.of(lab.kubeconfig), "x", "x")
            apply_objects(scene, ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}},))
            apply_objects(scene, case.variant.objects)
            results = [perform(Stage(scene, case, []), step) for step in case.variant.steps]
        left = os.popen("ps -eo args").read().count("kubewire.scenarios.engine.packets.capture")
        return [(one.status, one.message) for one in results], left

    results, left = isolated(body)
    for (status, message), said in zip(results, BAD_CAPTURES.values(), strict=True):
        assert status == "failed"
        assert said in message
    assert left == 0
