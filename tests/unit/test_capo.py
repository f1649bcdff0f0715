"""CAPO on a world so small that it learns in seconds: one of a few frames is marked, and an oracle must see it."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from allocator_engine.errors import EngineMismatch
from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.spec import CELL_COLUMNS, CELL_ROWS, THUMBNAIL
from allocator_engine.train.advantage import AdvantageRules
from allocator_engine.train.capo import CapoConfig, Outside, learning_rate, play, train
from allocator_engine.train.learner import StreamLearner
from allocator_engine.train.regular import RegularRules
from allocator_engine.train.rollout import ClipHop, Episode, EpisodeBudget, GradedQuestion, PurseRules, credits
from pipeline.core.budget import Bucket, Ledger, Rate
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import ManualClock

RULES = FitRules(GRIDS["qwen3_vl"], 1, min_tokens_per_segment=2)
SMALL = Shape(stem=(8, 16, 24), width=32, heads=2, mixers=1, readers=1, head_width=32)
HOPS = 4
ENOUGH = 36


def bucket(rate: float, burst: int) -> Bucket:
    return Bucket(Rate(rate, burst), 0.0, full=False)


class Marked:
    """Grey frames of 8 x 14 cells, a bright square in one of them; asked at the end whether it was seen."""

    def episode(self, step: int, index: int) -> Episode:
        rng = np.random.default_rng((step, index))
        decisive = int(rng.integers(1, HOPS))
        hops = []
        for hop in range(HOPS):
            pixels = rng.integers(100, 110, (256, 448, 3)).astype(np.uint8)
            if hop == decisive:
                top, left = rng.integers(0, 192), rng.integers(0, 384)
                pixels[top : top + 64, left : left + 64] = 250
            hops.append(ClipHop(float(hop), hop + 1.0, (hop + 0.5,), (ArrayPicture(pixels),)))
        holds = np.array([[int(hop == decisive) for hop in range(HOPS)]], np.int8)
        probe = GradedQuestion("is the light on?", str(decisive), "number", HOPS - 1, 0)
        return Episode(f"{step}-{index}", tuple(hops), ("is the light on?",), (probe,), holds)


class Oracle:
    """Answers rightly if the decisive frame had enough tokens."""

    reward_kind = "sparse"

    def rewards(self, episode, variants):
        decisive = int(episode.probes[0].truth)
        return np.array([[float(variant[decisive].tokens >= ENOUGH)] for variant in variants])


class Ending(Oracle):
    """Ends the training by an error when it is asked for the `last` time."""

    def __init__(self, error: BaseException, last: int) -> None:
        self.calls, self._error, self._last = 0, error, last

    def rewards(self, episode, variants):
        self.calls += 1
        if self.calls == self._last:
            raise self._error
        return super().rewards(episode, variants)


OUTSIDE = Outside(Marked(), Oracle(), bucket, RULES)
CONFIG = CapoConfig(
    "marked",
    steps=55,
    prompts_per_step=6,
    prompts_per_update=6,
    group=8,
    budgets=(0.2, 0.2),
    untold=0.0,
    credit_s=math.inf,
    learning_rate=3e-3,
    warm_up=5,
    purse=PurseRules(first_hops=0),
    regular=RegularRules(similarity=0, refresh=0),
    advantage=AdvantageRules(spread=0.1),
    save_every=3,
)


def begin(seed: int = 0) -> StreamLearner:
    torch.manual_seed(seed)
    return StreamLearner(StreamNetwork(SMALL), QueryEncoder(64, 16))


def test_it_learns_to_spend_on_the_frame_that_decides(tmp_path):
    records = train(CONFIG, begin(), OUTSIDE, tmp_path)
    first, last = (np.mean([r["reward"] for r in part]) for part in (records[:8], records[-8:]))
    assert last > first + 0.4
    assert last > 0.6
    assert np.mean([r["cost"] for r in records[-8:]]) <= 0.2


class Known(Marked):
    """The same, and known beside: which cells are bright, and a query of which nobody is told."""

    def episode(self, step: int, index: int) -> Episode:
        plain = super().episode(step, index)
        parts = CELL_ROWS, THUMBNAIL[0] // CELL_ROWS, CELL_COLUMNS, THUMBNAIL[1] // CELL_COLUMNS, 3
        seen = [hop.pictures[0].render(*THUMBNAIL).reshape(parts) for hop in plain.hops]
        bright = [cells.mean(axis=(1, 3, 4)) > 180 for cells in seen]
        cells = np.stack(bright).reshape(HOPS, -1, 1).astype(np.int8)
        holds = np.concatenate([plain.holds, 1 - plain.holds])
        return dataclasses.replace(plain, holds=holds, beside=("is the light off?",), cells=cells)


def test_grounding_learns_what_cells_show_and_what_turns_and_the_policy_spends_there(tmp_path):
    outside = dataclasses.replace(OUTSIDE, clips=Known())
    config = dataclasses.replace(CONFIG, steps=60, grounding=(60,), grounding_rate=4e-3)
    torch.manual_seed(0)
    learner = StreamLearner(StreamNetwork(SMALL), QueryEncoder(64, 16), slots=1)
    records = train(config, learner, outside, tmp_path)
    for figure in ("cells", "holds", "transitions"):
        first, last = (np.mean([record[figure] for record in part]) for part in (records[:3], records[-3:]))
        assert last < 0.7 * first, figure
    episode = next(one for one in (outside.clips.episode(99, i) for i in range(99)) if int(one.probes[0].truth) > 1)
    understood = learner.understand(learner.watch(episode), episode.standing, episode.beside)
    assert understood.foreseen.shape == (HOPS, 3, 2)
    assert understood.cells.shape == (HOPS, 112, 1)
    scales = learner.decide(understood.meaning, torch.full((1, HOPS), -1.0))[0][0].tolist()
    decisive = int(episode.probes[0].truth)
    assert scales[decisive] > max(scales[:decisive]) + 0.1


def test_what_is_beside_changes_no_decision():
    episode, learner = Known().episode(0, 0), begin()
    watched = learner.watch(episode)
    alone, together = (learner.understand(watched, episode.standing, beside) for beside in ((), episode.beside))
    assert torch.allclose(alone.meaning, together.meaning, atol=1e-6)
    assert torch.allclose(alone.foreseen[:, :2], together.foreseen[:, :2], atol=1e-6)
    assert alone.cells is None, "nobody said of which things to learn"


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    short = dataclasses.replace(CONFIG, steps=5, prompts_per_step=2, group=2, grounding=(1,))
    whole = train(short, begin(), OUTSIDE, tmp_path / "whole")
    train(short, begin(), OUTSIDE, tmp_path / "halves", stop_at=2)
    resumed = train(short, begin(seed=3), OUTSIDE, tmp_path / "halves")
    assert resumed == whole
    logs = [(tmp_path / name / "capo.jsonl").read_text() for name in ("whole", "halves")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == list(range(5))


def test_prompts_that_are_played_at_once_come_to_the_same(tmp_path):
    short = dataclasses.replace(CONFIG, steps=2, prompts_per_step=4, group=2)
    alone = train(short, begin(), OUTSIDE, tmp_path / "alone")
    assert train(short, begin(), dataclasses.replace(OUTSIDE, at_once=3), tmp_path / "together") == alone


def test_a_training_killed_between_two_saves_comes_to_the_same(tmp_path):
    short = dataclasses.replace(CONFIG, steps=5, prompts_per_step=2, group=2, save_every=2)
    whole = train(short, begin(), OUTSIDE, tmp_path / "whole")

    killed = dataclasses.replace(OUTSIDE, answerer=Ending(KeyboardInterrupt(), 8))
    with pytest.raises(KeyboardInterrupt):
        train(short, begin(), killed, tmp_path / "killed")
    logs = [tmp_path / name / "capo.jsonl" for name in ("whole", "killed")]
    assert len(logs[1].read_text().splitlines()) == 3, "the log is a step ahead of the state"
    assert train(short, begin(seed=3), OUTSIDE, tmp_path / "killed") == whole
    assert logs[1].read_text() == logs[0].read_text()


def test_a_training_whose_mllm_goes_away_repeats_only_the_step_that_it_broke(tmp_path):
    short = dataclasses.replace(CONFIG, steps=5, prompts_per_step=2, group=2)
    whole = train(short, begin(), OUTSIDE, tmp_path / "whole")

    gone = ConnectionError("the MLLM is gone")
    with pytest.raises(ConnectionError):
        train(short, begin(), dataclasses.replace(OUTSIDE, answerer=Ending(gone, 9)), tmp_path / "killed")
    asked = Ending(gone, 9)
    asked.calls = 10
    assert train(short, begin(), dataclasses.replace(OUTSIDE, answerer=asked), tmp_path / "killed") == whole
    assert asked.calls == 12, "only the step that the MLLM broke is taken again"


def test_a_state_of_another_recipe_or_a_damaged_one_is_refused_by_name(tmp_path):
    short = dataclasses.replace(CONFIG, steps=1, prompts_per_step=1, group=2)
    train(short, begin(), OUTSIDE, tmp_path)
    with pytest.raises(EngineMismatch, match=r"there 'group=2.*here 'group=3.*use another --work"):
        train(dataclasses.replace(short, group=3), begin(), OUTSIDE, tmp_path)
    learner = begin()
    with torch.no_grad():
        learner.network.place.fill_(math.nan)
    state = torch.load(tmp_path / "capo.state", weights_only=True)
    torch.save(state | {"module": learner.state_dict()}, tmp_path / "capo.state")
    with pytest.raises(EngineMismatch, match=r"network\.place in .*capo\.state holds values that are not finite"):
        train(short, begin(), OUTSIDE, tmp_path)
    (tmp_path / "capo.state").write_bytes(b"half")
    with pytest.raises(EngineMismatch, match="damaged"):
        train(short, begin(), OUTSIDE, tmp_path)


def test_an_update_that_is_not_finite_is_skipped_and_counted(tmp_path):
    learner = begin()
    short = dataclasses.replace(CONFIG, steps=1, prompts_per_step=1, group=2, entropy_weight=math.inf)
    before = [parameter.detach().clone() for parameter in learner.parameters()]
    records = train(short, learner, OUTSIDE, tmp_path)
    assert records[-1]["skipped"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))


@pytest.mark.parametrize("budget", [0.03, 0.12, 1.0])
def test_a_rollout_stays_within_its_bucket_and_costs_what_it_spent(budget):
    config = dataclasses.replace(CONFIG, budgets=(budget, budget))
    rolled = play(Marked().episode(0, 0), config, begin(), OUTSIDE, (0, 0))
    native = 112 * HOPS
    assert rolled.levels.shape == rolled.actions.shape == rolled.advantage.shape == (8, HOPS)
    assert (rolled.cost * native <= budget * native + 1e-6).all(), "the bucket begins empty"
    assert rolled.tokens == pytest.approx(float(rolled.cost.mean()) * native)


def test_what_an_episode_begins_with_is_shown_whatever_is_proposed_and_nobody_is_credited_for_it():
    config = dataclasses.replace(CONFIG, budgets=(0.9, 0.9), purse=PurseRules(first_hops=2))
    episode = Marked().episode(0, 0)
    purse = EpisodeBudget(episode, 0.9, config.purse, RULES, bucket)
    shown = [purse.spend(hop, [0.0]).tokens for hop in episode.hops]
    assert [tokens > 0 for tokens in shown] == [True, True, False, False]
    rolled = play(episode, config, begin(), OUTSIDE, (0, 0))
    assert not rolled.advantage[:, :2].any()
    assert rolled.advantage[:, 2:].any()


def test_the_bucket_holds_at_least_a_native_frame():
    episode = Marked().episode(0, 0)
    purse = EpisodeBudget(
        episode, 0.01, PurseRules(1.0), RULES, lambda rate, burst: Bucket(Rate(rate, burst), 0.0, full=True)
    )
    assert purse.grant(episode.hops[0]) == 112


@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0])
def test_a_purse_that_keeps_back_grants_what_the_ledger_would(budget):
    episode = Marked().episode(0, 0)
    rate, burst = budget * 112, max(round(2.0 * budget * 112), 112)
    ledger = Ledger(ManualClock())
    ledger.open("s", Rate(rate, burst), 0.0, full=False)
    purse = EpisodeBudget(episode, budget, PurseRules(2.0, resent=True), RULES, bucket)
    for hop in episode.hops:
        expected = ledger.grant("s", hop.end_s, owed=purse.spent, resent=True)
        assert purse.grant(hop) == expected
        before = purse.spent
        purse.spend(hop, [0.6])
        ledger.settle("s", purse.spent - before)


@pytest.mark.parametrize("frames", [(1,), (0, 1, 2)])
def test_an_episode_of_one_frame_or_with_an_empty_hop_is_learned_from_too(tmp_path, frames):
    class Few(Marked):
        def episode(self, step, index):
            whole = super().episode(step, index)
            hops = tuple(
                ClipHop(hop.start_s, hop.end_s, hop.pts_s * count, hop.pictures * count)
                for hop, count in zip(whole.hops, frames, strict=False)
            )
            probe = GradedQuestion("is the light on?", "0", "number", len(hops) - 1, 0)
            return Episode("few", hops, whole.standing, (probe,), whole.holds[:, : len(hops)])

    class Random(Oracle):
        def rewards(self, episode, variants):
            return np.random.default_rng(1).random((len(variants), 1))

    short = dataclasses.replace(CONFIG, steps=2, prompts_per_step=1, group=2, regular=RegularRules())
    records = train(short, begin(), dataclasses.replace(OUTSIDE, clips=Few(), answerer=Random()), tmp_path)
    assert records[-1]["skipped"] == 0


def test_a_hop_answers_for_what_came_after_it_and_less_for_what_came_late():
    hops = Marked().episode(0, 0).hops
    probes = (GradedQuestion("a", "yes", "yes_no", 2, 2), GradedQuestion("b", "yes", "yes_no", 1, 0))
    episode = Episode("e", hops, (), probes, np.zeros((0, HOPS), np.int8))
    share = credits(episode, 2.0)
    assert share[:, 0].tolist() == pytest.approx([math.exp(-1), math.exp(-0.5), 1, 0])
    assert share[:, 1].tolist() == [1, 1, 0, 0]
    assert credits(episode, math.inf)[:, 0].tolist() == [1, 1, 1, 0]


def test_every_cycle_of_the_grounding_warms_up_to_half_of_the_one_before_and_falls():
    config = CapoConfig("c", steps=500, grounding=(250, 150), grounding_rate=1e-3, warm_up=10)
    rates = np.array([learning_rate(step, config) for step in range(500)])
    for begins, ends, peak in ((0, 250, 1e-3), (250, 400, 5e-4), (400, 500, 5e-4)):
        part = rates[begins:ends]
        assert part.max() == pytest.approx(peak, rel=0.1)
        assert part[-1] == pytest.approx(peak / 10, rel=0.01)
        highest = int(part.argmax())
        assert highest == config.warm_up - 1
        assert (np.diff(part[:highest]) > 0).all()
        assert (np.diff(part[highest:]) < 0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"group": 1}, "group is 1"),
        ({"budgets": (0.0, 1.0)}, "budgets"),
        ({"credit_s": 0}, "credit_s"),
        ({"grounding": (5, 0)}, "grounding"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(CONFIG, **change)
