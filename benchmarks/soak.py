"""Does procman grow? 200 instances with restarts, kills, scaling, orphans and floods, for minutes.

    python benchmarks/soak.py [--minutes 10] [--instances 200]

Prints descriptors, memory, threads and zombies of guard and supervisor at the start (when all instances have been up
for a while) and at the end, and checks every line of the floods. Ends with 1 on growth, on a lost or broken line, or if
a process is left behind. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

WARM_UP_S = 15
ALLOWED_KB = 3 * 1024  # of growth: the allocator's own ups and downs, measured over runs of 1 to 10 minutes
MAX_TOLD = 20  # broken lines
MARK = "PROCMAN_SOAK"

# Parts of 200; the rest idles. A clean exit is brought back for ever, with up to 30 s between. Each begins with more
# than is kept of one for `procman logs`: so what is kept is full from the beginning, and no growth.
PROCFILE = r"""
idle: seq 15000; exec sleep 100000
short: seq 15000; sleep $((PROCMAN_INSTANCE % 7 + 1))
orphans: seq 15000; for i in 1 2 3; do (setsid sleep 0.$i &); done; (setsid sh -c 'sleep 1 & sleep 100' &); sleep 4
flood: i=0; while :; do seq -f 'line %.0f' $i $((i + 19999)); i=$((i + 20000)); sleep 0.5; done
prompts: seq 15000; while :; do printf 'a piece '; sleep 1.2; echo of a line; done
"""
SHARES = {"short": 0.25, "orphans": 0.05, "flood": 0.05, "prompts": 0.05}


class Reader(threading.Thread):
    """Reads the merged stream and checks it: `line N` of each flood follows N - 1."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self.fd = fd
        self.bytes = 0
        self.broken: list[bytes] = []
        self.counts: Counter[bytes] = Counter()
        self._next: dict[bytes, int] = {}
        self._rest = b""

    def run(self) -> None:
        while chunk := os.read(self.fd, 1 << 16):
            self.bytes += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._check(line)

    def _check(self, line: bytes) -> None:
        name, _, text = line.partition(b" | ")
        name = name.rstrip()
        if text.startswith(b"started with pid "):
            self.counts[b"starts"] += 1
            self._next.pop(name, None)
        elif name.startswith(b"flood."):
            self._check_flood(name, text)
        elif re.match(rb"(did not stop|sending SIGKILL|could not be killed|.*cannot start)", text):
            self.counts[text.split()[0]] += 1

    def _check_flood(self, name: bytes, text: bytes) -> None:
        if text.startswith((b"exited", b"terminated", b"restarting")):
            return
        self.counts[b"flood lines"] += 1
        expected = self._next.get(name, 0)
        # Whoever was killed in the middle of a line has a last one that is not whole.
        if text != b"line %d" % expected and not (name in self._next and (b"line %d" % expected).startswith(text)):
            self.counts[b"broken"] += 1
            if len(self.broken) < MAX_TOLD:
                self.broken.append(name + b": " + text[:80] + b" where line %d was due" % expected)
            found = re.fullmatch(rb"line (\d+)", text)
            expected = int(found[1]) if found else expected - 1
        self._next[name] = expected + 1


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def stat(pid: int | str) -> list[str]:
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def target(pid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(entry)) and int(fields[1]) == pid:
            found.append(int(entry))
    return found


