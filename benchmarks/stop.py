"""How long does a stop take? SIGTERM to the manager, until it has exited and both its children are gone.

    python benchmarks/stop.py [REPETITIONS]

The children are shells that sleep: they die of SIGTERM at once, so the time is the manager's own. Peers that are
installed take turns with procman in each round. Prints a table, and one JSON line.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL_MS = 20
CHILDREN = 2
CEILING_S = 30
PROCFILE = "web: echo $$ >web.pid; echo up; exec sleep 1000\nworker: echo $$ >worker.pid; echo up; exec sleep 1000\n"

# The manager's command line in a folder with a Procfile. Each is looked for beside this Python, then in PATH.
PEERS = {
    "procman": ["procman", "start"],
    "honcho": ["honcho", "start"],
    "foreman": ["foreman", "start"],
    "overmind": ["overmind", "start"],
    "hivemind": ["hivemind"],
}


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def stop_once(argv: list[str]) -> float:
    """Start the manager, wait for its children, send it SIGTERM and return the milliseconds until all are gone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Procfile").write_text(PROCFILE)
        env = {name: value for name, value in os.environ.items() if name != "PORT"}
        with subprocess.Popen(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as manager:
            assert manager.stdout
            ups = 0
            for line in manager.stdout:
                ups += bool(re.search(rb"\| up", line))
                if ups == CHILDREN:
                    break
            pids = [int(Path(folder, f"{name}.pid").read_text()) for name in ("web", "worker")]
            # A pidfd becomes readable the moment its process ends, so nothing is polled while the clock runs.
            fds = [os.pidfd_open(pid) for pid in (manager.pid, *pids)]
            time.sleep(0.05)  # the start is over, and nobody is busy with it any more
            begin = time.perf_counter()
            manager.send_signal(signal.SIGTERM)
            wait_for_all(fds)
            elapsed_ms = (time.perf_counter() - begin) * 1000
            manager.stdout.read()
            return elapsed_ms


def wait_for_all(fds: list[int]) -> None:
    """Wait until every process has ended; close the descriptors."""
    for fd in fds:
        if not select.select([fd], [], [], CEILING_S)[0]:
            raise SystemExit(f"still running {CEILING_S} s after SIGTERM")
        os.close(fd)


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    missing = [name for name, argv in PEERS.items() if not find(argv[0])]
    present = {name: [str(find(argv[0])), *argv[1:]] for name, argv in PEERS.items() if name not in missing}
    times: dict[str, list[float]] = {name: [] for name in present}
    for _ in range(repetitions):
        for name, argv in present.items():
            times[name].append(stop_once(argv))
    print(f"SIGTERM until the manager and its {CHILDREN} children are gone, ms, {repetitions} times")
    for name, values in times.items():
        print(f"  {name:<10} min {min(values):7.2f}   median {statistics.median(values):7.2f}   max {max(values):7.2f}")
    if missing:
        print(f"  missing: {', '.join(missing)}")
    figures = {
        name: {key: round(of(values), 2) for key, of in (("min", min), ("median", statistics.median), ("max", max))}
        for name, values in times.items()
    }
    result = {"benchmark": "stop", "unit": "ms", "repetitions": repetitions, "goal": GOAL_MS, "figures": figures}
    print(json.dumps({**result, "missing": missing}))


if __name__ == "__main__":
    main()
