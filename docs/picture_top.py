"""Draw docs/top.svg: the live view over a real run of a small app.

    sh .ci/dev picture

Only times, pids and what processes use differ between two runs.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from procman.tui.app import Top
from procman.tui.feed import finder

HERE = Path(__file__).resolve().parent
SIZE = (104, 25)
LOOKS_S = 21.0  # until the lines of use are full
PROCMAN = [sys.executable, "-m", "procman"]

WORK = r"""
import os, random, time
random.seed(int(os.environ["PROCMAN_INSTANCE"]))
kept, number = [], 0
while True:
    number += 1
    end = time.process_time() + random.random() ** 2 * 0.8
    while time.process_time() < end:
        pass
    kept = [bytes(random.randrange(40_000_000))]
    print(f"\x1b[32mjob {number} done\x1b[0m in {random.randrange(20, 900)} ms", flush=True)
    if number % 7 == 0:
        print(f"\x1b[33mWARNING\x1b[0m job {number} was slow", flush=True)
    time.sleep(random.random())
"""
FILES = {
    "work.py": WORK,
    "Procfile": "web: python3 -m http.server $PORT\nworker: python3 work.py\nclock: while :; do date; sleep 5; done\n"
    "mail: sleep 3; exit 1\nassets: echo built\n",
    "procman.toml": 'on_exit = "ignore"\nformation = "all=1,web=2,worker=3"\n[process.mail]\nrestart = "always"\n',
}


async def draw() -> str:
    top = Top(finder(".procman"), lambda name: "", "~/shop")
    async with top.run_test(size=SIZE) as pilot:
        await pilot.pause(LOOKS_S)
        await pilot.press("down", "down", "down", "r")
        await pilot.pause(3.0)
        await pilot.press("up")
        await pilot.pause(2.0)
        return top.export_screenshot(title="procman top")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="picture-") as folder:
        for name, text in FILES.items():
            (Path(folder) / name).write_text(text)
        start = [*PROCMAN, "start", "--detach", "-d", folder, "-p", "5000"]
        subprocess.run(start, check=False, stdout=subprocess.DEVNULL)  # mail does not come up
        try:
            os.chdir(folder)
            drawn = asyncio.run(draw())
        finally:
            os.chdir(HERE)
            subprocess.run([*PROCMAN, "quit", "-d", folder], check=True, stdout=subprocess.DEVNULL)
    # No font from elsewhere: what the reader has does, too.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    (HERE / "top.svg").write_text(drawn)


if __name__ == "__main__":
    main()
