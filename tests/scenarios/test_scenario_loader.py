"""Scenario files: variants, matrix, short forms, and what is said about mistakes."""

from pathlib import Path

import pytest

from kubewire.scenarios.engine.file import document
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.file.keyword import KeywordError, matches
from kubewire.scenarios.engine.loader import load, load_all, merge

STEP = "steps:\n  - expect: {from: worker-1, ping: 10.0.0.1}\n"


def write(folder: Path, text: str, name: str = "x") -> Path:
    file = folder / f"{name}.scenario.yaml"
    file.write_text(f"name: {name}\ntitle: t\n{text}")
    return file


def problems(folder: Path, text: str) -> str:
    with pytest.raises(SpecError) as error:
        load(write(folder, text))
    return str(error.value).replace(str(folder) + "/", "")


def test_a_plain_scenario_is_one_case(tmp_path):
    (case,) = load(write(tmp_path, STEP))
    assert case.id == "x"
    (expectation,) = case.variant.steps[0].expectations
    assert (expectation.verb, expectation.args, expectation.sources) == ("ping", {"to": "10.0.0.1"}, ("worker-1",))
    assert expectation.where.endswith(":4")


def test_a_matrix_makes_a_case_and_a_lab_of_each_cell(tmp_path):
    text = "matrix: {cni.backend: [vxlan, host-gw], dns.replicas: [1, 2]}\n"
    text += "exclude: [{cni.backend: vxlan, dns.replicas: 2}]\n"
    cases = load(write(tmp_path, text + STEP))
    assert [case.id for case in cases] == [
        "x[cni.backend=vxlan,dns.replicas=1]",
        "x[cni.backend=host-gw,dns.replicas=1]",
        "x[cni.backend=host-gw,dns.replicas=2]",
    ]
    assert [(case.lab.cni.backend, case.lab.dns.replicas) for case in cases] == [
        ("vxlan", 1),
        ("host-gw", 1),
        ("host-gw", 2),
    ]


def test_variants_change_objects_and_steps_and_share_the_rest(tmp_path):
    text = """\
fixtures: {services: {web: {}}}
steps:
  - expect: {id: seen, from: worker-1, ping: 10.0.0.1}
variants:
  broken:
    overlays: [{kind: Service, metadata: {name: web}, spec: {selector: {app: other}}}]
    before: [{note: hello}]
    fails: seen
  fixed: {}
  control: {lab: {dns: {replicas: 1}}}
"""
    broken, fixed, control = load(write(tmp_path, text))
    assert broken.variant.objects[0]["spec"]["selector"] == {"app": "other"}
    assert fixed.variant.objects[0]["spec"]["selector"] == {"app": "web"}
    assert [step.action for step in broken.variant.steps] == ["note", "expect"]
    assert broken.variant.steps[1].expectations[0].must_fail
    assert not fixed.variant.steps[0].expectations[0].must_fail
    assert (fixed.lab.dns.replicas, control.lab.dns.replicas) == (2, 1)


