"""Fixtures and settings of every test."""

import os
import signal

import pytest
from hypothesis import settings

from pipeline.redact import forget_secrets

settings.register_profile("without deadlines", deadline=None)  # how busy the machine is says nothing of the code
settings.load_profile("without deadlines")

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup: processes that tests start would ignore it too
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True)
def no_secret_of_another_test() -> None:
    """Passwords that one test has shown are hidden from then on, words that others look for among them."""
    forget_secrets()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With pytest-xdist a file's tests run in one process, and so do those of files that share a service."""
    from tests.processes import OneServiceEach  # needs pytest-xdist

    config.option.loadscopereorder = False  # files with few tests, which would come last, are the slow ones
    return OneServiceEach(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files begin first where several processes share the work."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.processes import slow_first  # needs pytest-xdist

        items.sort(key=lambda item: slow_first(item.nodeid.partition("::")[0]))
