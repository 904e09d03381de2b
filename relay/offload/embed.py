#!/usr/bin/env python3
"""embed.py IN OUT: the bytes of IN as a C++ source, so that the relay is one file."""

import sys

with open(sys.argv[1], "rb") as source:
    program = source.read()
lines = [", ".join(str(byte) for byte in program[at : at + 24]) for at in range(0, len(program), 24)]
with open(sys.argv[2], "w") as out:
    out.write('#include "program.h"\n\nnamespace radiotower::offload {\n\n')
    out.write("alignas(8) static const unsigned char program[] = {\n    " + ",\n    ".join(lines) + "};\n\n")
    out.write("std::span<const std::byte> program_bytes() { return std::as_bytes(std::span(program)); }\n\n")
    out.write("}  // namespace radiotower::offload\n")
