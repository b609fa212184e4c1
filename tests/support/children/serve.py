"""Serve HTTP on $PORT, step by step: TOKEN [listen | status:N | silent | say:TEXT | notify:TEXT | <FIFO | pause]...

`<FIFO` waits for a line of it. Each request is answered with the status of that moment; after `silent` with nothing.
SIGTERM says so and ends with 0.
"""

import os
import signal
import socket
import sys
import threading

status = "200"
connections = []


def say(text):
    os.write(1, f"{text}\n".encode())


def start(target, *args):
    # The signal is for the main thread: another one that gets it would not wake it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=target, args=args, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def serve(server):
    while True:
        connection, _ = server.accept()
        connections.append(connection)
        if status:
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection):
    try:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".encode())
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    except OSError:
        pass
    connection.close()


def notify(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(text.encode())


def end(signum, frame):
    say("got SIGTERM")
    os._exit(0)


signal.signal(signal.SIGTERM, end)
for step in sys.argv[2:]:
    if step == "listen":
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(os.environ["PORT"])))
        server.listen()
        start(serve, server)
    elif step.startswith("status:"):
        status = step.removeprefix("status:")
    elif step == "silent":
        status = ""
    elif step.startswith("say:"):
        say(step.removeprefix("say:"))
    elif step.startswith("notify:"):
        notify(step.removeprefix("notify:"))
    elif step.startswith("<"):
        with open(step[1:], "rb", buffering=0) as fifo:
            fifo.readline()
    elif step == "pause":
        # Not pause(): a signal right before it would wait for the next one.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        end(signal.sigwait({signal.SIGTERM}), None)
