"""What CONTRIBUTING tells to do can be done: its code runs, its names and files are there."""

import importlib
import re
import textwrap

from prosper_utils.blending import evolution
from prosper_utils.pruning import masks, networks, regrowth, scores
from prosper_utils.study import datasets

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MODULES = {path.stem: path.parent.name for path in (ROOT / "prosper_utils").glob("*/*.py")}
BLOCKS = [textwrap.dedent(b) for b in re.findall(r" *```python\n(.*?)```", TEXT, re.DOTALL)]


def defined(name, module):
    """Return the function that one of the code blocks defines, as if it stood in a module."""
    (block,) = [block for block in BLOCKS if f"def {name}(" in block]
    scope = dict(vars(module))
    exec(block, scope)
    return scope[name]


def test_the_score_is_one(digits):
    model = networks.lenet5()
    batches = [next(iter(datasets.batches(digits.train, 32)))]
    found = defined("gradient_size", scores)(model, batches)
    snip = scores.snip(model, batches)
    for size, kernel, expected in zip(found, networks.kernels(model), snip, strict=True):
        np.testing.assert_allclose(size * tf.abs(kernel.value), expected, rtol=1e-6)


def test_the_credit_is_one():
    model = networks.dense_300_100()
    chosen = masks.top_k(scores.magnitude(model), 0.9)
    loop = regrowth.Regrowth(model, chosen, until=10, credit=defined("random_credit", regrowth))
    assert regrowth.regrow(model, 0.3, loop.credit(model)) > 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(?!NN_)(\w+\.\w+)`", TEXT))))
def test_every_name_is_there(name):
    module, _, attribute = name.partition(".")
    if module in MODULES:
        assert hasattr(
            importlib.import_module(f"prosper_utils.{MODULES[module]}.{module}"), attribute
        )
    else:
        folders = (ROOT, ROOT / ".github" / "workflows")
        assert any((folder / name).is_file() for folder in folders), name


def test_every_path_and_every_target_is_there():
    for path in re.findall(r"`(?!notebooks/NN_)((?:\.?\w+/)+[\w.]*)`", TEXT):
        assert (ROOT / path).exists(), path
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (\w+)`", TEXT)) <= set(phony[1].split())


def test_the_modes_and_arms_that_it_points_at_are_there():
    assert {"fitness", "random"} <= set(evolution.CREDITS)
    sweep = (ROOT / "book" / "studies" / "sweep_regrowth.py").read_text()
    assert "def run_case" in sweep
    assert "VARIANTS = " in sweep


def test_the_table_that_it_links_to_is_there():
    (anchor,) = re.findall(r"README\.md#([\w-]+)", TEXT)
    headings = re.findall(r"^#+ (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
