"""The screens of the live view, by Textual's pilot, over real runs: what is drawn at each width, and what keys do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from rich.style import Style
from textual.pilot import Pilot

from procman.tui.app import Top
from procman.tui.feed import finder
from tests.support.app import CEILING_S, App, Run

SLEEP = "exec sleep 1000"
NUMBERS = "seq -f 'line %.0f of it' 100; exec sleep 1000"


class View:
    """A view under a pilot. It waits for what the view tells, and looks at the text that is drawn."""

    def __init__(self, top: Watched, pilot: Pilot[int]) -> None:
        self.top = top
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        await self.pilot.press(*text)

    async def until(self, pattern: str) -> re.Match[str]:
        """Wait until what is drawn matches."""
        try:
            async with asyncio.timeout(CEILING_S):
                while not (found := re.search(pattern, self.text)):
                    self.top.changed.clear()
                    await self.top.changed.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} in\n{self.text}") from None

    @property
    def segments(self) -> list[tuple[str, Style]]:
        """Return what is drawn, with its style."""
        screen = self.top.screen
        drawn = [segment for strip in screen._compositor.render_strips(screen.size) for segment in strip]
        return [(segment.text, segment.style or Style()) for segment in drawn if not segment.control]

    @property
    def lines(self) -> list[str]:
        """Return the lines of the screen, as wide as it is."""
        screen = self.top.screen
        strips = screen._compositor.render_strips(screen.size)
        return ["".join(segment.text for segment in strip if not segment.control) for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


class Watched(Top):
    """A view that tells when it may have drawn something new."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.changed = asyncio.Event()

    def _display(self, *arguments: Any) -> None:
        super()._display(*arguments)
        self.changed.set()


def see(app: App, size: tuple[int, int], look: Callable[[View], Awaitable[None]], **more: Any) -> Watched:
    """Open a view over what runs in the app's directory, and let `look` look at it."""

    async def run() -> Watched:
        directory = str(app.root / ".procman")
        attach = more.pop("attach", lambda name: f"{name} is not attached here")
        top = Watched(finder(directory), attach, more.pop("place", "~/app"), **more)
        async with top.run_test(size=size) as pilot:
            await look(View(top, pilot))
        return top

    return asyncio.run(run())


def started(app: App, procfile: str, *arguments: str, names: tuple[str, ...] = ("web.1",)) -> Run:
    run = app(procfile).start(*arguments)
    run.wait_all("ready", names)
    return run


Look = Callable[[View], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 30), (200, 50)], ids=str)
def test_the_main_screen(app: App, size: tuple[int, int]) -> None:
    run = started(
        app,
        f"web: {NUMBERS}\nworker: {SLEEP}\nlongest-of-all: {SLEEP}\n",
        names=("web.1", "worker.1", "longest-of-all.1"),
    )

    async def look(view: View) -> None:
        await view.until(r"line 100 of it")
        await view.until(r"▆▆")  # a second look at the memory
        width, height = size
        assert [len(line) for line in view.lines] == [width] * height
        assert view.lines[0].startswith(" procman ~/app  3 ready ")
        heading = view.lines[1]
        assert all(word in heading for word in ("NAME", "STATE", "UPTIME", "CPU%"))
        assert ("RESTARTS" if width > 60 else " RST ") in heading
        at = heading.index("STATE")
        assert [line[at : at + 5] for line in view.lines[2:5]] == ["ready"] * 3
        assert [line.split()[0] for line in view.lines[2:5]] == ["web.1", "worker.1", "longest-of-all.1"]
        assert f"web.1  ready  pid {run.pid_of('web.1')}" in view.text
        assert re.search(r"\? help +q quit", view.lines[-1])
        if width >= 160:  # the log stands beside the table
            assert re.match(r"web\.1  ready", view.lines[1][width - view.top.query_one("#log-pane").size.width :])
        else:
            assert view.lines[5].startswith("web.1  ready")

    see(app, size, look)


