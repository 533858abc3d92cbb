"""A name for the exact bytes of a local checkpoint."""

import hashlib
import json
from pathlib import Path

_BLOCK = 4096
_BLOCKS = 256


def local_revision(folder: Path) -> str:
    """`local-…` from every configuration file, every weight file's header and size, and a sample of its numbers.

    Reading all of the weights would take as long as loading them; training changes every block of them.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".txt", ".model"):
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix == ".safetensors":
            digest.update(path.name.encode())
            _add_sample(digest, path)
    return f"local-{digest.hexdigest()[:16]}"


def _add_sample(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        if header < size:
            digest.update(json.dumps([size, header]).encode() + file.read(header))
        for place in range(0, size, max(_BLOCK, size // _BLOCKS)):
            file.seek(place)
            digest.update(file.read(_BLOCK))
