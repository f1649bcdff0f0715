"""Networks that stand in for those of a detector's folder."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.mllm.detector.networks import ATTRIBUTES, DETECTOR
from pipeline.mllm.detector.words import DetectedObject

LEGIBLE_PX = 12
"""Height from which `BrightNetworks` is sure of what it sees."""


class DigestNetworks:
    """Finds one person in every picture, as sure as the pixels' checksum says."""

    def find(self, pixels: NDArray[np.uint8]) -> tuple[DetectedObject, ...]:
        sure = zlib.crc32(np.ascontiguousarray(pixels).tobytes()) / 2**32
        return (DetectedObject("person", sure, (0.1, 0.1, 0.3, 0.5)),)


class BrightNetworks:
    """Takes bright upright patches for people, and is the surer the taller they are in px."""

    def find(self, pixels: NDArray[np.uint8]) -> tuple[DetectedObject, ...]:
        height, width = pixels.shape[:2]
        bright = (pixels.min(axis=2) > 170).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        found = []
        for left, top, wide, tall, _ in stats[1:count].tolist():
            box = (left / width, top / height, (left + wide) / width, (top + tall) / height)
            found.append(DetectedObject("person", min(1.0, tall / LEGIBLE_PX), box))
        return tuple(found)


def folder_of_networks(folder: Path) -> Path:
    """A folder with files of the right names, which hold nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (DETECTOR, ATTRIBUTES):
        for suffix in (".xml", ".bin"):
            (folder / f"{name}{suffix}").write_bytes(b"")
    return folder


def walkers(path: Path, seconds: float, visits: Sequence[tuple[float, float]], fps: int = 10) -> Path:
    """A recording of a grey yard, 192 x 320 px, in which a bright upright figure stands during the visits (seconds)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ground = np.random.default_rng(1).integers(50, 90, (192, 320, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = 192, 320, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for number in range(round(seconds * fps)):
            pixels = ground.copy()
            if any(since <= number / fps < until for since, until in visits):
                pixels[60:124, 100:124] = 240
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode(None))
    return path


def footage(folder: Path, seconds: float = 40.0) -> Path:
    """A folder of labelled recordings: people who come and go, known by statements and by boxes."""
    fps, frames = 10, round(seconds * 10)
    visits = [(2.0, 6.0), (10.0, 13.0), (18.0, 21.0), (27.0, 30.0), (33.0, 36.0)]
    inside = [(round(since * fps), round(until * fps) - 1) for since, until in visits]
    walkers(folder / "clips" / "hall.mp4", seconds, visits)
    walkers(folder / "real" / "clips" / "yard.mp4", seconds, visits)
    labels = folder / "real" / "labels"
    labels.mkdir(parents=True)
    stated = {"fps": fps, "frames": frames, "a person is in view": inside, "a boat is in view": [[5, 90]]}
    (labels / "clips.json").write_text(json.dumps({"hall.mp4": stated}))
    rows = [f"{frame},1,100,60,24,64" for first, last in inside for frame in range(first, last + 1)]
    rows.append(f"{frames - 1},2,10,10,8,8")  # so that all frames are counted
    (labels / "yard.boxes.csv").write_text("\n".join(["frame,person,left_px,top_px,width_px,height_px", *rows]) + "\n")
    folder_of_networks(folder / "real" / "models")
    return folder
