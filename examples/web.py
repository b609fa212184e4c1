"""Process type `web`: puts jobs into the queue over HTTP.

Try it:

    curl -d '{"text": "to be or not to be", "seconds": 5}' http://127.0.0.1:5000/jobs
    curl http://127.0.0.1:5000/jobs/1
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import socketserver
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import store

MAX_BODY_BYTES = 1 << 20
MAX_JOB_S = 3600


class Handler(BaseHTTPRequestHandler):
    # Below procman's grace period of 5 s, so that a client that fell silent cannot hold up the stop.
    timeout = 2

    def do_GET(self) -> None:
        if self.path == "/":
            self.reply(200, f"{os.environ.get('PS', 'web')} on port {self.server.server_address[1]}\n")
        elif self.path == "/healthz":
            with closing(store.connect()) as db:
                store.count_by_state(db)
            self.reply(200, "ok\n")
        elif match := re.fullmatch(r"/jobs/([0-9]{1,18})", self.path):
            with closing(store.connect()) as db:
                job = store.find(db, int(match[1]))
            self.reply(200, dict(job)) if job else self.reply(404, {"error": "no such job"})
        else:
            self.reply(404, {"error": "try /, /healthz, /jobs/1 or POST /jobs"})

    def do_POST(self) -> None:
        if self.path != "/jobs":
            return self.reply(404, {"error": "POST goes to /jobs"})
        try:
            text, seconds = self.read_job()
            with closing(store.connect()) as db:
                job_id = store.enqueue(db, text, seconds)
        except ValueError as error:
            return self.reply(400, {"error": str(error)})
        return self.reply(201, {"id": job_id})

    def read_job(self) -> tuple[str, float]:
        """Return text and seconds of the request's body; ValueError says what is wrong with it."""
        size = int(self.headers.get("Content-Length", 0))
        if not 0 < size <= MAX_BODY_BYTES:
            raise ValueError(f"the body must have 1 to {MAX_BODY_BYTES} bytes")
        job = json.loads(self.rfile.read(size))
        text, seconds = (job.get("text"), job.get("seconds", 0)) if isinstance(job, dict) else (None, None)
        if not isinstance(text, str) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_JOB_S:
            raise ValueError(f'send {{"text": "...", "seconds": 0 to {MAX_JOB_S}}}')
        return text, seconds

    def reply(self, status: int, body: str | dict) -> None:
        is_json = isinstance(body, dict)
        data = (json.dumps(body) + "\n" if is_json else body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_json else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, template: str, *args: object) -> None:
        # A client chooses its path: escaped, it can neither forge a line nor drive the terminal.
        log((template % args).encode("unicode_escape").decode())


class Server(socketserver.ThreadingTCPServer):
    """One thread per request; server_close() waits for those still running.

    Not http.server.ThreadingHTTPServer: that one drops them, and asks the DNS for its own name before it starts.
    """

    allow_reuse_address = True  # a restart must not wait for the connections of its predecessor
    request_queue_size = 128


def log(line: str) -> None:
    """Write to the event stream: stdout, one write per line, no timestamp (procman adds it) and no file."""
    print(f"{line}\n", end="", flush=True)


def serve_until_signalled(server: Server) -> None:
    """Answer requests until SIGTERM or SIGINT, asleep whenever there is none."""
    stop, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())  # any signal with a handler now makes `stop` readable
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: None)
    log("listening on http://{}:{}".format(*server.server_address))
    while stop not in select.select([server, stop], [], [])[0]:
        server.handle_request()


def main() -> None:
    store.connect_migrated().close()
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "5000")))
    try:
        server = Server(address, Handler)
    except OSError as error:
        raise SystemExit(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
    with server:
        serve_until_signalled(server)
        log("stopping: no new requests, finishing those that run")
    log("stopped")


if __name__ == "__main__":
    main()
