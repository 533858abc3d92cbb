"""Files that promise more than they hold, or are something else than they are called."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.media.samples import Pixels, image_bytes, moving, picture, write_video

# What a decoder must not be made to take for a picture, whatever its name.
FOREIGN: dict[str, Callable[[], bytes]] = {
    "application/postscript": lambda: image_bytes(picture(16, 16), "EPS"),
    "image/tiff": lambda: image_bytes(picture(16, 16), "TIFF"),
    "image/fits": lambda: fits(),
    "image/vnd.adobe.photoshop": lambda: photoshop(),
    "image/svg+xml": lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
}


def fits() -> bytes:
    """One 8-bit picture of 4 x 4 in FITS."""
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2"]
    cards += ["NAXIS1  =                    4", "NAXIS2  =                    4", "END"]
    return "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(2880)


def photoshop() -> bytes:
    """One grey picture of 4 x 4 in Photoshop's format."""
    return b"8BPS" + struct.pack(">H6xHIIHH", 1, 1, 4, 4, 8, 1) + bytes(12) + struct.pack(">H", 0) + bytes(16)


def gif_without_frames() -> bytes:
    return b"GIF89a" + struct.pack("<HH", 64, 64) + b"\0\0\0;"


def gif_claiming(side: int) -> bytes:
    """A small GIF whose screen and whose frame are said to be side x side."""
    data = bytearray(image_bytes(Image.new("L", (64, 64)), "GIF"))
    frame = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data[6:10] = data[frame + 5 : frame + 9] = struct.pack("<HH", side, side)
    return bytes(data)


def webp_claiming(side: int) -> bytes:
    """A lossless WebP of a few bytes that says it has side x side pixels, 16384 at most."""
    data = b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + bytes(31)
    return _riff(b"WEBP" + b"VP8L" + struct.pack("<I", len(data)) + data)


def avi_claiming(path: Path, side: int) -> Path:
    """An AVI whose picture is said to have side x side pixels."""
    write_video(path, "avi", "rawvideo", moving(2))
    data = bytearray(path.read_bytes())
    sizes = data.index(b"strf") + 12
    data[sizes : sizes + 8] = side.to_bytes(4, "little") * 2
    path.write_bytes(data)
    return path


def animation(kind: str, frames: list[Pixels], durations_ms: list[int]) -> bytes:
    """An animated PNG, WebP or GIF that keeps every pixel."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    options = {"lossless": True} if kind == "WEBP" else {}
    return image_bytes(first, kind, save_all=True, append_images=others, duration=durations_ms, **options)


def endless_animation(kind: str, count: int, duration_ms: int = 100) -> bytes:
    """An animated PNG or WebP that shows one small frame `count` times."""
    return _endless_png(count, duration_ms) if kind == "PNG" else _endless_webp(count, duration_ms)


def _endless_png(count: int, duration_ms: int) -> bytes:
    rows = zlib.compress(bytes(4 * 5))
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), _chunk(b"acTL", struct.pack(">II", count, 0))]
    number = 0
    for frame in range(count):
        control = struct.pack(">IIIIIHHBB", number, 4, 4, 0, 0, duration_ms, 1000, 0, 0)
        parts.append(_chunk(b"fcTL", control))
        number += 1
        if frame == 0:
            parts.append(_chunk(b"IDAT", rows))
        else:
            parts.append(_chunk(b"fdAT", struct.pack(">I", number) + rows))
            number += 1
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + _chunk(b"IEND", b"")


def _endless_webp(count: int, duration_ms: int) -> bytes:
    once = animation("WEBP", moving(2, 16, 16), [duration_ms] * 2)
    start = once.index(b"ANMF")
    length = 8 + int.from_bytes(once[start + 4 : start + 8], "little")
    return _riff(once[8:start] + once[start : start + length + length % 2] * count)


def canvas(webp: bytes, side: int) -> bytes:
    """The animated WebP, said to be side x side."""
    size = (side - 1).to_bytes(3, "little")
    return webp[:24] + size + size + webp[30:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _riff(data: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(data)) + data
