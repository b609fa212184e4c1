"""Say each signal that arrives, by its name; SIGTERM ends with CODE: TOKEN [CODE]."""

import os
import signal
import sys

code = int(sys.argv[2]) if len(sys.argv) > 2 else 0
heard = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
os.write(1, b"up\n")
while True:
    got = signal.sigwait(heard)
    os.write(1, b"got %s\n" % signal.Signals(got).name.encode())
    if got == signal.SIGTERM:
        os._exit(code)
