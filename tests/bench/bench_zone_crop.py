"""Whether a zone is better seen in its crop than in the whole picture, for the same vision tokens: is there a person in
each of six zones of PETS, by a detector, against boxes that people drew.

Run: TEST_REAL_FOOTAGE=FOLDER python -m tests.bench.bench_zone_crop
The crop is the zone with a margin around it, in which a person whose middle lies in the zone is seen whole. Differences
have 95 % intervals over blocks of ten seconds, since neighbouring pictures are alike. `bench_zone_watch` asks the
same of the main loop.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from allocator_engine.evaluate.tasks import f1
from allocator_engine.fit import FitRules, fit
from allocator_engine.grid import GRIDS
from allocator_engine.resize import Picture
from pipeline.core.cropping import crop_around
from pipeline.lab.real_truth import read_labelled
from pipeline.mllm.detector.networks import DetectionNetworks, open_networks
from pipeline.mllm.detector.words import YES_AT, DetectedObject, DetectorQuestion, understand
from pipeline.sources.av_picture import AvPicture
from pipeline.sources.cropping import part_of
from pipeline.sources.synthetic import ArrayPicture
from pipeline.types import Crop, Zone
from tests.bench.report import tell

CAMERA, SIZE = "pets09-s2l1", (576, 768)
EVERY = 7
"""One picture of so many is looked at, which are those of a second."""
BLOCK = 10
"""Pictures that are drawn again together."""
TOKENS = (6, 12, 24, 48, 108)
RESAMPLES = 2000
RULES = FitRules(GRIDS["qwen3_vl"], 1, min_tokens_per_segment=1)

Said = NDArray[np.bool_]


class ZoneCounts:
    """Pictures of a zone, by what was said of them."""

    def __init__(self, said: Said, true: Said) -> None:
        self.found, self.missed, self.false = (int(np.sum(one)) for one in (said & true, ~said & true, said & ~true))


def detected(networks: DetectionNetworks, picture: Picture, tokens: int) -> tuple[Sequence[DetectedObject], int]:
    """What is found in a picture at so many tokens, and how many it costs."""
    (segment,) = fit([(picture.height, picture.width)], [1.0], tokens, RULES).segments
    return networks.find(picture.render(segment.height, segment.width)), segment.tokens


def in_whole(found: Sequence[DetectedObject], crop: Crop) -> list[DetectedObject]:
    """Things of a crop, with their boxes in shares of the whole picture."""
    left, top = crop.left, crop.top
    wide, high = crop.right - left, crop.bottom - top
    return [
        DetectedObject(
            one.kind,
            one.confidence,
            (left + one.box[0] * wide, top + one.box[1] * high, left + one.box[2] * wide, top + one.box[3] * high),
        )
        for one in found
    ]


def interval(said: Mapping[str, Said], true: Said) -> tuple[float, float, float]:
    """F1 of the crop minus that of the whole picture, with its interval over blocks; arrays are `[pictures, zones]`."""
    rng, blocks = np.random.default_rng(0), -(-len(true) // BLOCK)
    drawn = []
    for number in range(RESAMPLES + 1):
        chosen = np.arange(blocks) if number == 0 else rng.integers(0, blocks, blocks)
        rows = np.concatenate([np.arange(one * BLOCK, min((one + 1) * BLOCK, len(true))) for one in chosen])
        crop, whole = (f1([ZoneCounts(said[name][rows], true[rows])]).value for name in ("crop", "whole"))
        drawn.append(crop - whole)
    low, high = np.percentile(drawn[1:], [2.5, 97.5])
    return drawn[0], float(low), float(high)


def pictures(file: Path, most: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The pictures that are looked at, by number."""
    with av.open(str(file)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % EVERY == 0 and number < most:
                picture = AvPicture(frame)
                yield number, picture.render(picture.height, picture.width)


def answers(
    networks: DetectionNetworks, pixels: NDArray[np.uint8], questions: Sequence[DetectorQuestion], tokens: int
) -> dict[str, tuple[list[bool], int]]:
    """What is said of each zone, from the whole picture and from its crop, and the tokens of all these looks."""
    found, cost = detected(networks, ArrayPicture(pixels), tokens)
    whole = [one.probability(found) >= YES_AT for one in questions]
    crop, spent = [], 0
    for question in questions:
        around = crop_around([Zone("zone", question.within[0])])
        assert around is not None
        seen, own = detected(networks, part_of(ArrayPicture(pixels), around), tokens)
        crop.append(question.probability(in_whole(seen, around)) >= YES_AT)
        spent += own
    return {"whole": (whole, cost * len(questions)), "crop": (crop, spent)}


def main(footage: Path) -> None:
    (camera,) = (one for one in read_labelled(footage, lambda _: SIZE) if one.name == CAMERA)
    truths = [one for one in camera.truths if one.split == "zone" and "zone" in one.text]
    questions = [one for truth in truths if (one := understand(truth.text))]
    assert len(questions) == len(truths)
    networks = open_networks(footage / "real" / "models", 1)
    shown = list(pictures(camera.file, camera.frames))
    true = np.array([[one.known[number] == 1 for one in truths] for number, _ in shown])
    rows, summary = [], dict[str, object](pictures=len(shown), zones=len(truths), true=int(true.sum()))
    for tokens in TOKENS:
        found = [answers(networks, pixels, questions, tokens) for _, pixels in shown]
        said = {kind: np.array([one[kind][0] for one in found]) for kind in ("whole", "crop")}
        figures = {kind: f1([ZoneCounts(array, true)]).value for kind, array in said.items()}
        gain, low, high = interval(said, true)
        cost = sum(one["crop"][1] for one in found) / true.size
        rows.append((tokens, figures["whole"], figures["crop"], f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]", cost))
        summary[f"gain_{tokens}"] = round(gain, 4)
    columns = ("tokens at most", "F1 whole", "F1 crop", "gain", "tokens of a crop")
    tell("zones of PETS, whole picture against crop", columns, rows, summary)


if __name__ == "__main__":
    if "TEST_REAL_FOOTAGE" not in os.environ:
        sys.exit("bench_zone_crop: TEST_REAL_FOOTAGE names no folder; expected one with real/clips, labels and models")
    main(Path(os.environ["TEST_REAL_FOOTAGE"]))
