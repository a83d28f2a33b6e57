"""The program ``rectool``, also ``python -m rectoolkit``: loads the commands and runs one."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def main() -> None:
    """Run a command. Ctrl-C ends the program with one line and code 130, also while the commands are loading."""
    if loud := signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a job in the background ignores it
        signal.signal(signal.SIGINT, _stop)
    from rectoolkit.cli import main as commands

    if loud:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        commands(prog_name="rectool")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # at once: Python would end by the signal if it came within C code's own Python
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        raise


def _stop(*_: object) -> NoReturn:
    """End at once. An exception in the middle of an import may be caught there, or print a traceback."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
