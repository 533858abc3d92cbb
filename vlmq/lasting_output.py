"""Output whose reader may go before its writer: a terminal that is closed, a `tee` that gets the same Ctrl-C."""

import os
from typing import TextIO


class LastingOutput:
    """A stream for `rich`; once nobody can read it, what is written is lost, and the writer goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._let_go()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    def _let_go(self) -> None:
        # What is still buffered would fail again with each flush, and when the interpreter ends.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
