"""CAPO (ResAdapt, arXiv 2603.28610): the Allocator learns what a frozen MLLM needs to see. The whole algorithm.

A prompt is an episode, its queries and a budget. The policy plays it M times, hop by hop: it proposes scales, `fit`
turns them into allocations within the grant of a token bucket, the MLLM answers. What an allocation was worth, against
the rest of its group and for what it cost, moves the policy by clipped policy gradients (PPO).
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from allocator_engine.encode import scales
from allocator_engine.fit import Allocation, FitRules
from allocator_engine.model.policy import ACTION_RANGE, entropy, log_prob, sample
from allocator_engine.train.advantage import AdvantageRules, advantages, pivot
from allocator_engine.train.grounding import figures_of, foreseen_losses, grounding_loss
from allocator_engine.train.learner import Learner, weight_groups
from allocator_engine.train.progress import Progress, Record, means
from allocator_engine.train.regular import RegularRules, likeness, regulariser
from allocator_engine.train.rollout import Answerer, Clips, Episode, EpisodeBudget, NewTokenBucket, PurseRules, credits
from allocator_engine.train.watched import Watched

Floats = NDArray[np.float64]
_Loss: TypeAlias = Callable[[], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class CapoConfig:
    """Every option of a training. Seconds are clip seconds; rates and weights are of AdamW.

    `grounding` holds the steps of each of its cycles. They come first, allocate nothing and have a `grounding_rate` of
    their own, half as high in every further cycle: the network learns which queries hold, and begin or cease to, in
    which frames, which it goes on learning with `answer_weight` afterwards, and with `cells_weight` what each cell
    shows. With them the policy begins by spending on transitions (see `model.worth`). `untold` is the part of the
    prompts of the other steps whose queries are withheld, so that an allocation without queries is learned too.
    `credit_s` is how far back a question credits what was saved or wasted before its evidence came.
    """

    name: str
    steps: int = 400
    grounding: tuple[int, ...] = ()
    prompts_per_step: int = 8
    prompts_per_update: int = 4
    epochs: int = 1
    group: int = 8
    seed: int = 1
    budgets: tuple[float, float] = (0.03, 1.0)
    purse: PurseRules = PurseRules()
    untold: float = 0.1
    credit_s: float = 8.0
    advantage: AdvantageRules = AdvantageRules()
    regular: RegularRules = RegularRules()
    answer_weight: float = 0.1
    cells_weight: float = 1.0
    entropy_weight: float = 0.0
    clip: tuple[float, float] = (0.2, 0.28)
    dual_clip: float = 10.0
    learning_rate: float = 5e-4
    grounding_rate: float = 1.5e-3
    last_rate: float = 0.1
    warm_up: int = 20
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    save_every: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.budgets[0] <= self.budgets[1]:
            raise ValueError(f"budgets is {self.budgets}; expected least and largest share of native tokens, above 0")
        if any(steps < 1 for steps in self.grounding):
            raise ValueError(f"grounding is {self.grounding}; expected cycles of at least one step")
        if self.group < 2:
            raise ValueError(f"group is {self.group}; expected at least 2 allocations to compare")
        if not self.credit_s > 0:
            raise ValueError(f"credit_s is {self.credit_s}; expected more than 0 seconds")


@dataclass(frozen=True, slots=True)
class Outside:
    """The outside of a training: clips, the frozen MLLM that answers, the buckets and the fitting of production.

    `at_once` prompts of a step are played at the same time, each in a thread of its own. `about` names what clips and
    answers depend on.
    """

    clips: Clips
    answerer: Answerer
    new_bucket: NewTokenBucket
    rules: FitRules
    at_once: int = 1
    about: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One prompt played M times: `levels`, `actions`, `old` log-probabilities and `advantage` `[M, frames]`, which is 0
    where actions change nothing."""

    episode: Episode
    watched: Watched
    standing: tuple[str, ...]
    target: float
    levels: Tensor
    actions: Tensor
    old: Tensor
    advantage: Tensor
    reward: Floats
    cost: Floats
    tokens: float
    pivot: float


