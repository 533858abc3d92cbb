"""What decoding needs ahead of its job: imports, since a child may open no file, and pages, since forks share them."""

import importlib
import os
import pkgutil
from io import BytesIO

import av
from PIL import Image

from media.image import decode_image
from media.jobs import ImageJob
from media.pixels import PixelSink
from media.template import rehearse_template
from vlmq.sniff import MediaType

_PILLOW = ("ImageOps", "MpoImagePlugin", "TiffImagePlugin")


def preload() -> bytes:
    """Import, in the server, before the first fork, what would be imported later; the answer is for `rehearse`."""
    Image.preinit()
    for name in _PILLOW:
        importlib.import_module(f"PIL.{name}")
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    rehearse_template()
    sample = BytesIO()
    Image.new("RGB", (64, 64)).save(sample, "JPEG")
    return sample.getvalue()


def rehearse(sample: bytes) -> None:
    """Decode our own sample in a new child, which gives it its own copies of the pages that decoding writes to.

    A child that waits has the time for these milliseconds; one that has its job does not.
    """
    target = os.memfd_create("rehearsal")
    decode_image(ImageJob(MediaType.JPEG, max_source_pixels=64 * 64), BytesIO(sample), PixelSink(target))
    os.close(target)
