"""The yard's frozen MLLM as training asks it: many allocations of one episode, all questions behind each."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, DynamicCache, Qwen3VLForConditionalGeneration
from transformers.utils import logging as transformers_logging

from allocator_engine.fit import Allocation, SegmentSize
from allocator_engine.resize import Pixels
from allocator_engine.train.reward import dense
from allocator_engine.train.rollout import ClipHop, Episode, GradedQuestion, RewardKind
from pipeline.errors import ConfigError
from pipeline.mllm.patches import patch_grid, patches
from pipeline.mllm.prompt import VISION_END, VISION_START, Text, looks, opening, suffix
from pipeline.mllm.transformers.cache import continuing
from pipeline.mllm.transformers.positions import positions
from pipeline.types import Segment
from samples.yard.episodes.vision import embed_patches_by_product, tokens
from samples.yard.shape import FAMILY, NORMALISATION, grid

_PATCHES = 2048  # of pictures in one call of the vision part
_KEPT_TEXTS = 50_000  # token ids that are remembered
_KEPT_TOKENS = 262_144  # vision tokens that are kept, 200 MB

_Look: TypeAlias = tuple[str, float, SegmentSize]
"""A picture: of which episode, of the hop that begins at which second, which of its frames at what size."""


@dataclass(frozen=True, slots=True)
class _EpisodePrompt:
    """A context: `ids` int64 `[C]`, `where` int64 `[3, C]`, `seen` bool `[C]`, `vision` float32 `[V, HIDDEN]`; how many
    of its tokens, which next position and how many segments there are as each hop ends."""

    ids: Tensor
    where: Tensor
    seen: Tensor
    vision: Tensor
    ends: tuple[tuple[int, int, int], ...]


class YardAnswerer:
    """The yard's MLLM: `dense` rewards are probabilities of the right answer, `sparse` ones whether it would be said.

    An episode is read once per allocation, all its questions behind it: each sees what was shown when it was asked. The
    time text counts from the episode's first frame, so that a question means the same under every allocation. What
    was encoded at some size is kept for the other allocations of the group, and for other parts of the same episode.
    Raises ConfigError without a checkpoint.
    """

    def __init__(self, checkpoint: Path, reward_kind: RewardKind = "dense", device: str = "cpu") -> None:
        if not (checkpoint / "model.safetensors").exists():
            raise ConfigError(f"{checkpoint} holds no model.safetensors; expected the folder of a trained checkpoint")
        self.reward_kind: RewardKind = reward_kind
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # it would draw into our own
        self._model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, attn_implementation="sdpa")
        torch.nn.Module.eval(torch.nn.Module.to(self._model, device)).requires_grad_(False)
        embed_patches_by_product(self._model.model.visual)
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._ids: dict[str, list[int]] = {}
        self._words = Lock()  # the tokenizer takes one text at a time
        self._kept = _KeptVision(_KEPT_TOKENS)

    def rewards(self, episode: Episode, variants: Sequence[Sequence[Allocation]]) -> NDArray[np.float64]:
        """See Answerer."""
        with torch.inference_mode():
            encoded = self._encoded(episode, variants)
            return np.array(
                [self._grades(self._prompt(episode, variant, encoded), episode.probes) for variant in variants]
            )

    def _encoded(self, episode: Episode, variants: Sequence[Sequence[Allocation]]) -> dict[_Look, Tensor]:
        """Vision tokens of each different picture of the variants, many in a call."""
        wanted = {
            (episode.name, hop.start_s, size): hop
            for variant in variants
            for hop, allocation in zip(episode.hops, variant, strict=True)
            for size in allocation.segments
        }
        found = self._kept.find(wanted)
        for part in _parts([look for look in wanted if look not in found]):
            found |= zip(part, self._encode([_rendered(wanted[look], look[2]) for look in part]), strict=True)
        self._kept.keep(found)
        return found

    def _encode(self, pictures: Sequence[Pixels]) -> Sequence[Tensor]:
        device = self._model.device
        cut = np.concatenate([patches(pixels, grid(), NORMALISATION) for pixels in pictures])
        sizes = torch.tensor([patch_grid(pixels.shape[1], pixels.shape[2], grid()) for pixels in pictures])
        seen = tokens(self._model.model.visual, torch.from_numpy(cut).to(device), sizes.to(device))
        counts = [grid().tokens(pixels.shape[1], pixels.shape[2]) for pixels in pictures]
        return [part.clone() for part in torch.split(seen, counts)]

    def _tokens(self, text: str) -> list[int]:
        """Token ids of a text, remembered."""
        with self._words:
            if text not in self._ids:
                if len(self._ids) >= _KEPT_TEXTS:
                    self._ids.clear()
                self._ids[text] = self._tokenizer.encode(text, add_special_tokens=False)
            return self._ids[text]

    def _prompt(
        self, episode: Episode, variant: Sequence[Allocation], encoded: Mapping[_Look, Tensor]
    ) -> _EpisodePrompt:
        ids = list(self._tokens(opening(FAMILY).text))
        first, start = positions([len(ids)])
        where, seen, vision, ends, count = [first], [False] * len(ids), [], [], 0
        for hop, allocation in zip(episode.hops, variant, strict=True):
            for part in looks([_bare(hop, size) for size in allocation.segments], episode.hops[0].pts_s[0]):
                if isinstance(part, Text):
                    new = self._tokens(part.text)
                    columns, start = positions([len(new)], start)
                    seen += [False] * len(new)
                else:
                    pads = self._tokens(part.pad) * part.segment.tokens
                    new = [*self._tokens(VISION_START), *pads, *self._tokens(VISION_END)]
                    cells = (part.segment.size[0] // grid().cell_px, part.segment.size[1] // grid().cell_px)
                    columns, start = positions([1, cells, 1], start)
                    seen += [False, *[True] * len(pads), False]
                ids += new
                where.append(columns)
            vision += [encoded[episode.name, hop.start_s, size] for size in allocation.segments]
            count += len(allocation.segments)
            ends.append((len(ids), start, count))
        device = self._model.device
        return _EpisodePrompt(
            torch.tensor(ids, device=device),
            torch.from_numpy(np.concatenate(where, axis=1)).to(device),
            torch.tensor(seen, device=device),
            torch.cat(vision) if vision else torch.empty(0, device=device),
            tuple(ends),
        )

    def _grades(self, prompt: _EpisodePrompt, probes: Sequence[GradedQuestion]) -> list[float]:
        """The grade of each question, 0 to 1; 0 if nothing had been shown."""
        grades = [0.0] * len(probes)
        asked = [i for i, probe in enumerate(probes) if prompt.ends[probe.asked_hop][2]]
        if asked:
            said = self._said(prompt, [probes[i] for i in asked])
            for i, (logs, best) in zip(asked, said, strict=True):
                grades[i] = dense(logs) if self.reward_kind == "dense" else float(best)
        return grades

    def _said(self, prompt: _EpisodePrompt, probes: Sequence[GradedQuestion]) -> list[tuple[list[float], bool]]:
        """Log-probabilities of the right answer's tokens, and whether each of them is the likeliest."""
        text, device = self._model.model.language_model, prompt.ids.device
        embedded = text.embed_tokens(prompt.ids)
        if len(prompt.vision):
            embedded = embedded.masked_scatter(prompt.seen[:, None], prompt.vision)
        cache = DynamicCache(config=self._model.config)
        text(inputs_embeds=embedded[None], position_ids=prompt.where[:, None], **continuing(text, cache))
        written = [self._written(probe) for probe in probes]
        lengths = [len(ids) for ids, _ in written]
        ends = [prompt.ends[probe.asked_hop] for probe in probes]
        owner = torch.repeat_interleave(torch.tensor(lengths))
        where = torch.cat([torch.arange(end[1], end[1] + n) for end, n in zip(ends, lengths, strict=True)])
        sees = torch.arange(len(prompt.ids)) < torch.tensor([end[0] for end in ends])[owner, None]
        own = torch.tril(owner[:, None] == owner[None, :])
        hidden = text(
            inputs_embeds=text.embed_tokens(torch.tensor([t for ids, _ in written for t in ids], device=device))[None],
            position_ids=where.to(device).expand(3, 1, -1),
            attention_mask=torch.cat([sees, own], dim=1)[None, None].to(device),
            **continuing(text, cache),
        ).last_hidden_state[0]
        last = np.cumsum(lengths)
        spots = [range(end - len(answer), end) for end, (_, answer) in zip(last.tolist(), written, strict=True)]
        flat = torch.tensor([spot for part in spots for spot in part], device=device)
        logs = torch.log_softmax(self._model.lm_head(hidden[flat]), dim=1).cpu()
        wanted = torch.tensor([token for _, answer in written for token in answer])
        right, best = logs.gather(1, wanted[:, None])[:, 0], logs.argmax(1) == wanted
        sizes = [len(answer) for _, answer in written]
        pairs = zip(torch.split(right, sizes), torch.split(best, sizes), strict=True)
        return [(values.tolist(), bool(hit.all())) for values, hit in pairs]

    def _written(self, probe: GradedQuestion) -> tuple[list[int], list[int]]:
        """The tokens that are read, and those of the answer, which come out one place later."""
        asked = self._tokens(suffix(probe.text, FAMILY).text)
        answer = [*self._tokens(probe.truth)]
        if probe.form != "yes_no":
            answer += self._tokens("<|im_end|>")  # "A7" would else be half right for "A7K"
        return [*asked, *answer[:-1]], answer


