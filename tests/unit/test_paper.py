"""The configuration `paper`, on a tiny random SmolVLM."""

import dataclasses

import numpy as np
import pytest
import torch

from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.model.paper import PaperHead, PaperShape, load, save
from allocator_engine.model.paper_features import SmolFeatures
from allocator_engine.model.policy import log_prob, sample
from allocator_engine.train.capo import train
from allocator_engine.train.paper_learner import PaperLearner
from pipeline.sources.synthetic import ArrayPicture
from tests.pretrained import tiny_bert, tiny_smol
from tests.unit.test_capo import CONFIG, OUTSIDE

SHAPE = PaperShape(inputs=32, width=64, heads=4, depth=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_smol(tmp_path_factory.mktemp("smol"))


@pytest.fixture(scope="module")
def features(folder):
    return SmolFeatures(str(folder))


def head(seed: int = 0) -> PaperHead:
    torch.manual_seed(seed)
    return PaperHead(SHAPE)


def picture(seed: int) -> ArrayPicture:
    return ArrayPicture(np.random.default_rng(seed).integers(0, 256, (48, 80, 3), dtype=np.uint8))


def test_it_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert sum(weight.numel() for weight in PaperHead().parameters()) == pytest.approx(43.7e6, rel=1e-3)


def test_frames_and_words_become_features_of_the_frozen_model(features):
    seen = features.frames([picture(seed) for seed in range(10)])
    assert (seen.shape, features.tokens) == ((10, 4, 32), 4)
    assert torch.allclose(seen[3:4], features.frames([picture(3)]), atol=1e-5)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)
    assert features.frames([]).shape == (0, 4, 32)
    assert features.words(("is the gate open", "is a dog")).shape[1] == 32
    assert features.words(()).shape == (0, 32)


def test_every_frame_begins_uniform_with_its_full_gradient():
    fresh = head()
    mean, concentration = fresh(torch.randn(6, 4, 32), torch.randn(3, 32), torch.tensor(-3.0))
    assert mean.shape == concentration.shape == (6,)
    assert mean.detach().numpy() == pytest.approx(0.5, abs=0.02)
    assert concentration.detach().numpy() == pytest.approx(2.0, abs=0.05)
    action = torch.from_numpy(sample(mean.detach().numpy(), concentration.detach().numpy(), np.random.default_rng(0)))
    log_prob(mean, concentration, action.float()).sum().backward()
    assert float(fresh.last[-1].bias.grad.abs().max()) > 0.01


def changed(name: str) -> bool:
    """Whether another value of an input changes the means of a head that has learned something."""
    trained = head()
    with torch.no_grad():
        for weight in (trained.skip.weight, trained.grant.weight):
            weight.normal_()
    inputs = {"frames": torch.randn(5, 4, 32), "words": torch.randn(3, 32), "grant": torch.tensor(-3.0)}
    before, _ = trained(*inputs.values())
    other = inputs | {name: inputs[name] * 0.3}
    after, _ = trained(*other.values())
    return not torch.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("name", ["frames", "words", "grant"])
def test_what_is_seen_asked_and_granted_all_matter(name):
    assert changed(name)


def test_it_is_offline_a_later_frame_changes_an_earlier_decision():
    """The caveat of the module: no engine of it can run in the loop."""
    trained, frames, words = head(), torch.randn(4, 4, 32), torch.randn(2, 32)
    with torch.no_grad():
        trained.skip.weight.normal_()
        first = trained.understand(frames, words)[0]
        later = trained.understand(torch.cat([frames[:3], -frames[3:]]), words)[0]
    assert not torch.allclose(first, later, atol=1e-4)


def test_no_words_no_second_frame_and_a_black_one_are_fine(features):
    black = ArrayPicture(np.zeros((48, 80, 3), np.uint8))
    mean, concentration = head()(features.frames([black]), features.words(()), torch.tensor(-8.0))
    assert torch.isfinite(mean).all()
    assert torch.isfinite(concentration).all()


def test_it_is_trained_by_the_same_algorithm_and_goes_on_where_it_was_stopped(features, tmp_path):
    config = dataclasses.replace(CONFIG, steps=3, prompts_per_step=2, group=2, untold=0.3)
    whole = PaperLearner(head(), features)
    before = {name: weight.clone() for name, weight in whole.state_dict().items()}
    records = train(config, whole, OUTSIDE, tmp_path / "whole")
    assert {"reward", "cost", "entropy"} <= set(records[-1])
    moved = {name for name, weight in whole.state_dict().items() if not torch.equal(weight, before[name])}
    assert {"head.see.weight", "head.last.3.weight", "head.grant.weight"} <= moved
    train(config, PaperLearner(head(), features), OUTSIDE, tmp_path / "halves", stop_at=1)
    assert train(config, PaperLearner(head(7), features), OUTSIDE, tmp_path / "halves") == records


def test_a_head_is_kept_and_one_of_another_kind_refused(tmp_path):
    trained, file = head(), tmp_path / "allocator.safetensors"
    save(trained, {"features": "smol"}, file)
    loaded, notes = load(file)
    assert notes == {"features": "smol"}
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), loaded.parameters(), strict=True))
    from allocator_engine.model.checkpoint import load as load_stream

    with pytest.raises(EngineMismatch, match="holds 'resadapt-allocator paper'"):
        load_stream(file)
    with torch.no_grad():
        trained.see.weight.fill_(float("nan"))
    with pytest.raises(EngineMismatch, match=r"see\.weight .* not finite"):
        save(trained, {}, file)


def test_features_that_are_not_there_or_of_another_model_are_refused_by_name(tmp_path, features):
    with pytest.raises(EngineMissing, match=r"nowhere is no folder"):
        SmolFeatures(str(tmp_path / "nowhere"))
    with pytest.raises(EngineMismatch, match="family 'bert'; expected smolvlm"):
        SmolFeatures(str(tiny_bert(tmp_path / "bert")))
    with pytest.raises(ValueError, match="32 wide; expected 48"):
        PaperLearner(PaperHead(dataclasses.replace(SHAPE, inputs=48)), features)


def test_weights_that_are_incomplete_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("connector.modality_projection.proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineMismatch, match=r"connector\.modality_projection"):
        SmolFeatures(str(tmp_path))
