"""What a segment of one or two frames shows, as facts."""

from collections.abc import Sequence
from dataclasses import replace

from samples.yard.facts import FrameFacts, Thing


def merged(frames: Sequence[FrameFacts]) -> FrameFacts:
    """Each object as that frame shows it that shows it better; a gate or barrier that differs is undecided.

    `time_s` is the frames' mean, as the time text of a segment states it.
    """
    first, last = frames[0], frames[-1]
    if len(frames) == 1:
        return last
    best: dict[int, Thing] = {}
    for thing in (thing for frame in frames for thing in frame.things):
        known = best.get(thing.id)
        if known is None or _clarity(thing) > _clarity(known):
            best[thing.id] = thing
    return replace(
        last,
        time_s=sum(frame.time_s for frame in frames) / len(frames),
        gate_open=last.gate_open if first.gate_open == last.gate_open else None,
        barrier_up=last.barrier_up if first.barrier_up == last.barrier_up else None,
        things=tuple(best.values()),
    )


def _clarity(thing: Thing) -> tuple[bool, float, float]:
    return thing.visible, thing.plate_px, thing.fraction
