"""Rendezvous hashing: the place of several to which something belongs, so that few move when one comes or goes.

Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996; with weights: Schindelhauer and
Schomaker, "Weighted Distributed Hash Tables", 2005.
"""

import hashlib
import math
from collections.abc import Mapping


def ranked(key: str, weights: Mapping[str, float]) -> list[str]:
    """The names of `weights`, the best for `key` first.

    Each is first for a share of all keys that is its share of the weights. Where a name goes only its own keys move, to
    the next in their order; where a weight changes only as many keys move as that share gains or loses. A weight of 0
    is last for every key.
    """
    return sorted(weights, key=lambda name: (-_score(key, name, weights[name]), name))


def _score(key: str, name: str, weight: float) -> float:
    digest = hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
    unit = (int.from_bytes(digest) + 1) / (2**64 + 1)  # more than 0 and less than 1
    return -weight / math.log(unit)
