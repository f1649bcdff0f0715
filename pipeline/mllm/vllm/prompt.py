"""A prompt as vLLM takes it: token ids with one placeholder per picture, the pictures under their names, and the ids
that all of it must become. Pure.

Text is encoded part by part, as a growing context is read, so that what was read stays a prefix. Around a two-frame
video vLLM writes time text and markers by itself for some families, from the item's metadata; for the others, and for
images, they are written here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from pipeline.core.context import Context
from pipeline.errors import EngineMismatch
from pipeline.mllm.prompt import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, Vision, opening, stamp, suffix
from pipeline.types import Segment

Picture: TypeAlias = object
"""uint8 RGB: `[height, width, 3]` of an image, or `[2, height, width, 3]` of a video with its metadata."""

_WRITES_TIME = frozenset({"qwen3_vl", "qwen3_5"})
_TENTHS_PER_S = 10
_REMEMBERED_TEXTS = 4096


@dataclass(slots=True)
class VllmPrompt:
    """All that the questions on a context share.

    `sent` are the token ids with one placeholder per picture, `ids` those that the model must see in the end. The
    pictures and their names are listed by modality, in order. `ends` holds the length of `ids` behind each segment.
    """

    sent: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)


class PromptWriter:
    """Writes prompts of a family. `encode` gives the token ids of a text, chat markup included. Raises EngineMismatch
    for a tokenizer that does not know the markers of pictures."""

    def __init__(self, family: str, encode: Callable[[str], Sequence[int]]) -> None:
        self._family = family
        self.encode = lru_cache(_REMEMBERED_TEXTS)(lambda text: tuple(encode(text)))
        self._start, self._end, self._image, self._video = map(
            self.special, (VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
        )

    def special(self, token: str) -> int:
        """The id of a special token. Raises EngineMismatch if the tokenizer does not know it."""
        ids = self.encode(token)
        if len(ids) != 1:
            raise EngineMismatch(f"the tokenizer does not know {token}; expected a Qwen-VL one")
        return ids[0]

    def prefix(self, context: Context, aside: Sequence[Segment] = ()) -> VllmPrompt:
        """The instruction and all pictures of the context, those shown aside behind it."""
        prompt = VllmPrompt()
        prompt.sent.extend(self.encode(opening(self._family).text))
        prompt.ids.extend(prompt.sent)
        for segment in (*context.segments, *aside):
            self._look(prompt, segment, context.anchor_s)
            prompt.ends.append(len(prompt.ids))
        return prompt

    def question(self, text: str, hint: str = "") -> list[int]:
        """The ids of one question, with a `hint` of what may answer it, and the opening of its answer. Raises
        ConfigError as `suffix` does."""
        return list(self.encode(suffix(text, self._family, hint).text))

    def _look(self, prompt: VllmPrompt, segment: Segment, anchor_s: float) -> None:
        time = stamp(segment, anchor_s)
        video = Vision(segment).pad == VIDEO_PAD
        modality, pad = ("video", self._video) if video else ("image", self._image)
        before, after = [*self.encode(time), self._start], [self._end]
        prompt.ids += [*before, *[pad] * segment.tokens, *after]
        told = video and self._family in _WRITES_TIME
        prompt.sent += [pad] if told else [*before, pad, *after]
        prompt.pictures.setdefault(modality, []).append(_picture(segment, anchor_s))
        # vLLM keeps the time text it wrote together with the pixels, under this name.
        name = f"{segment.content_id}@{time}" if told else segment.content_id
        prompt.names.setdefault(modality, []).append(name)


def _picture(segment: Segment, anchor_s: float) -> Picture:
    if len(segment.pts_s) == 1:
        return segment.pixels[0]
    return segment.pixels, _metadata(segment, anchor_s)


def _metadata(segment: Segment, anchor_s: float) -> dict[str, object]:
    """Metadata of a video whose frames are not sampled again. Both get the mean time, which is all that is written of
    them, as a whole number of tenths: two times would be rounded once more, and not always as `stamp` rounds."""
    tenths = round(_TENTHS_PER_S * round(segment.time_s - anchor_s, 1))
    return {
        "fps": float(_TENTHS_PER_S),
        "frames_indices": [tenths] * len(segment.pts_s),
        "total_num_frames": max(tenths, 0) + 1,
        "do_sample_frames": False,
    }
