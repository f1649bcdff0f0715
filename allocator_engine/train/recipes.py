"""Named trainings and their ablations: everything that is chosen, in one place."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from allocator_engine.model.network import Shape
from allocator_engine.train.advantage import AdvantageRules
from allocator_engine.train.capo import CapoConfig
from allocator_engine.train.regular import RegularRules


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training's network and configuration."""

    config: CapoConfig
    shape: Shape = Shape()


def yard() -> Recipe:
    """The yard: rewards are probabilities of right answers. It made the shipped engine."""
    # Differences in probability below 0.02 are noise of the MLLM's numbers, not a better look; but a right answer that
    # was less sure than others is worse than they. That F1 rises by 0.05 with twice the tokens is measured.
    advantage = AdvantageRules(spread=0.02, twice=0.05, right_floor=-math.inf)
    return Recipe(CapoConfig("yard", grounding=(1200, 800), steps=2080, advantage=advantage))


def site() -> Recipe:
    """A site's own recordings: what holds and changes is what people say, or, where they do not, what the MLLM itself
    answers to native pictures, and rewards are agreement with that."""
    advantage = AdvantageRules(spread=0.02)
    return Recipe(CapoConfig("site", grounding=(200,), steps=500, learning_rate=2e-4, advantage=advantage))


def qa() -> Recipe:
    """A video-QA file: every question is asked once its video is over, so all that was shown answers for it alike."""
    config = CapoConfig("qa", steps=300, learning_rate=2e-4, credit_s=math.inf, advantage=AdvantageRules(spread=0.02))
    return Recipe(config)


RECIPES: dict[str, Callable[[], Recipe]] = {"yard": yard, "site": site, "qa": qa}


def without_text(recipe: Recipe) -> Recipe:
    """Blind to the queries."""
    return _named(replace(recipe, shape=replace(recipe.shape, listens=False)), "without_text")


def without_memory(recipe: Recipe) -> Recipe:
    """Every hop is the first."""
    return _named(replace(recipe, shape=replace(recipe.shape, remembers=False)), "without_memory")


def plain_cost(recipe: Recipe) -> Recipe:
    """The cost is a penalty, with no regard to whether the answer was right."""
    advantage = replace(recipe.config.advantage, shaped=False)
    return _named(replace(recipe, config=replace(recipe.config, advantage=advantage)), "plain_cost")


def paper_sign(recipe: Recipe) -> Recipe:
    """Wrong answers push towards spending less, as the paper's formula has it."""
    advantage = replace(recipe.config.advantage, sign="paper")
    return _named(replace(recipe, config=replace(recipe.config, advantage=advantage)), "paper_sign")


def without_similarity(recipe: Recipe) -> Recipe:
    """Repeats are not asked to be smaller, nor anything to be refreshed."""
    regular: RegularRules = replace(recipe.config.regular, similarity=0.0, refresh=0.0)
    return _named(replace(recipe, config=replace(recipe.config, regular=regular)), "without_similarity")


ABLATIONS: dict[str, Callable[[Recipe], Recipe]] = {
    change.__name__: change for change in (without_text, without_memory, plain_cost, paper_sign, without_similarity)
}

OF_THE_NETWORK = ("without_text", "without_memory")
"""Ablations of what the configuration `stream` has."""


def _named(recipe: Recipe, what: str) -> Recipe:
    return replace(recipe, config=replace(recipe.config, name=f"{recipe.config.name} {what}"))
