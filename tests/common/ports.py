"""Ports for what a test starts: free, and given to no other test that runs beside it."""

import random
import socket

from cases import Failure

FIRST, LAST = 20000, 31999  # below the range that connections take theirs from, and below a relay's own
given = []  # what says that a port is ours; the kernel takes it back however this process ends


def reserved(port):
    """Whether no other test has that port. A test of another network namespace is none: its ports are its own."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        mark.bind(f"\0radiotower-test-port-{port}")
    except OSError:
        mark.close()
        return False
    given.append(mark)
    return True


def is_free(port):
    """On both families, for UDP and TCP."""
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(family, kind) as s:
                    s.bind((address, port))
        return True
    except OSError:
        return False


def free_port(first=FIRST, last=LAST):
    """Nobody takes it before the test has ended: neither a connection nor a test in another lane."""
    for _ in range(1000):
        port = random.randint(first, last)
        if reserved(port) and is_free(port):
            return port
    raise Failure("no free port")


def big_buffer(opened, size=4 << 20):
    """For a socket that is not read all the time: what the kernel throws away there would look like a loss of the relay."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, 33, size)  # SO_RCVBUFFORCE: root is not held to net.core.rmem_max
    except OSError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
