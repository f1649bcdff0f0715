"""What holds for every test."""

import pytest
from hypothesis import settings

from pipeline.redact import forget_secrets

settings.register_profile("without deadlines", deadline=None)  # how busy the machine is says nothing of the code
settings.load_profile("without deadlines")


@pytest.fixture(autouse=True)
def no_secret_of_another_test() -> None:
    """Passwords that one test has shown are hidden from then on, words that others look for among them."""
    forget_secrets()