def train(
    config: CapoConfig,
    learner: Learner,
    outside: Outside,
    work: Path,
    *,
    stop_at: int | None = None,
    on_step: Callable[[Sequence[Record]], None] = lambda records: None,
) -> list[Record]:
    """Train `learner` to the last step, or to `stop_at`; returns the records of all steps, which `on_step` gets too.

    State and log are kept in `work`: the same call goes on where the last one stopped, and comes to the same end.
    Every step is a function of the seed and its number alone. Raises EngineMismatch for a state of another recipe.
    """
    groups = weight_groups(learner, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))
    recipe = f"{config} {learner.about} {outside.rules} {outside.answerer.reward_kind} {outside.about}"
    progress = Progress(work, recipe, learner, optimizer)
    progress.resume()
    last = min(config.steps, stop_at or config.steps)
    for step in range(len(progress.records), last):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        try:
            record = _step(step, config, learner, outside, progress)
        except ConnectionError:
            progress.save()  # nothing was learned in this step yet
            raise
        progress.add(record, save=(step + 1) % config.save_every == 0 or step + 1 == last)
        on_step(progress.records)
    return progress.records


def learning_rate(step: int, config: CapoConfig) -> float:
    """The rate of a step, in each cycle of the grounding and in all steps behind it: a linear warm-up, then a cosine
    down to `last_rate` of its peak (Loshchilov & Hutter, 2017, SGDR)."""
    left = config.steps
    peak = config.grounding_rate
    for steps in config.grounding:
        if step < steps:
            break
        step, left, peak = step - steps, left - steps, peak / 2
    else:
        peak, steps = config.learning_rate, left
    steps = min(steps, left)
    warm = min(1.0, (step + 1) / max(1, config.warm_up))
    fall = (1 + math.cos(math.pi * step / max(1, steps))) / 2
    return peak * warm * (config.last_rate + (1 - config.last_rate) * fall)


def _step(step: int, config: CapoConfig, learner: Learner, outside: Outside, progress: Progress) -> Record:
    episodes = [outside.clips.episode(step, index) for index in range(config.prompts_per_step)]
    if step < sum(config.grounding):
        grounding: list[_Loss] = [
            partial(grounding_loss, episode, learner, config.cells_weight) for episode in episodes
        ]
        return {"step": step, "phase": "grounding", **_update(grounding, config, learner, progress)}
    prompts = [(step, index) for index in range(len(episodes))]
    with ThreadPoolExecutor(outside.at_once) as pool:
        # The policy does not change within a step, so its prompts do not depend on each other.
        rolled = list(pool.map(play, episodes, repeat(config), repeat(learner), repeat(outside), prompts))
    losses: list[_Loss] = [partial(_loss, rollout, config, learner) for rollout in rolled]
    figures = [_update(losses, config, learner, progress) for _ in range(config.epochs)][-1]
    return {"step": step, "phase": "capo", "reward_kind": outside.answerer.reward_kind, **_summary(rolled), **figures}


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The policy's draws, `[group, frames]`: the level of each grant, the action and its old log probability, and 1
    where the policy decided at all."""

    level: Tensor
    action: Tensor
    old: Tensor
    free: NDArray[np.bool_]


def _sampled(
    episode: Episode,
    watched: Watched,
    learner: Learner,
    standing: tuple[str, ...],
    purses: Sequence[EpisodeBudget],
    rng: np.random.Generator,
) -> tuple[list[list[Allocation]], _Drawn]:
    """Play an episode once per budget, side by side; the allocations of each, and how they were drawn."""
    variants: list[list[Allocation]] = [[] for _ in purses]
    levels, actions, old, free = [], [], [], []
    with torch.no_grad():
        meaning = learner.understand(watched, standing).meaning
        for index, (hop, frames) in enumerate(zip(episode.hops, watched.hops, strict=True)):
            meant = meaning[:, frames].expand(len(purses), -1, -1)
            level = torch.tensor([[purse.level(index, hop)] for purse in purses], device=meant.device)
            level = level.expand(-1, meant.shape[1])
            mean, concentration = learner.decide(meant, level)
            drawn = sample(mean.cpu().numpy(), concentration.cpu().numpy(), rng)
            free.append(np.repeat([[not purse.begins] for purse in purses], drawn.shape[1], axis=1))
            for purse, variant, action in zip(purses, variants, drawn, strict=True):
                variant.append(purse.spend(hop, scales(action.astype(np.float32)).tolist()))
            action = torch.from_numpy(drawn).float().clamp(*ACTION_RANGE).to(meant.device)
            levels.append(level)
            actions.append(action)
            old.append(log_prob(mean, concentration, action))
    level, action, before = (torch.cat(parts, dim=1) for parts in (levels, actions, old))
    return variants, _Drawn(level, action, before, np.concatenate(free, axis=1))


def play(episode: Episode, config: CapoConfig, learner: Learner, outside: Outside, prompt: tuple[int, int]) -> Rollout:
    """Sample a budget, play the episode `group` times under it, and let the MLLM judge."""
    rng = np.random.default_rng((config.seed, *prompt))
    target = float(np.exp(rng.uniform(*np.log(config.budgets))))
    standing = () if rng.random() < config.untold else episode.standing
    watched = learner.watch(episode)
    purses = [
        EpisodeBudget(episode, target, config.purse, outside.rules, outside.new_bucket) for _ in range(config.group)
    ]
    variants, drawn = _sampled(episode, watched, learner, standing, purses, rng)
    cost = np.array([purse.spent / purse.native for purse in purses])
    reward = outside.answerer.rewards(episode, variants)
    advantage = _per_frame(episode, watched, advantages(reward, cost, target, config.advantage), config.credit_s)
    advantage = advantage * drawn.free
    return Rollout(
        episode,
        watched,
        standing,
        target,
        drawn.level,
        drawn.action,
        drawn.old,
        torch.from_numpy(advantage).float().to(drawn.level.device),
        reward,
        cost,
        float(np.mean([purse.spent for purse in purses])),
        pivot(cost, target, config.advantage),
    )


def _per_frame(episode: Episode, watched: Watched, advantage: Floats, credit_s: float) -> Floats:
    """The advantage of each frame's action, `[M, frames]`: of the questions that it could have helped."""
    share = credits(episode, credit_s)
    share = share / max(float(share.sum(axis=1).mean()), 1e-9)
    return np.asarray((advantage @ share.T)[:, watched.hop_of])


