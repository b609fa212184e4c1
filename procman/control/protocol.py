"""One message <-> bytes (docs/control-protocol.md)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from procman import events
from procman.errors import ControlError
from procman.events import Event, Output

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself takes 2 ms, in which the supervisor passes no output on
    from typing import Any

VERSION = 1
MAX_LINE_BYTES = 1024 * 1024
PIECE_INSTANCES = 100  # encoded in one turn: 0.3 ms

Message = dict[str, "Any"]

_EVENTS = {
    kind.__name__.lower(): kind
    for kind in (
        events.Started,
        events.Output,
        events.Ready,
        events.Stopping,
        events.Exited,
        events.Restarting,
        events.GaveUp,
        events.Notice,
    )
}


def encode(message: Message | list[Message]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def encoded_in_pieces(message: Message) -> Iterator[bytes]:
    """Yield the line in pieces that take less than a ms each: the supervisor's loop has other things to do, too."""
    instances = message.get("instances", ())
    if len(instances) <= PIECE_INSTANCES:
        yield encode(message)
        return
    rest = {key: value for key, value in message.items() if key != "instances"}
    yield encode({**rest, "instances": []})[: -len(b"]}\n")]
    for at in range(0, len(instances), PIECE_INSTANCES):
        records = encode(instances[at : at + PIECE_INSTANCES])[1 : -len(b"]\n")]
        yield b"," + records if at else records
    yield b"]}\n"


def decode(line: bytes) -> Message:
    """Return the message on one line. Raises ControlError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("not a JSON object on one line") from None
    if not isinstance(message, dict):
        raise ControlError("not a JSON object on one line")
    return message


def message_of(event: Event) -> Message:
    """Return an event as a message; output as text if it is text."""
    if not isinstance(event, Output):
        return {"event": type(event).__name__.lower(), **event._asdict()}
    message: Message = {"event": "output", "name": event.name, "at": event.at}
    try:
        message["text"] = event.block.decode()
    except UnicodeDecodeError:
        message["bytes"] = encoded_bytes(event.block)
    return message


def encoded_bytes(block: bytes) -> str:
    return base64.b64encode(block).decode()


def decoded_bytes(text: object) -> bytes:
    """Return the bytes behind `text`, base64. Raises ControlError."""
    try:
        return base64.b64decode(str(text), validate=True)
    except ValueError:
        raise ControlError("not base64") from None


def event_of(message: Message) -> Event | None:
    """Return the event a message tells, or None for one of a kind that this version does not know."""
    kind = _EVENTS.get(str(message.get("event")))
    try:
        if kind is Output:
            return Output(message["name"], message["at"], block_of(message))
        return kind(*(message[field] for field in kind._fields)) if kind else None
    except (KeyError, TypeError):
        return None


def block_of(message: Message) -> bytes:
    """Return the bytes of an output message. Raises KeyError."""
    if "text" in message:
        return str(message["text"]).encode()
    return decoded_bytes(message["bytes"])
