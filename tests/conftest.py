"""What holds for every test."""

import pytest

from pipeline import redact


@pytest.fixture(autouse=True)
def no_secret_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that one test has shown are hidden from then on, words that others look for among them."""
    monkeypatch.setattr(redact, "_known", redact._Known())
