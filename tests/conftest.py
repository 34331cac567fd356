"""What all tests share: the embedded digits, a tiny network, the built book, times of chapters."""

import collections
import gc
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

# Kernels and subprocesses inherit this; no test tries a download.
os.environ.setdefault("PROSPER_DATASET", "digits")
# oneDNN compiles each convolution before its first step: it pays for training, not for a test.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

from prosper_utils.pruning.networks import cross_entropy
from prosper_utils.study import datasets

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from hypothesis import settings

ROOT = Path(__file__).parent.parent

del os.environ["TF_ENABLE_ONEDNN_OPTS"]  # TensorFlow has read it; chapters train
gc.freeze()  # what was imported is not looked through again by every collection
gc.set_threshold(100_000, 20, 50)  # graphs are large: the default looks through them all the time

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


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """What tests share is drawn from the same random state, whatever ran before."""
    if fixturedef.scope != "function":
        keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def seeded():
    """Begin each test with the same random state, whatever ran before."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def swept():
    """Free what a file of tests leaves: graphs are cycles, and Keras often looks through all."""
    yield
    gc.collect()
    gc.freeze()


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


def pages():
    """Return every page of the book, as in the table of contents, without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [file.removesuffix(".ipynb") for file in files]


def build_book(out):
    """Build the book from what is stored; return the warnings, or how it failed, or nothing."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"]["execute_notebooks"] = "off"
    (out / "_config.yml").write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT]
    command += ["--path-output", out, "--config", out / "_config.yml", "-W", "-n", "--keep-going"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    said = run.stdout + run.stderr
    warnings = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
    failed = f"exit code {run.returncode}\n{said[-2000:]}" if run.returncode else ""
    return "\n".join(warnings) or failed


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """Return the folder of the built pages; the workers of pytest-xdist share one build.

    The notebooks are not executed: nbval does that, and so does `make book`.
    """
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    report = out / "report.txt"
    try:
        out.mkdir()
    except FileExistsError:  # another worker builds it
        deadline = time.monotonic() + 1800
        while not report.exists() and time.monotonic() < deadline:
            time.sleep(0.5)
    else:
        unfinished = out / "unfinished.txt"
        unfinished.write_text(build_book(out))
        unfinished.rename(report)
    said = report.read_text()
    assert said == "", said
    return out / "_build" / "html"


@pytest.fixture
def axis():
    """Return an axis of a figure that is closed in the end."""
    import matplotlib.pyplot as plt

    figure, drawn = plt.subplots()
    yield drawn
    plt.close(figure)


def clock(monkeypatch, module):
    """Give a module a clock that stands still but for `spend(seconds, found)`, which is returned.

    What is timed spends some of it, so that a look before its end, or after its beginning, shows.
    """
    now = [10.0]
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def spend(seconds, found=None):
        now[0] += seconds
        return found

    return spend


def tiny_loss(weights, batch):
    """Return the loss of a two-layer tanh network."""
    x, y = batch
    hidden = tf.tanh(tf.matmul(tf.cast(x, weights[0].dtype), weights[0]) + weights[1])
    return cross_entropy(tf.matmul(hidden, weights[2]) + weights[3], y)


@tf.custom_gradient
def right_once(x):
    """Return tanh x with a gradient that is right, and whose own gradient is not."""
    y = tf.tanh(x)
    return y, lambda dy: dy * (1 - tf.stop_gradient(y) ** 2)


def dense_with(activation):
    """Return a small network with an activation, and a batch for it."""
    keras.utils.set_random_seed(0)
    links = [keras.layers.Dense(5, activation), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *links])
    return model, (np.linspace(-1, 1, 24).reshape(6, 4).astype("float32"), np.arange(6) % 3)


class Sequence(keras.utils.PyDataset):
    """Batches by their number."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, m):
        return self.batches[m]


def with_an_idle_layer():
    """Return model, losses and batch, such that a layer is read and does not reach the loss."""
    x = keras.Input((4,))
    h = keras.layers.Dense(5, "tanh")(x)
    outputs = [keras.layers.Dense(3)(h), keras.layers.Dense(2, name="idle")(h)]
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = [plain, lambda y, outputs: tf.zeros(tf.shape(y)[:1])]
    batch = np.ones((6, 4), "float32"), [np.arange(6) % 3, np.zeros((6, 2), "float32")]
    return keras.Model(x, outputs), loss, batch


def with_spaces(text):
    """Return a text with plain spaces in place of those at which no line is broken."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def said(verdict):
    """Return what a verdict says and its evidence, with plain spaces."""
    return str(verdict), with_spaces(verdict.evidence)


def verdict_of_each(found):
    """Return the verdicts of claims by their numbers."""
    return {claim.number: claim.verdict for claim in found}
