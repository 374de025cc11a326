"""The image catalogue: names, overrides of command and args, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubelet.images.catalogue import (
    Catalogue,
    InvalidCatalogue,
    InvalidImageName,
    Reference,
    UnknownImage,
)
from kubewire.components.kubelet.pod.launch import Launch, container_spec
from kubewire.components.kubelet.records import SandboxRecord

AGN = "kubewire.components.agnhost."


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


@pytest.mark.parametrize(
    ("name", "normalised"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("nicolaka/netshoot:v0.13", "docker.io/nicolaka/netshoot:v0.13"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("localhost/app", "localhost/app:latest"),
        ("registry:5000/team/app:1", "registry:5000/team/app:1"),
        ("app@sha256:" + "a" * 64, "docker.io/library/app@sha256:" + "a" * 64),
    ],
)
def test_names_are_normalised(name: str, normalised: str) -> None:
    assert str(Reference.parse(name)) == normalised


@pytest.mark.parametrize("name", ["", "UPPER", "a//b", "a:b:c", "-a", "a b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidImageName, match=r"couldn't parse image name .*: invalid reference format"):
        Reference.parse(name)


@pytest.mark.parametrize("name", ["busybox", "busybox:1.36", "docker.io/library/busybox:1.28", "library/busybox"])
def test_any_tag_and_any_spelling_of_the_registry_finds_the_entry(catalogue: Catalogue, name: str) -> None:
    assert catalogue.resolve(name).argv == ("sh",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("registry.k8s.io/serve_hostname", ("kubewire.components.agnhost.serve_hostname:main", ())),
        ("gcr.io/google-containers/busybox", ("", ("sh",))),
        ("registry.k8s.io/busybox:1.27.2", ("", ("sh",))),
        ("radial/busyboxplus:curl", ("", ("sh",))),
        ("perl:5.34.0", ("", ("perl",))),
        ("registry.k8s.io/e2e-test-images/perl:5.26", ("", ("perl",))),
        ("registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0", ("", ("bash",))),
        ("registry.k8s.io/build-image/distroless-iptables:v0.7.8", ("", ("bash",))),
        ("registry.k8s.io/e2e-test-images/ipc-utils:1.3", ("", ("bash",))),
        ("registry.k8s.io/e2e-test-images/regression-issue-74839:1.4", (AGN + "badpackets:main", ())),
        ("registry.k8s.io/e2e-test-images/kitten:1.8", (AGN + "webserver:kitten", ())),
        ("registry.k8s.io/e2e-test-images/nautilus:1.8", (AGN + "webserver:nautilus", ())),
        ("registry.k8s.io/e2e-test-images/resource-consumer:1.14", (AGN + "resource_consumer:main", ())),
        ("registry.k8s.io/e2e-test-images/nonewprivs:1.4", ("", ("/usr/local/bin/nonewprivs",))),
        ("registry.k8s.io/e2e-test-images/nonroot:1.5", (AGN + "main:main", ("entrypoint-tester",))),
        ("nginxinc/nginx-unprivileged:1.27", (AGN + "webserver:unprivileged", ("-g", "daemon off;"))),
    ],
)
def test_images_of_the_documentation_are_there(
    catalogue: Catalogue, name: str, expected: tuple[str, tuple[str, ...]]
) -> None:
    program = catalogue.resolve(name)
    assert (program.main, program.args if program.main else program.argv) == expected


AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ((), (), ("kubewire.components.agnhost.main:main", ("pause",), ())),
        (
            (),
            ("netexec", "--http-port=80"),
            ("kubewire.components.agnhost.main:main", ("netexec", "--http-port=80"), ()),
        ),
        (("/agnhost", "netexec"), (), ("kubewire.components.agnhost.main:main", ("netexec",), ())),
        (("/agnhost",), ("netexec",), ("kubewire.components.agnhost.main:main", ("netexec",), ())),
        (("sleep",), ("5",), ("", (), ("sleep", "5"))),
        (("sh", "-c", "true"), (), ("", (), ("sh", "-c", "true"))),
    ],
    ids=["image's cmd", "args", "command", "command and args", "another program", "a shell"],
)
def test_command_and_args_override_entrypoint_and_cmd(
    catalogue: Catalogue, command: tuple[str, ...], args: tuple[str, ...], expected: tuple[object, ...]
) -> None:
    program = catalogue.resolve(AGNHOST, command, args)
    assert (program.main, program.args, program.argv) == expected


def test_exec_into_a_container_knows_its_programs(catalogue: Catalogue) -> None:
    program = catalogue.resolve(AGNHOST, args=["netexec"])
    assert program.name == "agnhost"
    assert program.command(["/agnhost", "connect", "a:1"]).args == ("connect", "a:1")
    assert program.command(["ls", "-l"]).argv == ("ls", "-l")
    assert program.command(["ls", "-l"]).tools["agnhost"] == "/agnhost"


@pytest.mark.parametrize(
    ("image", "pod", "container", "user"),
    [("nonroot", {}, {}, 1234), ("nonroot", {"runAsUser": 5}, {}, 5), ("nonroot", {}, {"runAsUser": 0}, 0), ("perl", {}, {}, None)],
)  # fmt: skip
def test_an_images_user_is_the_containers_without_another(
    catalogue: Catalogue, image: str, pod: Any, container: Any, user: int | None
) -> None:
    program = catalogue.resolve(f"registry.k8s.io/e2e-test-images/{image}")
    sandbox = SandboxRecord("s", 0, "", (), 0.0, 1)
    launch = Launch("node", 1, sandbox, program, "", {}, (), "", 0, "")
    metadata = {"name": "p", "namespace": "default", "uid": "u"}
    made: Any = {"metadata": metadata, "spec": {"containers": [], "securityContext": pod}}
    wanted: Any = {"name": "c", "image": image, "securityContext": container}
    assert container_spec(made, wanted, launch).user == user


def test_coredns_runs_with_the_components_libraries(catalogue: Catalogue) -> None:
    program = catalogue.resolve("registry.k8s.io/coredns/coredns:v1.12.1", args=["-conf", "/etc/coredns/Corefile"])
    assert (program.main, program.preload) == ("kubewire.components.coredns.main:main", "components")
    assert program.args == ("-conf", "/etc/coredns/Corefile")


def test_every_program_of_the_catalogue_that_is_here_can_be_imported(catalogue: Catalogue) -> None:
    import importlib

    mains = {main for image in catalogue.images.values() for main in image.programs.values()}
    for main in sorted(mains - {"kubewire.components.coredns.main:main"}):
        module, _, function = main.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), main


def test_unknown_image_says_what_is_known_and_how_to_map_it(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownImage) as raised:
        catalogue.resolve("example/app:1")
    message = str(raised.value)
    assert 'image "example/app:1" is not in the image catalogue' in message
    assert "busybox" in message and "registry.k8s.io/pause" in message
    assert 'images: {"example/app:1": {argv: [/usr/bin/PROGRAM]}}' in message


def test_a_lab_file_adds_and_overrides(catalogue: Catalogue) -> None:
    body = {
        "example/app:1": {"argv": ["/usr/bin/python3", "/srv/app.py"], "env": {"A": "b"}, "workingDir": "/srv"},
        "busybox:old": {"main": "kubewire.components.agnhost.main:main"},
    }
    lab = catalogue.extended(Catalogue.parse(body, "lab.yaml: images"))
    program = lab.resolve("example/app:1", args=["x"])
    assert program.argv == ("/usr/bin/python3", "/srv/app.py", "x")
    assert (program.env, program.working_dir) == ({"A": "b"}, "/srv")
    with pytest.raises(UnknownImage):
        lab.resolve("example/app:2")
    assert lab.resolve("busybox:old").main == "kubewire.components.agnhost.main:main"
    assert lab.resolve("busybox:new").argv == ("sh",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "lab.yaml: must be a mapping"),
        ({"app": {"argvv": ["x"]}}, "lab.yaml: app: unknown key 'argvv'; allowed: entrypoint, argv,"),
        ({"app": {"argv": "x"}}, "lab.yaml: app.entrypoint: must be a list of strings, is 'x'"),
        ({"app": {}}, "lab.yaml: app: one of entrypoint, argv, main and cmd"),
        ({"app": {"argv": ["x"], "main": "a:b"}}, "lab.yaml: app: only one of"),
        ({"app": {"main": "a.b"}}, "must have the form"),
        ({"app": {"argv": ["x"], "env": {"A": 1}}}, "lab.yaml: app.env.A: must be a string, is 1"),
        ({"app": {"argv": ["x"], "preload": "all"}}, "lab.yaml: app.preload: 'all' must be light or components"),
        ({"app": {"argv": ["x"], "workingDir": "srv"}}, "lab.yaml: app.workingDir: 'srv' must be an absolute path"),
        ({"App": {"argv": ["x"]}}, "lab.yaml: App: couldn't parse image name"),
    ],
)
def test_mistakes_name_the_file_and_the_key(body: object, message: str) -> None:
    with pytest.raises(InvalidCatalogue) as raised:
        Catalogue.parse(body, "lab.yaml")
    assert message in str(raised.value)


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text("a: [")
    with pytest.raises(InvalidCatalogue, match=r"images\.yaml"):
        Catalogue.load(tmp_path / "images.yaml")


def test_image_ids_are_stable_and_differ_by_tag(catalogue: Catalogue) -> None:
    assert catalogue.image_id("busybox:1") == Catalogue.load().image_id("busybox:1")
    assert catalogue.image_id("busybox:1") != catalogue.image_id("busybox:2")
    assert catalogue.image_id("busybox").startswith("docker.io/library/busybox@sha256:")


@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("example/app:1", "any"),
        ("example/team/app", "any"),
        ("docker.io/example/app", "any"),
        ("example/special", "special"),
        ("example/app:9-debug", "debug"),
        ("registry.test:5000/x/y@sha256:" + "0" * 64, "registry"),
        ("mine-2", "mine"),
    ],
)
def test_a_star_stands_for_any_text_and_what_says_most_wins(image: str, program: str) -> None:
    patterns = {
        "example/*": "any",
        "example/special": "special",
        "example/*:*-debug": "debug",
        "registry.test:5000/*": "registry",
        "mine-*": "mine",
    }
    catalogue = Catalogue.parse({key: {"argv": [name]} for key, name in patterns.items()}, "lab.yaml")
    assert catalogue.resolve(image).argv == (program,)


def test_a_pattern_is_for_what_it_matches_only() -> None:
    catalogue = Catalogue.parse({"example/*": {"argv": ["x"]}}, "lab.yaml")
    with pytest.raises(UnknownImage):
        catalogue.find("other.test/example/app")
    with pytest.raises(InvalidCatalogue, match="invalid reference format"):
        Catalogue.parse({"example/App*": {"argv": ["x"]}}, "lab.yaml")
