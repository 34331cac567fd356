"""What all tests share: the embedded digits, a tiny network, how long each chapter took."""

import collections
import json
import os
from pathlib import Path

# Kernels and subprocesses inherit this; no test tries a download.
os.environ.setdefault("PROSPER_DATASET", "digits")

from prosper_utils import datasets
from prosper_utils.networks import cross_entropy

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import settings

ROOT = Path(__file__).parent.parent

settings.register_profile("book", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("book")


def pytest_collectstart(collector):
    """Let nbval ignore stderr: what other machines log there is no part of a chapter."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)


def pytest_terminal_summary(terminalreporter):
    """Print how long each chapter took to execute."""
    seconds = collections.Counter()
    for report in terminalreporter.stats.get("passed", []):
        if ".ipynb::" in report.nodeid:
            seconds[report.nodeid.split("::")[0]] += report.duration
    if seconds:
        terminalreporter.section("seconds per chapter")
    for name, total in sorted(seconds.items()):
        terminalreporter.line(f"{total:6.1f}  {name}")


@pytest.fixture(scope="session")
def digits():
    """Return the embedded data set."""
    return datasets.load("digits")


@pytest.fixture(scope="session")
def reference():
    """Return the authors' scores, with their network as weights, loss and batches of ours."""
    case = json.loads((ROOT / "tests" / "prospr_tiny.json").read_text())
    pairs = zip(case["kernels"], case["biases"], strict=True)
    weights = [tf.constant(w, tf.float64) for pair in pairs for w in pair]
    batches = [(np.array(b["inputs"]), np.array(b["labels"])) for b in case["batches"]]
    return weights, batches, case["cases"]


def tiny_loss(weights, batch):
    """Return the loss of a two-layer tanh network."""
    x, y = batch
    hidden = tf.tanh(tf.matmul(tf.cast(x, weights[0].dtype), weights[0]) + weights[1])
    return cross_entropy(tf.matmul(hidden, weights[2]) + weights[3], y)