def test_a_fixture_on_all_workers_is_a_pod_for_each(tmp_path):
    (case,) = load(write(tmp_path, "lab: {topology: {workers: 2}}\nfixtures: {pods: {p: {on: workers}}}\n" + STEP))
    assert [(item["metadata"]["name"], item["spec"]["nodeName"]) for item in case.variant.objects] == [
        ("p-worker-1", "worker-1"),
        ("p-worker-2", "worker-2"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("stepz: []\n", "x.scenario.yaml:3: stepz: unknown key (did you mean steps?)", id="unknown key"),
        pytest.param("tags: []\n", "steps is missing", id="no steps"),
        pytest.param("steps: [{expect: {from: a, htttp: x}}]\n", "did you mean http?", id="unknown verb"),
        pytest.param(
            "steps: [{expect: {ping: x}}]\n", "x.scenario.yaml:3: steps[0].expect: from is missing", id="no from"
        ),
        pytest.param("steps: [{note: a, exec: {from: b, command: c}}]\n", "exactly one of", id="two actions"),
        pytest.param("steps: [{expect: {from: a, ping: x, tcp: y}}]\n", "given: tcp and ping", id="two verbs"),
        pytest.param(
            "steps:\n  - expect:\n      from: a\n      http: {url: u, prot: 1}\n",
            ":6: steps[0].expect.http.prot: unknown key (did you mean port?)",
            id="verb's key",
        ),
        pytest.param(
            "steps: [{expect: {from: a, within: soon, ping: x}}]\n",
            "a time such as 500ms, 10s, 2m or 3h",
            id="duration",
        ),
        pytest.param(
            "steps: [{expect: {from: a, exec: {command: x, matches: '('}}}]\n",
            "is not a regular expression",
            id="regex",
        ),
        pytest.param("steps: [{expect: {resource: {of: pods, jsonpath: '{.a[}'}}}]\n", "cannot read '[", id="jsonpath"),
        pytest.param(
            "steps: [{expect: {packets: {match: {protocol: tcp}}}}]\n",
            "needs either on (interfaces) or path",
            id="packets",
        ),
        pytest.param("steps: [{capture: {start: a}}]\n", "needs on: a list of interfaces", id="capture"),
        pytest.param("lab: {cni: {plugin: foo}}\n" + STEP, ':3: cni.plugin: "foo" is not known', id="lab"),
        pytest.param(
            "variants: {broken: {fails: [nope]}}\nsteps: [{expect: {id: no, from: a, ping: x}}]\n",
            "(did you mean no?)",
            id="fails",
        ),
        pytest.param("manifests: [{kind: Pod}]\n" + STEP, "apiVersion, metadata.name is missing", id="manifest"),
        pytest.param(
            "variants: {broken: {overlays: [{kind: Pod, metadata: {name: b}}]}}\n" + STEP,
            "Pod/b is not an object of",
            id="overlay",
        ),
        pytest.param(
            "matrix: {cni.backend: [vxlan]}\nexclude: [{cni.beckend: vxlan}]\n" + STEP,
            "not an axis (did you mean cni.backend?)",
            id="exclude",
        ),
        pytest.param(
            "matrix: {cni.backend: [carrier-pigeon]}\n" + STEP,
            'yaml:3: cni.backend: "carrier-pigeon" is not',
            id="matrix value",
        ),
        pytest.param("matrix: {cni.bakend: [vxlan]}\n" + STEP, "yaml:3: cni.bakend: unknown key", id="matrix axis"),
        pytest.param(
            "manifests: just words\n" + STEP,
            'yaml:3: manifests: object 1: must be a mapping with apiVersion, kind and metadata, not "just words"',
            id="a manifest that is no object",
        ),
        pytest.param(
            "manifests: [{apiVersion: v1, kind: Pod, metadata: web}]\n" + STEP,
            'object 1: metadata must be a mapping, not "web"',
            id="a manifest's metadata",
        ),
        pytest.param(
            "manifests: {file: nowhere.yaml}\n" + STEP,
            "x.scenario.yaml:3: manifests.file: nowhere.yaml: No such file or directory",
            id="a file of manifests",
        ),
        pytest.param("lab: nowhere.yaml\n" + STEP, "yaml:3: lab: nowhere.yaml: No such file", id="a lab file"),
        pytest.param(
            "fixtures: {pods: {a: {node: worker-4}}}\n" + STEP,
            "yaml:3: fixtures.pods.a.node: no node 'worker-4' (did you mean worker-3?); this lab has control-plane, ",
            id="a node that is not there",
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_key_and_what_is_allowed(tmp_path, text, said):
    assert said in problems(tmp_path, text)


def test_a_scenario_that_is_no_text_is_named_beside_the_others(tmp_path):
    (tmp_path / "picture.scenario.yaml").write_bytes(b"\x89PNG\r\n")
    write(tmp_path, "a: 1\n", "one")
    with pytest.raises(SpecError) as error:
        load_all([tmp_path])
    assert any("picture.scenario.yaml:1: not YAML: not a text in UTF-8" in p for p in error.value.problems)
    assert any("one.scenario.yaml" in p for p in error.value.problems)


def test_a_file_of_manifests_may_be_as_large_as_upstreams_bundles(tmp_path):
    fields = "".join(f"    field{number}: {{type: string, description: {'why ' * 30}}}\n" for number in range(2000))
    one = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nspec:\n  properties:\n"
    manifests = tmp_path / "bundle.yaml"
    manifests.write_text("---\n".join(f"{one}{fields}" for _ in range(5)))
    assert manifests.stat().st_size > document.LIMITS.size
    (case,) = load(write(tmp_path, f"manifests: {{file: {manifests.name}}}\n{STEP}"))
    assert len(case.variant.objects) == 5


def test_two_files_with_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, STEP)
    with pytest.raises(SpecError, match="is also the name of"):
        load_all([tmp_path])


def test_problems_of_all_files_are_told_together(tmp_path):
    write(tmp_path, "a: 1\n", "one")
    write(tmp_path, "b: 1\n", "two")
    with pytest.raises(SpecError) as error:
        load_all([tmp_path])
    assert {"one.scenario.yaml", "two.scenario.yaml"} <= {Path(p.split(":")[0]).name for p in error.value.problems}


def test_merging_replaces_lists_and_removes_what_is_null():
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None}, "d": [2]}) == {"a": {"c": 2}, "d": [2]}


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("", True),
        ("x", True),
        ("nat or dns", True),
        ("nat and dns", False),
        ("not nat", True),
        ("(nat or dns) and not x", False),
    ],
)
def test_keywords_choose_cases(tmp_path, expression, wanted):
    (case,) = load(write(tmp_path, "topic: t\ntags: [dns]\n" + STEP))
    assert matches(expression, case) is wanted


@pytest.mark.parametrize("expression", ["and", "x and", "(x", "x )", "not"])
def test_a_keyword_expression_that_cannot_be_read_is_an_error(tmp_path, expression):
    (case,) = load(write(tmp_path, STEP))
    with pytest.raises(KeywordError):
        matches(expression, case)


def test_a_changed_file_of_manifests_makes_an_old_result_worthless(tmp_path):
    manifests = tmp_path / "objects.yaml"

    def fingerprint(value: str) -> str:
        manifests.write_text(f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}, data: {{k: {value}}}}}")
        (case,) = load(write(tmp_path, "manifests: {file: objects.yaml}\n" + STEP))
        return case.fingerprint

    assert fingerprint("one") == fingerprint("one") != fingerprint("two")
