"""What does the live view cost, and how soon does it answer? 300 instances, and a flood in the log that is shown.

    python benchmarks/top.py [--instances 300] [--rate 50000] [--seconds 30]

Prints the delay from a key to the picture that it changes; the throughput of the supervisor, and the processor time
it needs for a gigabyte, without a view and with one that shows the flood; memory of the view at the start and the end.
Ends with 1 if a key took longer than 100 ms. The last line is JSON. On a quiet machine: all share its processors.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

PROCMAN = [sys.executable, "-m", "procman"]
SIZE = (40, 140)
MAX_DELAY_MS = 100.0  # issue 8
WAIT_S = 30.0
KEYS = 40  # of each kind
ROUNDS = 3
ROUND_S = 5.0
LINE = "x" * 91  # and a number of eight digits, and the newline

# So many lines a second, in portions of 10 ms; 0 is as many as go.
FLOOD = f"""
import os, sys, time
rate = int(sys.argv[1])
portion = max(1, rate // 100) if rate else 500
number, due = 0, time.monotonic()
while True:
    data = b"".join(b"%08d {LINE[1:]}\\n" % (number + at) for at in range(portion)) if rate or not number else data
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
    number += portion
    if rate:
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))
"""


class Run:
    """A procman whose output is read as fast as it comes."""

    def __init__(self, root: Path, instances: int, rate: int) -> None:
        (root / "flood.py").write_text(FLOOD)
        flood = f"exec {sys.executable} -S -E flood.py {rate}"
        (root / "Procfile").write_text(f"flood: {flood}\nidle: exec sleep 100000\n")
        argv = [*PROCMAN, "start", "flood=1", f"idle={instances - 1}", "--no-port"]
        self.bytes = 0
        self._popen = subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        threading.Thread(target=self._read, daemon=True).start()
        wait = [*PROCMAN, "wait", "--timeout", "60"]
        subprocess.run(wait, cwd=root, check=True, stdout=subprocess.DEVNULL)
        ps = subprocess.run([*PROCMAN, "ps", "--json"], cwd=root, check=True, capture_output=True)
        pid = json.loads(ps.stdout)[0]["pid"]
        self.supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    def _read(self) -> None:
        assert self._popen.stdout is not None
        while chunk := os.read(self._popen.stdout.fileno(), 1 << 20):
            self.bytes += len(chunk)

    def quit(self) -> None:
        self._popen.send_signal(signal.SIGTERM)
        self._popen.wait()

    def rate(self) -> tuple[float, float]:
        """Return megabytes a second, and the supervisor's seconds of processor time for a gigabyte."""
        start_s, start_cpu_s, start = time.monotonic(), cpu_s(self.supervisor), self.bytes
        time.sleep(ROUND_S)
        size = self.bytes - start
        return size / 1e6 / (time.monotonic() - start_s), (cpu_s(self.supervisor) - start_cpu_s) / (size / 1e9)


class View:
    """`procman top` on a terminal of its own."""

    def __init__(self, root: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(root)
            os.execvpe(PROCMAN[0], [*PROCMAN, "top"], {**os.environ, "TERM": "xterm-256color"})
        termios.tcsetwinsize(self._fd, SIZE)
        os.kill(self.pid, signal.SIGWINCH)
        self.bytes = 0
        self._seen = b""
        self._until(rb"flood\.1")
        self.read_for(2.0)

    def key_ms(self, keys: str, pattern: bytes) -> float:
        """Type, and return how long it takes until what is drawn from then on matches."""
        self.read_for(0.0)
        self._seen = b""
        start_s = time.monotonic()
        os.write(self._fd, keys.encode())
        self._until(pattern)
        return (time.monotonic() - start_s) * 1000

    def read_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            self._take()
            if time.monotonic() >= deadline:
                return

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000

    def leave(self) -> None:
        os.write(self._fd, b"q")
        while True:
            try:
                if not os.read(self._fd, 1 << 16):
                    break
            except OSError:
                break
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def _until(self, pattern: bytes) -> None:
        deadline = time.monotonic() + WAIT_S
        while not re.search(pattern, self._seen):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._fd], [], [], left_s)[0]:
                raise SystemExit(f"the view has not drawn {pattern!r}: {self._seen[-2000:]!r}")
            self._take()

    def _take(self) -> None:
        chunk = os.read(self._fd, 1 << 16)
        self.bytes += len(chunk)
        self._seen = (self._seen + chunk)[-1_000_000:]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def selected(name: str) -> bytes:
    """Return what the drawn row of the selected instance matches: bold and reverse."""
    return rb"\x1b\[1;7[\d;]*m" + re.escape(name).encode() + rb" "


