"""What training is composed of: curves, sentence encoders, footage, answers and what is kept of them."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.fit import FitRules, fit
from allocator_engine.grid import GRIDS
from allocator_engine.model import sentence
from allocator_engine.model.checkpoint import Checkpoint, load, save
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.model.sentence import PretrainedEncoder
from allocator_engine.spec import CELLS, MEMORY_FEATURES, QUERY_FEATURES
from allocator_engine.train.curves import draw, smooth
from allocator_engine.train.data import permuted
from allocator_engine.train.rollout import ClipHop, Episode, GradedQuestion, moments
from allocator_engine.train.watched import Watched, read
from pipeline.clock import SystemClock
from pipeline.core.hops import HopRules
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMUnavailable, SourceUnavailable
from pipeline.errors import EngineMismatch as PipelineMismatch
from pipeline.lab.answerer import MLLMAnswerer
from pipeline.lab.background import Background
from pipeline.lab.footage import LONG_FRAMES, Clip, RecordingReader, SiteClips, survey
from pipeline.lab.natives import NativeAnswers
from pipeline.lab.patience import TRIES
from pipeline.lab.truths import Reviewed
from pipeline.mllm.base import MLLMInfo
from pipeline.sources.settings import SourceConfig
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import ManualClock, ScriptedSource
from pipeline.types import Answer, Answers
from tests.clips import steady, write
from tests.pictures import broken
from tests.pretrained import tiny_bert

RULES = FitRules(GRIDS["qwen3_vl"])


def shown(hops: int) -> tuple[ClipHop, ...]:
    rng = np.random.default_rng(hops)
    pictures = [ArrayPicture(rng.integers(0, 256, (128, 192, 3), dtype=np.uint8)) for _ in range(hops)]
    return tuple(ClipHop(float(i), i + 1.0, (i + 0.5,), (pictures[i],)) for i in range(hops))


def test_curves_are_drawn_also_of_few_records_and_of_those_that_lack_a_figure(tmp_path):
    pytest.importorskip("matplotlib")
    records = [{"step": 0, "phase": "grounding", "loss": 1.0}, {"step": 1, "reward": 0.5, "cost": 0.1, "entropy": 0.0}]
    draw(records, tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    points = np.stack([np.arange(40), np.full(40, 3.0)], axis=1).astype(np.float64)
    assert smooth(points).shape == (31, 2)
    assert smooth(points)[0].tolist() == pytest.approx([4.5, 3.0])


@pytest.mark.parametrize("remembers", [True, False])
def test_an_episode_is_seen_in_training_as_it_is_hop_by_hop_in_service(remembers):
    torch.manual_seed(0)
    network = StreamNetwork(Shape(remembers=remembers)).eval()
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (6, 128, 224, 3), dtype=np.uint8)
    elapsed_s = np.array([0, 0.5, 0.5, 2, 0.5, 0.5], np.float32)
    hops = (slice(0, 2), slice(2, 2), slice(2, 3), slice(3, 6))
    queries, asked = torch.randn(1, 3, QUERY_FEATURES), torch.ones(1, 3)
    memory, readings = torch.zeros(1, CELLS, MEMORY_FEATURES), torch.zeros(1, 3, MEMORY_FEATURES)
    served = []
    with torch.no_grad():
        seen = read(network, Watched(thumbnails, elapsed_s, np.cumsum(elapsed_s), hops), queries, asked)
        for hop in hops:
            if hop.stop > hop.start:
                shown, lasted = torch.from_numpy(thumbnails[None, hop]), torch.from_numpy(elapsed_s[None, hop])
                present = torch.ones_like(lasted)
                cells, memory = network.perceive(shown, present, lasted, memory)
                meaning, foreseen, readings = network.read(cells, present, lasted, queries, asked, readings)
                served.append((cells, meaning, foreseen))
    for at_once, by_hop in zip(seen, zip(*served, strict=True), strict=True):
        assert torch.allclose(at_once, torch.cat(by_hop, dim=1), atol=1e-4)


def test_everything_is_met_once_per_epoch():
    order = [permuted(5, number) for number in range(10)]
    assert sorted(order[:5]) == sorted(order[5:]) == list(range(5))
    assert order[:5] != order[5:]


def test_a_watch_is_asked_as_often_when_it_holds_as_when_it_does_not():
    known = np.array([1, 1, 1, 1, 1, 0, 0, 0, -1, -1], np.int8)
    hops = moments(known, 4, np.random.default_rng(0))
    assert hops == sorted(hops)
    assert sorted(known[hops]) == [0, 0, 1, 1]
    assert len(moments(np.zeros(6, np.int8), 4, np.random.default_rng(0))) == 1
    assert moments(np.full(6, -1, np.int8), 4, np.random.default_rng(0)) == []


# Sentence encoders


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def test_a_sentence_encoder_of_others_takes_the_place_of_ours(bert):
    encoder = PretrainedEncoder(str(bert))
    texts = ["is the gate open", "is a dog", "zebra 🦓"]
    embedded = encoder.embed(texts)
    assert (embedded.dtype, embedded.shape) == (np.float32, (3, 128))
    assert np.linalg.norm(embedded, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (PretrainedEncoder(str(bert)).embed(texts[::-1])[::-1] == embedded).all()
    assert not np.allclose(embedded[0], embedded[1], atol=1e-3)
    assert encoder.embed([]).shape == (0, 128)
    assert np.isfinite(encoder.embed(["is " * 1000])).all()


def test_more_questions_than_are_kept_are_embedded_alike(bert, monkeypatch):
    texts = [f"is a dog {place}" for place in range(5)]
    expected = PretrainedEncoder(str(bert)).embed(texts)
    monkeypatch.setattr(sentence, "KEPT", 2)
    assert (PretrainedEncoder(str(bert)).embed(texts) == expected).all()


def test_a_checkpoint_can_be_read_by_others_and_leaves_nothing_beside_it(tmp_path):
    network = StreamNetwork(Shape(stem=(8, 8, 8), width=16, heads=2, mixers=1, readers=1, head_width=16))
    save(Checkpoint(network, QueryEncoder()), tmp_path / "allocator.safetensors")
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [
        ("allocator.safetensors", 0o644)
    ]


def test_the_projection_keeps_angles(bert):
    encoder = PretrainedEncoder(str(bert))
    assert torch.allclose(encoder.projection.T @ encoder.projection, torch.eye(128), atol=1e-5)


def test_a_checkpoint_names_its_sentence_encoder_and_refuses_another(bert, tmp_path):
    encoder, file = PretrainedEncoder(str(bert), seed=3), tmp_path / "allocator.safetensors"
    network = StreamNetwork(Shape(stem=(8, 8, 8), width=16, heads=2, mixers=1, readers=1, head_width=16))
    save(Checkpoint(network, encoder), file)
    assert (load(file).encoder.embed(["is a dog"]) == encoder.embed(["is a dog"])).all()
    other = tiny_bert(tmp_path / "bert", hidden=192)
    moved = tmp_path / "moved"
    bert.rename(moved)
    try:
        with pytest.raises(EngineMissing, match="is no folder"):
            load(file)
        other.rename(bert)
        with pytest.raises(EngineMismatch, match="has the weights"):
            load(file)
        bert.rename(other)
    finally:
        moved.rename(bert)


def test_a_model_that_is_too_narrow_is_refused(tmp_path):
    with pytest.raises(EngineMismatch, match="64 features; expected at least 128"):
        PretrainedEncoder(str(tiny_bert(tmp_path, hidden=64)))


# Footage


@pytest.fixture(scope="module")
def background():
    with Background() as running:
        yield running


@pytest.fixture(scope="module")
def reader(background):
    return RecordingReader(HopRules(), background, SystemClock(), SourceConfig(hwaccel="none"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("recordings")
    write(made / "a.mp4", steady(9.0, fps=10), size=(128, 192))
    write(made / "b.mkv", steady(0.3, fps=10), size=(128, 192))
    (made / "notes.txt").write_text("not a recording")
    return made


def test_recordings_are_cut_so_that_native_pictures_fit_a_context(folder, reader):
    footage = survey(folder, reader, RULES, most_tokens=4 * 2 * 24)
    assert footage.skipped == ()
    spans = [(clip.file.name, clip.start_s, clip.end_s) for clip in footage.clips]
    assert spans == [("a.mp4", 0, 4), ("a.mp4", 4, 8), ("a.mp4", 8, 9), ("b.mkv", 0, 1)]
    hops = reader.read(footage.clips[1].file, 4.0, 8.0)
    assert [(hop.start_s, len(hop.pictures)) for hop in hops] == [(4, 2), (5, 2), (6, 2), (7, 2)]
    assert hops[0].pts_s == (4.0, 4.5)
    with pytest.raises(ConfigError, match="holds no recording"):
        survey(folder / "empty", reader, RULES, 100)


def test_a_recording_began_its_length_before_its_date_unless_it_says_when(folder, reader):
    os.utime(folder / "a.mp4", (1_800_000_000, 1_700_000_009))
    assert reader.began(folder / "a.mp4").timestamp() == pytest.approx(1_700_000_000, abs=0.5)
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        reader.began(folder / "notes.txt")


def test_a_long_video_is_sampled_more_thinly(tmp_path, reader):
    video = write(tmp_path / "long.mp4", steady(60.0, fps=4), size=(64, 96))
    hops = reader.read_whole(video)
    assert sum(len(hop.pictures) for hop in hops) == LONG_FRAMES
    assert {len(hop.pictures) for hop in hops} == {2}
    assert hops[-1].pts_s[-1] > 58


def test_a_recording_that_breaks_off_while_it_is_counted_is_closed(folder, reader, monkeypatch):
    source = ScriptedSource([broken("it broke off")])
    monkeypatch.setattr(
        "pipeline.lab.footage.probe", lambda *_, **__: SimpleNamespace(pixel_format="yuv420p", duration_s=None)
    )
    monkeypatch.setattr("pipeline.lab.footage.AvSource", lambda *_, **__: source)
    with pytest.raises(SourceUnavailable, match="it broke off"):
        reader.length_s(folder / "a.mp4")
    assert source.closed


class Scripted:
    """Says yes to the first question on even hops, never knows the second."""

    def native(self, hops, questions):
        rows = {"q0": [0.9 if int(hop.start_s) % 2 == 0 else 0.2 for hop in hops], "q1": [np.nan] * len(hops)}
        return np.array([rows[question] for question in questions])


def test_clips_become_episodes_labelled_by_the_mllm_and_broken_ones_are_passed_over(folder, reader):
    clips = [Clip(folder / "gone.mp4", 0.0, 4.0), Clip(folder / "a.mp4", 0.0, 4.0)]
    site = SiteClips(clips, ("q0", "q1"), reader, Scripted(), 1)
    episodes = [site.episode(step, 0) for step in range(8)]
    assert {one.name for one in episodes} == {"a.mp4 0 s"}
    assert {one.standing for one in episodes} >= {("q0",), ("q0", "q1")}
    for one in episodes:
        for row, text in enumerate(one.standing):
            assert one.holds[row].tolist() == ([1, 0, 1, 0] if text == "q0" else [-1] * 4)
        assert all(probe.text == "q0" and probe.truth == ("yes", "no")[probe.asked_hop % 2] for probe in one.probes)
    with pytest.raises(ConfigError, match="none of the clips can be decoded"):
        SiteClips(clips[:1], ("q0",), reader, Scripted(), 1).episode(0, 0)


def test_what_people_say_is_the_truth_of_a_clip_and_the_mllm_is_asked_about_the_rest(folder, reader):
    file, asked = folder / "a.mp4", []

    class Noted(Scripted):
        def native(self, hops, questions):
            asked.append(tuple(questions))
            return super().native(hops, questions)

    def episode(people):
        asked.clear()
        clips = SiteClips([Clip(file, 0.0, 4.0)], ("q0",), reader, Noted(), 1, people)
        found = clips.episode(0, 0)
        return found.holds[0].tolist(), {(probe.asked_hop, probe.truth) for probe in found.probes}

    without, _ = episode({})
    assert (without, asked) == ([1, 0, 1, 0], [("q0",)])
    labelled, probes = episode({"q0": {file: Reviewed(0.0, 9.0, ((0.5, 2.0),))}})
    assert (labelled, asked) == ([1, 1, 0, 0], [])
    assert probes <= {(0, "yes"), (1, "yes"), (2, "no"), (3, "no")}
    assert len(probes) == 4
    in_part, _ = episode({"q0": {file: Reviewed(1.0, 3.0, ((1.0, 2.5),), (), ((2.5, 3.0),))}})
    assert (in_part, asked) == ([1, 1, -1, 0], [("q0",)]), "what is to be ignored is unknown, whatever the MLLM says"
    elsewhere, _ = episode({"q0": {folder / "b.mp4": Reviewed(0.0, 9.0, ())}, "q1": {file: Reviewed(0.0, 9.0, ())}})
    assert elsewhere == without


# Answers


class Recorder:
    """An MLLM that answers by how much it is shown, and notes what it is asked. `fails` are raised first."""

    info = MLLMInfo("recorder", "qwen3_vl", RULES.grid)

    def __init__(self, *fails: Exception) -> None:
        self.fails, self.asked, self.forgotten = list(fails), [], set()

    async def ask(self, context, queries, limit=None, aside=()):
        self.asked.append((context, [query.question for query in queries]))
        if self.fails:
            raise self.fails.pop(0)
        score = min(1.0, context.tokens / 50)
        return Answers(tuple(Answer(query.id, score, 0.9) for query in queries))

    async def say(self, context, questions, most=64, schema=None):
        self.asked.append((context, list(questions)))
        return ["B" for _ in questions]

    def forget(self, stream_id):
        self.forgotten.add(stream_id)


class Now(ManualClock):
    """Nobody has to wait."""

    async def sleep(self, seconds):
        self.advance(seconds)


def answerer(mllm, folder, background, clock=None) -> MLLMAnswerer:
    return MLLMAnswerer(mllm, "weights", RULES, NativeAnswers(folder / "native.jsonl"), background, clock or Now())


def episode(*probes: GradedQuestion, hops: int = 3) -> Episode:
    return Episode("e", shown(hops), (), probes, np.zeros((0, hops), np.int8))


YES, NO = GradedQuestion("is it?", "yes", "yes_no", 1, 1), GradedQuestion("is it not?", "no", "yes_no", 2, 2)
LETTER = GradedQuestion("A or B?", "B", "choice", 2, 0)


def allocations(*scales: float):
    return [fit([(128, 192)], [scale], 10**6, RULES) for scale in scales]


def test_answers_are_graded_at_the_hop_they_are_asked_of_what_was_shown_until_then(tmp_path, background):
    mllm = Recorder()
    variants = [allocations(0.5, 0.5, 0.5), allocations(0, 0, 1.0)]
    rewards = answerer(mllm, tmp_path, background).rewards(episode(YES, NO, LETTER), variants)
    shown_half = [6 / 50, 12 / 50, 18 / 50]
    assert rewards[0].tolist() == pytest.approx([0.9 * shown_half[1], 0.9 * (1 - shown_half[2]), 1])
    assert rewards[1].tolist() == pytest.approx([0, 0.9 * (1 - 24 / 50), 1])
    assert {context.anchor_s for context, _ in mllm.asked} == {0.5}, "time counts from the first frame of the episode"
    assert mllm.forgotten == {context.stream_id for context, _ in mllm.asked}
    assert answerer(mllm, tmp_path, background).rewards(episode(), variants).shape == (2, 0)


def test_a_picture_has_one_content_id_in_every_allocation(tmp_path, background):
    mllm = Recorder()
    variants = [allocations(0.5, 1.0), allocations(0.5, 0.5)]
    answerer(mllm, tmp_path, background).rewards(episode(YES, hops=2), variants)
    first, second = (context.segments for context, _ in mllm.asked)
    assert first[0].content_id == second[0].content_id
    assert first[1].content_id != second[1].content_id


def test_native_answers_are_asked_once_and_kept_for_the_next_run(tmp_path, background):
    mllm = Recorder()
    first = answerer(mllm, tmp_path, background)
    scores = first.native(shown(3), ["is it?", "is it on?"])
    assert scores.tolist() == [[24 / 50, 48 / 50, 1.0]] * 2
    assert [questions for _, questions in mllm.asked] == [["is it?", "is it on?"]] * 3
    assert (first.native(shown(3), ["is it on?"]) == scores[:1]).all()
    with (tmp_path / "native.jsonl").open("a") as file:
        file.write('["half a li')  # a run was killed here
    again = answerer(mllm, tmp_path, background)
    assert (again.native(shown(3), ["is it?", "new?"]) == scores).all()
    assert [questions for _, questions in mllm.asked[3:]] == [["new?"]] * 3
    (tmp_path / "native.jsonl").write_text('{"not": "a line of it"}\n')
    with pytest.raises(PipelineMismatch, match=r"line 1 of .*native\.jsonl is damaged"):
        NativeAnswers(tmp_path / "native.jsonl")


def test_an_overloaded_mllm_is_asked_again_and_one_that_is_gone_is_not(tmp_path, background):
    patient = Recorder(*[MLLMOverloaded("busy")] * (TRIES - 1))
    rewards = answerer(patient, tmp_path, background).rewards(episode(YES), [allocations(1.0, 1.0, 1.0)])
    assert rewards[0, 0] == pytest.approx(0.9 * 48 / 50)
    assert len(patient.asked) == TRIES
    with pytest.raises(ConnectionError, match="busy"):
        answerer(Recorder(*[MLLMOverloaded("busy")] * TRIES), tmp_path, background).rewards(
            episode(YES), [allocations(1.0, 1.0, 1.0)]
        )
    gone = Recorder(MLLMUnavailable("it is gone"))
    with pytest.raises(ConnectionError, match="it is gone"):
        answerer(gone, tmp_path, background).rewards(episode(YES), [allocations(1.0, 1.0, 1.0)])
    assert len(gone.asked) == 1
