"""Decoding: a video's memory and time from 1 to 60 minutes, beside others; a photo's time beside Pillow with draft.

Every decoder reads the same file in turn, round by round, in a process of its own that tells its peak memory. Ours goes
through the whole guarded way: a server, a child, and pixels that are mapped into this process.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import psutil
from PIL import Image

from media.load import LocalFile, MediaLoader, VideoSampling
from vlmq.config import Settings

MINUTES = (1, 10, 60)
FRAMES = 32
FPS = 24
WIDTH, HEIGHT = 640, 360
PHOTO = (4000, 3000)
PHOTO_PIXELS = 1_000_000
PHOTO_ROUNDS = 15
MEBIBYTE = 2**20
# A full decode of an hour takes minutes and shows nothing that ten minutes do not.
FULL_DECODE_MINUTES = (1, 10)

# Each reads 32 frames, spread evenly, as RGB, and prints its seconds and its own peak memory.
_PEERS = {
    "PyAV, full decode": """
kept = []
with av.open(path) as container:
    for number, frame in enumerate(container.decode(video=0)):
        if number in wanted:
            kept.append(frame.to_ndarray(format="rgb24"))
""",
    "OpenCV, seek": """
kept, capture = [], cv2.VideoCapture(path)
for number in sorted(wanted):
    capture.set(cv2.CAP_PROP_POS_FRAMES, number)
    kept.append(capture.read()[1][..., ::-1].copy())
""",
    "decord, get_batch": """
kept = decord.VideoReader(path).get_batch(sorted(wanted)).asnumpy()
""",
}
_IMPORTS = {"PyAV, full decode": "av", "OpenCV, seek": "cv2", "decord, get_batch": "decord"}
_PROGRAM = """
import json, resource, sys, time
import {module}
path, total, frames = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
wanted = {{k * total // frames for k in range(frames)}}
began = time.perf_counter()
{body}
seconds = time.perf_counter() - began
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, int(peak.split()[1]) * 1024, len(kept)]))
"""


def measure(rounds: int) -> list[dict[str, Any]]:
    """Rows of seconds and mebibytes."""
    with tempfile.TemporaryDirectory(prefix="vlmq-bench-") as name:
        folder = Path(name)
        loader = MediaLoader(Settings(data_dir=folder / "data"))
        try:
            return [*_videos(folder, loader, rounds), *_photos(folder, loader)]
        finally:
            loader.close()


def _videos(folder: Path, loader: MediaLoader, rounds: int) -> list[dict[str, Any]]:
    rows = []
    peaks: dict[int, float] = {}
    for minutes in MINUTES:
        path = _write(folder / f"{minutes}.mp4", minutes)
        total = minutes * 60 * FPS
        times: dict[str, list[float]] = {}
        memory: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, (taken, peak) in _round(path, total, minutes, loader).items():
                times.setdefault(name, []).append(taken)
                memory.setdefault(name, []).append(peak / MEBIBYTE)
        for name, seconds in times.items():
            rows.append({"what": f"{minutes} min: {name}", "p50": median(seconds) * 1000, "unit": "ms"})
            rows.append({"what": f"{minutes} min: {name}, peak memory", "p50": median(memory[name]), "unit": "MiB"})
        best = min(median(seconds) for name, seconds in times.items() if name != "vlmq")
        rows.append({"what": f"{minutes} min: vlmq / best peer", "p50": median(times["vlmq"]) / best, "unit": "x"})
        peaks[minutes] = median(memory["vlmq"])
    ratio = peaks[MINUTES[-1]] / peaks[MINUTES[0]]
    rows.append({"what": f"memory, {MINUTES[-1]} min / {MINUTES[0]} min", "p50": ratio, "unit": "x"})
    return rows


def _round(path: Path, total: int, minutes: int, loader: MediaLoader) -> dict[str, tuple[float, float]]:
    found = {"vlmq": _ours(path, loader)}
    for name, body in _PEERS.items():
        if name == "PyAV, full decode" and minutes not in FULL_DECODE_MINUTES:
            continue
        program = _PROGRAM.format(module=_IMPORTS[name], body=body)
        output = subprocess.run(
            [sys.executable, "-c", program, str(path), str(total), str(FRAMES)], capture_output=True, check=True
        )
        taken, peak, kept = json.loads(output.stdout)
        if kept != FRAMES:
            raise RuntimeError(f"{name} gave {kept} frames, not {FRAMES}")
        found[name] = taken, peak
    return found


def _ours(path: Path, loader: MediaLoader) -> tuple[float, float]:
    """Seconds, and the peak of the child that decodes, which is looked at while it works."""
    source = LocalFile(path, sha256="0" * 64)
    began = time.perf_counter()
    video = loader.load_video(source, VideoSampling(num_frames=FRAMES), param="video")
    taken = time.perf_counter() - began
    if len(video.timestamps) != FRAMES:
        raise RuntimeError(f"vlmq gave {len(video.timestamps)} frames, not {FRAMES}")
    del video
    # Once more for its memory, since looking costs time.
    return taken, _peak_of_children(lambda: loader.load_video(source, VideoSampling(num_frames=FRAMES), param="video"))


def _peak_of_children(work: Any) -> float:
    peak = 0.0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        while not running.done():
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(OSError, StopIteration):
                    status = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
                    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
                    peak = max(peak, int(line.split()[1]) * 1024)
            time.sleep(0.001)
        running.result()
    return peak


def _photos(folder: Path, loader: MediaLoader) -> list[dict[str, Any]]:
    noise = np.random.default_rng(0).integers(0, 255, (PHOTO[1] // 16, PHOTO[0] // 16, 3), np.uint8)
    path = folder / "photo.jpg"
    Image.fromarray(noise).resize(PHOTO, Image.Resampling.BICUBIC).save(path, quality=90)
    source, size = LocalFile(path, sha256="0" * 64), (1154, 866)
    ours, pillow = [], []
    for _ in range(PHOTO_ROUNDS):
        began = time.perf_counter()
        loader.load_image(source, param="image", max_pixels=PHOTO_PIXELS)
        ours.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.draft("RGB", size)
            np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        pillow.append((time.perf_counter() - began) * 1000)
    ratio = median(mine / peer for mine, peer in zip(ours, pillow, strict=True))
    return [
        {"what": "12 MP JPEG to 1 MP: vlmq", "p50": median(ours), "unit": "ms"},
        {"what": "12 MP JPEG to 1 MP: Pillow with draft", "p50": median(pillow), "unit": "ms"},
        {"what": "12 MP JPEG: vlmq / Pillow (paired)", "p50": ratio, "unit": "x"},
    ]


def _write(path: Path, minutes: int) -> Path:
    """A minute of moving blocks with a key frame every two seconds, and its packets again for each further minute."""
    base = np.random.default_rng(1).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    minute = path.with_name("minute.mp4")
    if not minute.exists():
        with av.open(str(minute), "w") as output:
            stream = output.add_stream("libx264", rate=FPS, options={"g": str(2 * FPS), "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(60 * FPS):
                pixels = np.ascontiguousarray(np.roll(base, number, axis=1))
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode())
    with av.open(str(path), "w") as output:
        target = None
        for turn in range(minutes):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                shift = turn * round(60 / (stream.time_base or Fraction(1, FPS)))
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, target
                    output.mux(packet)
    return path
