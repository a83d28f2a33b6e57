"""Ctrl-C during training: held back to the end of the epoch while finished epochs are in no checkpoint yet."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rectoolkit.training.callbacks import Callback


class Interrupts:
    """A handler of Ctrl-C that sets ``asked`` while epochs are ``unsaved``; a second Ctrl-C always stops at once."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.unsaved = self.asked = False

    def __call__(self, *_: object) -> None:
        if self.asked or not self.unsaved:
            raise KeyboardInterrupt
        self.asked = True
        self.callback.stage("interrupted: saving at the end of this epoch; press Ctrl-C again to stop now")


@contextmanager
def held(callback: Callback) -> Iterator[Interrupts]:
    """Handle Ctrl-C by ``Interrupts`` while the block runs, if it is in the main thread and nobody else handles it."""
    interrupts = Interrupts(callback)
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
