"""Port ranges for tests that run at the same time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

# Below the range from which Linux picks ports for outgoing connections (32768 and up).
FIRST, LAST, BLOCK = 10_000, 32_000, 500


@contextmanager
def port_block() -> Iterator[int]:
    """Yield the first of BLOCK free ports, which no other holder of a block gets meanwhile.

    The mark of a taken block is its last port, bound without SO_REUSEADDR: the kernel gives it to one process at a
    time, also between separate test runs, and takes it back whatever happens to us.
    """
    bases = range(FIRST, LAST, BLOCK)
    start = os.getpid() % len(bases)  # most often nobody is there yet
    for base in (*bases[start:], *bases[:start]):
        with closing(socket.socket()) as mark:
            if _can_bind(mark, base + BLOCK - 1) and all(_is_free(port) for port in range(base, base + BLOCK - 1)):
                yield base
                return
    raise RuntimeError(f"no {BLOCK} free ports in a row between {FIRST} and {LAST}")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        # Connections of an earlier test that linger in TIME_WAIT do not disturb a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _can_bind(probe, port)


def _can_bind(sock: socket.socket, port: int) -> bool:
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
