"""The contracts of a training: clips to watch, a frozen MLLM that answers, and a bucket that grants tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allocator_engine.encode import FIRST_HOPS, grant_level, native_tokens
from allocator_engine.fit import Allocation, FitRules, fit
from allocator_engine.resize import Picture
from allocator_engine.train.reward import Form


@dataclass(frozen=True, slots=True)
class ClipHop:
    """The sampled frames of `[start_s, end_s)` clip seconds: pictures that make their pixels on demand."""

    start_s: float
    end_s: float
    pts_s: tuple[float, ...]
    pictures: tuple[Picture, ...] = field(compare=False, repr=False)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Native (height, width) of each frame in px."""
        return [(picture.height, picture.width) for picture in self.pictures]


@dataclass(frozen=True, slots=True)
class GradedQuestion:
    """A question with its true answer, asked once the hop `asked_hop` has been shown.

    What decides it was shown in the hops from `since_hop` on.
    """

    text: str
    truth: str
    form: Form
    asked_hop: int
    since_hop: int


@dataclass(frozen=True, slots=True)
class Episode:
    """One prompt: hops in order, the `standing` queries that the Allocator gets, the probes it is graded by.

    `holds` int8 `[standing + beside, hops]` says what is known of each query as each hop ends: 1 yes, 0 no, -1 unknown;
    those `beside` are not given to it, but what they would have been about can be learned from. So can `cells`, int8
    `[frames, 112, slots]`: whether each cell shows what the slots stand for, likewise; None where nobody knows.
    `decided`, of the shape of `holds`, says which hops decide each query, likewise; None: those with its transitions.
    A question about the past is decided by hops that show what it asks about; it "holds" there, whatever the answer.
    """

    name: str
    hops: tuple[ClipHop, ...]
    standing: tuple[str, ...]
    probes: tuple[GradedQuestion, ...]
    holds: NDArray[np.int8] = field(compare=False, repr=False)
    beside: tuple[str, ...] = ()
    cells: NDArray[np.int8] | None = field(default=None, compare=False, repr=False)
    decided: NDArray[np.int8] | None = field(default=None, compare=False, repr=False)

    @property
    def known(self) -> tuple[str, ...]:
        """The queries of `holds`."""
        return (*self.standing, *self.beside)

    def __post_init__(self) -> None:
        expected = len(self.known), len(self.hops)
        for name, rows in (("holds", self.holds), ("decided", self.decided)):
            if rows is not None and rows.shape != expected:
                raise ValueError(f"{name} of {self.name} is {rows.shape}; expected {expected}")
        if late := [
            probe.text for probe in self.probes if not 0 <= probe.since_hop <= probe.asked_hop < len(self.hops)
        ]:
            raise ValueError(f"{late[0]!r} of {self.name} is asked of hops that it does not have")


class Clips(Protocol):
    """Episodes to learn from, as many as wanted."""

    def episode(self, step: int, index: int) -> Episode:
        """The episode of a prompt: the same arguments give the same episode, in every process.

        Raises ValueError for a clip that cannot be read or graded.
        """
        ...


RewardKind: TypeAlias = Literal["dense", "sparse", "mixed"]
"""Rewards are probabilities of the right answer; right or wrong; or the one for yes and no, the other for words."""


class Answerer(Protocol):
    """A frozen MLLM, asked about many allocations of one episode. What it encodes for one it keeps for the others.

    It may be asked by several threads at once.
    """

    @property
    def reward_kind(self) -> RewardKind: ...

    def rewards(self, episode: Episode, variants: Sequence[Sequence[Allocation]]) -> NDArray[np.float64]:
        """Grades of each probe under each variant (one allocation per hop): `[variants, probes]`, 0 to 1.

        A probe before which nothing was shown is answered wrongly. Raises ConnectionError when the MLLM does not
        answer: training stops, and goes on from its state when it is started again.
        """
        ...


class TokenBucket(Protocol):
    """A token bucket on the clip's own time."""

    def tokens(self, at_s: float) -> int: ...
    def take(self, tokens: int) -> None: ...


