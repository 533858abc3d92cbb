import os
from typing import IO, cast

from rich.console import Console

from vlmq.lasting_output import LastingOutput


def test_a_writer_goes_on_when_its_reader_is_gone() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        console = Console(file=cast(IO[str], LastingOutput(stream)))
        console.print("heard")
        assert os.read(reading, 100) == b"heard\n"
        os.close(reading)
        for _ in range(3):
            console.print("not heard")
