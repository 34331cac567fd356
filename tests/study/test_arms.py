"""Arms of stored sweeps: differences are those of the rows, and words are those of the cells."""

from prosper_utils.study import arms, results
from prosper_utils.study.arms import DENSE, LENET
from prosper_utils.study.comparison import Interval, paired

import numpy as np
import pandas as pd
import pytest
import sweep_regrowth
from conftest import said


@pytest.fixture
def stored(monkeypatch):
    """Give arms tables of our own, {name: rows}."""

    def give(**tables):
        tables = {name: pd.DataFrame(rows) for name, rows in tables.items()}
        monkeypatch.setattr(arms, "stored", tables.__getitem__)

    return give


def pruned(score, errors, variant="as scored", sparsity=0.9):
    at = {"network": arms.DENSE, "activation": "tanh", "score": score, "variant": variant}
    return [at | {"sparsity": sparsity, "seed": s, "error": e} for s, e in enumerate(errors)]


def test_a_table_is_read_once():
    assert arms.stored("pruning") is arms.stored("pruning")


def test_a_sweep_that_is_not_stored_is_no_empty_table(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"regrowth, not stored.*`make results`"):
        arms.stored("regrowth, not stored")


def test_differences_are_paired_within_seeds_and_variants(stored):
    rows = pruned("SNIP", [3.0, 5.0, 9.0]) + pruned("ProsPr", [2.0, 4.5, 7.0])
    rows += pruned("ProsPr", [8.0, 8.0, 8.5], "shuffled") + pruned(
        "ProsPr", [1.0] * 3, sparsity=0.8
    )
    stored(pruning=rows)
    net = arms.DENSE, "tanh"
    found = arms.minus((*net, "ProsPr"), (*net, "SNIP"), 0.9)
    assert found.mean == pytest.approx(-3.5 / 3)
    assert arms.versus("ProsPr", "SNIP", [(*net, 0.9)]) == {(*net, 0.9): found}
    shuffled = arms.minus((*net, "ProsPr"), (*net, "ProsPr", "shuffled"), 0.9)
    assert shuffled.mean == pytest.approx(np.mean([-6, -3.5, -1.5]))


def test_cells_in_words():
    cells = [(arms.DENSE, "relu", 0.98), (arms.DENSE, "relu", 0.995), (arms.LENET, "tanh", 0.9)]
    assert arms.in_words(cells) == "ReLU at 98, 99.5%; LeNet-5, tanh at 90%"
    assert arms.in_words([(arms.DENSE, 0.9)]) == f"{arms.DENSE} at 90%"
    family = {cell: Interval(-2, -3, -1, 1e-6) for cell in cells}
    assert arms.lower(family, "a − b").word == "holds"
    family[cells[0]] = Interval(2, 1.5, 2.5, 1e-6)
    assert str(arms.no_worse(family, "a − b")) == "holds if ReLU at 99.5%; LeNet-5, tanh at 90%"


def test_the_best_frozen_mask_is_the_one_with_the_lowest_mean(stored):
    rows = [
        {"network": n, "arm": a, "variant": "as is", "sparsity": s, "seed": seed, "error": e + seed}
        for n, s in arms.REGROWN
        for a, e in (("SNIP", 5.0), ("SynFlow", 4.0), ("credit", 1.0), ("random regrowth", 9.0))
        for seed in range(3)
    ]
    stored(regrowth=rows)
    assert arms.best_frozen(arms.DENSE, 0.9) == {0: 4.0, 1: 5.0, 2: 6.0}
    longer = [row | {"variant": "longer", "error": row["error"] + 0.5} for row in rows]
    stored(regrowth=rows + longer)
    assert arms.regrown(arms.DENSE, "SNIP", 0.9) == {0: 5.0, 1: 6.0, 2: 7.0}
    assert arms.regrown(arms.DENSE, "SNIP", 0.9, "longer") == {0: 5.5, 1: 6.5, 2: 7.5}
    stored(regrowth=rows)
    assert {f.mean for f in arms.credit_against().values()} == {-3.0}
    assert {f.mean for f in arms.credit_against("random regrowth").values()} == {-8.0}
    assert list(arms.credit_against()) == list(arms.REGROWN)
    known = [r for r in rows if (r["network"], r["arm"]) != (arms.DENSE, "SynFlow")]
    stored(regrowth=known)  # of two networks one has not been scored with it
    assert arms.best_frozen(arms.DENSE, 0.9) == {0: 5.0, 1: 6.0, 2: 7.0}


