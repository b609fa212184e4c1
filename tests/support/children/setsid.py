"""Leave a grandchild in a session of its own: TOKEN HOW FIFO, HOW a list of `ignore`, `leave`, `clean`, `close`.

`ignore`: it ignores SIGTERM. `leave`: the child in between exits at once. `clean`: without our environment.
`close`: it closes its output. It writes its pid to FIFO once it is ready.
"""

import os
import signal
import sys

token, how, fifo = sys.argv[1:4]
if os.fork() == 0:
    os.setsid()
    script = "import os, signal, sys\n"
    if "ignore" in how:
        script += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    if "close" in how:
        script += "os.closerange(0, 3)\n"
    script += "open(sys.argv[2], 'w').write('%d\\n' % os.getpid())\n"
    script += "while True: signal.pause()\n"
    argv = [sys.executable, "-S", "-E", "-c", script, token, fifo]
    os.execve(sys.executable, argv, {} if "clean" in how else os.environ)
if "leave" not in how:
    while True:
        signal.pause()
