"""Descriptors of XDP links, which keep a program attached after its owner has ended, as good as a pin does."""

import ctypes
import os
import platform
import re
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(platform.machine())  # None: bpf(2) has a number unknown here
LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID, OBJ_GET_INFO_BY_FD = 30, 31, 15


def bpf(command, attributes):
    memory = ctypes.create_string_buffer(attributes, 128)
    result = LIBC.syscall(BPF, command, memory, 128)
    return result, memory.raw


def hold(namespace):
    """A descriptor of each XDP link on the tower's interfaces."""
    # Numbers of interfaces are not unique among namespaces, those of programs are.
    wanted = {int(number) for number in re.findall(r"prog/xdp id (\d+)", namespace.ip("-d", "link"))}
    held, number = [], 0
    while True:
        result, memory = bpf(LINK_GET_NEXT_ID, struct.pack("II", number, 0))
        if result < 0:
            return held
        number = struct.unpack_from("I", memory, 4)[0]
        descriptor, _ = bpf(LINK_GET_FD_BY_ID, struct.pack("I", number))
        if descriptor < 0:
            continue
        info = ctypes.create_string_buffer(128)
        bpf(OBJ_GET_INFO_BY_FD, struct.pack("IIQ", descriptor, 128, ctypes.addressof(info)))
        kind, _, program = struct.unpack_from("3I", info.raw)
        if kind == 6 and program in wanted:  # BPF_LINK_TYPE_XDP
            held.append(descriptor)
        else:
            os.close(descriptor)
