"""Say what 0, 1 and 2 are, and the size; again on every SIGWINCH: TOKEN."""

import os
import signal


def show(*_):
    kinds = ["tty" if os.isatty(fd) else "no" for fd in (0, 1, 2)]
    size = "x".join(map(str, os.get_terminal_size(1))) if os.isatty(1) else "none"
    os.write(1, f"{' '.join(kinds)} {size}\n".encode())


signal.signal(signal.SIGWINCH, show)
show()
while True:
    signal.pause()
