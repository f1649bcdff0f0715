"""The yard as evaluation sees it: per seed its watches, questions about the past and present, and single pictures.

Questions are about all that happened, whatever an allocator showed of it, and the same for all allocators.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from allocator_engine.evaluate.baselines import CodecActivity
from allocator_engine.evaluate.tasks import FAMILIES, BlockWatch, Family, Span, Task, TaskQuestion, TaskWatch
from allocator_engine.train.reward import Form
from allocator_engine.train.rollout import ClipHop
from pipeline.sources.codec_signs import CodecSign
from samples.yard.episodes import evidence
from samples.yard.episodes.clips import HOP_S, SAMPLE_FPS, SECONDS, Film, behind, film, quiet_film
from samples.yard.episodes.distracted import distracted_watches
from samples.yard.questions import grammar, watches
from samples.yard.questions.grammar import CARD_FAMILY, KINDS, ask
from samples.yard.questions.matching import CLEAR_AT, CONFIRM, OPEN_AT, spans
from samples.yard.questions.watches import watches_for
from samples.yard.questions.wordings import IS, clauses
from samples.yard.world.codec import signs
from samples.yard.world.facts import FrameFacts

WATCHES = 8
PRESENT, PAST, INTERVALS = 3, 5, 4
"""Questions of an episode, at most, about its newest second, all of it, and from when to when."""

MOMENTS, PER_MOMENT = 4, 3
"""Single pictures of an episode, and questions about each."""

_PAST = tuple(
    kind for kind in KINDS if kind.startswith(("ever_", "at_", "times_", "never", "nobody", "before", "first"))
)
_FINE = tuple(kind for kind, family in CARD_FAMILY.items() if family == "fine")
_AS_WATCHES, _AS_QUESTIONS, _AS_PICTURES = 8, 9, 10  # what draws are for


@dataclass(frozen=True, slots=True)
class YardTasks:
    """A TaskSource of seeds. `distracted`: only watches that are decided by what hardly moves (see `distracted`).

    Of an episode's watches so many stand `together`; there is a task for each such part of them. Fewer of them share
    the budget, then, and their truth is the same. Before each episode `quiet_s` seconds pass in which nothing happens:
    what is spent there is paid for, and events in it count neither way; of those episodes there are watches alone.
    """

    seeds: range
    seconds: float = SECONDS
    families: Collection[Family] = FAMILIES
    distracted: bool = False
    together: int = WATCHES
    quiet_s: float = 0.0

    def __len__(self) -> int:
        return len(self.seeds)

    def tasks(self, index: int) -> tuple[Task, ...]:
        """See TaskSource."""
        seed = self.seeds[index]
        shown = film(seed, self.seconds)
        clip = f"yard-{seed} {self.seconds:g} s" + (f" behind {self.quiet_s:g} s" if self.quiet_s else "")
        if self.distracted:
            tasks = self._watching(f"{clip} distracted", clip, distracted_watches(_flat(shown)), seed)
        else:
            chosen = watches_for(_flat(shown), np.random.default_rng((seed, _AS_WATCHES)), WATCHES)
            tasks = self._watching(f"{clip} watches", clip, chosen, seed)
        if not self.distracted and not self.quiet_s:
            tasks += _asking(clip, shown, np.random.default_rng((seed, _AS_QUESTIONS)))
            tasks += _pictures(clip, shown, np.random.default_rng((seed, _AS_PICTURES)))
        return tuple(replace(task, episode=clip) for task in tasks if task.family in self.families)

    def sampling(self, clip: str) -> tuple[float, float]:
        """See TaskSource."""
        return SAMPLE_FPS, HOP_S

    def hops(self, clip: str) -> Sequence[ClipHop]:
        """See TaskSource."""
        name, _, moment = clip.partition(" at ")
        shown = self._film(int(name.removeprefix("yard-").split(" ")[0])).hops
        if not moment:
            return shown
        picture = shown[int(moment)].pictures[-1]
        return (ClipHop(0.0, 1 / SAMPLE_FPS, (0.0,), (picture,)),)

    def activity(self, clip: str) -> Sequence[Sequence[CodecActivity]]:
        """See CodedTasks. Of what the codec left of the pictures, encoded once more as its camera does."""
        hops = self.hops(clip)
        pictures = [picture.render(picture.height, picture.width) for hop in hops for picture in hop.pictures]
        seed = int(clip.removeprefix("yard-").split(" ")[0])
        found = iter(signs(pictures, SAMPLE_FPS, seed=seed))
        return [[_work(next(found)) for _ in hop.pictures] for hop in hops]

    def _film(self, seed: int) -> Film:
        """An episode, behind its quiet time if it has one."""
        shown = film(seed, self.seconds)
        return behind(quiet_film(seed, self.quiet_s, self.seconds), shown) if self.quiet_s else shown

    def _watching(self, name: str, clip: str, chosen: Sequence[watches.YardWatch], seed: int) -> list[Task]:
        """A task for as many watches as stand together."""
        shown = self._film(seed)
        parts = [chosen[first : first + self.together] for first in range(0, len(chosen), self.together)]
        names = [f"{name} {'+'.join(watch.slug for watch in part)}" if len(parts) > 1 else name for part in parts]
        return [_watching(one, clip, part, shown, self.quiet_s) for one, part in zip(names, parts, strict=True)]


def _work(sign: CodecSign) -> CodecActivity:
    """The work of one picture; of a key frame none is known."""
    return CodecActivity(0.0, 0.0) if sign.key else CodecActivity(sign.bytes, sign.motion)


def _flat(shown: Film) -> list[FrameFacts]:
    """The facts of all frames in stream time."""
    return [frame for hop in shown.facts for frame in hop]


def _watching(name: str, clip: str, chosen: Sequence[watches.YardWatch], shown: Film, quiet_s: float) -> Task:
    flat = _flat(shown)
    times: dict[str, tuple[Span, ...]] = {watch.slug: spans(watch, flat) for watch in chosen}
    standing = tuple(_standing(watch, times[watch.slug], quiet_s) for watch in chosen)
    deciding = tuple(one for watch in chosen for one in evidence.of_watch(times[watch.slug], len(shown.hops)))
    reworded = tuple(_reworded(watch, place) for place, watch in enumerate(chosen))
    first = round(quiet_s / HOP_S)
    return Task(name, "watch_f1", "", clip, (), standing, deciding, reworded, first)


def _standing(watch: watches.YardWatch, times: tuple[Span, ...], quiet_s: float) -> TaskWatch:
    given = watch.slug, watch.text, times, watch.family, OPEN_AT, CLEAR_AT, CONFIRM
    return BlockWatch(*given, (quiet_s, math.inf)) if quiet_s else TaskWatch(*given)


def _reworded(watch: watches.YardWatch, place: int) -> str:
    """A watch in a wording that is held out of training; which one depends on its `place` among the others."""
    _, held_out = IS
    said = clauses(watch.condition)
    return held_out[place % len(held_out)].format(**said[place % len(said)])


def _asking(clip: str, shown: Film, rng: np.random.Generator) -> list[Task]:
    """Questions when all has been shown: about all of it, about its newest second, and from when to when. Of those
    about the newest second nobody knows before it is there."""
    last = len(shown.hops) - 1
    told = shown.until(last)
    present = ask(told, rng, kinds=tuple(CARD_FAMILY), count=PRESENT)
    past = ask(told, rng, kinds=_PAST, count=PAST)
    intervals = ask(told, rng, kinds=("interval",), count=INTERVALS)
    deciding = [evidence.of_present(question, last) for question in present]
    deciding += [one for question in past for one in evidence.of_past(question, shown.facts)]
    lasting = tuple(one for question in intervals for one in evidence.of_past(question, shown.facts))
    asked = tuple(_question(question, last) for question in (*present, *past))
    found = tuple(_question(question, last) for question in intervals)
    tasks = [Task(f"{clip} questions", "qa", "", clip, questions=asked, evidence=tuple(deciding))]
    tasks.append(Task(f"{clip} intervals", "grounding", "", clip, questions=found, evidence=lasting))
    return [task for task in tasks if task.questions]


def _pictures(clip: str, shown: Film, rng: np.random.Generator) -> list[Task]:
    """Fine details of single pictures."""
    tasks = []
    for moment in sorted(rng.permutation(len(shown.hops))[:MOMENTS].tolist()):
        frame = replace(shown.facts[moment][-1], time_s=0.0)
        asked = ask([frame], rng, kinds=_FINE, count=PER_MOMENT)
        deciding = tuple(evidence.of_present(question, 0) for question in asked)
        questions = tuple(_question(question, 0) for question in asked)
        name = f"{clip} at {moment}"
        tasks.append(Task(name, "image", "", name, questions=questions, evidence=deciding))
    return [task for task in tasks if task.questions]


def _question(question: grammar.Question, hop: int) -> TaskQuestion:
    split = CARD_FAMILY.get(question.kind, question.family) if question.family != "image" else ""
    form: Form = "yes_no" if question.answer in ("yes", "no") else "word"
    if question.family == "grounding":
        form, split = "interval", ""
    known_hop = hop if question.kind in CARD_FAMILY else 0
    timed = question.kind.startswith("at_")
    return TaskQuestion(question.text, question.answer, form, hop, split, timed, known_hop=known_hop)
