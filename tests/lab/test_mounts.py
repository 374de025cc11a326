"""What a lab sees of the machine: an allow-list, and ids that are not the machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.lab.sandbox.contents import FOLDERS, generated, group, passwd, topmost
from kubewire.lab.sandbox.mounts import links_on
from kubewire.lab.sandbox.process import FIRST_ID, Extent, clean_environment, id_map


@pytest.mark.parametrize(
    ("around", "inside"),
    [
        pytest.param(
            "         0          0 4294967295\n",
            [Extent(0, FIRST_ID, FIRST_ID - 1)],
            id="root of the machine: ids that nobody has",
        ),
        pytest.param("0 1000 1\n", [Extent(0, 0, 1)], id="an ordinary user: the one id there is"),
        pytest.param(
            "0 100000 65536\n70000 200000 10\n",
            [Extent(0, 0, 65536), Extent(70000, 70000, 10)],
            id="root of a container with ids of its own: the same",
        ),
    ],
)
def test_root_of_a_lab_is_never_root_of_the_machine(around: str, inside: list[Extent]) -> None:
    assert id_map(around) == inside


def test_all_ids_that_kubernetes_allows_have_a_place() -> None:
    (extent,) = id_map("0 0 4294967295")
    assert extent.inside + extent.count - 1 >= 2**31 - 2  # runAsUser: at most 2147483647 (ValidatePodSecurityContext)
    assert extent.outside + extent.count - 1 < 2**32 - 1  # -1 stands for "no change" in system calls


def test_a_checkout_below_usr_or_below_another_one_is_shown_already() -> None:
    paths = ["/usr/lib/python3/dist-packages", "/work/kubewire/lab", "/work/kubewire", "/home/me/.venv"]
    assert topmost([Path(path) for path in paths]) == [Path("/home/me/.venv"), Path("/work/kubewire")]


def test_links_on_the_way_to_a_program_are_known(tmp_path: Path) -> None:
    (tmp_path / "real/bin").mkdir(parents=True)
    (tmp_path / "near").symlink_to("real")
    (tmp_path / "far").symlink_to(tmp_path / "near")
    (tmp_path / "round").symlink_to("round")
    assert links_on(tmp_path / "real/bin") == []
    assert links_on(tmp_path / "far/bin") == [
        (tmp_path / "far", tmp_path / "near"),
        (tmp_path / "near", Path("real")),
    ]
    assert links_on(tmp_path / "round")  # has an end


def test_of_the_environment_only_what_is_named_goes_in() -> None:
    outside = {"AWS_SECRET_ACCESS_KEY": "x", "LANG": "C.UTF-8", "PATH": "/home/me/bin", "LD_PRELOAD": "/x.so"}
    assert clean_environment(outside) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }


def test_passwd_and_group_name_each_other() -> None:
    groups = {line.split(":")[2] for line in group().splitlines()}
    users = [line.split(":") for line in passwd().splitlines()]
    assert users[0][:4] == ["root", "x", "0", "0"]
    assert {user[3] for user in users} <= groups
    assert len({user[2] for user in users}) == len(users)


def test_home_folders_are_empty_and_no_file_of_passwords_is_made() -> None:
    assert {"root", "home", "srv", "opt", "tmp", "var/log"} <= FOLDERS.keys()
    assert not {"shadow", "gshadow", "sudoers"} & generated().keys()
