"""The table of instances: drawn as far as it is seen, so that a thousand cost what thirty do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message as TextualMessage
from textual.scroll_view import ScrollView
from textual.strip import Strip

from procman.control.protocol import Message
from procman.control.table import DIM, GREEN, RED, TO_THE_RIGHT, YELLOW, cells_of, colour_of, cut, width_of
from procman.tui.columns import Layout, Past

STYLES = {
    GREEN: Style(color="green"),
    YELLOW: Style(color="yellow"),
    RED: Style(color="red", bold=True),
    DIM: Style(dim=True),
}
LINE_STYLES = {"cpu_line": Style(color="cyan"), "memory_line": Style(color="magenta")}
HEADING = Style(bold=True)
SELECTED = Style(bold=True, reverse=True)


class Instances(ScrollView, can_focus=True):
    """The instances, one of them selected. The heading stays where it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
    ]

    class Selected(TextualMessage):
        """Another instance is selected."""

    def __init__(self) -> None:
        super().__init__(id="instances")
        self._instances: Sequence[Message] = ()
        self._past = Past()
        self._at = 0
        self._chosen = ""  # of the selected one, also while there is none: it may come back
        self._layout_of = (-1, Layout((), 80))
        self.nothing = ""  # what to say where there is none

    @property
    def selected(self) -> Message | None:
        return self._instances[self._at] if self._instances else None

    def show_all(self, instances: Sequence[Message]) -> None:
        """Show these; the same instance stays selected, else the last of its type, or who stands in its place."""
        self._past.add(instances)
        self._instances = instances
        names = [instance["name"] for instance in instances]
        types = [instance["type"] for instance in instances]
        process_type = self._chosen.rpartition(".")[0]
        if self._chosen in names:
            self._at = names.index(self._chosen)
        elif process_type in types:  # or a second `-` would be another type's
            self._at = len(types) - 1 - types[::-1].index(process_type)
        self._at = max(0, min(self._at, len(names) - 1))
        self._layout_of = (-1, self._layout_of[1])
        self.virtual_size = Size(1, max(2, 1 + len(instances)))
        self._show_cursor()
        self.refresh()
        self._tell()

    # --- moving ---

    def action_move(self, by: int) -> None:
        self._select(self._at + by)

    def action_page(self, by: int) -> None:
        self._select(self._at + by * max(1, self.size.height - 1))

    def on_click(self, event: Click) -> None:
        at = event.y - 1 + self.scroll_offset.y
        if event.y > 0 and at < len(self._instances):
            self._select(at)

    def on_resize(self, event: Resize) -> None:
        self._show_cursor()

    def _select(self, at: int) -> None:
        at = max(0, min(at, len(self._instances) - 1))
        if self._instances and at != self._at:
            self._at = at
            self._show_cursor()
            self.refresh()
            self._tell()

    def _tell(self) -> None:
        if self.selected is not None and self.selected["name"] != self._chosen:
            self._chosen = self.selected["name"]
            self.post_message(self.Selected())

    def _show_cursor(self) -> None:
        rows = self.size.height - 1
        if rows <= 0:
            return
        top = self.scroll_offset.y
        if self._at < top or self._at >= top + rows:
            y = self._at if self._at < top else self._at - rows + 1
            self.scroll_to(y=y, animate=False, immediate=True, force=True)

    # --- drawing ---

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        layout = self._layout(width)
        at = self.scroll_offset.y + y - 1
        if y == 0:
            return self._row(layout, {**layout.headings}, {}, base + HEADING)
        if not self._instances and y == 1:
            return Strip([Segment(cut(self.nothing, width), base + STYLES[DIM])]).extend_cell_length(width, base)
        if at >= len(self._instances):
            return Strip.blank(width, base)
        instance = self._instances[at]
        cells = self._past.cells_of(instance, layout.widths)
        if at == self._at:
            return self._row(layout, cells, {}, base + SELECTED)
        styles = {"state": STYLES[colour_of(instance, cells["state"])], **LINE_STYLES}
        return self._row(layout, cells, styles, base)

    def _layout(self, width: int) -> Layout:
        if self._layout_of[0] != width:
            self._layout_of = (width, Layout(map(cells_of, self._instances), width))
        return self._layout_of[1]

    def _row(self, layout: Layout, cells: dict[str, str], styles: dict[str, Style], base: Style) -> Strip:
        segments = []
        for column, width in layout.widths.items():
            text = cut(cells.get(column, ""), width)
            padding = " " * (width - width_of(text))
            text = padding + text if column in TO_THE_RIGHT else text + padding
            segments += [Segment(text, base + styles.get(column, Style())), Segment(" " * layout.gap, base)]
        return Strip(segments[:-1]).adjust_cell_length(self.size.width, base)
