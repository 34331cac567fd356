"""Findings: which cells are judged, by which seeds, and what is said of them."""

from prosper_utils.study import findings, results
from prosper_utils.study.comparison import paired

import numpy as np
import pandas as pd
import pytest
from conftest import with_spaces


def sweep(errors, **columns):
    """Return a stored sweep from {(arm, variant, sparsity): errors by seed}."""
    rows = [
        {"network": "net", "arm": arm, "variant": variant, "sparsity": s, "seed": i, "error": error}
        for (arm, variant, s), of_arm in errors.items()
        for i, error in enumerate(of_arm)
    ]
    return pd.DataFrame(rows).assign(**columns)


NOISE = np.array([0.0, 0.1, -0.1, 0.05])


def test_names_of_arms_have_their_variant_and_networks_their_activation():
    table = sweep({("SNIP", "shuffled", 0.9): [5.0], ("SNIP", "as is", 0.9): [4.0]})
    table = table.rename(columns={"arm": "score"}).assign(activation="relu")
    found = findings.arms(table)
    assert [*found.arm] == ["SNIP, shuffled", "SNIP"]
    assert {*found.network} == {"net, ReLU"}


def test_failed_and_dense_rows_are_left_out():
    table = sweep({("a", "as is", 0.9): [1.0, np.nan], ("dense", "as is", 0.0): [1.0]})
    assert len(findings.arms(table)) == 1
    assert findings.arms(pd.DataFrame()).empty


def test_a_cell_is_judged_by_the_seeds_that_both_arms_share_if_they_are_three():
    errors = {("a", "as is", 0.9): 1 + NOISE, ("b", "as is", 0.9): 2 - NOISE[:3]}
    errors |= {("a", "as is", 0.95): [1.0, 2.0, 3.0], ("b", "as is", 0.95): [1.0, 2.0]}
    found = findings.family(findings.arms(sweep(errors)), "a", "b")
    expected = paired(dict(enumerate(1 + NOISE)), dict(enumerate(2 - NOISE[:3])))
    assert found == {("net", 0.9): expected}
    assert expected.mean == pytest.approx(-1)


def test_the_best_frozen_mask_is_one_that_does_not_move():
    kinds = ["credit", "credit, by size", "random regrowth", "gradual magnitude", "magnitude"]
    kinds += ["magnitude, twice the cost", "dense", "removed by SNIP", "removed uniformly"]
    by_arm = {kind: dict.fromkeys(range(3), 0.0) for kind in kinds}
    assert findings.best_frozen(by_arm) == ""
    by_arm |= {"SNIP": dict.fromkeys(range(3), 2.0), "SynFlow": dict.fromkeys(range(3), 1.0)}
    by_arm |= {"GraSP": {0: 0.5, 1: 0.5}}  # too few
    assert findings.best_frozen(by_arm) == "SynFlow"
    by_arm["SNIP"] = {0: 0.0, 1: 0.5, 2: 9.0}  # the lowest error of all, but not the lowest mean
    assert findings.best_frozen(by_arm) == "SynFlow"


def test_what_is_said_counts_cells_and_never_more_than_was_shown():
    lower, higher, open_ = (-1 + NOISE, 1 + NOISE, 20 * NOISE)
    cases = {"holds: 1 of 1": [lower], "fails: 0 of 1, contradicted in 1": [higher]}
    cases |= {"not shown: 0 of 2": [open_, NOISE], "holds in part: 1 of 2": [lower, open_]}
    cases |= {"holds in part: 1 of 2, contradicted in 1": [lower, higher], "not run": []}
    zero = dict.fromkeys(range(4), 0.0)
    for expected, differences in cases.items():
        family = {("net", i): paired(dict(enumerate(d)), zero) for i, d in enumerate(differences)}
        assert findings.told(family) == expected


