"""What a lab file opens of the machine: `share` and `hostUsers`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from kubewire.scenarios.engine.file.spec import LabSpec, Share, SpecError
from tests.lab.kubewire_cli import Cli

OWNER = 12345


@pytest.fixture
def cli(short_path: Path) -> Cli:
    return Cli(short_path / "cli")


def up(cli: Cli, lab: dict[str, object]) -> subprocess.CompletedProcess[str]:
    return cli.run("up", "-f", "-", input=json.dumps(lab))


def test_a_path_is_read_only_unless_the_file_says_otherwise() -> None:
    spec = LabSpec.parse({"share": ["/srv/app.py", {"path": "/data", "readOnly": False}]})
    assert spec.share == (Share("/srv/app.py"), Share("/data", readOnly=False))
    assert LabSpec.parse(spec.as_dict()) == spec
    assert list(spec.opened()) == ["share: everything in this lab may change what is in /data of this machine"]


@pytest.mark.parametrize("path", ["srv", "/", "//srv", 1, {"readOnly": True}, {"path": "/x", "mode": "rw"}])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(SpecError, match="share"):
        LabSpec.parse({"share": [path]})


def test_only_mode_ipvs_takes_the_machines_users_by_itself() -> None:
    assert not LabSpec().has_host_users
    assert LabSpec.parse({"hostUsers": True}).has_host_users
    assert LabSpec.parse({"kubeProxy": {"mode": "ipvs"}}).has_host_users
    with pytest.raises(SpecError, match="lets only the first user namespace configure IPVS"):
        LabSpec.parse({"kubeProxy": {"mode": "ipvs"}, "hostUsers": False})


@pytest.mark.lab
def test_nodes_and_pods_see_what_is_shared_and_change_only_what_is_writable(cli: Cli, short_path: Path) -> None:
    short_path.chmod(0o755)
    fixed = short_path / "fixed"
    data = short_path / "data"
    for folder in (fixed, data):
        folder.mkdir()
        (folder / "known").write_text("of the machine\n")
    for path in (data, data / "known"):
        os.chown(path, OWNER, OWNER)
    lab: dict[str, object] = {"topology": {"workers": 1}, "share": [str(fixed), {"path": str(data), "readOnly": False}]}
    done = up(cli, lab)
    assert done.returncode == 0, done.stderr
    assert f"may change what is in {data}" in done.stderr
    try:
        script = (
            f"cat {fixed}/known {data}/known; echo x >{fixed}/new; mount -o remount,rw,bind {fixed}; echo x >{fixed}/new; "
            f"echo x >{data}/$1; stat -c %u {data}/known; mknod {data}/null c 1 3; ls /tmp/none"
        )
        cli.run("kubectl", "run", "me", "--image=nicolaka/netshoot", "--", "sleep", "1h")
        assert cli.run("kubectl", "wait", "--for=condition=Ready", "pod/me", "--timeout=30s").returncode == 0
        for place in (("node", "worker-1", "--"), ("kubectl", "exec", "me", "--")):
            seen = cli.run(*place, "sh", "-c", script, "sh", place[0], stdin=subprocess.DEVNULL)
            assert seen.stdout.split("\n")[:3] == ["of the machine", "of the machine", "0"], seen
    finally:
        assert cli.run("down").returncode == 0
    assert sorted(path.name for path in fixed.iterdir()) == ["known"]
    assert sorted(path.name for path in data.iterdir()) == ["known", "kubectl", "node"]
    assert (data / "kubectl").stat().st_uid == (data / "node").stat().st_uid == OWNER


@pytest.mark.lab
@pytest.mark.parametrize(
    ("share", "error"),
    [
        ("/nowhere/at/all", "share: /nowhere/at/all does not exist; name a file or folder of this machine"),
        ({"path": "/usr", "readOnly": False}, "share: /usr belongs to root, and root of the lab would write there"),
    ],
    ids=["missing", "root's"],
)
def test_what_cannot_be_shared_is_an_error_that_says_what_to_do(cli: Cli, share: object, error: str) -> None:
    done = up(cli, {"kubernetes": False, "topology": {"workers": 0}, "share": [share]})
    assert done.returncode in (1, 2)
    assert error in done.stderr
    assert not (cli.state / "default").exists()


@pytest.mark.lab
def test_with_the_machines_users_up_warns_and_the_rest_still_holds(cli: Cli) -> None:
    done = up(cli, {"kubernetes": False, "topology": {"workers": 0}, "hostUsers": True})
    assert done.returncode == 0, done.stderr
    assert "root in this lab is root of this machine" in done.stderr
    try:
        script = "mknod /tmp/null c 1 3 && cat /tmp/null; ls -A /root /home /var/log/kubewire/..; cat /etc/shadow; env"
        seen = cli.run("node", "control-plane", "--", "sh", "-c", f"{script}; stat -Lc %i /proc/self/ns/user")
        assert int(seen.stdout.split()[-1]) == Path("/proc/self/ns/user").stat().st_ino
        assert "/tmp/null: Permission denied" in seen.stderr  # nodev
        assert "/etc/shadow: No such file" in seen.stderr
        names = {line.partition("=")[0] for line in seen.stdout.splitlines() if "=" in line}
        assert names <= {
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "LC_CTYPE",
            "TZ",
            "PS1",
            "PWD",
            "TERM",
            "COLORTERM",
            "KUBEWIRE_HOST",
        }
    finally:
        assert cli.run("down").returncode == 0


def test_a_default_pod_of_a_lab_with_the_machines_users_changes_no_kernel_wide_setting(cli: Cli) -> None:
    """Its root owns these files. They are opened, and not written to."""
    assert up(cli, {"topology": {"workers": 0}, "dns": {"replicas": 0}, "hostUsers": True}).returncode == 0
    script = """for path in /proc/sys/kernel/core_pattern /proc/irq/default_smp_affinity /proc/sysrq-trigger \\
        /proc/bus/pci/00/* /proc/fs/*/* /sys/kernel/mm/transparent_hugepage/enabled; do
        [ -f $path ] && (: >>$path) 2>/dev/null && echo $path; done; id -u"""
    try:
        run = ("kubectl", "run", "pod", "--image=nicolaka/netshoot", "--restart=Never", "-i", "--quiet")
        tolerations = json.dumps({"spec": {"tolerations": [{"operator": "Exists"}]}})
        done = cli.run(*run, f"--overrides={tolerations}", "--", "sh", "-c", script)
        assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
    finally:
        cli.run("down")
