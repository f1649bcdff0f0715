import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator_engine.encode import HopView, batch, empty_memory, nothing_read
from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.model.checkpoint import Checkpoint, load, save
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.policy import entropy, log_prob, sample
from allocator_engine.model.query import QueryEncoder
from allocator_engine.model.worth import best_share, worth_of_transitions
from allocator_engine.spec import STREAM
from allocator_engine.words import features


def decisive(**options: bool) -> StreamNetwork:
    """A network whose decisions differ as those of a trained one do."""
    network = StreamNetwork(Shape(**options)).eval()
    with torch.no_grad():
        network.head[-1].weight.normal_(0, 0.1)
    return network


torch.manual_seed(0)
NETWORK = decisive()
RNG = np.random.default_rng(0)


def view(frames: int = 2, queries: int = 3, seed: int = 0, **changes) -> HopView:
    rng = np.random.default_rng(seed)
    embedded = rng.normal(size=(queries, 128))
    embedded /= np.maximum(np.linalg.norm(embedded, axis=1, keepdims=True), 1e-9)
    made = HopView(
        rng.integers(0, 256, (frames, 128, 224, 3)).astype(np.uint8),
        np.full(frames, 0.5, np.float32),
        embedded.astype(np.float32),
        -3.0,  # where what a new network foresees is worth a part of a hop's tokens
        empty_memory(),
        nothing_read(queries),
    )
    return dataclasses.replace(made, **changes)


def run(*views: HopView, network: StreamNetwork = NETWORK) -> dict[str, np.ndarray]:
    tensors = batch(views)
    STREAM.check_inputs(tensors)
    with torch.inference_mode():
        outputs = network(*(torch.from_numpy(tensors[spec.name]) for spec in STREAM.inputs))
    found = {spec.name: value.numpy() for spec, value in zip(STREAM.outputs, outputs, strict=True)}
    STREAM.check_outputs(found)
    return found


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, atol=2e-5))


def test_decisions_are_made_where_foresight_counts():
    found = run(view())["mean"]
    assert (found > 0.1).all()
    assert (found < 0.9).all()
    with torch.no_grad():
        keener = copy.deepcopy(NETWORK)
        keener.foresee.bias[1] += 1
    assert (run(view(), network=keener)["mean"] > found + 0.01).all()


def test_later_frames_never_change_an_earlier_decision():
    whole = view(frames=5)
    for kept in range(1, 5):
        changed = whole.thumbnails.copy()
        changed[kept:] = 255 - changed[kept:]
        late = np.where(np.arange(5) < kept, whole.elapsed_s, 9).astype(np.float32)
        other = run(dataclasses.replace(whole, thumbnails=changed, elapsed_s=late))
        assert close(other["mean"][:, :kept], run(whole)["mean"][:, :kept])
        assert not close(other["mean"][:, kept:], run(whole)["mean"][:, kept:])


def test_a_stream_shown_hop_by_hop_is_decided_as_if_shown_at_once():
    whole = view(frames=7, elapsed_s=np.array([0, 0.5, 0.4, 3, 0.5, 60, 0.5], np.float32))
    at_once = run(whole)
    before, means = whole, []
    for hop in (slice(0, 2), slice(2, 3), slice(3, 7)):
        found = run(dataclasses.replace(before, thumbnails=whole.thumbnails[hop], elapsed_s=whole.elapsed_s[hop]))
        means.append(found["mean"][0])
        before = dataclasses.replace(before, memory=found["next_memory"][0], readings=found["next_readings"][0])
    assert close(np.concatenate(means), at_once["mean"][0])
    assert close(before.memory, at_once["next_memory"][0])
    assert close(before.readings, at_once["next_readings"][0])


@pytest.mark.parametrize("kind", ["memory", "readings"])
def test_what_is_remembered_matters_and_stays_bounded(kind):
    past = view()
    for seed in range(30):
        past = view(seed=seed, **{kind: run(past)[f"next_{kind}"][0]})
    remembered = {kind: getattr(past, kind)}
    assert np.abs(remembered[kind]).max() <= 1
    assert not close(run(view())["mean"], run(view(**remembered))["mean"])
    forgetful = decisive(remembers=False)
    assert close(run(view(), network=forgetful)["mean"], run(view(**remembered), network=forgetful)["mean"])


