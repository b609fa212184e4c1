"""The app that every tool is given: a folder, and the same commands for all."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

CHILDREN = Path(__file__).parent / "children"
UP = b"@up"


class Flood(NamedTuple):
    """How much one flood is: until any limit is reached."""

    children: int
    line_bytes: int
    megabytes: int  # of all children together
    seconds: float

    @property
    def most_lines(self) -> int:
        return (self.megabytes << 20) // self.line_bytes // self.children


class App:
    """A folder of its own with the pipes that the children and the harness talk through, gone at the end.

    `line` is what an idle child says, nobody ever writes to `hold`, `gate` opens when the harness writes to it, and
    `report` is where the children tell what they did. No command needs a shell: all are simple and without quotes.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", suffix=secrets.token_hex(4))).resolve()
        self.token = self.folder.name
        self.commands: list[str] = []
        (self.folder / "line").write_bytes(UP + b"\n")
        for name in ("hold", "gate", "report"):
            os.mkfifo(self.folder / name)
        # For writing too, so that neither this nor the children wait for each other to open it.
        self.report = os.open(self.folder / "report", os.O_RDWR | os.O_NONBLOCK)
        self._gate = -1

    def __enter__(self) -> App:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.report)
        if self._gate >= 0:
            os.close(self._gate)
        shutil.rmtree(self.folder)

    @property
    def names(self) -> list[str]:
        return [f"w{number}" for number in range(len(self.commands))]

    def idle(self, count: int) -> App:
        """Children that say one line and sleep: `cat` waits for ever to open `hold`, is tiny and dies of SIGTERM."""
        self.commands = [f"cat {self.folder}/line {self.folder}/hold"] * count
        return self

    def flood(self, flood: Flood) -> App:
        program = f"{sys.executable} -I -S {CHILDREN}/flood.py {self.folder}"
        limits = f"{flood.line_bytes} {flood.most_lines} {flood.seconds}"
        self.commands = [f"{program} {child} {limits}" for child in range(flood.children)]
        return self

    def tick(self, rate: int, count: int) -> App:
        self.commands = [f"{sys.executable} -I -S {CHILDREN}/tick.py {self.folder} {rate} {count}"]
        return self

    def open_gate(self) -> None:
        # Open until the end: a child that comes to the gate late finds it open.
        self._gate = os.open(self.folder / "gate", os.O_RDWR)
