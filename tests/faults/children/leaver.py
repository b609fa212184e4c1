"""Leave a grandchild that listens on PORT, say "bound" or "taken", and end with 1 on a line of FIFO: TOKEN HOW FIFO.

HOW: `group`: it stays in our process group. `session`: it calls setsid. `daemon`: it is forked twice. `ignore` with one
of these: it ignores SIGTERM.
"""

import os
import signal
import socket
import sys

token, how, fifo = sys.argv[1:4]


def hold(server, done):
    if "ignore" in how:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(done, b".")
    os.close(done)
    while True:
        signal.pause()


server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what lingers of another test's connections is nobody's
try:
    server.bind(("127.0.0.1", int(os.environ["PORT"])))
    server.listen()
except OSError:
    os.write(1, b"taken\n")
    os._exit(9)
reader, done = os.pipe()
if os.fork() == 0:
    if "session" in how or "daemon" in how:
        os.setsid()
    if "daemon" in how and os.fork():
        os._exit(0)
    hold(server, done)
os.close(done)
os.read(reader, 1)
server.close()
os.write(1, b"bound\n")
with open(fifo, "rb", buffering=0) as gate:
    gate.readline()
os._exit(1)