NewTokenBucket: TypeAlias = Callable[[float, int], TokenBucket]
"""An empty bucket at 0 s, of a rate in vision tokens per second and a burst in vision tokens."""


@dataclass(frozen=True, slots=True)
class PurseRules:
    """The bucket of an episode: it holds `burst_s` seconds of its rate, but at least one native frame. With `resent`,
    up to half of it is kept back for sending again what was shown, as in a context whose every segment survives its
    restart (see Ledger.grant of the pipeline). The `first_hops` that are shown are as large as their grants allow,
    whatever is proposed, as in service."""

    burst_s: float = 10.0
    resent: bool = False
    first_hops: int = FIRST_HOPS


class EpisodeBudget:
    """Grants an episode's hops what a share of its native tokens pays for, as production does."""

    def __init__(
        self, episode: Episode, budget: float, purse: PurseRules, rules: FitRules, new: NewTokenBucket
    ) -> None:
        self._rules = rules
        self._resent = purse.resent
        self._natives = [native_tokens(hop.sizes, rules) for hop in episode.hops]
        self.native = sum(self._natives)
        seconds = episode.hops[-1].end_s - episode.hops[0].start_s
        rate = budget * self.native / seconds
        one = max(native_tokens(hop.sizes[:1], rules) for hop in episode.hops)
        self._burst = max(round(purse.burst_s * rate), one)
        self._bucket = new(rate, self._burst)
        self._start_s = episode.hops[0].start_s
        self._first = purse.first_hops
        self.spent = 0

    @property
    def begins(self) -> bool:
        """True if the next hop is one of the first, of which nobody decides."""
        return self._first > 0

    def grant(self, hop: ClipHop) -> int:
        """Vision tokens that the hop may spend."""
        available = self._bucket.tokens(hop.end_s - self._start_s)
        if not self._resent:
            return available
        kept = min(self.spent, self._burst // 2)
        free = max(0, available - kept)
        return free if kept == self._burst // 2 else (free + 1) // 2

    def level(self, index: int, hop: ClipHop) -> float:
        """The same, as the network's input has it."""
        return grant_level(self.grant(hop), self._natives[index])

    def spend(self, hop: ClipHop, scales: Sequence[float]) -> Allocation:
        """Fit the proposed scales into the grant and pay for them."""
        wanted = [1.0] * len(scales) if self.begins else scales
        allocation = fit(hop.sizes, wanted, self.grant(hop), self._rules)
        self._first -= bool(allocation.segments)
        self._bucket.take(allocation.tokens)
        self.spent += allocation.tokens
        return allocation


def moments(known: NDArray[np.int8], most: int, rng: np.random.Generator) -> list[int]:
    """At which hops to ask a watch of which is `known` (int8 `[hops]`: 1 yes, 0 no, -1 unknown) what holds: at most
    `most`, in order, as often when it does as when it does not."""
    yes = rng.permutation(np.flatnonzero(known == 1))[: most // 2]
    # What never happens is asked about too, but not so often that "no" would become the usual answer.
    no = rng.permutation(np.flatnonzero(known == 0))[: max(1, len(yes))]
    return sorted([*yes.tolist(), *no.tolist()])


def credits(episode: Episode, credit_s: float) -> NDArray[np.float64]:
    """The part that each hop has in each probe: `[hops, probes]`.

    1 from `since_hop` to `asked_hop`; less the earlier it was, by a factor e per `credit_s` seconds, because what it
    saved or wasted is felt later; 0 after the question. An infinite `credit_s` lets every earlier hop answer alike.
    """
    ends_s = np.array([hop.end_s for hop in episode.hops])[:, None]
    since_s = np.array([episode.hops[probe.since_hop].end_s for probe in episode.probes])
    asked_s = np.array([episode.hops[probe.asked_hop].end_s for probe in episode.probes])
    before_s = np.maximum(0.0, since_s - ends_s)
    return np.where(ends_s <= asked_s, np.exp(-before_s / credit_s), 0.0)
