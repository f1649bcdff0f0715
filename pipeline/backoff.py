"""How long to wait after failures: doubling, capped, and up to half of it left to chance."""

import random


def back_off_s(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after this many failures in a row, at least 1."""
    whole_s = min(first_s * 2.0 ** min(failures - 1, 30), longest_s)
    return whole_s * random.uniform(0.5, 1.0)
