"""The live view: instances, the log of one of them, and keys. All it shows and does goes through the client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.events import Resize
from textual.message import Message as TextualMessage
from textual.widgets import Input, Static

from procman.control.protocol import Message
from procman.control.table import colour_of, duration_text, printable, size_text, state_text
from procman.errors import EXIT_BUG
from procman.tui.dialogs import Help, Signals
from procman.tui.feed import Actions, Find, Log, Looks
from procman.tui.instances import STYLES, Instances
from procman.tui.log import LogView, TooSlow

BESIDE_COLUMNS = 160  # from so many on the log stands beside the table
MIN_PLACE = 12  # of a path so much is told however little room there is: its end
MAX_KEY_LINES = 2
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

KEYS = (
    ("restart", "r", "restart"),
    ("stop", "s", "stop"),
    ("start", "S", "start"),
    ("scale('+1')", "+", "more"),
    ("scale('-1')", "-", "less"),
    ("attach", "a", "attach"),
    ("signal", "k", "signal"),
    ("search", "/", "search"),
    ("pause", "space", "pause"),
    ("help", "?", "help"),
    ("leave", "q", "quit"),
)


class News(TextualMessage):
    """A thread has something for us."""


class Said(TextualMessage):
    """What came of something that was asked for."""

    def __init__(self, text: str, is_error: bool) -> None:
        super().__init__()
        self.text = text
        self.is_error = is_error


class Top(App[int]):
    """The view of the supervisors that `find` finds."""

    TITLE = "procman"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #title, #about, #said { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #title { text-style: bold; }
    #panes { height: 1fr; layout: vertical; }
    #instances { height: auto; min-height: 2; max-height: 45%; overflow-x: hidden; overflow-y: auto; }
    #log-pane { height: 1fr; }
    #log { height: 1fr; overflow: auto auto; }
    #instances, #log { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    #instances:focus, #log:focus { scrollbar-color: ansi_green; }
    #about { text-style: underline; }
    #search { display: none; height: 1; border: none; padding: 0; }
    #keys { height: auto; max-height: 2; link-color: ansi_default; link-style: none; link-color-hover: ansi_default; }
    .beside #panes { layout: horizontal; }
    .beside #instances { width: 45%; height: 100%; max-height: 100%; margin-right: 1; }
    .beside #log-pane { width: 1fr; height: 100%; }
    Signals, Help { align: center middle; }
    .dialog { width: auto; max-width: 100%; height: auto; max-height: 100%; border: solid ansi_green; padding: 0 1; }
    Signals .dialog { width: 60; }
    Help .dialog { width: 80; }
    OptionList { height: auto; max-height: 1fr; border: none; padding: 0; }
    OptionList > .option-list--option-highlighted { color: ansi_default; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "restart", show=False),
        Binding("s", "stop", show=False),
        Binding("S", "start", show=False),
        Binding("plus,equals_sign", "scale('+1')", show=False),
        Binding("minus", "scale('-1')", show=False),
        Binding("a", "attach", show=False),
        Binding("k", "signal", show=False),
        Binding("slash", "search", show=False),
        Binding("n", "find(-1)", show=False),
        Binding("N", "find(1)", show=False),
        Binding("space", "pause", show=False),
        Binding("escape", "newest", show=False),
        Binding("question_mark,f1", "help", show=False),
        Binding("q,ctrl+q", "leave", show=False),
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    def __init__(
        self,
        find: Find,
        attach: Callable[[str], str],
        place: str = "",
        leave: str = "everything goes on",
        until: Callable[[], object] | None = None,
    ) -> None:
        """`attach` is at the terminal of an instance, and returns a complaint; `leave` says what leaving does.

        `until` blocks until there is nothing more to see; then the view ends by itself.
        """
        super().__init__(ansi_color=True)  # the colours of the user's own terminal: dark or light, sixteen are enough
        self.failure: Exception | None = None
        self._be_at = attach
        self._place = printable(place)
        self._leave = leave
        self._until = until
        self._looks = Looks(find, self._tell_news)
        self._feed = Log(find, self._tell_news)
        self._actions = Actions(find, lambda text, is_error: self._tell(Said(text, is_error)))
        self._instances: dict[str, Message] = {}
        self._followed = ""
        self._is_paused = False
        self._is_drawn = False  # the first size comes before there is anything
        self._is_left = False
        self._trouble = ""  # with all that runs
        self._log_trouble = ""

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        with Container(id="panes"):
            yield Instances()
            with Vertical(id="log-pane"):
                yield Static(id="about", markup=False)
                yield LogView()
        yield Static(id="said", markup=False)
        yield Input(id="search", placeholder="a regular expression; Enter finds, Esc ends")
        yield Static(id="keys")

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self.animation_level = "none"  # a key's effect is there at once
        self._table, self._view = self.query_one(Instances), self.query_one(LogView)
        self._title_line = self.query_one("#title", Static)
        self._about = self.query_one("#about", Static)
        self._said = self.query_one("#said", Static)
        self._search = self.query_one("#search", Input)
        self._keys = self.query_one("#keys", Static)
        self._is_drawn = True
        self._show_keys()
        self._table.focus()
        self._table.nothing = "looking …"
        self._looks.begin()
        self._feed.begin()
        for signum in ENDING:
            with contextlib.suppress(ValueError, RuntimeError):  # not the main thread
                asyncio.get_running_loop().add_signal_handler(signum, self.exit, 128 + signum)
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGHUP, self._on_hang_up)
        if self._until is not None:
            threading.Thread(target=self._wait, args=(self._until,), daemon=True).start()

    def _on_hang_up(self, signum: int, frame: object) -> None:
        """End at once if the terminal is gone: a thread may wait for ever to draw on it."""
        try:
            os.get_terminal_size(1)
        except OSError:
            os._exit(128 + signum)
        self.call_later(self.exit, 128 + signum)

    def on_unmount(self) -> None:
        self._is_left = True
        self._looks.close()
        self._feed.close()

    def _wait(self, until: Callable[[], object]) -> None:
        until()
        with contextlib.suppress(RuntimeError):  # it has been left already
            self.call_from_thread(self.exit, 0)

    def on_resize(self, event: Resize) -> None:
        self.screen_stack[0].set_class(event.size.width >= BESIDE_COLUMNS, "beside")
        if self._is_drawn:
            self.call_later(self._show_title)  # when `size` is the new one
            self.call_later(self._show_keys)

    def _handle_exception(self, error: Exception) -> None:
        """End with what the command says in a line: no traceback, unless somebody wants one."""
        if self.is_headless or os.environ.get("PROCMAN_DEBUG"):
            super()._handle_exception(error)
        else:
            self.failure = error
            self.exit(EXIT_BUG)

    # --- news from the threads ---

    def _tell(self, message: TextualMessage) -> None:
        with contextlib.suppress(RuntimeError):  # the view has ended
            self.post_message(message)

    def _tell_news(self) -> None:
        self._tell(News())

    def on_news(self) -> None:
        if (look := self._looks.take()) is not None:
            self._instances = {instance["name"]: instance for instance in look.instances}
            self._trouble = look.trouble
            self._table.nothing = "nothing runs here" if not look.trouble else ""
            self._table.show_all(look.instances)
            self._show_title()
            self._show_about()
        if (frame := self._feed.take()) is not None and frame.name == self._followed:
            self._log_trouble = frame.trouble
            if frame.is_new:
                self._view.nothing = f"{frame.name} has written nothing yet"
                self._view.clear()
            self._view.add(frame.parts)
            self._show_about()

    def on_said(self, said: Said) -> None:
        self.say(said.text, said.is_error)
        self._looks.hurry()

    def on_instances_selected(self) -> None:
        if (instance := self._table.selected) is not None and not self._is_left:
            self._followed = instance["name"]
            self._is_paused = False
            self._view.nothing = ""
            self._view.clear()
            self._feed.show(self._followed)
            self._show_about()

    # --- lines of text ---

    def say(self, text: str, is_error: bool = False) -> None:
        self._said.update(Text(printable(text), style=STYLES_SAID[is_error]))

    def _show_title(self) -> None:
        states = Counter(state_text(instance).partition(" ")[0] for instance in self._instances.values())
        told = ", ".join(f"{count} {state}" for state, count in states.most_common())
        if self._trouble:
            told = f"looking again: {printable(self._trouble.partition(' — ')[0])}  {told}"
        room = max(MIN_PLACE, self.size.width - len(f" procman   {told}"))
        place = self._place if len(self._place) <= room else f"…{self._place[1 - room :]}"
        self._title_line.update(Text(f" procman {place}  ").append(told, style=Style(bold=bool(self._trouble))))

    def _show_about(self) -> None:
        """Say all of the selected instance that a narrow table leaves out."""
        about = Text()
        instance = self._instances.get(self._followed)
        if self._is_paused:
            about.append(" paused ", style=Style(reverse=True, bold=True))
            about.append(" ")
        about.append(self._followed, style=Style(bold=True))
        if self._log_trouble and self._log_trouble != self._trouble:
            about.append(f"  {printable(self._log_trouble)}", style=Style(color="red"))
        elif instance is not None:
            state = state_text(instance)
            about.append(f"  {state}", style=STYLES[colour_of(instance, state)])
            about.append(f"  {_details(instance)}")
        self._about.update(about)

    def _show_keys(self) -> None:
        """Say the keys, each with its word on one line; each can be clicked, too."""
        lines: list[list[str]] = [[]]
        left = self.size.width
        for action, key, what in KEYS:
            size = len(f"{key} {what}")
            if size > left and lines[-1]:
                lines.append([])
                left = self.size.width
            left -= size + 2
            lines[-1].append(f"[@click=app.{action}][b]{key}[/b] {what}[/]")
        shown = lines if len(lines) <= MAX_KEY_LINES else lines[-1:]  # the help knows the others
        self._keys.update("\n".join("  ".join(line) for line in shown))

    # --- keys ---

    def _ask(self, verb: str) -> None:
        instance = self._table.selected
        if instance is None:
            self.say("nothing is selected", True)
        else:
            self._actions.of_instance(f"{verb} {instance['name']}", instance["name"], {"do": verb})

    def action_restart(self) -> None:
        self._ask("restart")

    def action_stop(self) -> None:
        self._ask("stop")

    def action_start(self) -> None:
        self._ask("start")

    def action_scale(self, step: str) -> None:
        if (instance := self._table.selected) is None:
            self.say("nothing is selected", True)
        else:
            self._actions.scale(f"scale {instance['type']}={step}", instance["type"], step)

    def action_signal(self) -> None:
        if (instance := self._table.selected) is None:
            self.say("nothing is selected", True)
        else:
            self.push_screen(Signals(instance["name"]), partial(self._send, instance["name"]))

    def _send(self, name: str, signal_name: str | None) -> None:
        """Send a signal to the instance for which it was chosen, whichever is selected by now."""
        if signal_name:
            self._actions.of_instance(f"signal {signal_name} {name}", name, {"do": "signal", "signal": signal_name})

    def action_attach(self) -> None:
        if (instance := self._table.selected) is None:
            self.say("nothing is selected", True)
            return
        came: list[int] = []
        try:
            with self.suspend(), _away() as came:
                complaint = self._be_at(instance["name"])
        except SuspendNotSupported:
            complaint = "attach needs a terminal, and this is none"
        self.say(complaint or f"back from {instance['name']}", bool(complaint))
        self._looks.hurry()
        self.refresh(layout=True)
        for signum in came:
            if signum in (signal.SIGTERM, signal.SIGHUP):
                self.exit(128 + signum)

    def action_suspend_process(self) -> None:
        """Stop all of the job, as the terminal itself would: what has started us, as `uv run`, would keep the terminal.

        The kernel passes over it where no shell could continue us, as under `ssh -t`.
        """
        with contextlib.suppress(SuspendNotSupported), self.suspend():
            before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(0, signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, before)

    def action_pause(self) -> None:
        if self._followed and not self._is_left:
            self._is_paused = not self._is_paused
            self._feed.show(self._followed, self._is_paused)
            self._show_about()

    def action_newest(self) -> None:
        self._end_search()
        self._view.search(None)
        self._view.follow()
        self._table.focus()
        self.say("")

    def action_help(self) -> None:
        self.push_screen(Help(self._leave))

    def action_leave(self) -> None:
        self.exit(0)

    # --- search ---

    def action_search(self) -> None:
        self._search.display = True
        self._said.display = False
        self._search.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        with contextlib.suppress(re.error):  # it is not all there yet
            self._view.search(_pattern(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._end_search()
        try:
            self._view.search(_pattern(event.value))
        except re.error as error:
            self.say(f"no regular expression: {error}", True)
        else:
            self.action_find(-1)

    def _end_search(self) -> None:
        self._search.display = False
        self._said.display = True
        self._view.focus()

    def action_find(self, step: int) -> None:
        try:
            which, count = self._view.find(step)
        except TooSlow:
            self.say("this expression takes too long on these lines", True)
            return
        self.say(f"line {which} of {count} — n older, N newer, Esc ends" if count else "not found", not count)


STYLES_SAID = {False: Style(), True: Style(color="red", bold=True)}


def _pattern(text: str) -> re.Pattern[str] | None:
    return re.compile(text, re.IGNORECASE if text == text.lower() else 0) if text else None


def _details(instance: Message) -> str:
    """Return what there is to say of an instance beside its name and state."""
    told = [
        f"for {', '.join(map(str, instance['waits_for']))}" if instance.get("waits_for") else "",
        f"pid {instance['pid']}" if instance["pid"] is not None else "",
        f"port {instance['port']}" if instance["port"] is not None else "",
        f"up {duration_text(instance['uptime_s'])}" if instance["uptime_s"] is not None else "",
        f"{instance['restarts']} restarts" if instance["restarts"] != 1 else "1 restart",
        f"{instance['cpu_percent']:.1f}% CPU" if instance["cpu_percent"] is not None else "",
        size_text(instance["memory_bytes"]) if instance["memory_bytes"] is not None else "",
        printable(str(instance["command"])),
    ]
    return "  ".join(filter(None, told))


@contextlib.contextmanager
def _away() -> Iterator[list[int]]:
    """Leave the terminal's signals to who uses it now, a child, and note which ones came."""
    came: list[int] = []
    wakeup_fd = signal.set_wakeup_fd(-1)  # by which the loop hears of them
    before = {
        signum: signal.signal(signum, lambda signum, frame: came.append(signum)) for signum in (*ENDING, signal.SIGQUIT)
    }
    try:
        yield came
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup_fd)
