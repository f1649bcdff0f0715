"""The text part's loss: how well it answers many questions about each context, and what it notes of its segments."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from samples.yard.train.notes import LAYERS, NoteHeads
from samples.yard.train.packing import IGNORED, Packed


class TaughtText(nn.Module):
    """The MLLM, of which the text part learns, and the heads of its notes."""

    def __init__(self, mllm: Qwen3VLForConditionalGeneration, seed: int) -> None:
        super().__init__()
        self.mllm = mllm
        self.notes = NoteHeads(seed)


def read(model: Qwen3VLForConditionalGeneration, packed: Packed) -> tuple[Tensor, list[Tensor]]:
    """What the text part says after each question token that an answer token follows: `[answers, vocabulary]`; and
    what it knows behind each picture, `[segments, HIDDEN]`, after each of LAYERS."""
    text = model.model.language_model
    embedded = text.embed_tokens(packed.context_ids)
    embedded = embedded.masked_scatter(packed.is_vision[:, None], packed.vision)
    cache = DynamicCache(config=model.config)
    with _tapped([text.layers[layer - 1] for layer in LAYERS]) as tapped:
        text(
            inputs_embeds=embedded[None],
            position_ids=packed.context_positions[:, None],
            past_key_values=cache,
            use_cache=True,
        )
    own = torch.tril(packed.owner[:, None] == packed.owner[None, :])
    seen = torch.arange(len(packed.context_ids), device=own.device) < packed.sees[:, None]
    hidden = text(
        inputs_embeds=text.embed_tokens(packed.ids)[None],
        position_ids=packed.positions.expand(3, 1, -1),
        attention_mask=torch.cat([seen, own], dim=1)[None, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[0]
    said: Tensor = model.lm_head(hidden[packed.targets != IGNORED])
    return said, [known[0, packed.ends] for known in tapped]


@contextmanager
def _tapped(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The outputs of layers, in the order in which they run."""
    found: list[Tensor] = []

    def keep(layer: nn.Module, given: object, output: Tensor | tuple[Tensor, ...]) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def answer_loss(model: TaughtText, batch: Sequence[Packed]) -> tuple[Tensor, Mapping[str, float]]:
    """Cross entropy per answer token, each question weighing the same, beside the loss of the notes; and exact
    (teacher-forced) answers by kind."""
    answers, notes, asked = [], [], 0
    figures: dict[str, list[float]] = {}
    for packed in (packed.to(model.mllm.device) for packed in batch):
        known = packed.targets != IGNORED
        wanted, owner = packed.targets[known], packed.owner[known]
        said, hidden = read(model.mllm, packed)
        answers.append(functional.cross_entropy(said, wanted, reduction="sum"))
        asked += len(wanted)
        if packed.notes is not None:
            loss, right = model.notes.loss(hidden, packed.notes)
            notes.append(loss)
            for name, value in right.items():
                figures.setdefault(name, []).append(value)
        wrong = torch.zeros(len(packed.questions), device=owner.device).index_add(
            0, owner, (said.argmax(1) != wanted).float()
        )
        for question, errors in zip(packed.questions, wrong.tolist(), strict=True):
            figures.setdefault(question.kind, []).append(float(errors == 0))
            figures.setdefault(f"family {question.family}", []).append(float(errors == 0))
    loss = torch.stack(answers).sum() / asked
    figures["answers loss"] = [float(loss.detach())]
    if notes:
        loss = loss + torch.stack(notes).mean()
    return loss, {name: sum(values) / len(values) for name, values in figures.items()}
