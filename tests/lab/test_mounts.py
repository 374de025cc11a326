"""What the sandbox shows of the machine's file systems."""

from pathlib import Path

from lab.mounts import hidden, mount_points, submounts

MOUNTINFO = """\
22 28 0:20 / /sys rw,nosuid shared:2 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 28 8:2 / /home rw,relatime - ext4 /dev/sda2 rw
31 30 8:3 / /home/a\\040b rw,relatime - ext4 /dev/sda3 rw
32 28 0:30 / /run/user/1000 rw - tmpfs tmpfs rw
33 28 8:4 /x /etc/resolv.conf rw - ext4 /dev/sda4 rw
34 28 8:5 / /homestead rw - ext4 /dev/sda5 rw
"""


def test_mountinfo_paths_are_decoded() -> None:
    assert "/home/a b" in [point.path for point in mount_points(MOUNTINFO)]


def test_only_topmost_mounts_that_an_overlay_of_the_root_does_not_show_are_bound() -> None:
    assert submounts(mount_points(MOUNTINFO)) == ["/home", "/homestead"]


def test_a_checkout_below_tmp_is_shown_although_the_sandbox_has_a_tmp_of_its_own(tmp_path: Path) -> None:
    assert hidden([tmp_path, Path("/usr")]) == [tmp_path.resolve()]