def test_the_tables_read_every_sweep_by_its_kind(monkeypatch):
    errors = {("SNIP", "as is", 0.9): 1 + NOISE, ("random", "as is", 0.9): 2 - NOISE}
    errors |= {("credit", "as is", 0.9): 0.5 - NOISE, ("credit", "as is", 0.95): NOISE}
    stored = {"pruning_fashion": sweep(errors), "colour": sweep(errors)}
    monkeypatch.setattr(results, "resume", lambda name: stored.get(name, pd.DataFrame()))
    found = findings.families()
    summary = findings.carried_over(found)
    assert [*summary.index] == [*findings.FINDINGS]
    assert summary.index.name == "finding"
    assert [*summary.columns] == ["MNIST", "Fashion-MNIST", "CIFAR-10"]
    assert [*summary.loc["SNIP beats random"]] == ["not run", "holds: 1 of 1", "holds: 1 of 1"]
    frozen = summary.loc["regrowth by credit beats the best frozen mask"]
    assert [*frozen] == ["not run", "not run", "holds: 1 of 1"]
    table = findings.cells(found)
    assert [*table.columns] == ["90%"]
    row = table.loc["SNIP beats random", "CIFAR-10", "net"]
    assert row["90%"].endswith("*")


def test_every_finding_names_arms_of_the_stored_sweeps():
    for kind, first, second in findings.FINDINGS.values():
        table = findings.arms(results.resume(findings.SWEEPS["MNIST"][kind]))
        assert first in set(table.arm)
        assert second in {*table.arm, findings.FROZEN}


def test_arms_are_compared_over_the_seeds_that_all_have():
    easy = {3: 0.0, 4: 0.0}
    by_arm = {"SNIP": dict.fromkeys(range(3), 1.0), "SynFlow": dict.fromkeys(range(3), 1.5) | easy}
    assert findings.best_frozen(by_arm) == "SNIP"
    by_arm["SNIP"] = dict.fromkeys(range(3), 2.0)
    assert findings.best_frozen(by_arm) == "SynFlow"
    by_arm["GraSP"] = {3: 0.0, 4: 0.0}  # too few seeds, and none that SNIP has
    assert findings.best_frozen(by_arm) == "SynFlow"


def test_a_star_stands_where_the_whole_family_lets_it():
    """One interval of many that just leaves zero out is no finding of the family."""
    zero = dict.fromkeys(range(5), 0.0)
    differences = [-1.0, -0.1, -0.6, -1.2, -0.2]
    family = {("net", i / 100): paired(dict(enumerate(differences)), zero) for i in range(20)}
    assert family["net", 0.0].high < 0
    table = findings.cells({("finding", "data"): family})
    assert not table.map(lambda cell: cell.endswith("*")).any(axis=None)
    alone = findings.cells({("finding", "data"): {("net", 0.5): family["net", 0.0]}})
    assert alone.map(lambda cell: cell.endswith("*")).all(axis=None)


def stored_sweep(errors):
    """Return a stored sweep from {(arm, sparsity): errors by seed}."""
    return pd.DataFrame(
        {"network": "net", "arm": a, "variant": "as is", "sparsity": s, "seed": i, "error": error}
        for (a, s), of_arm in errors.items()
        for i, error in enumerate(of_arm)
    )


def test_a_star_stands_where_a_finding_is_contradicted_too_and_sparsities_rise():
    zero = dict.fromkeys(range(5), 0.0)
    worse, open_ = (
        paired(dict(enumerate(differences)), zero)
        for differences in ((1.0, 1.1, 0.9, 1.05, 0.95), (-1.0, 1.2, 0.1, -0.3, 0.2))
    )
    table = findings.cells({("finding", "data"): {("net", 0.95): open_, ("net", 0.9): worse}})
    assert [*table.columns] == ["90%", "95%"]
    ((first, second),) = table.to_numpy().tolist()
    assert first.endswith("*")
    assert not second.endswith("*")


def test_a_finding_names_the_arm_with_the_lower_error_first():
    names = {
        "SNIP shuffled": "SNIP, shuffled",
        "ProsPr shuffled": "ProsPr, shuffled",
        "ProsPr, M = 3,": "ProsPr",
        "ProsPr, M = 100,": "ProsPr, M = 100",
        "SNIP in rounds": "iterative SNIP",
        "regrowth by credit": "credit",
    }
    for said, (_, *pair) in findings.FINDINGS.items():
        assert [names.get(name, name) for name in said.split(" beats ")] == pair


