"""The networks of a detector's folder: two of the Open Model Zoo, run by OpenVINO. The only importer of openvino."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from allocator_engine.errors import not_installed
from pipeline.errors import ConfigError
from pipeline.mllm.detector.words import COLOURS, TYPES, DetectedObject, ObjectKind

DETECTOR = "person-vehicle-bike-detection-2002"
ATTRIBUTES = "vehicle-attributes-recognition-barrier-0039"
"""Names of the networks, of each of which a folder holds an .xml and a .bin file."""

FAINT = 0.05
"""Confidence below which a finding is left out."""

_KINDS: tuple[ObjectKind, ...] = ("vehicle", "person", "bicycle")


class DetectionNetworks(Protocol):
    """The networks as the backend uses them, from several threads at once."""

    def find(self, pixels: NDArray[np.uint8]) -> tuple[DetectedObject, ...]:
        """The things in a picture, uint8 `[height, width, 3]` RGB, of any size."""
        ...


def open_networks(folder: Path, threads: int) -> DetectionNetworks:
    """The networks of a folder, each computed on so many CPU threads.

    Raises ConfigError where a file is missing or damaged, or openvino is not installed.
    """
    wanted = [f"{name}{suffix}" for name in (DETECTOR, ATTRIBUTES) for suffix in (".xml", ".bin")]
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        raise ConfigError(
            f"mllm.use names the detector {folder}, which lacks {', '.join(missing)}; expected a folder that holds"
            f" {DETECTOR} and {ATTRIBUTES} of the Open Model Zoo, .xml and .bin of each"
        )
    if find_spec("openvino") is None:
        raise ConfigError(f"mllm.use is 'detector:{folder}', and {not_installed('openvino', 'detector')}")
    return OpenVinoNetworks(folder, threads)


class OpenVinoNetworks:
    """The two networks on the CPU."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._detector = _Network(folder / f"{DETECTOR}.xml", threads)
        self._attributes = _Network(folder / f"{ATTRIBUTES}.xml", threads)

    def find(self, pixels: NDArray[np.uint8]) -> tuple[DetectedObject, ...]:
        """See DetectionNetworks."""
        (rows,) = self._detector(pixels).values()
        found = []
        for image, label, confidence, *box in rows.reshape(-1, 7).tolist():
            if image < 0:  # the end of the list
                break
            if confidence >= FAINT and 0 <= int(label) < len(_KINDS):
                left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in box)
                found.append(self._described(pixels, _KINDS[int(label)], confidence, (left, top, right, bottom)))
        return tuple(found)

    def _described(
        self, pixels: NDArray[np.uint8], kind: ObjectKind, confidence: float, box: tuple[float, float, float, float]
    ) -> DetectedObject:
        """The thing, with its attributes if it is a vehicle."""
        if kind != "vehicle":
            return DetectedObject(kind, confidence, box)
        height, width = pixels.shape[:2]
        left, top = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
        right, bottom = max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))
        said = self._attributes(pixels[top:bottom, left:right])
        types = dict(zip(TYPES, said["type"].ravel().tolist(), strict=True))
        return DetectedObject(
            kind, confidence, box, types, dict(zip(COLOURS, said["color"].ravel().tolist(), strict=True))
        )


class _Network:
    """A compiled network of one picture, which it is given in its own size, BGR from 0 to 255."""

    def __init__(self, file: Path, threads: int) -> None:
        import openvino

        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        try:
            self._compiled = openvino.Core().compile_model(str(file), "CPU", options)
            _, _, self._height, self._width = self._compiled.input(0).shape
        except (RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[-1][:200]
            raise ConfigError(f"the detector's network {file} cannot be opened ({first}); fetch it again") from error

    def __call__(self, pixels: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        sized = Image.fromarray(pixels).resize((self._width, self._height), Image.Resampling.BILINEAR)
        planes = np.asarray(sized, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2)
        results = self._compiled.infer_new_request({0: np.ascontiguousarray(planes)})
        return {port.any_name: np.array(values, np.float32) for port, values in results.items()}
