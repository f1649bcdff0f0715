"""The yard as training sees it. Rendering a scene takes about a second, so the tests share one."""

import numpy as np
import pytest

from allocator_engine.fit import Allocation, FitRules, fit
from allocator_engine.train.reward import check
from allocator_engine.train.transitions import transitions
from pipeline.build import YARD
from pipeline.errors import ConfigError
from samples.yard.episodes.clips import SECONDS, YardClips
from samples.yard.shape import grid
from tests.services import require

CLIPS = YardClips()
RULES = FitRules(grid(), 2, min_tokens_per_segment=1)


@pytest.fixture(scope="module")
def episodes():
    return [CLIPS.episode(step, 0) for step in range(CLIPS.reuse)]


def shown(episode, scale: float, grant: int = 10**6) -> list[Allocation]:
    return [fit(hop.sizes, [scale] * len(hop.pictures), grant, RULES) for hop in episode.hops]


def test_an_episode_is_a_function_of_its_step_and_a_scene_serves_several(episodes):
    again = CLIPS.episode(0, 0)
    assert (again.standing, again.probes) == (episodes[0].standing, episodes[0].probes)
    assert (again.holds == episodes[0].holds).all()
    assert episodes[0].name == episodes[1].name
    assert (episodes[0].standing, episodes[0].probes) != (episodes[1].standing, episodes[1].probes)


def test_every_probe_can_be_graded_and_is_of_a_standing_query(episodes):
    for episode in episodes:
        assert CLIPS.hops <= len(episode.hops) <= SECONDS
        assert all(len(hop.pictures) == 2 for hop in episode.hops)
        assert episode.probes
        for probe in episode.probes:
            check(probe.form, probe.truth)
            assert probe.text in episode.standing
            known = episode.holds[episode.standing.index(probe.text), probe.asked_hop]
            assert probe.since_hop < probe.asked_hop or known == -1 or known == (probe.truth == "yes")


def test_a_watch_is_decided_where_it_turns_and_a_question_about_the_past_where_it_shows(episodes):
    lasted = 0
    for episode in episodes:
        truths = {probe.text: probe.truth for probe in episode.probes if probe.form == "interval"}
        for text, holds, decided in zip(episode.known, episode.holds, episode.decided, strict=True):
            if text in truths:
                ends_s = [float(part) for part in truths[text].split(" to ")]
                hops = np.flatnonzero(decided)
                assert hops[0] == int(ends_s[0])
                assert hops[-1] in (int(ends_s[1]), int(ends_s[1] - 1e-6))
                lasted += 1
            elif (holds == 0).any():
                assert (decided == transitions(holds[None])[0]).all()
    assert lasted


def test_the_mllm_grades_every_allocation_and_says_nothing_of_what_was_not_shown(episodes):
    require(YARD.joinpath("model.safetensors").exists(), "the weights of the yard's MLLM")
    from samples.yard.episodes.answerer import YardAnswerer

    episode = episodes[0]
    answerer = YardAnswerer(YARD)
    nothing = [Allocation()] * len(episode.hops)
    variants = [shown(episode, 0.5), nothing, shown(episode, 0.2), shown(episode, 0.5)]
    rewards = answerer.rewards(episode, variants)
    assert rewards.shape == (4, len(episode.probes))
    assert ((rewards >= 0) & (rewards <= 1)).all()
    assert (rewards[1] == 0).all()
    assert np.allclose(rewards[0], rewards[3], atol=1e-5)
    assert not np.allclose(rewards[0], rewards[2], atol=1e-3)
    sparse = YardAnswerer(YARD, "sparse").rewards(episode, variants[:1])
    assert set(sparse.ravel()) <= {0.0, 1.0}


def test_without_weights_there_is_no_answerer(tmp_path):
    from samples.yard.episodes.answerer import YardAnswerer

    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        YardAnswerer(tmp_path)
