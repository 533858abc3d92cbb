import pytest

from tests.media.samples import image_bytes, picture
from vlmq.sniff import MediaType, sniff

HEADS = [
    (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", MediaType.WEBM),
    (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", MediaType.MATROSKA),
    (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", None),
    (b"\x00\x00\x00\x20ftypisom", MediaType.MP4),
    (b"\x00\x00\x00\x14ftypqt  ", MediaType.QUICKTIME),
    (b"\x00\x00\x00\x08wide", MediaType.QUICKTIME),
    (b"\x00\x00\x00\x18ftypheic", MediaType.HEIF),
    (b"\x00\x00\x00\x18ftypavif", MediaType.AVIF),
    (b"RIFF\x00\x00\x00\x00AVI LIST", MediaType.AVI),
    (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
    (b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>", MediaType.HTML),
    (b"<html lang=en>", MediaType.HTML),
    (b"<!-- hi --><html>", MediaType.HTML),
    (b"%PDF-1.7", MediaType.PDF),
    (b"<?xml version='1.0'?><!-- x --><svg xmlns=''>", MediaType.SVG),
    (b"<svg>", MediaType.SVG),
    (b"<svgftypisom onload=alert(1)>", MediaType.SVG),
    (b"<!--ftypisom--><html><script>", MediaType.HTML),
    (b"<?xml version='1.0'?><rss>", None),
    (b"II*\x00", MediaType.TIFF),
    (b"MM\x00*", MediaType.TIFF),
    (b"8BPS\x00\x01", MediaType.PHOTOSHOP),
    (b"%!PS-Adobe-3.0 EPSF", MediaType.POSTSCRIPT),
    (b"SIMPLE  =                    T", MediaType.FITS),
    (b"GIF89a=1;alert(document.domain)", None),
    (b"GIF89a/*" + bytes(6) + b"*/=1;alert(1)//;", None),
    (b"GIF89a <script>alert(1)</script>", None),
    (b"GIF87a" + b"\x10\x00\x10\x00\x80\x00\x00" + bytes(6) + b"alert(1)", None),
    (b"GIF87a" + b"\x10\x00\x10\x00\x80\x00\x00" + bytes(6) + b",", MediaType.GIF),
    (b"GIF89a" + b"\x10\x00\x10\x00\x00\x00\x00" + b"!\xf9", MediaType.GIF),
    (b"BM, he said", None),
    (b"#EXTM3U\nhttp://internal/", None),
    (b"ffconcat version 1.0", None),
    (b"", None),
]


@pytest.mark.parametrize(("head", "media_type"), HEADS)
def test_a_type_is_told_from_the_first_bytes(head: bytes, media_type: MediaType | None) -> None:
    assert sniff(head) is media_type


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_images_as_they_are_written_are_known(kind: str) -> None:
    media_type = sniff(image_bytes(picture(16, 16), kind)[:64])
    assert media_type is not None
    assert media_type.name == kind
