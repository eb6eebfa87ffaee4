"""Runs in a process of its own, alone with Python's library: searches texts for patterns until its input ends.

A search that takes more processor time than it was given ends the process: nothing can interrupt Python's
expressions from within, but the default action of a timer signal can.
"""

from __future__ import annotations

import re
import signal
import struct
import sys

# Processor seconds, flags of the expression, bytes of the pattern and of the text.
HEAD = struct.Struct("!dIII")


def main() -> None:
    """Answer each request with one byte: 1 for found, 0 for not."""
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then closes our input
    receive, send = sys.stdin.buffer.read, sys.stdout.buffer
    while len(head := receive(HEAD.size)) == HEAD.size:
        seconds, flags, pattern_size, text_size = HEAD.unpack(head)
        pattern, text = receive(pattern_size).decode(), receive(text_size).decode()
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        found = re.compile(pattern, flags).search(text)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        send.write(b"1" if found else b"0")
        send.flush()


if __name__ == "__main__":
    main()