def test_goals_are_compared_setting_by_setting(stored):
    def runs(arm, numbers, steps=2):
        return [
            {"arm": arm, "steps": steps, "step_size": 0.03, "keep": k, "seed": 0, "proved": n}
            for k, n in enumerate(numbers)
        ]

    stored(proofs=runs("blend", [20, 22]) + runs("blend", [9, 9], 3) + runs("fixed", [2, 3], 0))
    assert arms.proved("blend").tolist() == [20, 22]
    assert arms.proved("blend", steps=3).tolist() == [9, 9]
    assert arms.proved("fixed", steps=3).tolist() == [2, 3]
    assert arms.span("blend", "fixed") == "blend 20 to 22; fixed 2 to 3"
    stored(proofs=runs("blend", [21, 25, 19, 22]) + runs("fixed", [3, 3]))
    assert arms.span("blend", "fixed") == "blend 19 to 25; fixed 3"
    stored(proofs=runs("blend", [20, 22]) + runs("fixed", [2, 3], 0))
    assert arms.goals("fixed") == paired({0: 2, 1: 3}, {0: 20, 1: 22})
    verdict = arms.fewer({"fixed": Interval(-18, -19, -17, 1e-6)})
    assert said(verdict) == ("holds", "difference in goals: fixed: −18.0 [−19.0, −17.0] *")
    alike = arms.fewer({"fixed": Interval(0, -0.5, 0.5, 0.9)})  # no worse is not fewer
    assert said(alike)[0] == "not shown"


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


def give(monkeypatch, **tables):
    """Let the stored tables be these; all others are as they are."""
    real, tables = arms.stored, {name: pd.DataFrame(rows) for name, rows in tables.items()}
    monkeypatch.setattr(arms, "stored", lambda name: tables[name] if name in tables else real(name))


def rows_of_runs(arm, numbers, steps=2, keeps=(150, 200), **more):
    return [
        {"arm": arm, "steps": steps, "step_size": 0.03, "keep": k, "seed": 0, "proved": n} | more
        for k, n in zip(keeps, numbers, strict=True)
    ]


def test_credit_is_set_against_its_rival_of_the_same_cell(monkeypatch):
    """One mask has the lowest error of all, another one the lowest mean, but in some cells only."""
    rows = [
        {"network": n, "arm": a, "variant": "as is", "sparsity": s, "seed": seed, "error": e}
        for n, s in arms.REGROWN
        for a, errors in {
            "SNIP": (0.0, 6.0, 9.0),
            "SynFlow": (4.0,) * 3 if s < 0.97 else (6.0,) * 3,
            "credit": (1 + s,) * 3,
            "random regrowth": (10 * s,) * 3,
        }.items()
        for seed, e in enumerate(errors)
    ]
    give(monkeypatch, regrowth=rows)
    for (_, s), found in arms.credit_against().items():
        assert found.mean == pytest.approx(1 + s - (4 if s < 0.97 else 5))
    for (_, s), found in arms.credit_against("random regrowth").items():
        assert found.mean == pytest.approx(1 - 9 * s)


def test_goals_are_paired_within_seeds_too(monkeypatch):
    """What is random has more seeds than its rival, and those are not compared."""
    rows = []
    for arm, numbers in {"blend": (20, 22), "random growth": (15, 16, 30)}.items():
        for seed, n in enumerate(numbers):
            rows += rows_of_runs(arm, [n], keeps=[150], seed=seed)
    give(monkeypatch, proofs=rows)
    assert arms.goals("random growth") == paired({0: 15, 1: 16}, {0: 20, 1: 22})


def test_cells_and_frozen_masks_are_those_of_the_sweeps():
    rows = arms.stored("regrowth")
    rows = rows[rows.arm == "credit"]
    assert sorted(arms.REGROWN) == sorted({*zip(rows.network, rows.sparsity, strict=True)})
    assert arms.FROZEN == sweep_regrowth.FROZEN
    rows = arms.stored("pruning")
    rows = rows[(rows.score == "SNIP") & (rows.variant == "as scored")]
    cells = sorted({*zip(rows.network, rows.activation, rows.sparsity, strict=True)})
    assert sorted(arms.CELLS) == [cell for cell in cells if cell[0] == DENSE]
    assert sorted(arms.LENET_CELLS) == [cell for cell in cells if cell[:2] == (LENET, "tanh")]
