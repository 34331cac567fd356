"""Faults of the studies that would change what is said and break nothing."""

from prosper_utils.pruning.networks import dense_300_100
from prosper_utils.study import arms, controls, datasets, findings, journal, training, verdicts
from prosper_utils.study.checks import relative_error
from prosper_utils.study.comparison import Interval, paired, rank_correlation

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_journal import BETTER, OPEN, WORSE, runs  # noqa: F401


def test_a_star_is_for_what_stands_among_all_cells_of_its_finding():
    """Each interval alone excludes zero; of two such p-values Holm lets neither stand."""
    once = Interval(-2, -3, -1, 0.03)
    key = ("SNIP beats random", "MNIST")
    for sparsities, star in (((0.9,), True), ((0.9, 0.95), False)):
        found = findings.cells({key: {("net", s): once for s in sparsities}})
        assert [text.endswith("*") for text in found.loc[(*key, "net")]] == [star] * len(sparsities)


def test_a_mean_is_over_as_many_seeds_as_an_arm_has():
    by_arm = {"SNIP": dict.fromkeys(range(5), 1.0), "SynFlow": dict.fromkeys(range(3), 1.5)}
    assert findings.best_frozen(by_arm) == "SNIP"


def runs_of(arm, numbers, steps=2):
    return [
        {"arm": arm, "steps": steps, "step_size": 0.03, "keep": k, "seed": 0, "proved": n}
        for k, n in enumerate(numbers)
    ]


def test_goals_are_those_of_the_steps_and_the_rival_that_are_asked_for(monkeypatch):
    table = pd.DataFrame(
        runs_of("blend", [20, 22])
        + runs_of("blend", [9, 11], 3)
        + runs_of("identity", [8, 7], 3)
        + runs_of("identity", [1, 5])
        + runs_of("fixed", [2, 3], 0)
    )
    monkeypatch.setattr(arms, "stored", {"proofs": table}.__getitem__)
    assert arms.proved("blend", 3).tolist() == [9, 11]
    assert arms.goals("blend", "identity", 3) == paired({0: 9, 1: 11}, {0: 8, 1: 7})
    assert arms.goals("fixed", "identity") == paired({0: 2, 1: 3}, {0: 1, 1: 5})


@pytest.mark.parametrize(("ends", "word"), [((9, 8), "holds"), ((9, 5), "fails")])
def test_the_blend_evolves_only_if_every_run_proves_more_later(monkeypatch, ends, word):
    rows = [
        row | {"curve": " ".join(["5"] * 7 + [str(row["proved"])])}
        for row in runs_of("blend", ends)
    ]
    table = pd.DataFrame(rows + runs_of("fixed", [2, 3], 0))
    monkeypatch.setattr(arms, "stored", {"proofs": table}.__getitem__)
    assert journal.evolves().word == word


def test_a_change_of_the_loop_counts_only_among_all_of_them(monkeypatch):
    """One with p = 0.02 is surely worse by itself, and not among as many as there are."""
    monkeypatch.setattr(
        journal.arms, "credit_against", lambda other=None: {(arms.DENSE, 0.9): OPEN}
    )
    noise, worse = [-1, -0.5, 0, 0.5, 1], [0.2, 0.5, 0.8, 1.1, 1.4]

    def regrown(network, arm, sparsity, variant="as is"):
        plain = variant == "as is" and arm == "credit"
        found = [0.0] * 5 if plain else worse if variant == "no persistence" else noise
        return dict(enumerate(found))

    monkeypatch.setattr(journal.arms, "regrown", regrown)
    claims = {claim.number: claim.verdict.word for claim in journal.on_networks()}
    assert claims["N3"] == "not shown"


