"""Contexts as training packs them: many questions behind one context, each as if it stood there alone."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pipeline.mllm.prompt import Text, looks, markup, opening, suffix
from samples.yard.questions.grammar import Question
from samples.yard.questions.truth import DOG, GATE_OPEN, PERSON, Seen
from samples.yard.questions.watches import watch_questions
from samples.yard.shape import FAMILY, HIDDEN
from samples.yard.train.contexts import (
    AS_SERVED,
    NOW_KINDS,
    Lesson,
    Remembered,
    cut,
    packed_context,
    packed_present,
    watched,
    work,
)
from samples.yard.train.episodes import Looked
from samples.yard.train.meaning import UNKNOWN, Meaning, MeaningHead, classes, meaning
from samples.yard.train.notes import CONDITIONS, LASTING, LAYERS, NoteHeads, any_of, notes, truths
from samples.yard.train.packing import IGNORED, Packer, PlacedQuestion, _segment
from samples.yard.train.pointing import cells_of
from samples.yard.train.text import TaughtText, answer_loss, read
from samples.yard.world.facts import VEHICLES, FrameFacts, Thing
from tests.checkpoints import untrained_yard

USUAL = np.full(len(CONDITIONS), 0.5)
GATE, SOMEONE = LASTING.index(GATE_OPEN), LASTING.index(PERSON)


@pytest.fixture(scope="module")
def model():
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(untrained_yard()).eval()


@pytest.fixture(scope="module")
def packer():
    return Packer(AutoTokenizer.from_pretrained(untrained_yard()))


def person() -> Thing:
    return Thing(
        1, "person", (64, 64, 32, 64), 64.0, 1.0, 60.0, "road", helmet=False, vest=True, bag=False, head_px=9.0
    )


def looked(index: int, rows: int, columns: int, frames: int = 2, gate: bool | None = False, people: bool = False):
    times = tuple(4.0 + index + 0.5 * frame for frame in range(frames))
    things = (person(),) if people else ()
    vision = np.random.default_rng(index).normal(size=(rows * columns, HIDDEN)).astype(np.float16)
    facts = tuple(FrameFacts(time_s, "day", False, gate, False, things) for time_s in times)
    return Looked(vision, rows, columns, times, facts)


EPISODE = [looked(0, 2, 3), looked(1, 1, 1, frames=1), looked(2, 3, 2, gate=True), looked(3, 2, 2, people=True)]
QUESTIONS = [
    Question("gate_open_now", "coarse", "is the gate open?", "yes"),
    Question("interval", "grounding", "when was the gate open?", "2.2 to 2.2"),
    Question("unknown", "unknown", "wie geht es dir?", "unknown"),
]


def alone(model, packer, shown, question):
    """What the model says to one question behind one context, in a single plain pass."""
    parts = [
        opening(FAMILY),
        *looks([_segment(one) for one in shown], shown[0].pts_s[0]),
        suffix(question.text, FAMILY),
    ]
    text = markup([*parts, Text(question.answer)], expanded=True)
    ids = torch.tensor(packer.words.encode(text, add_special_tokens=False))
    asked = packer.words.encode(markup(parts, expanded=True), add_special_tokens=False)
    pads = packer.words.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    is_vision = torch.isin(ids, torch.tensor(pads))
    vision = torch.from_numpy(np.concatenate([one.vision for one in shown]).astype(np.float32))
    embedded = model.model.language_model.embed_tokens(ids).masked_scatter(is_vision[:, None], vision)
    grids = torch.tensor([[1, 2 * one.rows, 2 * one.columns] for one in shown])
    videos = torch.tensor([len(one.pts_s) > 1 for one in shown])
    kinds = torch.where(ids == pads[0], 1, torch.where(ids == pads[1], 2, 0))
    where, _ = model.model.get_rope_index(
        ids[None],
        image_grid_thw=grids[~videos] if (~videos).any() else None,
        video_grid_thw=grids[videos] if videos.any() else None,
        mm_token_type_ids=kinds[None],
    )
    hidden = model.model.language_model(inputs_embeds=embedded[None], position_ids=where).last_hidden_state[0]
    return model.lm_head(hidden[len(asked) - 1 :])


@torch.inference_mode()
def test_a_packed_question_is_answered_as_if_it_stood_alone_behind_what_had_been_shown(model, packer):
    asked = [PlacedQuestion(after, question) for after in (1, 3, 4) for question in QUESTIONS]
    packed = packer.pack(EPISODE, asked)
    found = read(model, packed)
    known = packed.targets != IGNORED
    for index, one in enumerate(asked):
        expected = alone(model, packer, EPISODE[: one.after], one.question)
        torch.testing.assert_close(found.said[packed.owner[known] == index], expected, atol=2e-5, rtol=1e-4)
    assert [tuple(one.shape) for one in found.known] == [(4, HIDDEN)] * len(LAYERS)
    assert found.meant.shape == (int(known.sum()), HIDDEN)


@torch.inference_mode()
def test_what_is_shown_later_changes_no_earlier_answer(model, packer):
    later = [*EPISODE[:2], looked(9, 4, 4), looked(10, 1, 2)]
    asked = [PlacedQuestion(2, QUESTIONS[0])]
    one, other = (read(model, packer.pack(shown, asked)).said for shown in (EPISODE, later))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_notes_say_what_holds_what_began_and_what_ever_held():
    held = np.stack([truths(one.facts) for one in EPISODE])
    found = notes(held, [0.2, 1.0, 2.2, 3.2])
    begun, ended, ever = np.split(found.past, [len(LASTING), 2 * len(LASTING)], axis=1)
    assert found.now[:, CONDITIONS.index(GATE_OPEN)].tolist() == [0, 0, 1, 0]
    assert found.before_s == pytest.approx([0.2, 0.2, 1.0, 2.2])
    assert begun[:, GATE].tolist() == [-1, 0, 1, 0]
    assert ended[:, GATE].tolist() == [-1, 0, 0, 1]
    assert ever[:, GATE].tolist() == [0, 0, 1, 1]
    assert begun[:, SOMEONE].tolist() == [-1, 0, 0, 1]


def test_the_newest_second_may_be_two_segments_long():
    shown = [looked(0, 1, 1, frames=1, gate=True), looked(1, 1, 1, frames=1)]
    held = np.stack([truths(one.facts) for one in shown])
    assert notes(held, [0.0, 0.5]).now[:, GATE].tolist() == [1, 1]
    assert notes(held, [0.0, 1.0]).now[:, GATE].tolist() == [1, 0]


def test_undecided_facts_leave_notes_open():
    shown = [looked(0, 1, 1), looked(1, 1, 1, gate=None), looked(2, 1, 1, gate=True)]
    found = notes(np.stack([truths(one.facts) for one in shown]), [0.2, 1.2, 2.2])
    assert found.now[:, GATE].tolist() == [0, -1, 1]
    assert found.past[:, GATE].tolist() == [-1, -1, -1], "when it began nobody knows"
    assert any_of(np.array([[-1, -1, 0], [1, 0, 0]], np.int8)).tolist() == [1, -1, 0]


def test_a_context_ends_with_its_newest_segment_and_stays_within_its_bounds():
    episode = [looked(index, 8, 14) for index in range(16)]
    for seed in range(200):
        chosen = cut(episode, 12, np.random.default_rng(seed))
        assert chosen == sorted(set(chosen))
        assert 1 <= len(chosen) <= 12
        assert chosen[-1] < 16


def test_watches_are_asked_as_they_stand_and_only_where_the_truth_is_certain():
    watches = [one for one in watch_questions() if one.slug in ("gate-open", "person")]
    certain = watched(watches, [fact for one in EPISODE for fact in one.facts])
    assert {(one.text, one.answer) for one in certain} == {("is the gate open?", "no"), ("is a person in view?", "yes")}
    moving = [dataclasses.replace(fact, gate_open=None) for fact in EPISODE[0].facts]
    assert [one.text for one in watched(watches, moving)] == ["is a person in view?"]


def test_a_time_is_one_token_wherever_it_stands(packer):
    for text in ("<12.5 seconds>", "2.0 to 12.5", "at 12.5 seconds, was the gate open?"):
        assert packer.words.convert_ids_to_tokens(packer.tokens(text)).count("12.5") == 1
        assert packer.words.decode(packer.tokens(text)) == text
    assert "12.5" not in packer.words.convert_ids_to_tokens(packer.tokens("112.5 seconds"))


def test_near_times_begin_alike():
    from samples.yard.train.start import embed_words

    rows = torch.empty(8, 64)
    embed_words(rows, {0.0: 1, 0.5: 3, 20.0: 5})
    near, far = (float(torch.cosine_similarity(rows[1], rows[other], dim=0)) for other in (3, 5))
    assert near > far + 0.1


def test_lessons_teach_answers_and_notes(packer):
    from samples.yard.train.checkpoint import untrained

    held = np.stack([truths(one.facts) for one in EPISODE])
    episode = Remembered(tuple(EPISODE), held, watch_questions()[:8])
    packed = packed_context(episode, packer, AS_SERVED, USUAL, np.random.default_rng(3))
    assert {one.kind for one in packed.questions} & set(NOW_KINDS)
    assert work(packed) > len(packed.context_ids) + len(packed.ids)
    taught = TaughtText(untrained(packer.words, 1), 1)
    loss, figures = answer_loss(taught, [packed])
    loss.backward()
    assert {"answers loss", "note now", "note past", "note time", "looks now", "looks then"} <= set(figures)
    assert float(taught.notes.heads["past"].weight.grad.abs().sum()) > 0
    assert float(taught.mllm.model.language_model.layers[0].mlp.up_proj.weight.grad.abs().sum()) > 0


def test_the_present_is_asked_about_in_many_ways(packer):
    held = np.stack([truths(one.facts) for one in EPISODE])
    episode = Remembered(tuple(EPISODE), held, watch_questions()[:8])
    packed = packed_present(episode, packer, USUAL, np.random.default_rng(0))
    assert len(packed.questions) > 20
    assert {one.kind for one in packed.questions} <= {*NOW_KINDS, "standing", "condition"}
    assert len(set(packed.sees.tolist())) == 1


def test_what_is_rare_is_asked_about_as_soon_as_it_holds(packer):
    held = np.stack([truths(one.facts) for one in EPISODE])
    episode = Remembered(tuple(EPISODE), held, watch_questions()[:8])
    usual = USUAL.copy()
    usual[SOMEONE] = 1e-6
    asked = [packed_present(episode, packer, usual, np.random.default_rng(seed)).questions for seed in range(30)]
    assert held[:, SOMEONE].any()
    assert not held[:, SOMEONE].all()
    meant = [
        [question.answer for question in questions if question.kind == "condition" and classes(question)[0] == SOMEONE]
        for questions in asked
    ]
    assert sum("yes" in one for one in meant) >= 25, "moments that show it are chosen, and it is asked for there"


def test_of_a_thinned_context_some_cells_of_each_picture_are_left_at_their_places(packer):
    shown = [looked(index, 8, 14) for index in range(3)]
    asked = [PlacedQuestion(2, QUESTIONS[0]), PlacedQuestion(3, QUESTIONS[1])]
    part = np.random.default_rng(0).random(3 * 112) < 0.1
    whole, thin = packer.pack(shown, asked), packer.pack(shown, asked, shown=part)
    left = ~whole.is_vision
    left[whole.is_vision] = torch.from_numpy(part)
    assert torch.equal(thin.context_ids, whole.context_ids[left])
    assert torch.equal(thin.context_positions, whole.context_positions[:, left])
    assert torch.equal(thin.vision, whole.vision[torch.from_numpy(part)])
    assert torch.equal(thin.context_ids[thin.ends], whole.context_ids[whole.ends])
    assert torch.equal(thin.positions, whole.positions), "a question stands where it would have stood"
    assert sorted(set(thin.sees.tolist())) == (thin.ends[1:] + 1).tolist()
    seen = packed_context(
        Remembered(tuple(shown), np.stack([truths(one.facts) for one in shown]), watch_questions()[:8]),
        packer,
        Lesson(3, thinned=1.0),
        USUAL,
        np.random.default_rng(1),
    )
    assert int(seen.is_vision.sum()) <= 30


def test_of_a_thinned_context_the_cells_that_show_something_stay(packer):
    shown = [looked(index, 8, 14, people=True) for index in range(3)]
    held = np.stack([truths(one.facts) for one in shown])
    for seed in range(10):
        packed = packed_context(
            Remembered(tuple(shown), held, watch_questions()[:8]),
            packer,
            Lesson(3, thinned=1.0),
            USUAL,
            np.random.default_rng(seed),
        )
        left = {row.tobytes() for row in packed.vision.numpy()}
        cells = list(cells_of(person(), 8, 14))
        whole = [{row.tobytes() for row in one.vision[cells].astype(np.float32)} <= left for one in shown]
        assert sum(whole) == len(packed.ends), "of every picture that the context holds, the cells of the person"


def test_all_ways_to_ask_the_same_mean_the_same():
    assert meaning("Is the gate open?") == meaning("the gate is open") == Meaning("now", GATE_OPEN)
    assert meaning("when was the gate open?") == Meaning("when", GATE_OPEN)
    assert meaning("was there ever a dog?") == Meaning("ever", DOG)
    assert meaning("Did no dog come?") == Meaning("never", DOG)
    assert meaning("at second 12.5, was the gate open?") == Meaning("at", GATE_OPEN, "12.5")
    assert meaning("is plate A7 in view?") == Meaning("now", Seen(VEHICLES, trait="plate", plate="A7"))
    assert meaning("what does the plate read?") is None


def test_a_question_is_of_a_condition_and_of_a_sort_where_it_has_them():
    gate, when, odd = (classes(question) for question in QUESTIONS)
    assert gate[0] == when[0] == CONDITIONS.index(GATE_OPEN)
    assert odd[0] == UNKNOWN
    assert len({gate[1], when[1], odd[1]}) == 3
    assert classes(Question("plate_text_now", "fine", "is plate A7 in view?", "no")) == (UNKNOWN, gate[1])


def test_meanings_are_learned_where_there_are_any():
    head, hidden = MeaningHead(0), torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(1))
    loss, right = head.loss(hidden, torch.tensor([0, 1, 1, 2]), QUESTIONS)
    loss.backward()
    assert 0 <= right <= 1
    assert float(head.heads.weight.grad.abs().sum()) > 0
    strange = [Question("condition", "watch", "is all well?", "no")]
    assert float(head.loss(hidden[:1], torch.tensor([0]), strange)[0].detach()) == 0


def test_notes_that_are_right_cost_less():
    heads = NoteHeads(0)
    found = notes(np.stack([truths(one.facts) for one in EPISODE]), [0.2, 1.0, 2.2, 3.2])
    hidden = [torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(1)) for _ in LAYERS]
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss, figures = heads.loss(hidden, found)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4
    assert figures["note now"] == 1.0
