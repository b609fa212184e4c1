"""Draw docs/start.svg: the terminal after a real run of the example app, stopped with Ctrl-C.

    sh .ci/dev picture

Only times, pids and the order of lines that processes write at the same moment differ between two runs.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte

HERE = Path(__file__).resolve().parent
COMMAND = "procman start web=2 worker"
COLUMNS, ROWS = 80, 26
CEILING_S = 30

CELL_W, CELL_H, FONT_PX = 8.4, 19, 14
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
MARGIN, BAR_H = 16, 34
INK, PAPER, BAR = "#d8dee9", "#1b1f27", "#2a303b"
# pyte calls yellow brown.
COLOURS = {
    "black": "#5c6370", "red": "#f07178", "green": "#a5d66f", "brown": "#f2c56b", "blue": "#6cb6ff",
    "magenta": "#d19aff", "cyan": "#5fd7e0", "white": "#d8dee9", "default": INK,
}  # fmt: skip
BRIGHT = {f"bright{name}": colour for name, colour in COLOURS.items()}


class Session:
    """A command on a terminal of its own, and what the terminal shows."""

    def __init__(self, argv: list[str], cwd: str) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._stream.feed(f"$ {COMMAND}\r\n".encode())
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            hidden = ("NO_COLOR", "FORCE_COLOR", "PORT")
            env = {name: value for name, value in os.environ.items() if name not in hidden}
            os.execve(argv[0], argv, env | {"TERM": "xterm-256color"})
        import termios

        termios.tcsetwinsize(self._fd, (ROWS, COLUMNS))

    def read_until(self, *texts: str) -> None:
        """Feed the screen until it shows all `texts`; without any, until the command has ended."""
        deadline = time.monotonic() + CEILING_S
        while not texts or not all(text in self.text() for text in texts):
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise SystemExit(f"waited for {texts or 'the end'}; the terminal shows:\n{self.text()}")
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                data = b""
            if not data:
                break
            self._stream.feed(data)
        if texts and not all(text in self.text() for text in texts):
            raise SystemExit(f"ended before {texts}; the terminal shows:\n{self.text()}")

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def text(self) -> str:
        return "\n".join(self.screen.display)


def run_example() -> pyte.Screen:
    """Start the app, give it a short and a long job, press Ctrl-C during the long one."""
    procman = shutil.which("procman", path=str(Path(sys.executable).parent)) or "procman"
    with tempfile.TemporaryDirectory() as folder:
        app = shutil.copytree(HERE.parent / "examples", f"{folder}/app", ignore=shutil.ignore_patterns("*.sqlite3*"))
        subprocess.run([procman, "run", "manage", "migrate"], cwd=app, check=True, stdout=subprocess.DEVNULL)
        session = Session([procman, *COMMAND.split()[1:]], app)
        session.read_until(":5000", ":5001", "waiting for jobs")
        enqueue(5000, "to be or not to be", 0)
        session.read_until("job 1 done")
        enqueue(5001, "that is the question", 60)
        session.read_until("job 2 started")
        session.press(b"\x03")
        session.read_until()
        os.waitpid(session.pid, 0)
        return session.screen


def enqueue(port: int, text: str, seconds: int) -> None:
    body = json.dumps({"text": text, "seconds": seconds}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{port}/jobs", body, timeout=CEILING_S).close()


def to_svg(screen: pyte.Screen) -> str:
    """Return the rows that hold text as a window of a terminal."""
    rows = [number for number, row in enumerate(screen.display) if row.strip()]
    count = rows[-1] + 1
    width, height = 2 * MARGIN + COLUMNS * CELL_W, BAR_H + 2 * MARGIN + count * CELL_H - 4
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">',
        f"<title>The coloured output of {COMMAND} in a terminal</title>",
        f'<rect width="100%" height="100%" rx="9" fill="{PAPER}"/>',
        f'<path d="M0 {BAR_H}V9a9 9 0 0 1 9-9H{width - 9:g}a9 9 0 0 1 9 9V{BAR_H}z" fill="{BAR}"/>',
        *(
            f'<circle cx="{20 + 20 * at}" cy="{BAR_H / 2:g}" r="6" fill="{colour}"/>'
            for at, colour in enumerate(("#f07178", "#f2c56b", "#a5d66f"))
        ),
        f'<g font-family="{FONTS}" font-size="{FONT_PX}" fill="{INK}" xml:space="preserve">',
        f'<text x="{width / 2:g}" y="{BAR_H / 2 + 5:g}" text-anchor="middle" fill="#9aa5b8">procman</text>',
        *(line for row in range(count) if (line := row_to_svg(screen.buffer[row], row))),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def row_to_svg(cells: Any, row: int) -> str:
    """Return a `text` with a `tspan` per style; their fixed places and lengths keep the columns whatever the font."""
    y = BAR_H + MARGIN + row * CELL_H + FONT_PX - 1
    spans = []
    styled = groupby(range(COLUMNS), key=lambda column: (cells[column].fg, cells[column].bold))
    for (colour, is_bold), group in styled:
        columns = list(group)
        text = "".join(cells[column].data for column in columns)
        start, text = columns[0] + len(text) - len(text.lstrip()), text.strip()
        if not text:
            continue
        fill = COLOURS.get(colour) or BRIGHT.get(colour) or f"#{colour}"
        style = (f' fill="{fill}"' if fill != INK else "") + (' font-weight="bold"' if is_bold else "")
        place = f'x="{MARGIN + start * CELL_W:.1f}" textLength="{len(text) * CELL_W:.1f}"'
        spans.append(f'<tspan {place} lengthAdjust="spacingAndGlyphs"{style}>{escape(text)}</tspan>')
    return f'<text y="{y:g}">{"".join(spans)}</text>' if spans else ""


def main() -> None:
    target = HERE / "start.svg"
    target.write_text(to_svg(run_example()))
    print(f"{target.relative_to(HERE.parent)}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
