"""What a lab sees of the machine's files: an allow-list, and the files of /etc that are made for it. Pure.

Everything else of the machine does not exist inside: the sandbox's root is made from this list (mounts.py) and the
machine's own root is detached from it. A file that is missing here is added by name, or by the user with `share`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Programs and libraries, shown read-only. On a Debian all but /usr are links into it.
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
#: Of the machine's /etc: what programs need that are run from SYSTEM, and nothing that belongs to the machine's owner.
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
#: Empty folders of every root, with their modes. What a distribution's packages make, and what people mount on.
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
#: Device files of the machine that lead nowhere but to the process that opens them.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
UPSTREAM_DNS = "203.0.113.53"

#: Debian's base-passwd (passwd.master), and the users that kubewire's programs change to.
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
    "root": 0, "daemon": 1, "bin": 2, "sys": 3, "adm": 4, "tty": 5, "disk": 6, "mail": 8, "proxy": 13, "kmem": 15,
    "sudo": 27, "audio": 29, "www-data": 33, "backup": 34, "shadow": 42, "utmp": 43, "video": 44, "staff": 50,
    "games": 60, "users": 100, "nginx": 101, "tcpdump": 108, "man": 12, "nogroup": 65534,
}  # fmt: skip
_BASHRC = """\
[ -z "$PS1" ] && return
shopt -s checkwinsize
PS1='\\u@\\h:\\w\\$ '
"""


@dataclass(frozen=True)
class Shared:
    """A file or folder of the machine that the lab file names (`share`): the same path inside."""

    path: Path
    read_only: bool = True


@dataclass(frozen=True)
class Contents:
    """All that the sandbox's root is made of besides the lists above.

    programs: folders with kubewire's code, its interpreter and other programs that are run inside.
    logs: the folder of the machine that the lab's log files go to. user: the uid and gid that are 0 inside, as the
    machine sees them.
    """

    programs: tuple[Path, ...]
    logs: Path
    shared: tuple[Shared, ...] = ()
    user: int = 0


def passwd() -> str:
    """passwd(5) of every host and container."""
    lines = (
        f"{name}:x:{uid}:{gid}:{name}:{home}:{shell or '/usr/sbin/nologin'}" for name, uid, gid, home, shell in _USERS
    )
    return "\n".join([*lines, ""])


def group() -> str:
    """group(5) of every host and container."""
    lines = (f"{name}:x:{gid}:" for name, gid in sorted(_GROUPS.items(), key=lambda item: item[1]))
    return "\n".join([*lines, ""])


def generated() -> dict[str, str]:
    """Files of /etc with the lab's own content: path below /etc -> text."""
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
    """paths without those that lie below another one or below SYSTEM, which show them already. Sorted."""
    shown = [Path("/", name) for name in SYSTEM]
    chosen: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(above) for above in [*shown, *chosen]):
            chosen.append(path)
    return chosen
