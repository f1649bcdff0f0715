"""The upper layers of the vision part: every cell learns what the whole picture shows.

A bag covers two cells of a hundred. To find them is a matter of sharp attention, which the text part learns slowly and
would have to do again for each question; done here it is paid once for each picture.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.mllm.patches import patch_grid, patches
from samples.yard.episodes.vision import embed_patches_by_product, tokens
from samples.yard.questions.grammar import only_answer
from samples.yard.shape import HIDDEN, NORMALISATION, SEEING_LAYERS, grid, vision_fields
from samples.yard.train import episodes
from samples.yard.train.crowds import crowded_sheet
from samples.yard.train.notes import CONDITIONS, truths
from samples.yard.train.pictures import turns
from samples.yard.train.sheets import sheet
from samples.yard.train.start import widen
from samples.yard.train.tapping import tapped
from samples.yard.train.telling import TOLD, told_loss
from samples.yard.train.vision import TaughtVision, balanced, even_loss
from samples.yard.world.facts import COLOURS, VEHICLES, FrameFacts
from samples.yard.world.targets import BLANK, PLATE_CHARACTERS, READABLE_CELLS, Pixels, spell

CHOICES: Mapping[str, tuple[str, ...]] = {
    "colour_near_now": COLOURS,
    "kind_near_now": VEHICLES,
    "helmet_nearest_now": ("no", "yes"),
    "count_people_now": tuple("01234"),
    "count_vehicles_now": tuple("01234"),
}
"""Kinds of questions whose answer each cell should know, and their answers."""

EPISODES_PER_STEP, PICTURES_PER_EPISODE, STEPS_PER_EPISODE = 12, 3, 12
SHEETS_BESIDE, CROWDED_SHEETS = 4, 3
"""Pictures full of what cells must go on to know."""

_CHARACTERS = PLATE_CHARACTERS * (BLANK + 1)
_KEPT_WEIGHT, _TOLD_WEIGHT = 0.5, 1.0

_NOTHING_KNOWN = tuple(np.full(count, -1, np.int8) for count in (len(CONDITIONS), len(CHOICES), PLATE_CHARACTERS))


@dataclass(frozen=True, slots=True)
class OverviewBatch:
    """Pictures as the vision part takes them (see VisionBatch), and what each shows: int64 `holds` `[P, CONDITIONS]`,
    `choices` `[P, CHOICES]` and the `plate` `[P, PLATE_CHARACTERS]`; -1 where that is open."""

    patches: Tensor
    grid_thw: Tensor
    holds: Tensor
    choices: Tensor
    plate: Tensor

    @property
    def cells(self) -> Tensor:
        """The number of cells each picture has: int64 `[P]`."""
        return self.grid_thw.prod(1) // grid().merge ** 2

    def to(self, device: torch.device) -> "OverviewBatch":
        """The same on a device."""
        return OverviewBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


class TaughtOverview(nn.Module):
    """The whole vision part, grown on a finished lower one that stays as it is; heads for what a picture shows, and two
    that recall from each token what the lower part alone knew of its cell: all of it, and what its heads said."""

    def __init__(self, seeing: TaughtVision, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.visual = grown(seeing.visual)
            choices = sum(map(len, CHOICES.values()))
            self.heads = nn.Linear(HIDDEN, len(CONDITIONS) + choices + _CHARACTERS)
            self.recalling_heads = nn.Linear(HIDDEN, HIDDEN)
            self.telling_heads = nn.Linear(HIDDEN, TOLD)
        self.before = copy.deepcopy(seeing.visual.get_submodule("merger"))
        self.lower_heads = copy.deepcopy(seeing.heads)
        for name, weight in self.named_parameters():
            weight.requires_grad_(_is_upper(name))
        embed_patches_by_product(self.visual)

    def forward(self, batch: OverviewBatch) -> tuple[Tensor, Tensor]:
        """Tokens `[cells, HIDDEN]`, and what they were without the upper layers."""
        with tapped([self.visual.get_submodule(f"blocks.{SEEING_LAYERS - 1}")]) as lower:
            seen = tokens(self.visual, batch.patches, batch.grid_thw)
        return seen, self.before(lower[0])


def _is_upper(name: str) -> bool:
    part, *rest = name.split(".")
    if part != "visual":
        return part not in ("before", "lower_heads")
    return rest[0] == "merger" or (rest[0] == "blocks" and int(rest[1]) >= SEEING_LAYERS)


def grown(seeing: nn.Module) -> nn.Module:
    """The vision part with all its layers; the upper ones begin by changing nothing."""
    from transformers import Qwen3VLVisionConfig, Qwen3VLVisionModel

    visual = Qwen3VLVisionModel(Qwen3VLVisionConfig.from_dict(vision_fields()))
    widen(visual)
    visual.load_state_dict(seeing.state_dict(), strict=False)
    for block in visual.blocks[SEEING_LAYERS:]:
        for name in ("attn.proj", "mlp.linear_fc2"):
            nn.init.zeros_(block.get_parameter(f"{name}.weight"))
            nn.init.zeros_(block.get_parameter(f"{name}.bias"))
    return visual


def overview_loss(model: TaughtOverview, batch: OverviewBatch) -> tuple[Tensor, Mapping[str, float]]:
    """The loss of all heads, each token of a picture asked the same, and how well they know it."""
    batch = batch.to(model.heads.weight.device)
    seen, before = model(batch)
    said, chosen, spelled = model.heads(seen).split(
        [len(CONDITIONS), sum(map(len, CHOICES.values())), _CHARACTERS], dim=1
    )
    holds, choices, plate = (
        target.repeat_interleave(batch.cells, dim=0) for target in (batch.holds, batch.choices, batch.plate)
    )
    kept = functional.mse_loss(model.recalling_heads(seen), functional.layer_norm(before, (HIDDEN,)))
    told = told_loss(model.telling_heads(seen), model.lower_heads(before))
    losses = [even_loss(said, holds), _KEPT_WEIGHT * kept, _TOLD_WEIGHT * told]
    figures = {"kept": float(kept.detach()), "told": float(told.detach()), "holds loss": float(losses[0].detach())}
    decided = holds >= 0
    figures["holds"] = balanced(said[decided] > 0, holds[decided] > 0)
    parts = [*chosen.split([len(answers) for answers in CHOICES.values()], dim=1), *spelled.chunk(PLATE_CHARACTERS, 1)]
    wanted = [*choices.unbind(1), *plate.unbind(1)]
    names = [*CHOICES, *("plate" for _ in range(PLATE_CHARACTERS))]
    for name, values, target in zip(names, parts, wanted, strict=True):
        if (known := target >= 0).any():
            losses.append(functional.cross_entropy(values[known], target[known]) / len(parts))
            figures[name] = float((values[known].argmax(1) == target[known]).float().mean())
        else:
            figures.setdefault(name, math.nan)
    return torch.stack(losses).sum(), figures


@lru_cache(maxsize=EPISODES_PER_STEP + 1)
def viewed(seed: int) -> tuple[episodes.Viewing, tuple[tuple[NDArray[np.int8], ...], ...]]:
    """An episode, and what each of its pictures shows."""
    viewing = episodes.view(seed, 0)
    return viewing, tuple(_shown(pixels, facts) for pixels, facts in zip(viewing.pixels, viewing.facts, strict=True))


def _shown(pixels: Pixels, facts: tuple[FrameFacts, ...]) -> tuple[NDArray[np.int8], ...]:
    answers = [only_answer(kind, facts) for kind in CHOICES]
    choices = [-1 if said is None else CHOICES[kind].index(said) for kind, said in zip(CHOICES, answers, strict=True)]
    large = pixels.shape[1] >= READABLE_CELLS * grid().cell_px
    plate = only_answer("plate_read_now", facts) if large else None
    spelled = np.full(PLATE_CHARACTERS, -1, np.int8) if plate is None else spell(plate)
    return truths(facts), np.array(choices, np.int8), spelled


def overview_batch(seeds: Sequence[int], step: int, rng: np.random.Generator) -> OverviewBatch:
    """Pictures of episodes that change in turn, as to render one costs as much as to learn from it for some steps; and
    sheets, of which nothing is asked but what their cells know."""
    changed = turns(step, EPISODES_PER_STEP, STEPS_PER_EPISODE)
    chosen = [viewed(seeds[(turn * EPISODES_PER_STEP + place) % len(seeds)]) for place, turn in enumerate(changed)]
    pixels: list[Pixels] = []
    shown: list[tuple[NDArray[np.int8], ...]] = []
    for viewing, known in chosen:
        for index in _drawn(viewing, rng):
            pixels.append(viewing.pixels[index])
            shown.append(known[index])
    beside = [sheet(rng) for _ in range(SHEETS_BESIDE)] + [crowded_sheet(rng) for _ in range(CROWDED_SHEETS)]
    pixels += [example.pixels for example in beside]
    shown += [_NOTHING_KNOWN] * len(beside)
    the_grid = grid()
    sizes = [patch_grid(one.shape[1], one.shape[2], the_grid) for one in pixels]
    holds, choices, plate = (torch.from_numpy(np.stack(values).astype(np.int64)) for values in zip(*shown, strict=True))
    return OverviewBatch(
        torch.from_numpy(np.concatenate([patches(one, the_grid, NORMALISATION) for one in pixels])),
        torch.tensor(sizes),
        holds,
        choices,
        plate,
    )


def _drawn(viewing: episodes.Viewing, rng: np.random.Generator) -> Iterator[int]:
    """Different pictures of an episode; what is shown larger is shown more often."""
    size = np.array([one.shape[1] for one in viewing.pixels], float)
    yield from rng.choice(len(size), PICTURES_PER_EPISODE, replace=False, p=size / size.sum()).tolist()