def delays(view: View) -> dict[str, list[float]]:
    """Type keys of several kinds while the flood is shown; return their delays in ms."""
    found: dict[str, list[float]] = {"select": [], "help": [], "search": []}
    for _ in range(KEYS):
        found["select"].append(view.key_ms("\x1b[B", selected("idle.1")))
        found["select"].append(view.key_ms("\x1b[A", selected("flood.1")))
        view.read_for(0.3)  # the flood is back
    for _ in range(KEYS):
        found["help"].append(view.key_ms("?", b"choose an instance"))
        view.key_ms("q", rb"idle\.\d")
        view.read_for(0.3)
    view.key_ms("/", b"Enter finds")
    for _ in range(KEYS):
        found["search"].append(view.key_ms("Ω", "Ω".encode()))
        view.read_for(0.03)
    view.key_ms("\x1b", b"NAME|flood")
    view.read_for(0.3)  # or the next key would be one with Alt
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--rate", type=int, default=50_000, help="lines a second of the flood, 100 bytes each")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the view is open to look at its memory")
    options = parser.parse_args()
    figures: dict[str, object] = {"instances": options.instances, "rate": options.rate}

    with tempfile.TemporaryDirectory(prefix="bench-top-") as folder:
        run = Run(Path(folder), options.instances, options.rate)
        view = View(Path(folder))
        first_mb = view.memory_mb()
        found = delays(view)
        start_s, start_cpu_s, start = time.monotonic(), cpu_s(view.pid), run.bytes
        view.read_for(options.seconds)
        passed_s = time.monotonic() - start_s
        lines = (run.bytes - start) / passed_s / (len(LINE) + 9 + len("00:00:00 flood.1   | "))
        figures |= {"view_mb": [round(first_mb, 1), round(view.memory_mb(), 1)]}
        figures |= {"view_cpu_percent": round((cpu_s(view.pid) - start_cpu_s) / passed_s * 100, 1)}
        figures |= {"lines_per_s": round(lines)}
        view.leave()
        run.quit()
    for kind, delays_ms in found.items():
        print(f"{kind}: {statistics.median(delays_ms):.0f} ms, at most {max(delays_ms):.0f} ms")
        figures[f"{kind}_ms"] = [round(statistics.median(delays_ms), 1), round(max(delays_ms), 1)]
    memory_mb, percent = figures["view_mb"], figures["view_cpu_percent"]
    print(f"flood: {figures['lines_per_s']} lines/s; the view: {memory_mb} MB, {percent} % of a processor")

    with tempfile.TemporaryDirectory(prefix="bench-top-") as folder:
        run = Run(Path(folder), options.instances, 0)
        without, beside = [], []
        for _ in range(ROUNDS):
            without.append(run.rate())
            view = View(Path(folder))
            reading = threading.Thread(target=view.read_for, args=(ROUND_S,))
            reading.start()
            beside.append(run.rate())
            reading.join()
            view.leave()
        run.quit()
    for words, rounds in {"no view": without, "a view": beside}.items():
        rate, cost = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{words}: {rate:.0f} MB/s, {cost:.2f} s of the supervisor for a GB")
        figures[words] = [round(rate), round(cost, 3)]
    print(json.dumps(figures))
    return int(max(max(delays_ms) for delays_ms in found.values()) > MAX_DELAY_MS)


if __name__ == "__main__":
    sys.exit(main())
