"""Events for machines: one JSON object a line, with the names of docs/events.md."""

from __future__ import annotations

import codecs
import json

from procman.events import Event, Output
from procman.sinks.stream import Stream


class JsonLines:
    """Writes events to a Stream as JSON lines. Output is decoded as UTF-8, odd bytes as U+FFFD, a line an object."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}  # of lines that come in pieces

    @property
    def is_idle(self) -> bool:
        return self._stream.is_idle

    def close(self) -> None:
        self._stream.flush()

    def write(self, event: Event) -> None:
        if type(event) is not Output:
            self._write_object({"event": type(event).__name__.lower(), **event._asdict()})
            return
        for line in event.block.split(b"\n")[:-1]:
            self._write_output(event, line, False)
        rest = event.block.rpartition(b"\n")[2]
        if rest:
            self._write_output(event, rest, True)

    def _write_output(self, event: Output, line: bytes, is_partial: bool) -> None:
        decoder = self._decoders.pop(event.name, None) or _decoder()
        text = decoder.decode(line, final=not is_partial)
        if is_partial:
            self._decoders[event.name] = decoder  # a character may be cut between two pieces
        partial = {"partial": True} if is_partial else {}
        self._write_object({"event": "output", "name": event.name, "at": event.at, "line": text, **partial})

    def _write_object(self, record: dict[str, object]) -> None:
        self._stream.write(json.dumps(record).encode() + b"\n")


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
