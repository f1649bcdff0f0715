"""CAPO's advantage: how much better than its group an allocation was, and whether it was worth what it cost.

ResAdapt, arXiv 2603.28610, section 3.3; constants and signs as its reference implementation runs them. Rewards come
first, costs break ties: among right answers the cheap ones are pushed up, among wrong ones the dear ones, because a
failure at low cost says that more should have been spent.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NO_BUDGET = 1e-9
_LEAST_COST = 1 / 64  # of the target: who spends less has saved no more


@dataclass(frozen=True, slots=True)
class AdvantageRules:
    """The rules by which rewards and costs become advantages.

    `spread` is the least standard deviation of a group's rewards that counts: smaller differences are noise and are not
    blown up. An answer above `right_above` is right. Shaping weighs `shaping`; costs are compared with a pivot,
    `pivot_mix` parts the group's mean and the rest the target, in steps of `temperature` pivots (0.375 of a pivot of
    0.4 is the reference's 0.15). `tax` is taken per unit of cost. `sign` "code" pushes wrong answers towards spending
    more, "paper" towards spending less. `right_floor` is the least advantage of a right answer. Without `shaped` the
    cost is only taxed, by `plain_tax`: the ablation.

    `twice` is what twice the tokens bring, as a reward, and so what an allocation earns by sparing half of them: a
    bucket keeps them for later, which a group that is asked now would not notice.
    """

    spread: float = 1e-4
    right_above: float = 0.35
    shaping: float = 0.25
    pivot_mix: float = 0.5
    temperature: float = 0.375
    right_weight: float = 0.7
    wrong_weight: float = 1.3
    least_right: float = 0.05
    tax: float = 0.05
    twice: float = 0.0
    right_floor: float = 1e-3
    sign: Literal["code", "paper"] = "code"
    shaped: bool = True
    plain_tax: float = 0.25


def pivot(cost: Floats, target: float, rules: AdvantageRules) -> float:
    """The cost that counts as neither cheap nor dear: `cost` `[group]` is real grid tokens over native tokens."""
    return float(rules.pivot_mix * cost.mean() + (1 - rules.pivot_mix) * target)


def advantages(reward: Floats, cost: Floats, target: float, rules: AdvantageRules = AdvantageRules()) -> Floats:
    """The advantage of each of a group's allocations, for each question: float64 `[group, questions]`.

    `reward` `[group, questions]` is 0 to 1, `cost` `[group]` real grid tokens over native tokens, `target` the budget
    in the same unit. A group of one has no advantage. Raises ValueError for other shapes or values that are not finite.
    """
    if reward.ndim != 2 or cost.shape != reward.shape[:1]:
        raise ValueError(f"rewards {reward.shape} and costs {cost.shape}; expected [group, questions] and [group]")
    if not (np.isfinite(reward).all() and np.isfinite(cost).all()):
        raise ValueError("rewards or costs are not finite; expected numbers")
    if len(cost) < 2:
        return np.zeros_like(reward)
    price = cost[:, None]
    kept = reward - rules.twice * np.log2(np.maximum(price, max(_LEAST_COST * target, _NO_BUDGET)))
    better = (kept - kept.mean(axis=0)) / np.maximum(kept.std(axis=0), rules.spread)
    if not rules.shaped:
        return np.asarray(better - rules.plain_tax * price)
    right = reward > rules.right_above
    total = better + rules.shaping * _shaping(reward, price, right, pivot(cost, target, rules), rules)
    total = total - rules.tax * price
    return np.asarray(np.where(right, np.maximum(total, rules.right_floor), total))


def _shaping(reward: Floats, cost: Floats, right: NDArray[np.bool_], middle: float, rules: AdvantageRules) -> Floats:
    step = max(rules.temperature * middle, _NO_BUDGET)
    cheap = 1 / (1 + np.exp(np.clip((cost - middle) / step, -50, 50))) - 0.5  # in (-0.5, 0.5)
    worth = np.maximum(np.sqrt(np.clip(reward, 0, 1)), rules.least_right)
    spend = -cheap if rules.sign == "code" else cheap
    failed = np.clip(1 - reward, 0, 1)
    return np.where(right, rules.right_weight * worth * cheap, rules.wrong_weight * failed * spend)