def _loss(rolled: Rollout, config: CapoConfig, learner: Learner) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped loss per frame, the regularisers, and what is still learned of what holds and changes."""
    beside = rolled.episode.known[len(rolled.standing) :]
    understood = learner.understand(rolled.watched, rolled.standing, beside)
    mean, concentration = learner.decide(understood.meaning.expand(config.group, -1, -1), rolled.levels)
    ratio = torch.exp(log_prob(mean, concentration, rolled.actions) - rolled.old)
    clipped = ratio.clamp(1 - config.clip[0], 1 + config.clip[1])
    gain = torch.minimum(ratio * rolled.advantage, clipped * rolled.advantage)
    # A ratio that exploded on a bad action would drown everything else (dual clip, Ye et al., 2020).
    gain = torch.where(rolled.advantage < 0, torch.maximum(gain, config.dual_clip * rolled.advantage), gain)
    alike = torch.from_numpy(likeness(rolled.watched.thumbnails, config.regular)).to(mean.device)
    pts_s = torch.from_numpy(rolled.watched.pts_s).to(mean.device)
    regular, figures = regulariser(mean, concentration, alike, pts_s, config.regular)
    spread = entropy(mean, concentration).mean()
    loss = regular - gain.mean() - config.entropy_weight * spread
    if config.answer_weight and understood.foreseen is not None:
        foresight = foreseen_losses(understood.foreseen, rolled.watched, rolled.episode)
        loss = loss + config.answer_weight * sum(foresight.values())
        figures |= figures_of(foresight)
    figures |= {
        "entropy": float(spread.detach()),
        "scale": float(mean.detach().mean()),
        "scale_spread": float(mean.detach().std()),
        "concentration": float(concentration.detach().mean()),
        "clipped": float((ratio.detach() != clipped.detach()).float().mean()),
    }
    return loss, figures


def _update(
    losses: Sequence[_Loss],
    config: CapoConfig,
    learner: Learner,
    progress: Progress,
) -> dict[str, float]:
    """One pass over the prompts, an update per `prompts_per_update`; one that is not finite is skipped and counted."""
    optimizer, collected = progress.optimizer, []
    for first in range(0, len(losses), config.prompts_per_update):
        part = losses[first : first + config.prompts_per_update]
        optimizer.zero_grad(set_to_none=True)
        for compute in part:
            loss, figures = compute()
            (loss / len(part)).backward()  # type: ignore[no-untyped-call]
            collected.append(figures | {"loss": float(loss.detach())})
        norm = float(nn.utils.clip_grad_norm_(learner.parameters(), config.clip_norm))
        collected[-1]["gradient"] = norm
        if math.isfinite(norm):
            optimizer.step()
        else:
            progress.skipped += 1
    return means(collected) | {"skipped": progress.skipped}


def _summary(rolled: Sequence[Rollout]) -> dict[str, float]:
    """Means over the prompts; rewards of those that were asked anything."""
    spending = [
        {"cost": float(one.cost.mean()), "target": one.target, "pivot": one.pivot, "tokens": one.tokens}
        for one in rolled
    ]
    rewards = [
        {"reward": float(one.reward.mean()), "reward_spread": float(one.reward.std(axis=0).mean())}
        for one in rolled
        if one.reward.size
    ]
    return means(rewards) | means(spending)
