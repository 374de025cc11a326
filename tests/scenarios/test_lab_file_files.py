"""Files that a lab file puts on nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubewire.lab.bringup.components import NodeFile, user_files
from kubewire.scenarios.engine.file.spec import LabSpec, SpecError


def test_nodes_whose_names_match_get_the_file(tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("port: 80\n")
    (tmp_path / "lab.yaml").write_text(
        "topology: {workers: 2}\n"
        "files:\n"
        "  /etc/motd: hello\n"
        "  /run/app.conf: {from: app.conf, nodes: 'worker-*', mode: '0600'}\n"
    )
    spec = LabSpec.load(tmp_path / "lab.yaml")
    everywhere = [NodeFile(node, "/etc/motd", b"hello", 0o644) for node in ("control-plane", "worker-1", "worker-2")]
    workers = [NodeFile(node, "/run/app.conf", b"port: 80\n", 0o600) for node in ("worker-1", "worker-2")]
    assert list(user_files(spec)) == everywhere + workers
    (tmp_path / "app.conf").unlink()
    assert LabSpec.parse(spec.as_dict()) == spec


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"etc/motd": ""}, "files.etc/motd: is not the absolute path of a file, such as /etc/motd"),
        ({"/run/../usr/x": ""}, "is not the absolute path of a file"),
        ({"/usr/bin/ip": ""}, "files./usr/bin/ip: is in a folder that is read-only in a lab: /bin, /sbin"),
        ({"/var/run/x": ""}, "files./var/run/x: is behind a symbolic link; write the path as /run/..."),
        (
            {"/run/x": {"content": "", "nodes": "work-*"}},
            "files./run/x.nodes: work-* matches no node; there are control-",
        ),
        ({"/etc/x": {"content": "", "nodes": "worker-1"}}, "files./etc/x.nodes: a file outside of /run, /tmp, "),
        ({"/run/x": {}}, "files./run/x: needs either content or from, a file of this machine"),
        ({"/run/x": {"content": "", "from": "x"}}, "files./run/x: needs either content or from"),
        (
            {"/run/x": {"from": "nowhere"}},
            "files./run/x.from: nowhere: No such file or directory; a path is relative to",
        ),
        ({"/run/x": {"from": "/bin/true"}}, "files./run/x.from: /bin/true:"),
        (
            {"/run/x": {"content": "", "mode": "rw"}},
            'files./run/x.mode: "rw" is not a mode in octal digits such as 0644',
        ),
        ({"/run/x": {"content": "", "mod": "0644"}}, "files./run/x.mod: unknown key (did you mean mode?)"),
        ({"/run/x": 3}, "files./run/x: must be text or a mapping, not 3"),
    ],
)
def test_what_cannot_be_on_a_node_is_refused(files: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        LabSpec.parse({"files": files}, "lab.yaml")
    assert str(error.value).startswith("lab.yaml: ") and said in str(error.value)