def test_every_data_set_is_judged_by_its_own_sweeps(monkeypatch):
    names = ["pruning", "regrowth", "pruning_fashion", "regrowth_fashion", "colour"]

    def stored(name):
        low, high = 1 - names.index(name) + NOISE, 2 + NOISE
        pairs = ("SNIP", low), ("credit", low), ("random", high), ("random regrowth", high)
        return stored_sweep({(arm, 0.9): errors for arm, errors in pairs})

    monkeypatch.setattr(results, "resume", stored)
    found = findings.families()
    said = "SNIP beats random", "regrowth by credit beats random regrowth"
    means = [[-found[s, d]["net", 0.9].mean for d in findings.SWEEPS] for s in said]
    assert means == [pytest.approx([1, 3, 5]), pytest.approx([2, 4, 5])]


def test_the_best_frozen_mask_is_that_of_the_cell():
    best = {0.9: ("SNIP", "SynFlow"), 0.95: ("SynFlow", "SNIP"), 0.99: ("SNIP", "SynFlow")}
    errors = {("credit", s): NOISE for s in best}
    for s, (first, second) in best.items():
        errors |= {(first, s): 1 + NOISE, (second, s): 5 + NOISE}
    found = findings.family(findings.arms(stored_sweep(errors)), "credit", findings.FROZEN)
    assert [interval.mean for interval in found.values()] == pytest.approx([-1] * 3)


@pytest.mark.parametrize(("later", "judged"), [(1, 1), (2, 0), (4, 0)])
def test_seeds_that_one_arm_alone_has_do_not_count(later, judged):
    table = sweep({("a", "as is", 0.9): 1 + NOISE, ("b", "as is", 0.9): 2 - NOISE})
    table.loc[table.arm == "b", "seed"] += later
    assert len(findings.family(findings.arms(table), "a", "b")) == judged


@pytest.mark.parametrize("data", findings.SWEEPS)
def test_plain_arms_of_every_data_set_have_plain_names(data):
    for name in findings.SWEEPS[data].values():
        assert "SNIP" in set(findings.arms(results.resume(name)).arm)


def test_all_intervals_stand_in_one_table_with_gaps_where_nothing_was_run():
    zero = dict.fromkeys(range(3), 0.0)
    lower, open_ = (paired(dict(enumerate(d)), zero) for d in ([-1.0, -1.1, -0.9], [1.0, -1.0, 0]))
    found = {
        ("first", "MNIST"): {("dense", 0.995): lower, ("lenet", 0.9): open_},
        ("first", "CIFAR-10"): {},
        ("second", "MNIST"): {("dense", 0.9): lower},
    }
    table = findings.cells(found).map(with_spaces)
    assert [*table.columns] == ["90%", "99.5%"]
    less, none = "−1.0 [−1.2, −0.8] *", "+0.0 [−2.5, +2.5]"
    assert dict(zip(table.index, table.to_numpy().tolist(), strict=True)) == {
        ("first", "MNIST", "dense"): ["", less],
        ("first", "MNIST", "lenet"): [none, ""],
        ("second", "MNIST", "dense"): [less, ""],
    }


def test_the_rows_of_a_sweep_are_those_with_an_error_and_a_sparsity():
    table = sweep({("SNIP", "floor", 0.9): [5.0, np.nan], ("dense", "as it is", 0.0): [1.0]})
    found = findings.arms(table.assign(activation="tanh"))
    assert found.to_dict("records") == [
        {"sparsity": 0.9, "seed": 0, "error": 5.0, "network": "net, tanh", "arm": "SNIP, floor"}
    ]


def test_cells_come_in_the_order_of_the_sweep():
    parts = [
        sweep({(arm, "as is", s): mean + NOISE for s in (0.95, 0.9) for arm, mean in pairs})
        for pairs in ((("a", 1), ("b", 2)), (("b", 2), ("a", 1)))
    ]
    table = pd.concat([parts[0].assign(network="z"), parts[1].assign(network="y")])
    found = findings.family(findings.arms(table), "a", "b")
    assert list(found) == [("z", 0.95), ("z", 0.9), ("y", 0.95), ("y", 0.9)]
    assert [interval.mean for interval in found.values()] == pytest.approx([-1] * 4)