def test_what_a_query_has_read_is_its_own():
    one, other = view(seed=1), view(seed=2)
    together = dataclasses.replace(
        one,
        queries=np.concatenate([one.queries, other.queries]),
        readings=np.concatenate([one.readings, other.readings]),
    )
    found = run(together)["next_readings"][0]
    assert close(found[:3], run(one)["next_readings"][0])
    assert not close(found[3:], found[:3])


@pytest.mark.parametrize("queries", [0, 1, 200])
def test_any_number_of_queries_is_answered_and_their_order_does_not_matter(queries):
    given_ = view(queries=queries)
    order = np.random.default_rng(1).permutation(queries)
    found = run(given_)
    assert np.isfinite(found["mean"]).all()
    assert close(found["mean"], run(dataclasses.replace(given_, queries=given_.queries[order]))["mean"])


def test_queries_matter_unless_the_network_does_not_listen():
    deaf = decisive(listens=False)
    one, other = view(), dataclasses.replace(view(), queries=view(seed=9).queries)
    assert not close(run(one)["mean"], run(other)["mean"])
    assert close(run(one, network=deaf)["mean"], run(other, network=deaf)["mean"])


def test_padding_changes_nothing():
    short, long = view(frames=1, queries=0, seed=3), view(frames=4, queries=6, seed=4)
    together, alone = run(short, long), run(short)
    assert close(together["mean"][0, :1], alone["mean"][0])
    assert close(together["concentration"][0, :1], alone["concentration"][0])
    assert close(together["next_memory"][0], alone["next_memory"][0])
    assert close(together["mean"][1], run(long)["mean"][0])


def test_the_grant_matters():
    assert not close(run(view(grant=-8.0))["mean"], run(view(grant=2.0))["mean"])


@pytest.mark.parametrize("pixels", [0, 255])
def test_black_and_white_frames_are_decided(pixels):
    found = run(view(thumbnails=np.full((1, 128, 224, 3), pixels, np.uint8), elapsed_s=np.zeros(1, np.float32)))
    assert 0 < float(found["mean"][0, 0]) < 1


@pytest.mark.parametrize("turning", [-20.0, 0.0, 20.0])
def test_a_new_network_spends_what_its_foresight_is_worth_with_a_healthy_gradient(turning):
    fresh = StreamNetwork()
    with torch.no_grad():
        fresh.foresee.weight.zero_()
        fresh.foresee.bias.fill_(turning)
    shown = view(grant=0.0, queries=2)
    mean, concentration, *_ = fresh(*(torch.from_numpy(batch([shown])[spec.name]) for spec in STREAM.inputs))
    likely = torch.sigmoid(torch.tensor(turning))
    best = best_share(2 * worth_of_transitions(likely, likely), torch.tensor(0.0)).sqrt()
    assert torch.allclose(mean, best.expand_as(mean), atol=5e-3)
    log_prob(mean, concentration, torch.full_like(mean, 0.6)).sum().backward()
    gradient = fresh.head[-1].bias.grad
    assert gradient is not None
    assert abs(float(gradient[0])) > 0.01


def test_no_mean_moves_for_the_sake_of_its_concentration():
    idle = StreamNetwork()
    with torch.no_grad():
        idle.foresee.bias.fill_(-20.0)
    mean, concentration, *_ = idle(*(torch.from_numpy(batch([view()])[spec.name]) for spec in STREAM.inputs))
    assert (mean < 0.01).all()
    assert (concentration > 45).all(), "near an end the policy has to be narrow"
    concentration.sum().backward()
    gradient = idle.head[-1].bias.grad
    assert gradient is not None
    assert float(gradient[0]) == 0.0


def test_a_network_that_is_not_taught_to_foresee_begins_close_to_uniform_with_a_healthy_gradient():
    fresh = StreamNetwork(Shape(foresees=False))
    for grant in (-8.0, 0.0):
        shown = [torch.from_numpy(batch([view(grant=grant)])[spec.name]) for spec in STREAM.inputs]
        mean, concentration, *_ = fresh(*shown)
        assert torch.allclose(mean, torch.full_like(mean, 0.5), atol=0.01)
        assert torch.allclose(concentration, torch.full_like(concentration, 2.0), atol=0.5)
    log_prob(mean, concentration, torch.full_like(mean, 0.1)).sum().backward()
    gradient = fresh.head[-1].bias.grad
    assert gradient is not None
    assert (gradient.abs() > 0.05).all()


