"""Frames as a source samples them, and their facts as a context tells them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil

from samples.yard.world.facts import FPS, FrameFacts


def sampled_times_s(seconds: float, sample_fps: float) -> list[float]:
    """Stream seconds of the frames that a source of 25 fps keeps: the first in each of `sample_fps` slots a second."""
    frames = (ceil(slot * FPS / sample_fps - 1e-6) for slot in range(ceil(seconds * sample_fps)))
    return [frame / FPS for frame in frames if frame < round(seconds * FPS)]


def told(segments: Iterable[Sequence[FrameFacts]], anchor_s: float) -> list[FrameFacts]:
    """The facts of every frame, under the time that the text before its segment states: seconds from the anchor.

    The frames of a two-frame segment keep their own facts: what either shows is shown.
    """
    return [
        replace(frame, time_s=sum(one.time_s for one in segment) / len(segment) - anchor_s)
        for segment in segments
        for frame in segment
    ]
