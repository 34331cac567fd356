"""The sweep of sparse training: what an arm does, what is left to do, and whether it is stale."""

import functools
import json

from prosper_utils import masks, results
from prosper_utils.networks import dense_300_100, kernels

import keras
import numpy as np
import pandas as pd
import pytest
import sweep_mnist
import sweep_regrowth
from conftest import ROOT

CASE = {"network": "small", "variant": "as is", "sparsity": 0.9, "seed": 0}
OPTIONS = {"rate": 0.1, "schedule": "cosine", "weight_decay": 0.0}
SIZE = 784 * 30 + 30 * 10 + 10 * 10
KEPT = SIZE // 10


@pytest.fixture
def short(monkeypatch, digits):
    """Make the sweep small: a few steps of a small network on the digits."""
    build = functools.partial(dense_300_100, units=(30, 10))
    monkeypatch.setitem(sweep_mnist.NETWORKS, "small", build)
    monkeypatch.setitem(sweep_regrowth.ACTIVATION, "small", "relu")
    monkeypatch.setattr(sweep_regrowth, "STEPS", 40)
    monkeypatch.setattr(sweep_regrowth, "LOOP", sweep_regrowth.LOOP | {"every": 5, "until": 30})
    monkeypatch.setattr(sweep_regrowth, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "chosen_options", lambda *arm: {})


def run(arm, options=OPTIONS, **changes):
    return sweep_regrowth.run_case(**CASE | {"arm": arm} | changes, options=options)


@pytest.mark.parametrize("arm", sweep_regrowth.ARMS)
def test_every_arm_ends_with_exactly_k_weights(short, arm):
    row = run(arm)
    assert row["kept"] == KEPT
    assert row["error"] == run(arm)["error"] < 90
    moves = arm in ("random regrowth", "credit")
    assert (row["moved"] > 0) == moves
    assert (row["stayed"] < row["kept"]) == moves


def test_arms_and_variants_differ(short):
    late = ("every 50", "every 500")  # beyond the last step here: the mask of SNIP does not move
    losses = [run(arm)["loss"] for arm in sweep_regrowth.ARMS]
    for variant in sweep_regrowth.VARIANTS:
        loss = run("credit", variant=variant)["loss"]
        if variant in late:
            assert loss == losses[0]
        else:
            losses.append(loss)
    assert len(set(losses)) == len(losses), losses


def test_the_protocol_is_as_it_says(short):
    row = run("SNIP")
    assert row["options"] == "rate=0.1 schedule=cosine weight_decay=0.0"
    others = [{"rate": 0.2}, {"schedule": "steps"}, {"weight_decay": 0.1}]
    losses = [run("SNIP", OPTIONS | change)["loss"] for change in others]
    assert len({row["loss"], *losses}) == 4


def test_a_training_that_diverges_is_a_row_without_an_error(short):
    row = run("SNIP", OPTIONS | {"rate": 1e6})
    assert row["error"] is None
    assert "expected a finite training loss" in row["failure"]
    assert list(row) == list(run("SNIP"))


def test_gradual_pruning_follows_its_schedule():
    model = dense_300_100("relu", units=(30, 10))
    optimizer = keras.optimizers.SGD()
    until = sweep_regrowth.LOOP["until"]
    masks.apply(model, [np.ones(k.shape) for k in kernels(model)])
    left = []
    for step in (until // 3, until // 2, until, until + 500):
        sweep_regrowth.prune_gradually(model, 0.99, step, optimizer)
        left.append(sum(count for _, count, _ in masks.per_layer(model)))
    expected = [0.99 * (1 - (1 - t) ** 3) for t in (1 / 3, 1 / 2, 1, 1)]
    assert left == [masks.kept(SIZE, round(s, 6)) for s in expected]


def test_options_are_those_that_did_best(monkeypatch):
    trials = pd.DataFrame(
        [
            ("LeNet-300-100", "credit", 0, 100, 5.0),
            ("LeNet-300-100", "credit", 0, 101, 3.0),
            ("LeNet-300-100", "credit", 1, 100, None),  # it failed
            ("LeNet-300-100", "credit", 1, 101, 1.0),
            ("LeNet-300-100", "credit", 2, 100, 3.0),
            ("LeNet-300-100", "credit", 2, 101, 3.5),
            ("LeNet-300-100", "SNIP", 3, 100, 0.0),
        ],
        columns=["network", "arm", "trial", "seed", "error"],
    )
    monkeypatch.setattr(results, "load", lambda name: (trials, {}))
    found = sweep_regrowth.chosen_options("LeNet-300-100", "credit")
    assert found == sweep_regrowth.TRIALS["LeNet-300-100"][2]


def test_the_plan_is_fair():
    cases = sweep_regrowth.plan()
    keys = [tuple(case[k] for k in sweep_regrowth.CASE) for case in cases]
    assert len(set(keys)) == len(keys)
    for arm in sweep_regrowth.ARMS:
        cells = {k[3:] for k in keys if k[:3] == ("LeNet-300-100", arm, "as is")}
        assert cells == {(s, seed) for s in (0.9, 0.95, 0.98, 0.99, 0.995) for seed in range(5)}
    trials = pd.DataFrame(sweep_regrowth.tuning()).groupby(["network", "arm"]).size()
    assert trials["LeNet-300-100"].nunique() == trials["LeNet-5"].nunique() == 1
    tuned = {case["seed"] for case in sweep_regrowth.tuning()}
    assert not tuned & {case["seed"] for case in cases}


@pytest.mark.parametrize("name", sweep_regrowth.SWEEPS)
def test_what_is_stored_is_not_stale(name):
    path = ROOT / "book" / "results" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not stored yet")
    stored = json.loads(path.read_text())["configuration"]
    now = json.loads(json.dumps(sweep_regrowth.configuration()))
    assert {key: stored[key] for key in now} == now, f"{name} is stale: run `make results`"
    assert stored["data"] == "mnist"