def test_what_persists_is_set_against_the_loop_that_stores_goals_as_it_does(monkeypatch):
    asked = []
    monkeypatch.setattr(
        journal, "goals", lambda arm, other="blend", steps=2: asked.append((arm, other)) or OPEN
    )
    journal.persisting_pays()
    arm, kind = "persistence without credit", arms.GOALS_STORED
    bare = f"identity, {arm}"
    assert asked == [
        (arm, "blend"),
        (arm + kind, "blend" + kind),
        (bare, "identity"),
        (bare + kind, "identity" + kind),
    ]


@pytest.mark.parametrize(("new", "word"), [(0.9, "holds"), (0.3, "fails")])
def test_the_better_credit_is_the_one_that_ranks_better(monkeypatch, new, word):
    rows = [
        {"steps": t, "keep": 150, "loop": n, "mode": mode, "correlation": value + 0.01 * n * sign}
        for t in (1, 2)
        for n in range(4)
        for mode, value, sign in (("support", new, 1), ("identity", 0.6, -1))
    ]
    monkeypatch.setattr(arms, "stored", {"proofs_credit": pd.DataFrame(rows)}.__getitem__)
    assert journal.better_credit().word == word


class Two(keras.layers.Layer):
    """Two kernels of one shape, from one initializer."""

    first_initializer = second_initializer = keras.initializers.GlorotUniform(seed=0)

    def build(self, shape):
        for name in ("first", "second"):
            setattr(self, name, self.add_weight(shape=(shape[-1], 4), name=name))

    def call(self, x):
        return x @ self.first + x @ self.second


def test_two_weights_of_one_layer_are_drawn_apart():
    model = controls.fresh(keras.Sequential([keras.Input((3,)), Two()]), seed=3)
    first, second = model.get_weights()
    assert not np.any(first == second)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_relative_errors_of_low_precision_are_taken_in_double(dtype):
    """Squares of these numbers do not fit into the type."""
    large = {"float16": 300.0, "bfloat16": 2.0**80, "float32": 2.0**80}[dtype]
    found, expected = (tf.constant([k * large], dtype) for k in (1.5, 1))
    assert relative_error([found], [expected]) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [1e-14, 1e9])
def test_what_is_a_tie_does_not_depend_on_the_scale(scale):
    drop = np.array([0.0, 0.0, 1.0, 2.0])
    assert rank_correlation(scale * (drop + 1e-15 * drop[::-1]), drop) == pytest.approx(1)


def test_a_number_stands_for_one_claim_wherever_it_comes_again():
    lines = "P1 a | b\nP2 c | d\nP1 e | f"
    with pytest.raises(ValueError, match="found P1 twice"):
        verdicts.claims(lines, *[verdicts.Verdict("holds")] * 3)


def test_a_training_goes_on_in_a_later_epoch(digits):
    """With the batches of that epoch: made steps may be more than an epoch has."""
    data, ends = tuple(part[:96] for part in digits.train), []
    for parts in ((10,), (4, 10), (6, 8, 10)):
        model, made = dense_300_100(units=(30, 10)), 0
        train = training.trainer(model, keras.optimizers.SGD(0.1))
        for steps in parts:
            train(data, steps=steps, batch_size=32, made=made)
            made = steps
        ends.append(model.get_weights())
    assert relative_error(ends[1], ends[0]) < 1e-6
    assert relative_error(ends[2], ends[0]) < 1e-6


def test_a_fingerprint_is_of_every_row():
    x, y = np.zeros((2500, 2), np.float32), np.zeros(2500, int)
    found = {datasets.fingerprint(datasets.Data("a", (x, y), None, None))["sha256"]}
    for row in (0, 1100, 2499):
        other, labels = x.copy(), y.copy()
        other[row, 1], labels[row] = 1, 1
        for pair in ((other, y), (x, labels)):
            found.add(datasets.fingerprint(datasets.Data("a", pair, None, None))["sha256"])
    assert len(found) == 7


def test_images_are_float32_and_labels_int64(digits):
    for x, y in digits[1:]:
        assert (x.dtype.name, y.dtype.name) == ("float32", "int64")
