"""What a file is, told from its first bytes; names and declared types are never believed."""

from enum import StrEnum

HEAD_BYTES = 4096


class MediaType(StrEnum):
    """The types that are taken, and those that are known well enough to be refused by name."""

    PNG = "image/png"
    JPEG = "image/jpeg"
    WEBP = "image/webp"
    GIF = "image/gif"
    BMP = "image/bmp"
    MP4 = "video/mp4"
    QUICKTIME = "video/quicktime"
    WEBM = "video/webm"
    MATROSKA = "video/x-matroska"
    AVI = "video/x-msvideo"
    HTML = "text/html"
    PDF = "application/pdf"
    SVG = "image/svg+xml"
    TIFF = "image/tiff"
    HEIF = "image/heif"
    AVIF = "image/avif"
    PHOTOSHOP = "image/vnd.adobe.photoshop"
    POSTSCRIPT = "application/postscript"
    FITS = "image/fits"


IMAGE_TYPES = frozenset({MediaType.PNG, MediaType.JPEG, MediaType.WEBP, MediaType.GIF, MediaType.BMP})
# Images that may be animations: the first frame as an image, all of them as a video. A GIF of one frame is one, too.
ANIMATED_TYPES = frozenset({MediaType.PNG, MediaType.WEBP})
VIDEO_TYPES = ANIMATED_TYPES | frozenset(
    {MediaType.MP4, MediaType.QUICKTIME, MediaType.WEBM, MediaType.MATROSKA, MediaType.AVI, MediaType.GIF}
)
IMAGE_WORDS = "PNG, JPEG, WebP, GIF or BMP"
VIDEO_WORDS = "MP4, MOV, WebM, Matroska, AVI, or an animated GIF, WebP or PNG"

_PREFIXES = (
    (b"\x89PNG\r\n\x1a\n", MediaType.PNG),
    (b"\xff\xd8\xff", MediaType.JPEG),
    (b"GIF87a", MediaType.GIF),
    (b"GIF89a", MediaType.GIF),
    (b"%PDF-", MediaType.PDF),
    (b"II*\x00", MediaType.TIFF),
    (b"MM\x00*", MediaType.TIFF),
    (b"II+\x00", MediaType.TIFF),
    (b"MM\x00+", MediaType.TIFF),
    (b"8BPS", MediaType.PHOTOSHOP),
    (b"%!PS", MediaType.POSTSCRIPT),
    (b"\xc5\xd0\xd3\xc6", MediaType.POSTSCRIPT),
    (b"SIMPLE  =", MediaType.FITS),
)
_RIFF = {b"WEBP": MediaType.WEBP, b"AVI ": MediaType.AVI}
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
# QuickTime files from before `ftyp` begin with any of these.
_QUICKTIME_ATOMS = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title")


def sniff(head: bytes) -> MediaType | None:
    """The media type of a file that begins with `head` (`HEAD_BYTES` of it are enough); None when it is none known."""
    for prefix, media_type in _PREFIXES:
        if head.startswith(prefix):
            return None if media_type is MediaType.GIF and _is_script(head) else media_type
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return MediaType.BMP
    # Markup first: its first four characters could pass for the length of an MP4's first box.
    return _markup(head) or _iso_media(head)


def is_still(head: bytes) -> bool:
    """Whether a PNG or WebP that begins with `head` (`HEAD_BYTES` of it) says that it holds one picture only.

    A PNG says so in front of its pixels, where long profiles may stand as well: behind those, only decoding tells.
    """
    media_type = sniff(head)
    if media_type is MediaType.PNG:
        return _is_still_png(head)
    # The second bit of the flags of an extended file.
    return media_type is MediaType.WEBP and not (head[12:16] == b"VP8X" and head[20:21] and head[20] & 2)


def _is_still_png(head: bytes) -> bool:
    at = 8
    while at + 8 <= len(head):
        chunk = head[at + 4 : at + 8]
        if chunk in (b"acTL", b"IDAT"):
            return chunk == b"IDAT"
        at += 12 + int.from_bytes(head[at : at + 4], "big")
    return len(head) < HEAD_BYTES


def _is_script(gif: bytes) -> bool:
    """Whether what has a GIF's signature goes on as no GIF does: text that a browser would run as a script."""
    if len(gif) < 13:
        return False  # too short to tell, and to be either
    colours = 3 * 2 ** ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0
    # An extension, an image, or the end.
    return gif[13 + colours :][:1] not in (b"!", b",", b";", b"")


def _matroska(head: bytes) -> MediaType | None:
    # The document type stands in the EBML header, which is some forty bytes long.
    if b"webm" in head[:128]:
        return MediaType.WEBM
    return MediaType.MATROSKA if b"matroska" in head[:128] else None


def _iso_media(head: bytes) -> MediaType | None:
    atom, brand = head[4:8], head[8:12]
    if atom in _QUICKTIME_ATOMS:
        return MediaType.QUICKTIME
    if atom != b"ftyp":
        return None
    if brand in (b"avif", b"avis"):
        return MediaType.AVIF
    if brand in _HEIF_BRANDS:
        return MediaType.HEIF
    return MediaType.QUICKTIME if brand == b"qt  " else MediaType.MP4


def _markup(head: bytes) -> MediaType | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_HTML_STARTS):
        return MediaType.HTML
    if text.startswith(b"<svg"):
        return MediaType.SVG
    if text.startswith((b"<?xml", b"<!--", b"<!doctype")):
        if b"<svg" in text:
            return MediaType.SVG
        if b"<html" in text:
            return MediaType.HTML
    return None
