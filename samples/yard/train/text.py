"""The text part's loss: how well it answers many questions behind each context."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from samples.yard.train.packing import IGNORED, Packed


def logits(model: Qwen3VLForConditionalGeneration, packed: Packed) -> Tensor:
    """What the text part says after each question token that an answer token follows: `[answers, vocabulary]`.

    The context is read first, causally; the questions then attend to all of it and each to itself.
    """
    text = model.model.language_model
    embedded = text.embed_tokens(packed.context_ids)
    embedded = embedded.masked_scatter(packed.is_vision[:, None], packed.vision)
    cache = DynamicCache(config=model.config)
    text(
        inputs_embeds=embedded[None],
        position_ids=packed.context_positions[:, None],
        past_key_values=cache,
        use_cache=True,
    )
    own = torch.tril(packed.owner[:, None] == packed.owner[None, :])
    seen = torch.ones(len(own), len(packed.context_ids), dtype=torch.bool, device=own.device)
    hidden = text(
        inputs_embeds=text.embed_tokens(packed.ids)[None],
        position_ids=packed.positions.expand(3, 1, -1),
        attention_mask=torch.cat([seen, own], dim=1)[None, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[0]
    said: Tensor = model.lm_head(hidden[packed.targets != IGNORED])
    return said


def answer_loss(model: Qwen3VLForConditionalGeneration, batch: Sequence[Packed]) -> tuple[Tensor, Mapping[str, float]]:
    """Cross entropy per answer token, each context weighing the same, and exact (teacher-forced) answers by kind."""
    losses = []
    right: dict[str, list[float]] = {}
    for packed in (packed.to(model.device) for packed in batch):
        known = packed.targets != IGNORED
        wanted, owner = packed.targets[known], packed.owner[known]
        said = logits(model, packed)
        losses.append(functional.cross_entropy(said, wanted))
        wrong = torch.zeros(len(packed.questions), device=owner.device).index_add(
            0, owner, (said.argmax(1) != wanted).float()
        )
        for question, errors in zip(packed.questions, wrong.tolist(), strict=True):
            right.setdefault(question.kind, []).append(float(errors == 0))
            right.setdefault(f"family {question.family}", []).append(float(errors == 0))
    return torch.stack(losses).mean(), {name: sum(values) / len(values) for name, values in right.items()}
