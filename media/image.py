"""One image's bytes -> RGB pixels. Runs in a decoding child only."""

from typing import BinaryIO

import numpy as np
from PIL import BmpImagePlugin, ExifTags, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from media.jobs import ImageFacts, ImageJob
from media.pixels import PixelSink
from media.webp_size import HEAD_BYTES, webp_size
from vlmq.errors import ErrorCode, VlmqError
from vlmq.sniff import MediaType

MIN_SIDE = 2
MAX_ASPECT_RATIO = 200

# The plugins are named so that they are loaded before a child loses the right to open files.
PILLOW_FORMATS = {
    MediaType.PNG: PngImagePlugin.PngImageFile.format or "",
    MediaType.JPEG: JpegImagePlugin.JpegImageFile.format or "",
    MediaType.WEBP: WebPImagePlugin.WebPImageFile.format or "",
    MediaType.GIF: GifImagePlugin.GifImageFile.format or "",
    MediaType.BMP: BmpImagePlugin.BmpImageFile.format or "",
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Our own limit is checked before anything is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


def decode_image(job: ImageJob, source: BinaryIO, sink: PixelSink) -> ImageFacts:
    """Decode the first frame into `sink` as (height, width, 3): upright, and over white where it is transparent.

    Raises:
        VlmqError: `image_invalid` or `image_too_large`. Whatever else Pillow raises means an invalid image, too.
    """
    if job.media_type is MediaType.WEBP and (claimed := webp_size(source.read(HEAD_BYTES))) is not None:
        _check_size(*claimed, job.max_source_pixels)
    source.seek(0)
    image: Image.Image = Image.open(source, formats=[PILLOW_FORMATS[job.media_type]])
    width, height = image.size
    _check_size(width, height, job.max_source_pixels)
    if job.max_pixels is not None and width * height > job.max_pixels:
        # JPEG only: decode at a half, quarter or eighth, whichever still has the pixels that are asked for.
        image.draft(None, _within(width, height, job.max_pixels))
    try:
        image.load()
    except OSError as error:
        if "truncated" in str(error):
            raise VlmqError(ErrorCode.IMAGE_INVALID, "The image is truncated: its end is missing.") from error
        raise
    image = upright(image, orientation(image), job.max_pixels)
    sink.allocate((image.height, image.width, 3))[:] = np.asarray(image)
    return ImageFacts(width, height)


def upright(image: Image.Image, turn: int, max_pixels: int | None) -> Image.Image:
    """A decoded picture as RGB over white, of `max_pixels` at most, turned as its EXIF orientation `turn` says."""
    image = _rgb(image)
    if max_pixels is not None and image.width * image.height > max_pixels:
        image = image.resize(_within(image.width, image.height, max_pixels), Image.Resampling.BICUBIC)
    transpose = _UPRIGHT.get(turn)
    return image if transpose is None else image.transpose(transpose)


def orientation(image: Image.Image) -> int:
    """What its EXIF says of how to turn it: 1 to 8, and 1 for upright."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, ArithmeticError):
        # Cameras write broken EXIF; the picture is still good.
        return 1
    return found if isinstance(found, int) else 1


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"The image has {width} x {height} pixels; at most {max_pixels} are taken."
        raise VlmqError(ErrorCode.IMAGE_TOO_LARGE, message)
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        message = f"The image has {width} x {height} pixels; each side needs at least {MIN_SIDE}."
        raise VlmqError(ErrorCode.IMAGE_INVALID, message)
    if long > MAX_ASPECT_RATIO * short:
        message = f"The image has {width} x {height} pixels; one side may be {MAX_ASPECT_RATIO} times the other."
        raise VlmqError(ErrorCode.IMAGE_INVALID, message)


def _within(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    scale = (max_pixels / (width * height)) ** 0.5
    return max(MIN_SIDE, int(width * scale)), max(MIN_SIDE, int(height * scale))


def _rgb(image: Image.Image) -> Image.Image:
    image = _eight_bits(image)
    if not image.has_transparency_data:
        # Pillow would copy.
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits a channel as eight, with the one transparent colour that a PNG may name beside them."""
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):
        # Pillow's own conversion cuts the upper bits off instead of scaling.
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray((grey >> 8).clip(0, 255).astype(np.uint8))
        if isinstance(clear, int):
            image.putalpha(Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8)))
    elif image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        # Pillow has scaled the pixels already, but not the colour to compare them with.
        image.info["transparency"] = tuple(channel >> 8 for channel in clear)
    return image
