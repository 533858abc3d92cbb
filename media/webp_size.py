"""Width and height of a WebP, read from its first bytes: opening one allocates its pixels twice."""

HEAD_BYTES = 30

_SIDE = (1 << 14) - 1


def webp_size(head: bytes) -> tuple[int, int] | None:
    """What the first chunk says; None where it is none that begins a WebP."""
    if len(head) < HEAD_BYTES:
        return None
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8L":
            sides = int.from_bytes(head[21:25], "little")
            return 1 + (sides & _SIDE), 1 + (sides >> 14 & _SIDE)
        case b"VP8 ":
            return int.from_bytes(head[26:28], "little") & _SIDE, int.from_bytes(head[28:30], "little") & _SIDE
    return None
