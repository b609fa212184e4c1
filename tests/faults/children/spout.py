"""Write numbered lines to stdout: TOKEN COUNT [WORD]...

WIDTH=N pads each line to N bytes. SEED=N cuts the writes anywhere. BIG=N gives the pipe N bytes first. NOEND leaves out
the last newline. ON=TERM waits for SIGTERM first, ON=FIFO for a line of FIFO (its path). CODE=N ends with N, KILL by
SIGKILL, STAY not at all. ASIDE forks, leaves at once and lets the orphan, in a session of its own and without our
environment, do all this. EXACT=FIFO: first "up" goes to FIFO; SIGTERM ends the writing, and the number of
bytes written goes to FIFO.
"""

import os
import random
import signal
import sys

token, count = sys.argv[1], int(sys.argv[2])
words = {name: value for name, _, value in (word.partition("=") for word in sys.argv[3:])}
written = 0
is_over = False

if "ASIDE" in words:
    if os.fork():
        os._exit(0)
    os.setsid()
    rest = [word for word in sys.argv[3:] if word != "ASIDE"]
    argv = [sys.executable, "-S", "-E", os.path.abspath(__file__), token, str(count), *rest]
    os.execve(sys.executable, argv, {})


def on_term(signum, frame):
    # A write that waits for room in the pipe goes on after a handler (PEP 475): now it fails instead.
    global is_over
    is_over = True
    os.set_blocking(1, False)


def lines(first, last):
    width = int(words.get("WIDTH", 0))
    if width:
        return b"".join((b"line %d " % number).ljust(width - 1, b".") + b"\n" for number in range(first, last))
    return b"".join(b"line %d\n" % number for number in range(first, last))


def put(data):
    global written
    data = memoryview(data)
    cut = random.Random(int(words["SEED"])) if "SEED" in words else None
    while data and not is_over:
        size = cut.randrange(1, 9000) if cut else len(data)
        try:
            done = os.write(1, data[:size])
        except BlockingIOError:
            return
        written += done
        data = data[done:]


if "BIG" in words:
    import fcntl

    fcntl.fcntl(1, 1031, int(words["BIG"]))  # F_SETPIPE_SZ (fcntl(2))
if "EXACT" in words:
    signal.signal(signal.SIGTERM, on_term)
    with open(words["EXACT"], "w") as report:
        report.write("up\n")
if words.get("ON") == "TERM":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.write(1, b"up\n")
    signal.sigwait([signal.SIGTERM])
elif "ON" in words:
    with open(words["ON"], "rb", buffering=0) as gate:
        gate.readline()
BATCH = 10_000
for first in range(0, count, BATCH):
    last = min(count, first + BATCH)
    text = lines(first, last)
    if is_over:
        break
    put(text[:-1] if "NOEND" in words and last == count else text)
if "EXACT" in words:
    with open(words["EXACT"], "w") as report:
        report.write(f"{written}\n")
if "KILL" in words:
    os.kill(os.getpid(), signal.SIGKILL)
if "STAY" in words:
    while True:
        signal.pause()
os._exit(int(words.get("CODE", 0)))
