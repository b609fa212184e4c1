"""What opens above the view: the signals to send, and the help."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from procman.tui.instances import SELECTED

SIGNALS = (
    ("HUP", "read the configuration again, mostly"),
    ("INT", "Ctrl-C"),
    ("QUIT", "end, with a core dump"),
    ("USR1", "what the program makes of it"),
    ("USR2", "what the program makes of it"),
    ("TERM", "end"),
    ("KILL", "end, cannot be refused"),
    ("STOP", "stand still"),
    ("CONT", "go on"),
    ("WINCH", "the window has changed"),
)

HELP = """\
[b]↑ ↓ PgUp PgDn Home End[/b]  choose an instance; a click does, too
[b]Tab[/b]    go to the log and back; there the same keys scroll, ← → sideways
[b]r[/b]      restart it; also starts one that was stopped
[b]s[/b] [b]S[/b]    stop it, start it
[b]+[/b] [b]-[/b]    one more or one less of its process type
[b]a[/b]      attach: your terminal becomes its own; Ctrl-] comes back
[b]k[/b]      send it a signal, from a list
[b]/[/b]      search its log: a regular expression; small letters find capitals
[b]n[/b] [b]N[/b]    the next older, newer line in which it is found
[b]space[/b]  hold the log still, and go on
[b]Esc[/b]    end the search, go to the newest line
[b]q[/b]      leave the view: {leave}

What the log cannot show in time is counted: … 4.1M passed over …
CPU is a share of one core in the last second; a full bar is a core, or
the most there has been. Memory is that of all the instance's processes.

Any of [b]Esc q ? Enter[/b] closes this."""


class Choice(OptionList):
    """A list whose highlighted option is reversed, as is the selected instance: Textual's styles drop that word."""

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        options = {segment.style.meta.get("option") for segment in strip if segment.style is not None}
        return strip.apply_style(SELECTED) if self.highlighted in options else strip


class Signals(ModalScreen[str]):
    """Asks which signal to send; "" for none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss('')", show=False)]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name_of_instance = name

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"Signal to {self._name_of_instance}  (Enter sends, Esc does not)", markup=False)
            yield Choice(*(Option(f"{name:<6} {what}", id=name) for name, what in SIGNALS))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id or "")


class Help(ModalScreen[None]):
    """All keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss(None)", show=False)]

    def __init__(self, leave: str) -> None:
        super().__init__()
        self._leave = leave

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog"):
            yield Static(HELP.format(leave=self._leave))
