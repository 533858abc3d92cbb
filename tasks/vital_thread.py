"""Threads that a worker cannot do without: when one dies, the process ends, and a fresh one takes its place."""

import os
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

# The exit status that tells a supervisor to start the worker again (sysexits.h: EX_SOFTWARE).
EXIT_AGAIN = 70


def start_vital_thread(name: str, loop: Callable[[], None]) -> threading.Thread:
    """Run `loop` in a daemon thread; without it the worker would go on claiming jobs that never end."""

    def run() -> None:
        try:
            loop()
        except BaseException:
            log.critical("a thread that the worker lives by has died; leaving", thread=name, exc_info=True)
            os._exit(EXIT_AGAIN)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