def test_what_nobody_asks_for_is_worth_what_any_query_would_be():
    shown = [torch.from_numpy(batch([view(queries=0)])[spec.name]) for spec in STREAM.inputs]
    with torch.no_grad():
        cells, _ = NETWORK.perceive(shown[0], shown[1], shown[2], shown[6])
        meaning, foreseen, _ = NETWORK.read(cells, shown[1], shown[2], shown[3], shown[4], shown[7])
    expected = worth_of_transitions(torch.sigmoid(foreseen[:, :, 0, 1]), torch.tensor(0.5))
    assert torch.allclose(meaning[:, :, -1], expected)


@pytest.mark.parametrize(("pushed", "reached"), [(-9.0, 0.01), (9.0, 0.99)])
def test_the_mean_can_nearly_reach_both_ends(pushed, reached):
    network = StreamNetwork().eval()
    with torch.no_grad():
        network.head[-1].bias[0] = 2 * pushed
    mean, concentration = (run(view(), network=network)[name] for name in ("mean", "concentration"))
    assert (mean < reached).all() if pushed < 0 else (mean > reached).all()
    assert (concentration * np.minimum(mean, 1 - mean) > 0.19).all(), "never so flat that all density is on the end"


def test_the_network_is_as_small_as_promised():
    weights = sum(parameter.numel() for module in (NETWORK, QueryEncoder()) for parameter in module.parameters())
    assert 1e6 < weights < 2e6
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        run(view(frames=2, queries=6))
    assert counted.get_total_flops() / 2 < 120e6


@given(st.floats(0.05, 0.95), st.floats(2, 50))
def test_log_prob_and_entropy_are_those_of_a_beta(mean, concentration):
    alpha, beta = mean * concentration, (1 - mean) * concentration
    true = torch.distributions.Beta(torch.tensor(alpha), torch.tensor(beta))
    arguments = (torch.tensor(mean), torch.tensor(concentration))
    assert torch.allclose(log_prob(*arguments, torch.tensor(0.3)), true.log_prob(torch.tensor(0.3)), atol=1e-3)
    assert torch.allclose(entropy(*arguments), true.entropy(), atol=1e-3)


def test_actions_stay_off_the_ends_and_follow_the_seed():
    mean, concentration = np.full((50, 4), 0.002, np.float32), np.full((50, 4), 3.0, np.float32)
    drawn = sample(mean, concentration, np.random.default_rng(3))
    assert drawn.min() >= 1e-6
    assert (drawn == sample(mean, concentration, np.random.default_rng(3))).all()


def test_the_query_encoder_gives_unit_vectors_that_depend_on_the_text_alone():
    encoder = QueryEncoder().eval()
    texts = ["is the gate open?", "Is the  GATE open", "is there a dog?", "", "ist das Tor offen?", "x" * 5000]
    found = encoder.embed(texts)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert close(found[0], found[1])
    assert close(found[2], encoder.embed(["is there a dog?"])[0])
    assert not close(found[0], found[2])
    assert encoder.embed([]).shape == (0, 128)


def test_hashes_are_the_same_in_every_process():
    assert features("gate open")[0][:2] == (3575348085, 3376439365)


@settings(max_examples=30)
@given(st.text(max_size=80))
def test_every_text_has_features(text):
    hashes, weights = features(text)
    assert len(hashes) == len(weights) > 0
    assert all(0 <= value < 2**32 for value in hashes)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    file = tmp_path / "stream.safetensors"
    encoder = QueryEncoder(256, 32)
    save(Checkpoint(NETWORK, encoder, {"world": "abc"}), file)
    loaded = load(file)
    assert loaded.notes == {"world": "abc"}
    assert (run(view())["mean"] == run(view(), network=loaded.network)["mean"]).all()
    assert (loaded.encoder.embed(["a dog"]) == encoder.embed(["a dog"])).all()
    assert [path.name for path in tmp_path.iterdir()] == ["stream.safetensors"]


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    broken = StreamNetwork(Shape(width=32, heads=2, head_width=32))
    with torch.no_grad():
        broken.place[3, 4] = float("nan")
    with pytest.raises(EngineMismatch, match=r"network\.place .* not finite"):
        save(Checkpoint(broken, QueryEncoder(64, 16)), tmp_path / "nan.safetensors")
    assert not (tmp_path / "nan.safetensors").exists()


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(EngineMissing, match="there is no checkpoint"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "half.safetensors").write_bytes(b"half")
    with pytest.raises(EngineMismatch, match="is damaged"):
        load(tmp_path / "half.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(EngineMismatch, match="expected 'resadapt-allocator stream'"):
        load(tmp_path / "other.safetensors")
