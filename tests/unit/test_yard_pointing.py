"""Heads that are told where to look are told the truth, and what they are told is what they do."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, DynamicCache

from pipeline.mllm.transformers.cache import continuing
from samples.yard.questions.grammar import Question, watch_questions
from samples.yard.shape import HIDDEN
from samples.yard.train.episodes import Looked
from samples.yard.train.notes import truths
from samples.yard.train.packing import Packer, PlacedQuestion
from samples.yard.train.pointing import (
    GLANCES,
    POINTERS,
    AskedContext,
    Pointer,
    asking,
    attention,
    cells_of,
    log_share,
    points,
)
from samples.yard.train.text import read
from samples.yard.world.facts import HEIGHT, WIDTH, FrameFacts, Thing
from samples.yard.world.segments import told
from tests.checkpoints import untrained_yard
from tests.unit.yard_facts import frame, thing

DOG, PERSON = thing("dog", 1, box=(10, 200, 40, 30)), thing("person", 2, box=(300, 40, 20, 60))
PLATED = thing("car", 3, box=(96, 96, 64, 64), plate="A7K", plate_px=14.0)


def segment(index: int, *things: Thing, gate: bool = False) -> Looked:
    vision = np.random.default_rng(index).normal(size=(8 * 14, HIDDEN)).astype(np.float16)
    facts = tuple(frame(index + 0.5 * half, *things, gate_open=gate) for half in range(2))
    return Looked(vision, 8, 14, (facts[0].time_s, facts[1].time_s), facts)


def past(*looked: Looked) -> AskedContext:
    frames: list[FrameFacts] = told([one.facts for one in looked], 0.0)
    return AskedContext(looked, np.stack([truths(one.facts) for one in looked]), frames)


def yes(text: str, answer: str = "yes") -> Question:
    return Question("condition", "watch", text, answer)


EPISODE = [segment(0), segment(1, DOG, gate=True), segment(2, DOG, PERSON, gate=True), segment(3, PERSON, PLATED)]


def test_what_is_asked_about_now_is_looked_for_in_the_newest_second():
    dog = tuple((2, cell) for cell in cells_of(DOG, 8, 14))
    assert points(yes("is a dog in view?"), past(*EPISODE[:3])) == [Pointer("among", 0, dog), Pointer("now", 0, dog)]
    assert points(yes("is a dog in view?", "no"), past(*EPISODE)) == [Pointer("among", 0), Pointer("now", 0)]
    assert points(yes("is the gate open?"), past(*EPISODE[:3])) == [], "no cell of its own is known"


def test_what_somebody_wears_is_looked_for_where_it_is_worn():
    tall = thing("person", 2, box=(100, 96, 32, 96), helmet=True, vest=True, bag=True, head_px=14.0)

    def rows(slug: str) -> set[int]:
        (watch,) = (watch for watch in watch_questions() if watch.slug == slug)
        among, shown = points(yes(watch.text), past(segment(0, tall)))
        assert among.cells == shown.cells
        return {cell // 14 for _, cell in shown.cells}

    assert rows("helmet") == {3}
    assert rows("vest") == {3, 4}
    assert rows("carrying-bag") == {4, 5}
    assert rows("person") == {3, 4, 5}


def test_all_that_may_be_meant_are_looked_at_before_those_that_are():
    hats = [thing("person", id_, box=(64 * id_, 96, 32, 96), helmet=id_ == 1, head_px=14.0) for id_ in (1, 2)]
    watches = {watch.slug: watch.text for watch in watch_questions()}
    bare, nobody = (points(yes(watches["no-helmet"], answer), past(segment(0, *shown))) for answer, shown in
                    (("yes", hats), ("no", hats[:1])))  # fmt: skip
    heads = [tuple((0, cell) for cell in cells_of(hat, 8, 14, "bare")) for hat in hats]
    assert [(point.glance, point.cells) for point in bare] == [("among", sum(heads, ())), ("now", heads[1])]
    assert [(point.glance, point.cells) for point in nobody] == [("among", heads[0]), ("now", ())]


def test_each_character_of_a_plate_is_looked_for_at_its_place():
    right, wrong = (
        points(yes("is plate A7K in view?"), past(*EPISODE)),
        points(yes("is plate A3K in view?", "no"), past(*EPISODE)),
    )
    car = tuple((3, cell) for cell in cells_of(PLATED, 8, 14))
    assert right[:2] == [Pointer("among", 0, car), Pointer("now", 0, car)]
    assert right[2:] == [Pointer("glyph", place, car) for place in range(3)]
    assert wrong[:2] == [Pointer("among", 0, car), Pointer("now", 0)]
    assert wrong[2:] == [Pointer("glyph", 0, car), Pointer("glyph", 1), Pointer("glyph", 2, car)]


def test_a_plate_is_read_from_the_vehicle_that_carries_it():
    found = points(Question("plate_read_now", "fine", "what does the plate read?", "A7K"), past(*EPISODE))
    assert [(point.glance, point.place) for point in found] == [
        (look, n) for look in ("among", "now") for n in range(3)
    ]
    assert {point.cells for point in found} == {tuple((3, cell) for cell in cells_of(PLATED, 8, 14))}


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("when was the gate open?", "1.2 to 2.2", [(0, (1,)), (3, (3,))]),
        ("when was a dog in view?", "1.2 to 2.2", [(0, (1,)), (3, (3,))]),
        ("was there ever a dog?", "yes", [(0, (1, 2))]),
        ("was there ever smoke?", "no", [(0, ())]),
        ("did no dog come?", "no", [(0, (1, 2))]),
        ("did no truck come?", "yes", [(0, ())]),
        ("was the gate open at 2.2 seconds?", "yes", [(0, (2,))]),
        ("was the gate open at 0.2 seconds?", "no", [(0, ())]),
    ],
)
def test_the_past_is_looked_for_at_the_ends_of_its_segments(text, answer, expected):
    assert [(point.place, point.ends) for point in points(yes(text, answer), past(*EPISODE))] == expected


def test_the_past_knows_its_segments_by_the_times_that_are_written():
    assert past(*EPISODE).stamps == ["0.2", "1.2", "2.2", "3.2"]


def test_cells_of_a_thing_cover_it_at_any_size():
    for rows, columns in ((8, 14), (4, 7), (1, 1)):
        inside = cells_of(PLATED, rows, columns)
        left, top, width, height = PLATED.box
        for cell in inside:
            x, y = (cell % columns + 0.5) * WIDTH / columns, (cell // columns + 0.5) * HEIGHT / rows
            assert left - WIDTH / columns < x < left + width + WIDTH / columns
            assert top - HEIGHT / rows < y < top + height + HEIGHT / rows
        assert inside
    assert len(cells_of(PLATED, 8, 14)) == 4


@pytest.fixture(scope="module")
def packer():
    return Packer(AutoTokenizer.from_pretrained(untrained_yard()))


def test_points_find_their_tokens_in_what_is_packed(packer):
    question = yes("is plate A7K in view?")
    packed = packer.pack(
        EPISODE,
        [
            PlacedQuestion(4, yes("is a dog in view?", "no"), (Pointer("now", 0),)),
            PlacedQuestion(4, question, tuple(points(question, past(*EPISODE)))),
        ],
    )
    assert [GLANCES[glance] for glance in packed.glances] == ["now", "among", "now", "glyph", "glyph", "glyph"]
    texts = [packer.words.decode([token]).strip() for token in packed.ids[packed.pointing]]
    assert texts == ["", "", "", "A", "7", "K"], "the first three stand at the end of the prompt, behind a line break"
    assert packed.wanted.any(1).tolist() == [False, True, True, True, True, True]
    assert bool(packed.is_vision[packed.wanted.any(0)].all())
    assert int(packed.wanted[1].sum()) == 4


def test_what_a_thinned_context_no_longer_shows_is_not_pointed_at(packer):
    asked = [PlacedQuestion(4, yes("is a person in view?"), (Pointer("now", 0, ((3, 5), (3, 6))), Pointer("now", 0)))]
    shown = np.ones(4 * 112, bool)
    shown[3 * 112 + 5] = False
    assert packer.pack(EPISODE, asked, shown=shown).wanted.sum(1).tolist() == [1, 0]
    shown[3 * 112 + 6] = False
    assert packer.pack(EPISODE, asked, shown=shown).wanted.sum(1).tolist() == [0], "only the point at nothing is left"


def test_the_attention_that_is_taught_is_the_one_the_layer_computes(packer):
    from transformers import Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(untrained_yard(), attn_implementation="eager").eval()
    text = model.model.language_model
    ids = torch.tensor([packer.tokens("is a dog in view now?")])
    layer, head = POINTERS["then"]
    attending = text.layers[layer].self_attn
    weights: list[torch.Tensor] = []
    hook = attending.register_forward_hook(lambda module, given, output: weights.append(output[1]))
    with torch.inference_mode(), asking({layer: attending}) as asked:
        cache = DynamicCache(config=model.config)
        text(input_ids=ids, **continuing(text, cache))
    hook.remove()
    last = ids.shape[1] - 1
    at = torch.tensor([0]), torch.tensor([last])
    with torch.inference_mode():
        logits = attention(attending, head, asked[layer], at, cache.layers[layer].keys)
    assert torch.allclose(logits.softmax(1), weights[0][:, head, last], atol=1e-5)


def test_a_share_is_of_what_may_be_seen():
    logits = torch.tensor([[0.0, 1.0, 9.0]])
    allowed, wanted = torch.tensor([[True, True, False]]), torch.tensor([[False, True, False]])
    assert float(log_share(logits, allowed, wanted).exp()) == pytest.approx(np.e / (1 + np.e))


def test_looking_costs_nothing_where_nobody_is_told_to(packer):
    from transformers import Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(untrained_yard()).eval()
    with torch.inference_mode():
        assert read(model, packer.pack(EPISODE[:1], [PlacedQuestion(1, yes("is the gate open?", "no"))])).looks == {}
        point = (Pointer("now", 0),)
        found = read(model, packer.pack(EPISODE[:1], [PlacedQuestion(1, yes("is a dog in view?", "no"), point)])).looks
    assert found.keys() == {"now"}
    assert float(found["now"][0]) > 0
