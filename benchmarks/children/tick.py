"""Write the monotonic time in nanoseconds, RATE times a second: `tick.py FOLDER RATE COUNT`."""

import os
import sys
import time


def tick(folder: str, rate: int, count: int) -> None:
    report = os.open(folder + "/report", os.O_WRONLY)
    os.write(report, b"ready\n")
    os.close(os.open(folder + "/gate", os.O_RDONLY))
    due_s = time.monotonic()
    for _ in range(count):
        os.write(1, b"@%d@\n" % time.monotonic_ns())
        due_s += 1 / rate
        time.sleep(max(0.0, due_s - time.monotonic()))
    os.write(1, b"@end 0 %d\n" % count)
    os.open(folder + "/hold", os.O_RDONLY)


if __name__ == "__main__":
    tick(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
