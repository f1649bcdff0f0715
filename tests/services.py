"""Services of the outside that some tests need."""

import os

import pytest


def require(condition: bool, reason: str) -> None:
    """Skip the calling test with `reason` where a service is absent; in CI an absent service is a failure."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"CI must provide it: {reason}")
    pytest.skip(reason)
