"""Memory that was freed goes back to the system, though something that stays lies between the pieces."""

import subprocess
import sys

import psutil
import pytest

MIXED = """
import sys
import numpy as np, psutil
from pipeline.cli.memory import keep_steady
from pipeline.config.mllm import EmbeddedConfig, NullConfig

if sys.argv[1] != "plain":
    keep_steady(EmbeddedConfig(use="tiny") if sys.argv[1] == "embedded" else NullConfig())
stays, own = [], psutil.Process()

def render():
    pictures = []
    for _ in range(100):
        pictures.append(np.ones(700_000, np.uint8))
        stays.append(bytes(1_000))
    return sum(len(one) for one in pictures)

before = own.memory_info().rss
for _ in range(5):
    made = render()
print((own.memory_info().rss - before) / made)
"""
pytestmark = pytest.mark.skipif(not psutil.LINUX, reason="heaps are those of glibc here")


def kept(how):
    """The share of freed pictures that the process still holds."""
    done = subprocess.run([sys.executable, "-c", MIXED, how], capture_output=True, text=True, check=True, timeout=100)
    return float(done.stdout)


def test_freed_pictures_leave_no_holes():
    assert kept("steady") < 0.1 < kept("plain")


def test_a_model_that_computes_in_this_process_keeps_its_heaps():
    assert kept("embedded") > 0.1
