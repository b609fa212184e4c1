"""Write numbered lines as fast as they are taken: `flood.py FOLDER CHILD LINE_BYTES MOST_LINES SECONDS`.

Waits at the gate of FOLDER, so the start of the manager is no part of the measurement. The numbers repeat after a
cycle: the blocks are made beforehand and only written here, so Python is as fast as any other language. Ends with a
line that says how many there were, and then waits, because some managers end or restart when a child does.
"""

import os
import sys
import time

BLOCK_BYTES = 1 << 16
CYCLE_BLOCKS = 16


def cycle_lines(line_bytes: int) -> int:
    """Return how many lines there are before the numbers repeat."""
    return CYCLE_BLOCKS * (BLOCK_BYTES // line_bytes)


def line(child: int, number: int, line_bytes: int) -> bytes:
    return (b"#%d%07d" % (child, number)).ljust(line_bytes - 1, b"x") + b"\n"


def write_all(block: bytes) -> None:
    written = os.write(1, block)
    while written < len(block):
        written += os.write(1, block[written:])


def flood(folder: str, child: int, line_bytes: int, most_lines: int, seconds: float) -> None:
    lines = [line(child, number, line_bytes) for number in range(cycle_lines(line_bytes))]
    a_block = len(lines) // CYCLE_BLOCKS
    blocks = [b"".join(lines[start : start + a_block]) for start in range(0, len(lines), a_block)]
    report = os.open(folder + "/report", os.O_WRONLY)
    os.write(report, b"ready\n")
    os.close(os.open(folder + "/gate", os.O_RDONLY))
    began_s = time.monotonic()
    count = 0
    while count < most_lines and time.monotonic() - began_s < seconds:
        write_all(blocks[count // a_block % CYCLE_BLOCKS])
        count += a_block
    ended_s = time.monotonic()
    os.write(report, b"%d %d %.6f\n" % (child, count, ended_s))  # first, so the reader knows when to look for the end
    os.write(1, b"@end %d\n" % child)
    os.open(folder + "/hold", os.O_RDONLY)


if __name__ == "__main__":
    flood(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
