"""The files of the machine that a lab sees: an allow-list. Pure.

Nodes are not virtual machines and pods are not pulled images: both run the programs that are
installed on the machine. So a lab needs /usr, but nothing else that belongs to the machine's
owner. Its root file system is an empty tmpfs to which mounts.py adds, read-only, the folders listed
here; the machine's own root is detached. Whatever this list does not name does not exist inside, so
a forgotten entry can hide a file but never expose one. To make another file visible, add its name
here, or let the user name it with `share` in the lab file.

A few files of /etc (users, hosts, resolv.conf) are generated instead of copied, because their
content must describe the lab and not the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Folders with programs and libraries, bound read-only. On Debian all but /usr are links into it.
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
#: Entries of the machine's /etc that programs in SYSTEM need. None holds data of the machine's
#: owner.
ETC = (
    "alternatives",
    "ca-certificates.conf",
    "debian_version",
    "ethertypes",
    "gai.conf",
    "host.conf",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "protocols",
    "python3",
    "python3.11",
    "python3.12",
    "python3.13",
    "rpc",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "xattr.conf",
)
#: Empty folders of every root file system, with their modes: those that a distribution's packages
#: create, and usual mount points.
FOLDERS = {
    "boot": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/lib/misc": 0o755,
    "var/local": 0o755,
    "var/log": 0o755,
    "var/mail": 0o755,
    "var/opt": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
LINKS = {"var/run": "/run", "var/lock": "/run/lock", "etc/mtab": "/proc/self/mounts"}
#: Device files that give no access to the machine: each open file is private to its process.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
UPSTREAM_DNS = "203.0.113.53"

#: (name, uid, gid, home, shell): those of Debian's base-passwd (passwd.master), and the users to
#: which programs in a lab change (nginx, tcpdump).
_USERS = (
    ("root", 0, 0, "/root", "/bin/bash"),
    ("daemon", 1, 1, "/usr/sbin", ""),
    ("bin", 2, 2, "/bin", ""),
    ("sys", 3, 3, "/dev", ""),
    ("games", 5, 60, "/usr/games", ""),
    ("man", 6, 12, "/var/cache/man", ""),
    ("mail", 8, 8, "/var/mail", ""),
    ("proxy", 13, 13, "/bin", ""),
    ("www-data", 33, 33, "/var/www", ""),
    ("backup", 34, 34, "/var/backups", ""),
    ("nginx", 101, 101, "/nonexistent", ""),
    ("tcpdump", 108, 108, "/nonexistent", ""),
    ("nobody", 65534, 65534, "/nonexistent", ""),
)
_GROUPS = {
    "root": 0, "daemon": 1, "bin": 2, "sys": 3, "adm": 4, "tty": 5, "disk": 6, "mail": 8,
    "proxy": 13, "kmem": 15, "sudo": 27, "audio": 29, "www-data": 33, "backup": 34, "shadow": 42,
    "utmp": 43, "video": 44, "staff": 50, "games": 60, "users": 100, "nginx": 101, "tcpdump": 108,
    "man": 12, "nogroup": 65534,
}  # fmt: skip
_BASHRC = """\
[ -z "$PS1" ] && return
shopt -s checkwinsize
PS1='\\u@\\h:\\w\\$ '
"""


@dataclass(frozen=True)
class Shared:
    """A file or folder that the lab file names under `share`; it has the same path inside."""

    path: Path
    read_only: bool = True


@dataclass(frozen=True)
class Contents:
    """The parts of a sandbox's root that differ from lab to lab.

    programs: folders with kubewire's code, its interpreter and other programs that run inside.
    logs: the machine's folder that receives the lab's log files.
    user: the uid and gid, as the machine sees them, that are 0 inside.
    """

    programs: tuple[Path, ...]
    logs: Path
    shared: tuple[Shared, ...] = ()
    user: int = 0


def passwd() -> str:
    """The file passwd(5) of every host and container."""
    lines = []
    for name, uid, gid, home, shell in _USERS:
        lines.append(f"{name}:x:{uid}:{gid}:{name}:{home}:{shell or '/usr/sbin/nologin'}")
    return "\n".join([*lines, ""])


def group() -> str:
    """The file group(5) of every host and container."""
    lines = (f"{name}:x:{gid}:" for name, gid in sorted(_GROUPS.items(), key=lambda item: item[1]))
    return "\n".join([*lines, ""])


def generated() -> dict[str, str]:
    """The files of /etc whose content is made for the lab: path below /etc -> text."""
    return {
        "passwd": passwd(),
        "group": group(),
        "hostname": "kubewire\n",
        "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        "resolv.conf": f"nameserver {UPSTREAM_DNS}\n",
        "bash.bashrc": _BASHRC,
        "shells": "/bin/sh\n/bin/bash\n",
    }


def topmost(paths: list[Path]) -> list[Path]:
    """Sort paths and drop those that lie below another of them or below SYSTEM, since binding the
    upper folder shows them already."""
    shown = [Path("/", name) for name in SYSTEM]
    chosen: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(above) for above in [*shown, *chosen]):
            chosen.append(path)
    return chosen