class _KeptVision:
    """Vision tokens of the pictures that were wanted last, at most so many. Safe to use from several threads."""

    def __init__(self, most_tokens: int) -> None:
        self._kept: OrderedDict[_Look, Tensor] = OrderedDict()
        self._room, self._lock = most_tokens, Lock()

    def find(self, wanted: Iterable[_Look]) -> dict[_Look, Tensor]:
        """Those of the pictures that are kept."""
        with self._lock:
            return {look: self._kept[look] for look in wanted if look in self._kept}

    def keep(self, looks: Mapping[_Look, Tensor]) -> None:
        """Keep these; those unused for longest go."""
        with self._lock:
            for look, tensor in looks.items():
                self._room += len(self._kept.pop(look, ())) - len(tensor)
                self._kept[look] = tensor
            while self._room < 0:
                self._room += len(self._kept.popitem(last=False)[1])


def _rendered(hop: ClipHop, size: SegmentSize) -> Pixels:
    return np.stack([hop.pictures[i].render(size.height, size.width) for i in size.frames])


def _bare(hop: ClipHop, size: SegmentSize) -> Segment:
    """The segment without its pixels."""
    nothing: Pixels = np.broadcast_to(np.uint8(0), (len(size.frames), size.height, size.width, 3))
    return Segment(tuple(hop.pts_s[i] for i in size.frames), nothing, size.tokens, "")


def _parts(looks: Sequence[_Look]) -> Iterator[list[_Look]]:
    """The pictures in runs of at most _PATCHES patches, those of one size together."""
    part: list[_Look] = []
    room = _PATCHES
    for look in sorted(looks, key=lambda look: (look[2].height, look[2].width, look[1], look[2].frames)):
        cost = look[2].tokens * grid().merge ** 2
        if part and cost > room:
            yield part
            part, room = [], _PATCHES
        part.append(look)
        room -= cost
    if part:
        yield part
