"""What does control cost? `ps` looped beside many instances, and a line every 2 ms that must not wait for it.

    python benchmarks/control.py [--instances 1000] [--looks 20]

Prints how long `procman ps` takes, and how old each line is when its reader has it (the writer's and the reader's own
time stamps), without `ps` and with it. The last line is JSON. On a quiet machine: both share its processors.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RATE = 500
TICK = f"import os, time\nwhile True: os.write(1, b'@%d@\\n' % time.monotonic_ns()); time.sleep({1 / RATE})"
PROCMAN = [sys.executable, "-m", "procman"]
STAMP = re.compile(rb"@(\d+)@")
QUIET_S = 5.0
MAX_DELAY_MS = 10.0  # by which `ps` may delay a line (issue 6)


class Run:
    """A procman whose output is read as it comes."""

    def __init__(self, root: Path, instances: int) -> None:
        (root / "tick.py").write_text(TICK)
        (root / "Procfile").write_text(f"idle: exec sleep 100000\ntick: exec {sys.executable} -S -E tick.py\n")
        self._root = root
        argv = [*PROCMAN, "start", f"idle={instances}", "tick=1", "--no-port"]
        self._popen = subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._popen.stdout is not None
        self._fd = self._popen.stdout.fileno()
        self._rest = b""

    def delays_ms(self, is_over: Callable[[], bool]) -> list[float]:
        """Read until `is_over()`; return the age of each line."""
        found: list[float] = []
        while not is_over():
            if not select.select([self._fd], [], [], 0.1)[0]:
                continue
            chunk = os.read(self._fd, 1 << 16)
            now_ns = time.monotonic_ns()
            if not chunk:
                raise SystemExit("procman has ended")
            whole, _, self._rest = (self._rest + chunk).rpartition(b"\n")
            found += [(now_ns - int(stamp)) / 1e6 for stamp in STAMP.findall(whole)]
        return found

    def ps(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*PROCMAN, "ps", "--json"], cwd=self._root, stdout=subprocess.DEVNULL)

    def quit(self) -> None:
        self._popen.send_signal(signal.SIGTERM)
        while os.read(self._fd, 1 << 16):
            pass
        self._popen.wait()


class Looks:
    """`ps` again and again; `is_over` starts the next one when the last has ended."""

    def __init__(self, run: Run, count: int) -> None:
        self.times_ms: list[float] = []
        self._run = run
        self._left = count
        self._popen: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0

    def is_over(self) -> bool:
        if self._popen is not None:
            if self._popen.poll() is None:
                return False
            if self._popen.returncode != 0:
                raise SystemExit(f"ps ended with {self._popen.returncode}")
            self.times_ms.append((time.monotonic() - self._started_s) * 1000)
            self._popen = None
        if not self._left:
            return True
        self._left -= 1
        self._started_s = time.monotonic()
        self._popen = self._run.ps()
        return False


def told(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p99": round(ordered[int(len(ordered) * 0.99)], 3),
        "max": round(ordered[-1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--looks", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory), options.instances)
        try:
            begun_s = time.monotonic()
            run.delays_ms(lambda: time.monotonic() > begun_s + QUIET_S)  # all are up, and the first `ps` is warm
            warm = Looks(run, 1)
            run.delays_ms(warm.is_over)
            quiet_s = time.monotonic()
            quiet = told(run.delays_ms(lambda: time.monotonic() > quiet_s + QUIET_S))
            looks = Looks(run, options.looks)
            beside = told(run.delays_ms(looks.is_over))
        finally:
            run.quit()
    took = told(looks.times_ms)
    print(f"ps with {options.instances} instances, ms: {took}")
    print(f"age of a line without ps, ms:  {quiet}")
    print(f"age of a line beside ps, ms:   {beside}")
    print(json.dumps({"instances": options.instances, "ps_ms": took, "quiet_ms": quiet, "beside_ms": beside}))
    if beside["max"] - quiet["max"] > MAX_DELAY_MS:
        print(f"ps delays a line by more than {MAX_DELAY_MS:g} ms")


if __name__ == "__main__":
    main()
