"""Send each MESSAGE (escapes as in Python) to $NOTIFY_SOCKET; exit with the errno: TOKEN [user:UID] [MESSAGE]..."""

import os
import socket
import sys

words = sys.argv[2:]
user = words.pop(0).removeprefix("user:") if words and words[0].startswith("user:") else ""
messages = [word.encode("latin-1").decode("unicode_escape").encode("latin-1") for word in words]
if user:  # from here on nothing can be imported: the interpreter may not be this user's
    os.setuid(int(user))
try:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        for message in messages:
            sender.send(message)
except OSError as error:
    sys.exit(error.errno)
