"""The kernels that a virtual machine can boot, the lightest first. To add one, write a module and a
line in KERNELS."""

from __future__ import annotations

from kubewire.vm.kernels.base import Kernel
from kubewire.vm.kernels.qemu import QEMU
from kubewire.vm.kernels.stock import Stock
from kubewire.vm.kernels.uml import UML

KERNELS: tuple[Kernel, ...] = (UML(), Stock(), QEMU())


def named(name: str) -> Kernel:
    """Raises LookupError with the list of names."""
    for kernel in KERNELS:
        if kernel.name == name:
            return kernel
    raise LookupError(
        f"no kernel {name!r}; there are {', '.join(kernel.name for kernel in KERNELS)}",
    )