def memory_kb(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
    return int(found[1]) if found else 0


def figures(guard: int, supervisor: int) -> dict[str, int]:
    """Look once. `spare descriptors` are the supervisor's but the pipes that somebody below it writes to."""
    below = children(supervisor)
    written = {target(pid, 1) for pid in below}
    fds = [target(supervisor, int(fd)) for fd in os.listdir(f"/proc/{supervisor}/fd")]
    return {
        "children": len(below),
        "descriptors": len(fds),
        "spare descriptors": len([fd for fd in fds if fd not in written]),
        "guard descriptors": len(os.listdir(f"/proc/{guard}/fd")),
        "threads": int(stat(supervisor)[17]),
        "guard threads": int(stat(guard)[17]),
        "zombies": sum(stat(pid)[:1] == ["Z"] for pid in [*below, *children(guard)]),
        "RSS kB": memory_kb(supervisor, "Rss"),
        "PSS kB": memory_kb(supervisor, "Pss"),
        "guard RSS kB": memory_kb(guard, "Rss"),
        "guard PSS kB": memory_kb(guard, "Pss"),
        "CPU s": round((int(stat(supervisor)[11]) + int(stat(supervisor)[12])) / os.sysconf("SC_CLK_TCK")),
    }


def settled(guard: int, supervisor: int) -> dict[str, int]:
    """Return the least of a few looks: a child that ended a moment ago is no zombie of ours yet, only on its way."""
    looks = []
    for _ in range(8):
        try:
            looks.append(figures(guard, supervisor))
        except OSError:  # a child ended between two looks
            pass
        time.sleep(0.4)
    return {name: min(look[name] for look in looks) for name in looks[0]}


def bother(supervisor: int, chance: random.Random) -> int:
    """Kill one of the children, as a crash would; return 1 if there was one."""
    below = [pid for pid in children(supervisor) if stat(pid)[:1] != ["Z"]]
    if not below:
        return 0
    try:
        os.kill(chance.choice(below), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def scale(folder: str, counts: dict[str, str]) -> int:
    """Ask the running supervisor for more or fewer (docs/control-protocol.md); return 1 once it is done."""
    path = next(Path(folder, ".procman").glob("*.sock"))
    with socket.socket(socket.AF_UNIX) as client, client.makefile("r") as replies:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(json.dumps({"do": "scale", "counts": counts}).encode() + b"\n")
        for line in replies:
            if (reply := json.loads(line)).get("done"):
                return 1
            if "error" in reply:
                raise RuntimeError(f"scale: {reply['error']}")
    raise RuntimeError("scale: no reply")


def left_behind(mark: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if f"{MARK}={mark}".encode() in environ:
                found.append(f"{entry} {read(f'/proc/{entry}/cmdline')!r}")
    return found


def formation(instances: int) -> list[str]:
    counts = {name: max(1, round(instances * share)) for name, share in SHARES.items()}
    return [f"idle={instances - sum(counts.values())}", *(f"{name}={count}" for name, count in counts.items())]


def soak(minutes: float, instances: int, folder: str) -> dict[str, object]:
    Path(folder, "Procfile").write_text(PROCFILE)
    mark = f"{os.getpid()}-{time.time_ns()}"
    command = [sys.executable, "-P", "-m", "procman", "start", *formation(instances), "--restart", "all", "--no-port"]
    manager = subprocess.Popen(
        [*command, "--no-timestamp"],
        cwd=folder,
        env={**os.environ, MARK: mark, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert manager.stdout
    reader = Reader(manager.stdout.fileno())
    reader.start()
    chance = random.Random(1)
    began_s = time.monotonic()
    time.sleep(WARM_UP_S)
    for change in ("+20", "-20"):  # what is loaded for the first request is no growth
        scale(folder, {"idle": change})
    supervisor = min(children(manager.pid))
    before = settled(manager.pid, supervisor)
    kills = scales = 0
    # One kill in five seconds: spread over all, nobody fails five times in a minute and is given up.
    while time.monotonic() - began_s < WARM_UP_S + minutes * 60:
        kills += bother(supervisor, chance)
        sign = "-" if scales % 2 else "+"
        scales += scale(folder, {"idle": f"{sign}20", "flood": f"{sign}2"})
        time.sleep(5)
    if scales % 2:
        scales += scale(folder, {"idle": "-20", "flood": "-2"})
        time.sleep(5)
    after = settled(manager.pid, supervisor)
    manager.send_signal(signal.SIGTERM)
    code = manager.wait(30)
    reader.join(30)
    return {
        "minutes": minutes,
        "instances": instances,
        "before": before,
        "after": after,
        "code": code,
        "kills": kills,
        "scales": scales,
        "megabytes": reader.bytes >> 20,
        "counts": {name.decode(): count for name, count in reader.counts.items()},
        "broken": [line.decode("utf-8", "replace") for line in reader.broken],
        "left": left_behind(mark),
    }


def complaints(result: dict[str, object]) -> list[str]:
    before, after = result["before"], result["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    found = [f"{name} grew from {before[name]} to {after[name]}" for name in before if grew(name, before, after)]
    if result["broken"]:
        found.append(f"broken lines: {result['broken']}")
    if result["left"]:
        found.append(f"left behind: {result['left']}")
    if result["code"] != 0:
        found.append(f"exit code {result['code']}")
    return found


def grew(name: str, before: dict[str, int], after: dict[str, int]) -> bool:
    if name in ("children", "descriptors", "CPU s"):
        return False  # these come and go with the instances that are up
    if name.endswith("kB"):
        return after[name] - before[name] > ALLOWED_KB
    return after[name] > before[name]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--instances", type=int, default=200)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(given.minutes, given.instances, folder)
    before, after = result["before"], result["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    print(f"{'':20} {'start':>10} {'end':>10}")
    for name in before:
        print(f"{name:20} {before[name]:>10} {after[name]:>10}")
    print(f"{result['counts']}, killed by us {result['kills']} times and scaled {result['scales']} times")
    print(f"{result['megabytes']} MB read, exit {result['code']}")
    found = complaints(result)
    for complaint in found:
        print(f"NOT GOOD: {complaint}")
    print(json.dumps({"benchmark": "soak", **result}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
