"""The text part's loss: how well it answers many questions about each context, what it notes of its segments, and where
it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, Qwen3VLForConditionalGeneration
from transformers.cache_utils import DynamicLayer
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextAttention

from pipeline.mllm.transformers.cache import continuing
from samples.yard.train.meaning import MeaningHead
from samples.yard.train.notes import LAYERS, NoteHeads
from samples.yard.train.packing import IGNORED, Packed
from samples.yard.train.pointing import POINTERS, AttentionInput, Glance, asking, attention, log_share
from samples.yard.train.tapping import tapped

_MEANING_WEIGHT, _LOOK_WEIGHT = 0.5, 0.5
_MOSTLY = -0.7  # logarithm of half of the attention
_QUESTIONS_PER_ROW = 8


class TaughtText(nn.Module):
    """The MLLM, of which the text part learns, and the heads of its notes and of what questions mean."""

    def __init__(self, mllm: Qwen3VLForConditionalGeneration, seed: int) -> None:
        super().__init__()
        self.mllm = mllm
        self.notes = NoteHeads(seed)
        self.meaning = MeaningHead(seed)


@dataclass(frozen=True, slots=True)
class TextOutput:
    """The text part's output after each question token that an answer token follows, float32 `[answers, vocabulary]`;
    what it knows behind each picture, `[segments, HIDDEN]`, after each of LAYERS; what it knows of the question at the
    tokens that answers follow, `[answers, HIDDEN]`, after the first of them; and by glance how far off it looks, and
    the share of points at which it looks rightly."""

    said: Tensor
    known: list[Tensor]
    meant: Tensor
    looks: dict[Glance, tuple[Tensor, float]]


def read(model: Qwen3VLForConditionalGeneration, packed: Packed) -> TextOutput:
    """One pass over a context and its questions."""
    text = model.model.language_model
    embedded = text.embed_tokens(packed.context_ids)
    embedded = embedded.masked_scatter(packed.is_vision[:, None], packed.vision)
    cache = DynamicCache(config=model.config)
    tapping = [text.layers[layer - 1] for layer in LAYERS]
    with tapped(tapping) as context:
        text(
            inputs_embeds=embedded[None],
            position_ids=packed.context_positions[:, None],
            **continuing(text, cache),
        )
    place, valid = _rows(packed.owner)
    cache.batch_repeat_interleave(len(place))
    owner = torch.where(valid, packed.owner[place], -1)
    own = torch.tril(owner[:, :, None] == owner[:, None, :])
    seen = torch.arange(len(packed.context_ids), device=own.device) < packed.sees[place][:, :, None]
    attending = {layer: text.layers[layer].self_attn for layer, _ in POINTERS.values()}
    with tapped(tapping) as questions, asking(attending) as asked:
        hidden = text(
            inputs_embeds=text.embed_tokens(packed.ids[place]),
            position_ids=packed.positions[place].expand(3, -1, -1),
            attention_mask=torch.cat([seen, own], dim=2)[:, None],
            **continuing(text, cache),
        ).last_hidden_state[valid]
    answered = packed.targets != IGNORED
    meant = questions[0][valid][answered]
    looks = _looks(packed, attending, asked, cache, torch.cat([seen, own], dim=2), valid)
    return TextOutput(model.lm_head(hidden[answered]), [known[0, packed.ends] for known in context], meant, looks)


def _looks(
    packed: Packed,
    layers: Mapping[int, Qwen3VLTextAttention],
    asked: Mapping[int, AttentionInput],
    cache: DynamicCache,
    may_see: Tensor,
    valid: Tensor,
) -> dict[Glance, tuple[Tensor, float]]:
    """The attention of POINTERS from tokens that have pointers. `may_see` bool `[rows, most, C + most]`."""
    row, column = (place[packed.pointing] for place in valid.nonzero(as_tuple=True))
    most = may_see.shape[1]
    shown = functional.pad(packed.is_vision.index_fill(0, packed.ends, True), (0, most))
    found: dict[Glance, tuple[Tensor, float]] = {}
    for index, (glance, (layer, head)) in enumerate(POINTERS.items()):
        chosen = packed.glances == index
        if not bool(chosen.any()):
            continue
        at = row[chosen], column[chosen]
        allowed, wanted = may_see[at], functional.pad(packed.wanted[chosen], (0, most))
        nowhere = ~wanted.any(dim=1)
        wanted = torch.where(nowhere[:, None], allowed & ~shown, wanted)
        share = log_share(attention(layers[layer], head, asked[layer], at, _keys(cache, layer)), allowed, wanted)
        # What is there and what is not weigh the same, however often either is asked for.
        losses = [-share[part].mean() for part in (nowhere, ~nowhere) if bool(part.any())]
        found[glance] = torch.stack(losses).mean(), float((share > _MOSTLY).float().mean())
    return found


def _keys(cache: DynamicCache, layer: int) -> Tensor:
    kept = cache.layers[layer]
    assert isinstance(kept, DynamicLayer)
    assert kept.keys is not None
    return kept.keys


def _rows(owner: Tensor) -> tuple[Tensor, Tensor]:
    """Question tokens in rows of a few questions each: places in `owner` `[rows, most]`, and which are no padding.

    In one row each token would be compared with those of all questions, though it may see its own only.
    """
    lengths = torch.bincount(owner // _QUESTIONS_PER_ROW)
    ends = lengths.cumsum(0)
    place = (ends - lengths)[:, None] + torch.arange(int(lengths.max()), device=owner.device)
    valid = place < ends[:, None]
    return torch.where(valid, place, 0), valid


def first_of_each(owner: Tensor) -> Tensor:
    """Marks where a run of equal numbers begins: bool, of the argument's shape `[n]`."""
    return torch.cat([torch.ones(1, dtype=torch.bool, device=owner.device), owner[1:] != owner[:-1]])


def answer_loss(model: TaughtText, batch: Sequence[Packed]) -> tuple[Tensor, Mapping[str, float]]:
    """Cross entropy per answer token, each weighing the same, beside the loss of the notes and of what is meant; and
    exact (teacher-forced) answers by kind."""
    answers, beside, asked = [], [], 0
    figures: dict[str, list[float]] = {}
    for packed in (packed.to(model.mllm.device) for packed in batch):
        known = packed.targets != IGNORED
        wanted, owner = packed.targets[known], packed.owner[known]
        found = read(model.mllm, packed)
        said = found.said
        answers.append(functional.cross_entropy(said, wanted, reduction="sum"))
        asked += len(wanted)
        if packed.notes is not None:
            loss, right = model.notes.loss(found.known, packed.notes)
            beside.append(loss)
            for name, value in right.items():
                figures.setdefault(name, []).append(value)
        for glance, (loss, value) in found.looks.items():
            beside.append(_LOOK_WEIGHT * loss)
            figures.setdefault(f"looks {glance}", []).append(value)
        loss, value = model.meaning.loss(found.meant, owner, packed.questions)
        beside.append(_MEANING_WEIGHT * loss)
        figures.setdefault("meaning", []).append(value)
        wrong = torch.zeros(len(packed.questions), device=owner.device).index_add(
            0, owner, (said.argmax(1) != wanted).float()
        )
        for question, errors in zip(packed.questions, wrong.tolist(), strict=True):
            figures.setdefault(question.kind, []).append(float(errors == 0))
            figures.setdefault(f"family {question.family}", []).append(float(errors == 0))
    loss = torch.stack(answers).sum() / asked
    figures["answers loss"] = [float(loss.detach())]
    loss = loss + torch.stack(beside).sum() / len(batch)
    return loss, {name: sum(values) / len(values) for name, values in figures.items()}
