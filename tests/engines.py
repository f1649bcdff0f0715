"""Engines for tests: one of random weights, made once per session, and one that is predictable."""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from allocator_engine.export import export
from allocator_engine.model.checkpoint import Checkpoint, save
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.spec import QUERY_FEATURES, STREAM

_session = tempfile.TemporaryDirectory(prefix="resadapt-engine-")


def untrained(seed: int = 0, listens: bool = True) -> Checkpoint:
    """A checkpoint whose every weight is random, so that every input (unless it does not listen to the queries) matters
    to every output. It has one layer of each
    kind, because exporting takes a second for each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, encoder = StreamNetwork(Shape(mixers=1, readers=1, listens=listens)), QueryEncoder()
        for parameter in network.head.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        torch.nn.init.constant_(network.foresee.bias, -2.0)  # were much to turn, all would be shown alike
    return Checkpoint(network.eval(), encoder.eval(), {"world": "a test"})


@functools.cache
def engine() -> Path:
    """The folder of an exported engine. Do not write to it: other tests read it."""
    folder = Path(_session.name) / "stream"
    save(untrained(), folder / "allocator.safetensors")
    export(folder / "allocator.safetensors")
    return folder


class Bright:
    """An engine that a test can predict: a frame's mean is its brightness, and the memory counts the frames so far.

    `calls` are the sizes of its batches; `fault`, if set, is asked before each call and may raise.
    """

    spec = STREAM

    def __init__(self, fault: Callable[[Mapping[str, np.ndarray]], None] = lambda tensors: None) -> None:
        self.fault = fault
        self.calls: list[int] = []
        self.seen: list[Mapping[str, np.ndarray]] = []

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.spec.check_inputs(tensors)
        self.calls.append(len(tensors["grant"]))
        self.seen.append(tensors)
        self.fault(tensors)
        mean = tensors["thumbnails"].mean((2, 3, 4)).astype(np.float32) / 255
        frames = tensors["present"].sum(1)[:, None, None]
        return {
            "mean": mean,
            "concentration": np.full_like(mean, 2),
            "next_memory": tensors["memory"] + frames,
            "next_readings": tensors["readings"] + frames,
        }


def directions(questions: Sequence[str]) -> np.ndarray:
    """A query encoder of one hot direction per question's length."""
    return np.eye(QUERY_FEATURES, dtype=np.float32)[[len(question) % QUERY_FEATURES for question in questions]]
