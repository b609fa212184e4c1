"""One connection of the control server, turn by turn."""

from __future__ import annotations

import json
import socket

from procman.control.server import Connection
from procman.loop import Loop
from tests.support.turns import Turns


class Nobody:
    """Stands where the server would."""

    def forget(self, connection: Connection) -> None:
        pass


def test_the_last_word_is_out_before_the_end() -> None:
    """It may wait in the stream for some turns; a client without it would say that procman has gone."""
    loop = Turns()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(loop, ours.detach(), Nobody())  # type: ignore[arg-type]
    with theirs:
        theirs.settimeout(10)
        connection.end({"said": "all"})
        connection._pump()  # a timer that was due anyway
        assert not connection.is_closed
        for _ in range(20):
            Loop.turn(loop)  # one descriptor of it is always ready
        assert connection.is_closed
        assert json.loads(theirs.recv(1000)) == {"said": "all"}
        assert theirs.recv(1000) == b""
    loop.close()
