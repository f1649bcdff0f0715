"""The encoder's work between sampled frames, from the signs of all frames. Pure."""

from collections.abc import Sequence
from statistics import fmean

from allocator_engine.evaluate.baselines import CodecActivity
from allocator_engine.train.rollout import ClipHop
from pipeline.sources.codec_signs import CodecSign

_SLACK_S = 1e-3


def activity_of(
    signs: Sequence[CodecSign], hops: Sequence[ClipHop], begins_s: float = 0.0
) -> tuple[tuple[CodecActivity, ...], ...]:
    """The work of each frame of each hop of a clip that begins at `begins_s` seconds of its recording: that of the
    packets since the sampled frame before. Key frames, which cost much whatever happens, are left out."""
    found, last_s, place = [], begins_s - 1.0, 0
    while place < len(signs) and signs[place].pts_s <= last_s + _SLACK_S:
        place += 1
    for hop in hops:
        frames = []
        for pts_s in hop.pts_s:
            first = place
            while place < len(signs) and signs[place].pts_s <= pts_s + begins_s + _SLACK_S:
                place += 1
            frames.append(_mean([one for one in signs[first:place] if not one.key]))
        found.append(tuple(frames))
    return tuple(found)


def _mean(signs: Sequence[CodecSign]) -> CodecActivity:
    if not signs:
        return CodecActivity(0.0, 0.0)
    return CodecActivity(fmean(one.bytes for one in signs), fmean(one.motion for one in signs))
