"""QEMU with Debian's own kernel (linux-image-amd64): several CPUs, BTF, every module; slow, because
it is emulated.

Its root is the host's, as with UML, mounted read-only by 9p; an initrd with busybox and a few
modules mounts it.
"""

from __future__ import annotations

import gzip
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from kubewire.components.base import apt
from kubewire.vm import cache
from kubewire.vm.errors import BuildFailed
from kubewire.vm.jail import SCRATCH, SHARE
from kubewire.vm.kernels.base import LOAD, Boot, Made, Program, Progress, run

#: The modules needed to see the host's files; all others are loaded from there.
_MODULES = ("virtio_pci", "virtio_rng", "9pnet_virtio", "9p", "overlay")
_INIT = f"""\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /new
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose host /new &&
exec /bin/busybox switch_root /new /usr/bin/python3 -I {SHARE}/init.py {SHARE} 9p
/bin/busybox poweroff -f
"""


class QEMU:
    name = "qemu"
    title = "QEMU with linux-image-amd64: several CPUs, BTF, every module; 4 to 20 times slower than UML without KVM"
    virtual_time = False
    boot_seconds = 240.0

    def recipe(self) -> str:
        return cache.digest(_INIT, *_MODULES, *LOAD)

    def make(self, folder: Path, progress: Progress) -> Made:
        """Downloads, checks and unpacks Debian's kernel package (without installing it), and makes
        the initrd."""
        tree = folder / "package"
        if not (folder / ".unpacked").exists():
            shutil.rmtree(tree, ignore_errors=True)
            package = _newest()
            try:
                apt.unpack([package], tree, progress)
            except apt.Refused as error:
                raise BuildFailed(str(error)) from error
            (folder / ".unpacked").touch()
        (vmlinuz,) = (tree / "boot").glob("vmlinuz-*")
        release = vmlinuz.name.removeprefix("vmlinuz-")
        progress("indexing its modules")
        run(["/sbin/depmod", "-b", str(tree), release], progress)
        progress("making the initrd")
        (folder / "initrd").write_bytes(gzip.compress(initrd(tree, release), 1))
        return Made(release, vmlinuz)

    def program(self, built: cache.Built, boot: Boot) -> Program:
        folder = Path(built.path).parent.parent.parent
        modules = folder / "package/lib/modules" / built.release
        qemu = shutil.which("qemu-system-x86_64")
        if qemu is None:
            raise BuildFailed(
                "there is no qemu-system-x86_64; kubewire vm build as root installs it",
            )
        console = ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        machine = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-nic",
            "none",
            *console,
        ]
        power = ["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max"]
        power += ["-smp", str(boot.cpus), "-m", str(boot.memory)]
        line = "console=ttyS0 quiet oops=panic panic=-1 nokaslr mitigations=off"
        kernel = ["-kernel", built.path, "-initrd", str(folder / "initrd"), "-append", line]
        shares = [*_virtfs("host", "/", ",readonly=on"), *_virtfs("share", str(SHARE), "")]
        guest = {
            "scratch": str(SCRATCH),
            "lower": "/",
            "modules": str(modules),
            "load": LOAD,
            "alternatives": {},
        }
        argv = [qemu, *machine, *power, "-device", "virtio-rng-pci", *kernel, *shares]
        return Program(argv, [str(folder)], guest)


def _virtfs(tag: str, path: str, options: str) -> Sequence[str]:
    return (
        "-virtfs",
        f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap{options}",
    )


def _newest() -> str:
    """The package that linux-image-amd64 depends on."""
    try:
        said = subprocess.run(
            ["apt-cache", "depends", "linux-image-amd64"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildFailed(f"apt-cache depends linux-image-amd64: {error}") from None
    for line in said.splitlines():
        if line.strip().startswith("Depends: linux-image-"):
            return line.split(": ", 1)[1].strip()
    raise BuildFailed(
        "no package linux-image-amd64; kubewire vm build --kernel qemu needs Debian's package sources",
    )


def initrd(tree: Path, release: str) -> bytes:
    """busybox with its libraries, the modules in loading order, and the script."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise BuildFailed("there is no busybox; it is one of the packages in debian-packages.txt")
    members: list[tuple[str, int, bytes]] = [
        *(
            (folder, stat.S_IFDIR | 0o755, b"")
            for folder in ("bin", "modules", "lib", "lib64", "dev")
        ),
        ("init", stat.S_IFREG | 0o755, _INIT.encode()),
        ("bin/busybox", stat.S_IFREG | 0o755, Path(busybox).read_bytes()),
    ]
    for library in _libraries(busybox):
        place = "lib64" if library.name.startswith("ld-") else "lib"
        members.append((f"{place}/{library.name}", stat.S_IFREG | 0o755, library.read_bytes()))
    order = list(_in_order(tree, release))
    for module in order:
        members.append((f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes()))
    members.append(
        ("order", stat.S_IFREG | 0o644, "\n".join(module.name for module in order).encode()),
    )
    return cpio(members)


def _libraries(program: str) -> Iterator[Path]:
    """The libraries that the dynamic linker loads for a program; none for a static one."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        for word in line.split():
            if word.startswith("/"):
                yield Path(word)


def _in_order(tree: Path, release: str) -> Iterator[Path]:
    seen: set[str] = set()
    for module in _MODULES:
        command = ["/sbin/modprobe", "-d", str(tree), "-S", release, "--show-depends", module]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for line in said.splitlines():
            words = line.split()
            if words[:1] == ["insmod"] and words[1] not in seen:
                seen.add(words[1])
                yield Path(words[1])


def cpio(members: Sequence[tuple[str, int, bytes]]) -> bytes:
    """The kernel's initramfs format "newc"
    (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*members, ("TRAILER!!!", 0, b"")], start=1):
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + raw
        out += b"\0" * (-len(out) % 4)
        out += content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)