def test_little_room_is_no_error(app: App) -> None:
    started(app, f"web: {NUMBERS}\n")

    async def look(view: View) -> None:
        for size in ((1, 1), (10, 3), (20, 5), (40, 10), (300, 100)):
            await view.pilot.resize_terminal(*size)
            await view.press("down", "question_mark", "escape", "k", "escape", "slash", "escape")
        await view.until(r"web\.1 +ready")

    see(app, (80, 24), look)


def test_with_little_room_the_help_and_the_way_out_are_told(app: App) -> None:
    started(app, f"web: {SLEEP}\n")

    async def look(view: View) -> None:
        await view.until(r"web\.1 +ready")
        assert re.search(r"\n.*\? help +q quit\Z", view.text)
        assert "r restart" not in view.text

    see(app, (40, 10), look)


def test_a_folder_whose_name_is_no_line_of_text(app: App) -> None:
    """Its escape sequences are not the terminal's, and what is no UTF-8 is no error."""
    started(app, f"web: {SLEEP}\n")

    async def look(view: View) -> None:
        await view.until(r"\A procman ~/e \[31mvil \[b\] and more  1 ready")
        assert all(char.isprintable() for line in view.lines for char in line)

    see(app, (80, 24), look, place="~/e\x1b[31mvil\udcff[b]\nand more")


def test_the_help(app: App) -> None:
    started(app, f"web: {SLEEP}\n")

    async def look(view: View) -> None:
        await view.press("question_mark")
        await view.until(r"Ctrl-\] comes back")
        for key in (
            "restart it",
            "stop it, start it",
            "one more or one less",
            "send it a signal",
            "hold the log still",
        ):
            assert key in view.text
        assert "leave the view: everything goes on" in view.text
        assert "closes this" in view.text  # so all of it is seen on the smallest usual terminal
        await view.press("q")
        assert view.top.is_running
        await view.until(r"web\.1 +ready(?s:(?!.*closes this))")

    see(app, (80, 24), look)


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 50)], ids=str)
def test_the_signals(app: App, size: tuple[int, int]) -> None:
    started(app, f"web: {SLEEP}\n")

    async def look(view: View) -> None:
        await view.until(r"web\.1 +ready")
        await view.press("k")
        await view.until(r"│ Signal to web\.1 .*│")
        await view.press("down")
        await view.until(r"│ QUIT   end, with a core dump +│")
        names = ("HUP ", "INT ", "QUIT ")
        reverse = [text.split()[0] for text, style in view.segments if style.reverse and text.startswith(names)]
        assert reverse == ["INT"]  # one sees which one is sent
        await view.press("escape")
        await view.until(r"\A(?!(?s:.*)Signal to)")

    see(app, size, look)


def test_search(app: App) -> None:
    started(app, f"web: {NUMBERS}\n")

    async def look(view: View) -> None:
        await view.until("line 100 of it")
        await view.press("slash")
        await view.until("a regular expression; Enter finds")
        await view.type("LINE 1.? of")
        await view.press("enter")
        await view.until("not found")  # capitals are meant
        await view.press("slash", "ctrl+u")
        await view.type("line 1.? of")
        await view.press("enter")
        await view.until(r"line 11 of 11 — n older, N newer")
        await view.until("line 19 of it")
        assert "line 100 of it" not in view.text
        await view.press("n")
        await view.until("line 10 of 11")
        await view.press("N")
        await view.until("line 11 of 11")
        await view.press("slash", "ctrl+u")
        await view.type("(")
        await view.press("enter")
        await view.until("no regular expression: missing \\)")
        await view.press("escape")
        await view.until("line 100 of it")

    see(app, (80, 24), look)


def test_a_search_that_would_take_for_ever(app: App) -> None:
    started(app, f"web: yes 'level info, and a number 1234' | head -c 1500 | tr '\\n' x; echo; {NUMBERS}\n")

    async def look(view: View) -> None:
        await view.until("line 100 of it")
        await view.press("slash")
        await view.type("(x*)*(.*)*timeout")
        await view.press("enter")
        await view.until("this expression takes too long on these lines")
        await view.press("slash", "ctrl+u")
        await view.type("level.*1234")
        await view.press("enter")
        await view.until("line 1 of 1 ")

    see(app, (80, 24), look)


