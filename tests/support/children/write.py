"""Write each argument to stdout, with escapes as in Python; `<FIFO` waits for a line of it first, `2:` is stderr.

TOKEN [TEXT | <FIFO | 2:TEXT | pause]...
"""

import os
import signal
import sys

for word in sys.argv[2:]:
    if word.startswith("<"):
        with open(word[1:], "rb", buffering=0) as fifo:
            fifo.readline()
    elif word == "pause":
        while True:
            signal.pause()
    else:
        fd = 2 if word.startswith("2:") else 1
        data = word.removeprefix("2:").encode("latin-1").decode("unicode_escape").encode("latin-1")
        while data:
            data = data[os.write(fd, data) :]
