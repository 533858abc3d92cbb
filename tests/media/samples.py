"""Images and videos made for the tests."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
_PNG = b"\x89PNG\r\n\x1a\n"


def picture(width: int, height: int, seed: int = 0) -> Pixels:
    """Coloured blocks: compressible, and different everywhere."""
    blocks = np.random.default_rng(seed).integers(0, 255, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width]


def image_bytes(pixels: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_bomb(side: int) -> bytes:
    """A small PNG of side x side black pixels, one bit each."""
    row = bytes(1 + (side + 7) // 8)
    press = zlib.compressobj(9)
    data = b"".join(press.compress(row) for _ in range(side)) + press.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def undone_patches(width: int, height: int, colors: list[tuple[int, int, int]]) -> bytes:
    """An animated PNG in grey, on which each frame but the first draws a square that is undone before the next."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), _chunk(b"acTL", struct.pack(">II", len(colors) + 1, 0))]
    rows = zlib.compress((b"\0" + bytes((90, 90, 90, 255)) * width) * height)
    parts += [_chunk(b"fcTL", struct.pack(">5I2H2B", 0, width, height, 0, 0, 1, 10, 0, 0)), _chunk(b"IDAT", rows)]
    for at, color in enumerate(colors):
        control = struct.pack(">5I2H2B", 2 * at + 1, 8, 8, 8 * at, 0, 1, 10, 2, 1)
        square = zlib.compress((b"\0" + bytes((*color, 255)) * 8) * 8)
        parts += [_chunk(b"fcTL", control), _chunk(b"fdAT", struct.pack(">I", 2 * at + 2) + square)]
    return _PNG + b"".join(parts) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def moving(count: int, width: int = 160, height: int = 120) -> list[Pixels]:
    """Frames that all differ."""
    base = picture(width, height)
    return [np.roll(base, 3 * number, axis=1) for number in range(count)]


def write_video(
    path: Path,
    container: str,
    codec: str,
    frames: list[Pixels],
    *,
    times: list[int] | None = None,
    rate: int = 30,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """`times` are display times in ticks of 1/600 s, for a rate that varies."""
    formats = {"gif": "rgb8", "mjpeg": "yuvj420p"}
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = formats.get(codec, "yuv420p")
        stream.height, stream.width = frames[0].shape[:2]
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 600)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 600)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_sound(path: Path, pictures: list[Pixels] | None = None, *, cover: bool = False) -> Path:
    """A second of silence, and `pictures` beside it: a film, or with `cover` what players show of a song."""
    with av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=44100)
        if pictures is not None:
            stream = output.add_stream("mjpeg" if cover else "libx264", rate=30)
            assert isinstance(stream, av.VideoStream)
            stream.pix_fmt = "yuvj420p" if cover else "yuv420p"
            stream.height, stream.width = pictures[0].shape[:2]
            if cover:
                stream.disposition = Disposition.attached_pic
            for pixels in pictures:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                output.mux(stream.encode(picture))
            output.mux(stream.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 44100), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    return path


def every_frame(path: Path) -> Pixels:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def turn(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write into an MP4's track header that players show the point x, y at ax + cy, bx + dy."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    matrix = header + 40
    turned = [number * 0x10000 for number in (a, b, 0, c, d, 0, 0, 0)]
    data[matrix : matrix + 36] = struct.pack(">9i", *turned, 0x40000000)
    path.write_bytes(data)


def turn_quarter(path: Path) -> None:
    """A quarter clockwise, as phones write it."""
    turn(path, 0, 1, -1, 0)


def png_of_sixteen_bits(samples: NDArray[np.uint16], transparent: tuple[int, ...] = ()) -> bytes:
    """`samples` are (height, width, channels): grey, grey and alpha, RGB or RGBA. Pillow writes grey ones only."""
    height, width, channels = samples.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    key = _chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return _PNG + header + key + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def repeat_gif(path: Path, pixels: Pixels, count: int) -> Path:
    """A GIF that shows the same frame `count` times, without the work of encoding it as often."""
    once = write_video(path, "gif", "gif", [pixels]).read_bytes()
    start = once.index(b"\x21\xf9\x04")
    path.write_bytes(once[:start] + once[start:-1] * count + b";")
    return path
