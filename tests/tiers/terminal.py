"""Runs a program on a pseudo-terminal, and types.

    terminal.py STEPS PROGRAM [ARGUMENT]...

STEPS is JSON: a list of pairs. Once the first of a pair is the end of what is to be seen, the second
is typed. Prints what is to be seen at the end.
"""

import json
import os
import pty
import subprocess
import sys

parent, child = pty.openpty()
process = subprocess.Popen(sys.argv[2:], stdin=child, stdout=child, stderr=child, start_new_session=True)
os.close(child)


def read():
    try:
        return os.read(parent, 4096)
    except OSError:  # Linux, once the program has ended
        return b""


seen = b""
for wanted, typed in json.loads(sys.argv[1]):
    while not seen.endswith(wanted.encode()):
        more = read()
        if not more:
            sys.exit(f"it ended before {wanted!r}: {seen!r}")
        seen += more
    os.write(parent, typed.encode())
while more := read():
    seen += more
sys.stdout.buffer.write(seen)
sys.exit(process.wait())