def test_pause(app: App) -> None:
    gate = app.fifo()
    run = started(app, f"web: echo first; read x < {gate}; echo second; exec sleep 1000\n")

    async def look(view: View) -> None:
        await view.until("first")
        await view.press("space")
        await view.until(" paused +web.1")
        gate.send()
        await asyncio.to_thread(run.wait_output, "second")
        now = re.escape((await view.until(r"  up \d+s"))[0])
        await view.until(rf"  up (?!{now[5:]})")  # the table goes on
        assert "second" not in view.text
        await view.press("space")
        await view.until("second")
        assert view.text.count("first") == 1

    see(app, (80, 24), look)


def test_colours_of_a_program_stay_and_nothing_else(app: App) -> None:
    started(
        app,
        r"web: printf '\033[31mred\033[0m \033[2Jcleared \033]0;title\007\a\tend\r\nover\rnew\n'; exec sleep 9" + "\n",
    )

    async def look(view: View) -> None:
        await view.until(r"red +cleared +end")
        await view.until(r"\n +new|\nnew")
        red = dict(view.segments)["red"]
        assert red.color is not None
        assert red.color.number == 1
        assert not any(ord(char) < 32 for line in view.lines for char in line)

    see(app, (80, 24), look)


def test_names_and_commands_that_look_like_markup(app: App) -> None:
    started(app, "web: : [bold]not markup[/] [@click=app.leave]x[/]; exec sleep 1000\n")

    async def look(view: View) -> None:
        await view.until(re.escape("[bold]not markup[/]"))

    see(app, (150, 24), look)


def test_it_waits_for_a_run_and_ends_with_one(app: App) -> None:
    app(f"web: {SLEEP}\n")
    gate = app.fifo()

    async def look(view: View) -> None:
        await view.until("looking again: no procman runs")
        run = await asyncio.to_thread(started, app, f"web: {SLEEP}\n")
        await view.until(r"web\.1 +ready")
        await view.press("s")
        await asyncio.to_thread(run.wait_for, "exited", "web.1")
        await view.until(r"web\.1 +stopped")
        gate.send()
        async with asyncio.timeout(CEILING_S):
            while view.top.is_running:  # `until` has returned
                await view.pilot.pause()

    see(app, (80, 24), look, until=gate.receive)


def test_a_bug_in_the_view_is_told_by_the_command(app: App) -> None:
    """The threads never die of an answer that they do not understand."""
    started(app, f"web: {SLEEP}\n")

    async def look(view: View) -> None:
        await view.until(r"web\.1 +ready")
        view.top._looks._find = lambda: 1 / 0  # type: ignore[assignment,return-value]
        await view.until("looking again: procman: a bug of ours: ZeroDivisionError")

    see(app, (80, 24), look)


def test_what_vanishes_while_it_is_selected(app: App) -> None:
    """A key that is pressed once more is for the same type, and a signal for whom it was chosen."""
    run = started(app, f"web: {SLEEP}\nworker: {SLEEP}\n", "web=3", "worker=2", names=("web.3", "worker.2"))

    async def look(view: View) -> None:
        await view.until(r"worker\.2 +ready")
        await view.press("down", "down", "k")
        await view.until(r"Signal to web\.3")
        await asyncio.to_thread(app.call, "scale", "web=2")
        await view.until(r"\A(?!(?s:.*)web\.3 +ready)")
        await view.press("end", "enter")  # WINCH
        await view.until(r"signal WINCH web\.3: (?!done|…)")
        assert view.top._table.selected is not None
        assert view.top._table.selected["name"] == "web.2"
        await view.press("minus")
        await view.until(r"scale web=-1: done")
        await view.until(r"\A(?!(?s:.*)web\.2 +ready)(?s:.*)web\.1  ready")
        assert not [event for event in run.events if event.is_("stopping", "worker.2")]

    see(app, (120, 24), look)
