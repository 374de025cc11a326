"""Loads a minimal XDP program by bpf(2) and releases it: exit code 0 if the kernel allows that.

It is a program, not a module, because doctor tries each feature in a separate process.
"""

from __future__ import annotations

import ctypes
import os
import struct

#: The number of bpf(2) (asm/unistd.h; all newer architectures share 280).
_NUMBERS = {"x86_64": 321, "ppc64le": 361, "s390x": 351}
_PROG_LOAD, _XDP = 5, 6  # linux/bpf.h: bpf_cmd, bpf_prog_type
_PASS = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit


def main() -> None:
    """Raises OSError if the kernel refuses."""
    instructions = ctypes.create_string_buffer(_PASS)
    licence = ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(instructions), ctypes.addressof(licence)
    attributes = struct.pack("IIQQ", _XDP, len(_PASS) // 8, *addresses).ljust(128, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    number = _NUMBERS.get(os.uname().machine, 280)
    program = libc.syscall(
        number,
        _PROG_LOAD,
        ctypes.create_string_buffer(attributes),
        len(attributes),
    )
    if program < 0:
        raise OSError(ctypes.get_errno(), f"bpf(BPF_PROG_LOAD): {os.strerror(ctypes.get_errno())}")
    os.close(program)


if __name__ == "__main__":
    main()
