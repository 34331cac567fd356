"""The sweep of searches for proofs: what is left to do, what a case returns, what is stale."""

import dataclasses
import functools
import json
import types

from prosper_utils.blending import search, worth
from prosper_utils.blending.detachment import AXIOMS, enumerate_theorems, parse, theorem
from prosper_utils.blending.distributions import support
from prosper_utils.blending.evolution import Settings, detachment_table, goal_weights, loops
from prosper_utils.study import results

import numpy as np
import pandas as pd
import pytest
import sweep_proofs
import tensorflow as tf
from conftest import ROOT, clock
from goals import GOALS

BLEND = {"arm": "blend", "steps": 2, "step_size": 0.03, "keep": 40, "seed": 0}
SEARCH = {"arm": "breadth first", "steps": 0, "step_size": 0.0, "keep": 0, "seed": 0}
TRIAL = {"population": 40, "mutation": 0.4}


def run(case, budget=3000, **changes):
    return sweep_proofs.run_case(**case | changes, budget=budget)


def hits(text):
    return [entry.split(":") for entry in text.split()]


def test_the_goals_are_those_of_the_calculus():
    assert sweep_proofs.SHORTEST == GOALS


def test_the_plan_has_no_case_twice_and_the_claims_first():
    cases = sweep_proofs.plan()
    keys = [tuple(case.values()) for case in cases]
    assert len(set(keys)) == len(keys)
    assert all(tuple(case) == sweep_proofs.CASE for case in cases)
    for arm in ("blend", "identity", "fixed", "fitness", "a = 0", "a = 0.2", "multiplicative"):
        grid = {k[2:4] for k in keys if k[0] == arm and k[1] == 2}
        assert grid == {(s, k) for s in (0.01, 0.02, 0.03, 0.05) for k in (100, 150, 200)}
    assert [case["arm"] for case in cases[:12]] == ["blend"] * 12
    seeds = {k[4] for k in keys if k[0] == "random growth"}
    assert len(seeds) >= 6


def test_what_the_repaired_arms_are_compared_with_is_in_the_plan():
    keys = [tuple(case.values()) for case in sweep_proofs.plan()]
    arms = {k[0] for k in keys}
    grid = {k[2:4] for k in keys if k[0] == "blend" and k[1] == 2}
    for arm, steps in [
        ("persistence without credit", 2),
        ("identity, persistence without credit", 2),
        ("without persistence", 2),
        ("identity, without persistence", 2),
        ("all generated", 2),
        ("fitness, goals stored", 2),
        ("1 round", 2),
        ("1 round", 3),
        ("2 rounds", 3),
        ("falling steps", 2),
    ]:
        assert {k[2:4] for k in keys if k[:2] == (arm, steps)} == grid
    for arm in sweep_proofs.PROVERS:
        assert {arm, f"{arm}, goals stored", f"{arm}, held out", f"{arm}, ten budgets"} <= arms
    assert {sweep_proofs.base(arm) for arm in arms} == {
        *sweep_proofs.LOOPS,
        *sweep_proofs.SEARCHES,
        *sweep_proofs.PROVERS,
        *sweep_proofs.GENETIC,
    }


@pytest.mark.parametrize("arm", ["lightest first, subsumption", "light and short first"])
def test_ten_budgets_are_ten_budgets(monkeypatch, arm):
    monkeypatch.setattr(sweep_proofs, "BUDGET", 150)
    case = SEARCH | {"arm": arm}
    found = (
        sweep_proofs.run_case(**case),
        sweep_proofs.run_case(**case | {"arm": arm + ", ten budgets"}),
    )
    assert [row["combinations"] for row in found] == [150, 1500]


@pytest.mark.parametrize(
    "case",
    [
        BLEND | {"keep": 150},
        BLEND | {"arm": "identity", "steps": 3, "step_size": 0.05, "keep": 100},
        BLEND | {"arm": "random growth", "keep": 150, "seed": 3},
        BLEND | {"arm": "a = 0.8", "keep": 200},
        SEARCH,
        SEARCH | {"arm": "light and short first"},
    ],
    ids=lambda case: case["arm"],
)
def test_a_run_comes_to_what_is_stored(case):
    table, _ = sweep_proofs.results.load("proofs")
    (stored,) = table[(table[list(case)] == pd.Series(case)).all(axis=1)].to_dict("records")
    budget = 20_000
    row = run(case, budget)
    met = [(goal, when) for goal, when, _ in hits(row["hits"])]
    expected = [(goal, when) for goal, when, _ in hits(stored["hits"]) if int(when) <= budget]
    assert met == expected
    assert met
    if case["arm"] in sweep_proofs.LOOPS:
        found = dict(hits(row["divergence"]))
        before = [(n, value) for n, value in hits(stored["divergence"]) if int(n) <= budget]
        assert before
        for n, value in before:
            assert float(found[n]) == pytest.approx(float(value), abs=1.1e-4)


def test_what_is_stored_is_not_computed_again():
    left, _ = sweep_proofs.SWEEPS["proofs"]
    cases = left(pd.DataFrame())
    assert cases == sweep_proofs.plan()
    assert left(pd.DataFrame(cases[3:])) == cases[:3]
    left, _ = sweep_proofs.SWEEPS["proofs_tuning"]
    trials = left(pd.DataFrame())
    assert left(pd.DataFrame(trials[:5])) == trials[5:]


@pytest.mark.parametrize("case", [BLEND, SEARCH, SEARCH | {"arm": "genetic, usefulness"}])
def test_a_case_gives_a_row_that_can_be_checked(case):
    more = {"trial": TRIAL} if case["arm"].startswith("genetic") else {}
    row, again = run(case, **more), run(case, **more)
    row.pop("seconds"), again.pop("seconds")
    assert row == again
    found = hits(row["hits"])
    assert len(found) == row["proved"] > 0
    for goal, when, proof in found:
        assert theorem(proof) == parse(goal)
        assert int(when) <= row["combinations"] == 3000
    curve = [int(n) for n in row["curve"].split()]
    assert len(curve) == len(sweep_proofs.CHECKPOINTS)
    assert curve == sorted(curve)
    assert curve[-1] == row["proved"]
    counts = [int(n) for n, _ in hits(row["divergence"])]
    assert counts == sorted(set(counts))
    assert bool(counts) == (case["arm"] != "breadth first")


def test_lemmas_come_with_weights_and_proofs():
    found = hits(run(BLEND)["lemmas"])
    assert 3 < len(found) <= 16
    weights = [float(weight) for _, weight, _, _ in found]
    assert weights == sorted(weights, reverse=True)
    for formula, _, uses, proof in found:
        assert theorem(proof) == parse(formula)
        assert 0 <= int(uses) <= 24


def test_held_out_goals_are_counted_apart_and_may_be_stored():
    goals, others = sweep_proofs.split(0)
    assert sorted(goals + others) == sorted(GOALS)
    assert len(goals) == len(others) == 12
    row = run(SEARCH, 20_000, arm="breadth first, held out")
    assert {goal for goal, _, _ in hits(row["hits"])} <= set(goals)
    assert row["held_out"] > 0
    assert run(SEARCH)["held_out"] is None


def test_goals_are_stored_where_the_arm_says_so():
    for arm, stored in (("blend", False), ("blend, goals stored", True)):
        texts = {formula for formula, *_ in hits(run(BLEND, 10_000, arm=arm)["lemmas"])}
        assert bool(texts & set(GOALS)) == stored
    stored, barred = (run(SEARCH, 60_000, arm="breadth first" + s) for s in (", goals stored", ""))
    assert stored["proved"] > barred["proved"]


def test_credit_is_compared_with_the_loss(monkeypatch):
    monkeypatch.setitem(sweep_proofs.QUALITY, "length", 5)
    rows = sweep_proofs.credit_case({"steps": 1, "keep": 150, "loop": 1})
    found = {row["mode"]: row["correlation"] for row in rows}
    assert 0.99 < found["support"] <= 1
    assert found["fixed"] == found["identity"] == 0
    assert len({row["lemmas"] for row in rows}) == 1


@pytest.mark.parametrize("name", sweep_proofs.SWEEPS)
def test_what_is_stored_is_not_stale(name):
    path = ROOT / "book" / "studies" / "results" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not stored yet")
    stored = json.loads(path.read_text())["configuration"]
    now = json.loads(json.dumps(sweep_proofs.configuration()))
    assert_part(stored, now, f"{name} is stale: run `make results`")


def assert_part(stored, now, message):
    """What was stored holds still; arms and settings that are new since then change none of it."""
    if isinstance(stored, dict):
        assert set(stored) <= set(now), message
        for key, value in stored.items():
            assert_part(value, now[key], message)
    else:
        assert stored == now, message


def test_a_setting_or_an_arm_that_changed_makes_a_result_stale_and_a_new_one_does_not():
    stored = {"settings": {"steps": 2}, "arms": {"blend": {}}, "trials": [1, 2]}
    assert_part(stored, {**stored, "arms": {"blend": {}, "new": {"rounds": 1}}}, "")
    for changed in (
        {"settings": {"steps": 3}},
        {"settings": {}},
        {"arms": {}},
        {"trials": [1, 2, 3]},
    ):
        with pytest.raises(AssertionError, match="stale"):
            assert_part(stored, stored | changed, "stale")


def test_an_arm_takes_the_trial_that_proved_most_of_its_own(monkeypatch):
    table = pd.DataFrame(
        {"arm": ["a", "a", "a", "b", "b"], "trial": [0, 1, 1, 0, 1], "proved": [7, 9, 6, 30, 2]}
    )
    monkeypatch.setattr(
        sweep_proofs.results, "load", lambda name: ({"proofs_tuning": table}[name], {})
    )
    assert sweep_proofs.chosen_options("a") == sweep_proofs.TRIALS[1]
    assert sweep_proofs.chosen_options("b") == sweep_proofs.TRIALS[0]
    with pytest.raises(LookupError, match="proofs_tuning: expected stored trials of arm c, found"):
        sweep_proofs.chosen_options("c")


def test_held_out_counts_the_goals_that_a_run_was_not_given():
    table = detachment_table(limit=25, budget=3000)
    search.breadth_first(table)
    goals, others = list(sweep_proofs.SHORTEST)[:1], list(sweep_proofs.SHORTEST)[1:]
    found = sweep_proofs.outcome(table, goal_weights(goals), goal_weights(others), [])
    assert found["proved"] == sum(parse(g) in table.places for g in goals)
    assert found["held_out"] == sum(parse(g) in table.places for g in others) > 1
    for others, counted in ((["CpNNNNNNp"], 0), ([], None)):  # none of them proved, or none at all
        found = sweep_proofs.outcome(
            table, goal_weights(goals), dict.fromkeys(map(parse, others), 1), []
        )
        assert found["held_out"] == counted


def test_the_weights_before_the_first_loop_are_those_of_the_axioms():
    sweep_proofs.weights_at.cache_clear()
    found = sweep_proofs.weights_at(1)
    assert set(found) == {parse(x) for x in ("CpCqp", "CCpCqrCCpqCpr", "CCNpNqCqp")}
    assert list(found.values()) == pytest.approx([1 / 3] * 3)


def test_lemmas_have_no_weight_and_are_no_goals(monkeypatch):
    asked = []

    def drops(table, p, places, target, settings, mass):
        asked.extend((table.objects[k] in target, float(p[k])) for k in places)
        return np.arange(len(places))

    monkeypatch.setattr(worth, "drops", drops)
    sweep_proofs.credit_case({"steps": 1, "keep": 150, "loop": 1})
    assert len(asked) > 10
    assert set(asked) == {(False, 0.0)}


@pytest.mark.parametrize("kind", ["", sweep_proofs.STORED])
def test_the_genetic_algorithm_has_the_trial_and_the_seed_of_its_case(monkeypatch, kind):
    seen = []
    monkeypatch.setattr(
        search,
        "breed",
        lambda table, target, settings: seen.append(settings) or types.SimpleNamespace(rows=[]),
    )
    chosen = {"population": 50, "mutation": 0.1}
    monkeypatch.setattr(sweep_proofs, "chosen_options", lambda name: chosen)
    case = {"arm": f"genetic, usefulness{kind}", "steps": 0, "step_size": 0.0, "keep": 0}
    for trial in ({"population": 40, "mutation": 0.4}, None):
        row = sweep_proofs.run_case(**case, seed=3, trial=trial, budget=10)
        options = {"fitness": "usefulness"} | (trial or chosen)
        stored = kind != ""
        assert seen.pop() == search.Breeding(**options, seed=3, store_goals=stored)
        assert row["options"] == " ".join(f"{key}={value}" for key, value in options.items())


def test_the_uses_of_a_lemma_are_the_goals_whose_proofs_hold_it():
    case = {"arm": "blend", "steps": 2, "step_size": 0.03, "keep": 40, "seed": 0}
    row = sweep_proofs.run_case(**case, budget=3000)
    wholes = [entry.split(":")[-1] for entry in row["hits"].split()]
    found = [entry.split(":")[2:] for entry in row["lemmas"].split()]
    assert found == [[str(sum(p in whole for whole in wholes)), p] for _, p in found]
    assert len({uses for uses, _ in found}) > 1


def test_a_trial_is_chosen_by_its_mean_and_not_by_its_best_run(monkeypatch):
    table = pd.DataFrame({"trial": [0, 0, 1, 1, 2, 2, 2], "proved": [8, 8, 9, 6, 7, 7, 7]})
    monkeypatch.setattr(results, "load", lambda name: (table.assign(arm="a"), {}))
    assert sweep_proofs.chosen_options("a") == sweep_proofs.TRIALS[0]


def test_the_weights_before_a_loop_are_those_of_the_middle_setting():
    sweep_proofs.weights_at.cache_clear()
    found = sweep_proofs.weights_at(2)
    target = goal_weights(sweep_proofs.SHORTEST)
    table = detachment_table(limit=25)
    *_, last = loops(table, target, Settings(step_size=0.03, keep=150, loops=2))
    p = last.states[0].numpy()
    assert found == {table.objects[k]: p[k] for k in support(p)}


def test_goals_are_held_out_by_the_seed_of_the_case(monkeypatch):
    seeds, halves = [], (["CCpqCpp"], list(GOALS))
    monkeypatch.setattr(sweep_proofs, "split", lambda seed: seeds.append(seed) or halves)
    case = {"arm": "breadth first, held out", "steps": 0, "step_size": 0.0, "keep": 0}
    for seed in (0, 3):
        row = sweep_proofs.run_case(**case, seed=seed, budget=500)
        assert seeds.pop() == seed
        assert [entry.split(":")[0] for entry in row["hits"].split()] == halves[0]
        assert row["held_out"] > 1


def test_lemmas_are_what_is_generated_next_and_what_has_a_short_proof():
    """As many as are stored for the first loop, which has weight on the axioms alone."""
    target = goal_weights(sweep_proofs.SHORTEST)
    weights = dict.fromkeys(AXIOMS.values(), 1 / 3)
    table, p, extra = sweep_proofs.probe(weights)
    short = enumerate_theorems(7, limit=25)
    assert {table.places[x] for x in short} <= {*extra}
    weights = p.numpy()
    found = sum(weights[k] == 0 and table.objects[k] not in target for k in extra)
    stored, _ = results.load("proofs_credit")
    assert set(stored.lemmas[stored.loop == 1]) == {found}


def test_the_searches_are_what_they_are_called():
    """On a small budget each finds formulas in an order of its own."""
    light = functools.partial(search.lightest_first, weight=search.size_and_proof)
    called = {
        "breadth first": search.breadth_first,
        "lightest first": search.lightest_first,
        "light and short first": light,
    }
    for name, plain in [*called.items()]:
        called[f"{name}, subsumption"] = functools.partial(plain, subsumption=True)
        if name != "breadth first":
            options = {"subsumption": True, "by_age": 5}
            called[f"{name}, subsumption, by age"] = functools.partial(plain, **options)
    searches = sweep_proofs.SEARCHES | sweep_proofs.PROVERS
    assert {*searches} == {*called}
    orders = set()
    for name, plain in called.items():
        found, expected = (detachment_table(limit=25, budget=1000) for _ in range(2))
        searches[name](found)
        plain(expected)
        assert found.objects == expected.objects, name
        orders.add(tuple(found.objects))
    assert len(orders) == len(called)


def test_each_genetic_algorithm_has_the_fitness_of_its_name():
    assert sweep_proofs.GENETIC == {
        "genetic, similarity": {"fitness": "similarity"},
        "genetic, smallness": {"fitness": "smallness"},
        "genetic, usefulness": {"fitness": "usefulness"},
    }


def test_the_halves_of_the_goals_are_those_of_the_stored_runs():
    table, _ = results.load("proofs")
    runs = table[table.arm.str.endswith(", held out")]
    assert {*runs.seed} == {*range(6)}
    for seed, met in runs.dropna(subset="hits").groupby("seed").hits:
        goals, others = sweep_proofs.split(seed)
        assert sorted(goals + others) == sorted(GOALS)
        assert {goal for text in met for goal, *_ in hits(text)} <= {*goals}


@pytest.mark.parametrize("arm", ["breadth first", "1 round", "genetic, usefulness"])
def test_an_arm_is_named_apart_from_its_goals_and_budget(arm):
    for kind in ("", ", goals stored", ", held out", ", ten budgets"):
        assert sweep_proofs.base(arm + kind) == arm


@pytest.fixture
def told(monkeypatch):
    """Let no search run: return what the parts of a case are told, and what its parts return.

    Only the search itself is timed, not what comes before and after it.
    """
    told, spend = {}, clock(monkeypatch, sweep_proofs)

    def note(name, returned, seconds=7):
        def noted(*given, **options):
            told[name] = (*given, options) if options else given
            return spend(seconds, returned)

        return noted

    found = types.SimpleNamespace(rows=["a", "history"])
    parts = {
        "detachment_table": "a table",
        "evolve": (found, "weights"),
        "outcome": {"proved": 3, "hits": "a b"},
        "lemmas": "some lemmas",
    }
    for name, returned in parts.items():
        monkeypatch.setattr(
            sweep_proofs, name, note(name, returned, 7 if name == "evolve" else 100)
        )
    monkeypatch.setattr(search, "breed", note("breed", found))
    monkeypatch.setitem(sweep_proofs.SEARCHES, "breadth first", note("search", None))
    monkeypatch.setitem(sweep_proofs.PROVERS, "breadth first, subsumption", note("search", None))
    return told


ROW = {"proved": 3, "hits": "a b", "lemmas": "some lemmas", "seconds": 7}


@pytest.mark.parametrize("name", ["breadth first", "breadth first, subsumption"])
@pytest.mark.parametrize(
    ("kind", "budget"),
    [
        ("", 200_000),
        (", goals stored", 200_000),
        (", held out", 200_000),
        (", ten budgets", 2_000_000),
    ],
)
def test_a_search_has_its_goals_its_budget_and_no_history(told, name, kind, budget):
    goals, others = (
        sweep_proofs.split(3) if kind == ", held out" else ([*sweep_proofs.SHORTEST], [])
    )
    row = sweep_proofs.run_case(**SEARCH | {"arm": name + kind, "seed": 3})
    assert row == SEARCH | {"arm": name + kind, "seed": 3, "options": ""} | ROW
    target = goal_weights(goals)
    assert told == {
        "detachment_table": ({"limit": 25, "budget": budget},),
        "search": ("a table", () if kind == ", goals stored" else target),
        "outcome": ("a table", target, goal_weights(others) if others else {}, []),
        "lemmas": ("a table", target, {}),
    }


@pytest.mark.parametrize("name", sweep_proofs.LOOPS)
def test_an_arm_of_the_loop_has_the_setting_of_its_case(told, name):
    """And differs from the blend in what is said of it alone."""
    case = {"steps": 3, "step_size": 0.05, "keep": 100, "seed": 4}
    more = sweep_proofs.LOOPS[name]
    options = [*more.items(), ("steps", 3), ("step_size", 0.05), ("keep", 100)]
    for kind in ("", ", goals stored", ", held out"):
        goals, others = (
            sweep_proofs.split(4) if kind == ", held out" else ([*sweep_proofs.SHORTEST], [])
        )
        row = sweep_proofs.run_case(arm=name + kind, **case, budget=50)
        text = " ".join(f"{key}={value}" for key, value in options)
        assert row == {"arm": name + kind, **case, "options": text} | ROW
        target = goal_weights(goals)
        settings = Settings(**case, **more, store_goals=kind == ", goals stored")
        assert told == {
            "detachment_table": ({"limit": 25, "budget": 50},),
            "evolve": ("a table", target, settings),
            "outcome": (
                "a table",
                target,
                goal_weights(others) if others else {},
                ["a", "history"],
            ),
            "lemmas": ("a table", target, "weights"),
        }


def test_the_genetic_algorithm_has_its_history_and_the_options_of_its_arm(told, monkeypatch):
    asked = []
    monkeypatch.setattr(
        sweep_proofs, "chosen_options", lambda name: asked.append(name) or {"population": 50}
    )
    for arm in ("genetic, smallness", "genetic, smallness, goals stored"):
        sweep_proofs.run_case(**SEARCH | {"arm": arm}, budget=50)
        assert told["outcome"] == (
            "a table",
            goal_weights(sweep_proofs.SHORTEST),
            {},
            ["a", "history"],
        )
        assert told["lemmas"] == ("a table", goal_weights(sweep_proofs.SHORTEST), {})
    assert asked == ["genetic, smallness"] * 2


def test_an_outcome_by_hand(monkeypatch):
    """A goal met, and a loop that ended, at a checkpoint is before it; 200,000 is the last one."""
    table = types.SimpleNamespace(products=range(7), objects=range(5))
    met = {
        "given": {
            "CpCqp": {"combinations": 100, "proof": "D1"},
            "Cpp": {"combinations": 101, "proof": "DD211"},
            "q": {"combinations": 200_000, "proof": "DD2"},
        },
        "others": {"p": {"combinations": 5, "proof": "D3"}},
    }
    monkeypatch.setattr(sweep_proofs, "proofs", lambda _, target: met[target])
    history = [
        {"combinations": n, "divergence": d}
        for n, d in [(60, 9.0), (100, 8.12345), (150, 7.0), (160, 6.5), (30_000, 2.0)]
    ]
    found = sweep_proofs.outcome(table, "given", "others", history)
    assert found == {
        "proved": 3,
        "held_out": 1,
        "combinations": 7,
        "formulas": 5,
        "loops": 5,
        "curve": "1 " + "2 " * 24 + "3",
        "divergence": "100:8.1235 160:6.5000 30000:2.0000",
        "hits": "CpCqp:100:D1 Cpp:101:DD211 q:200000:DD2",
    }


def test_stored_curves_count_the_goals_that_are_met_at_the_checkpoints():
    table, _ = results.load("proofs")
    for curve, met in zip(table.curve, table.hits.fillna(""), strict=True):
        when = [int(n) for _, n, _ in hits(met)]
        expected = [sum(n <= c for n in when) for c in sweep_proofs.CHECKPOINTS]
        assert [int(count) for count in curve.split()] == expected


def test_lemmas_by_hand(monkeypatch):
    """The heaviest come first, sixteen at most; a goal that was not met uses none."""
    texts = ["CpCqp", "CCpCqrCCpqCpr", *("CpCq" * n + "Cpp" for n in range(1, 18))]
    table = types.SimpleNamespace(
        places={parse(text): 10 + k for k, text in enumerate(texts)},
        proof=lambda formula: f"proof of {table.places[formula]}",
    )
    table.places |= {"goal": 1, "other goal": 2}
    parts = {1: {10, 12}, 2: {10}}
    monkeypatch.setattr(search, "used", lambda given, k: parts[k] if given is table else ())
    weights = {text: 0.5 / (1 + k) for k, text in enumerate(texts)}
    found = sweep_proofs.lemmas(table, ["goal", "not met", "other goal"], weights)
    lines = [f"{t}:{0.5 / (1 + k):.4f}:{[2, 0, 1][k] if k < 3 else 0}" for k, t in enumerate(texts)]
    lines = [f"{line}:proof of {10 + k}" for k, line in enumerate(lines)]
    assert found == " ".join(lines[:16])
    assert found.startswith("CpCqp:0.5000:2:proof of 10 CCpCqrCCpqCpr:0.2500:0:proof of 11")
    assert sweep_proofs.lemmas(table, ["goal"], {}) == ""


def test_a_part_of_the_plan_by_hand():
    """Steps, step size and K are those of the loop; other arms have zeros, and each seed once."""
    cases = sweep_proofs.cases_of(
        ("blend, held out", "breadth first, goals stored"),
        steps=(1, 3),
        settings=((0.02, 100), (0.05, 200)),
        seeds=(4, 5),
    )
    loop = [
        ("blend, held out", steps, size, keep, seed)
        for steps in (1, 3)
        for seed in (4, 5)
        for size, keep in ((0.02, 100), (0.05, 200))
    ]
    other = [("breadth first, goals stored", 0, 0.0, 0, seed) for _ in (1, 3) for seed in (4, 5)]
    assert [tuple(case.values()) for case in cases] == loop + other
    assert [tuple(case) for case in cases] == [sweep_proofs.CASE] * 12
    assert sweep_proofs.CASE == ("arm", "steps", "step_size", "keep", "seed")
    (case,) = sweep_proofs.cases_of(["identity"])
    assert tuple(case.values()) == ("identity", 2, 0.03, 150, 0)


def test_what_the_claims_need_comes_first():
    arms = [*dict.fromkeys(case["arm"] for case in sweep_proofs.plan())]
    searches = ("breadth first", "lightest first", "light and short first")
    genetic = ("genetic, similarity", "genetic, smallness", "genetic, usefulness")
    first = ["blend", *searches, "identity", "fixed", "fitness", "a = 0", *genetic]
    first += ["random growth"]
    compared = ("blend", "identity", *searches)
    first += [f"{arm}, held out" for arm in compared] + [f"{arm}, goals stored" for arm in compared]
    assert arms[: len(first)] == first


@pytest.mark.parametrize("name", ["proofs_tuning", "proofs", "proofs_credit"])
def test_each_sweep_has_the_cases_that_are_stored(name):
    left, work = sweep_proofs.SWEEPS[name]
    table, cases = results.load(name)[0], left(pd.DataFrame())
    keys = [*cases[0]]
    planned = [tuple(case[key] for key in keys) for case in cases]
    assert len({*planned}) == len(planned)
    assert {*planned} == {*table[keys].itertuples(index=False, name=None)}
    assert not left(table)
    for done in (len(cases) // 3, len(cases) // 2):
        part = table[table[keys].apply(tuple, axis=1).isin(planned[:done])]
        assert left(part) == cases[done:]
    assert work is (sweep_proofs.credit_case if name == "proofs_credit" else sweep_proofs.one)


def test_a_case_that_is_no_trial_is_run_as_it_stands(monkeypatch):
    calls = []
    monkeypatch.setattr(sweep_proofs, "run_case", lambda **given: calls.append(given) or {"n": 1})
    assert sweep_proofs.one(SEARCH) == [{"n": 1}]
    assert calls == [SEARCH]
    trial = SEARCH | {"trial": 2}
    assert sweep_proofs.one(trial) == [{"n": 1, "trial": 2}]
    assert calls[1] == SEARCH | {"trial": {"population": 50, "mutation": 0.7}}
    assert trial == SEARCH | {"trial": 2}, "what waits in the plan was changed"


def test_the_weights_before_a_loop_are_found_once(monkeypatch):
    seen = []
    monkeypatch.setattr(sweep_proofs, "loops", lambda *given: seen.append(given) or loops(*given))
    sweep_proofs.weights_at.cache_clear()
    assert sweep_proofs.weights_at(1) is sweep_proofs.weights_at(1)
    ((table, target, settings),) = seen
    assert (target, settings) == (
        goal_weights(sweep_proofs.SHORTEST),
        Settings(step_size=0.03, keep=150, loops=1),
    )
    assert table.budget == float("inf")


def test_a_row_of_credit_says_how_its_mode_agrees_with_the_loss(monkeypatch):
    """By hand: places 3 and 4 of the extra support have no weight and are no goals, nor has 1.

    Place 2 has weight, place 5 is a goal, and place 0 is in no extra support.
    """
    goal = next(iter(goal_weights(sweep_proofs.SHORTEST)))
    table = types.SimpleNamespace(objects=["a", "b", "c", "d", "e", goal])
    p, extra, told = np.array([0, 0, 1.0, 0, 0, 0]), [1, 2, 3, 4, 5], []
    credit_of = {
        "support": np.array([9, 1, 9, 2, 3, 9]),
        "identity": np.array([0, -1, 0, -2, -3, 0]),
        "fixed": np.array([0, 1, 0, 3, 2, 0]),
    }

    def drops(*given):
        told.append(given)
        return spend(3, np.array([10, 20, 30]))

    def credit(*given):
        told.append(given)
        return spend(1, credit_of[given[-1].credit])

    spend = clock(monkeypatch, sweep_proofs)
    monkeypatch.setattr(sweep_proofs, "weights_at", lambda loop: {"loop": loop})
    monkeypatch.setattr(
        sweep_proofs, "probe", lambda given: told.append(given) or (table, p, extra)
    )
    monkeypatch.setattr(worth, "drops", drops)
    monkeypatch.setattr(worth, "credit", credit)
    case = {"steps": 1, "keep": 400, "loop": 5}
    rows = sweep_proofs.credit_case(case)
    found = {"support": 1, "identity": -1, "fixed": 0.5}
    assert rows == [
        case | {"mode": mode, "lemmas": 3, "correlation": pytest.approx(value), "seconds": 2}
        for mode, value in found.items()
    ]
    assert [*rows[0]] == [*results.load("proofs_credit")[0]]
    target, settings = goal_weights(sweep_proofs.SHORTEST), Settings(steps=1, keep=400)
    assert told == [
        {"loop": 5},
        (table, p, [1, 3, 4], target, settings, 0.02),
        *(
            (table, p, extra, target, dataclasses.replace(settings, credit=mode))
            for mode in ("support", "identity", "fixed")
        ),
    ]


def test_a_probe_enters_the_weights_and_takes_what_the_next_two_steps_generate(monkeypatch):
    """As far as its weight is essential, and cut as at the middle setting."""
    told = []

    def propagate(table, p, settings):
        told.append((p.numpy().tolist(), settings))
        image = np.zeros(len(table.objects))
        image[table.places[new]], image[table.places[other]] = 1e-5, 1e-7
        return [tf.ones_like(image), tf.ones_like(image), tf.constant(image)]

    monkeypatch.setattr(sweep_proofs, "propagate", propagate)
    new, other = parse("CpCqCrCsp"), parse("CpCqCrCsq")
    weights = {new: 0.5, other: 0.25, AXIOMS["1"]: 0.25}
    table, p, extra = sweep_proofs.probe(weights)
    short = enumerate_theorems(7, limit=25)
    places = [table.places[x] for x in short]
    assert not {new, other} & {*short}
    assert len(places) > 20
    assert table.budget == float("inf")
    assert len(table.objects) == len(table.lengths) == len({*table.objects}) == len(table.places)
    assert all(table.objects[place] == x for x, place in table.places.items())
    assert {*table.lengths} == {1}
    assert extra == sorted({table.places[new], *places})
    expected = [weights.get(x, 0) for x in table.objects]
    assert p.numpy().tolist() == expected
    assert told == [(expected, Settings(keep=150))]


def test_a_table_of_a_probe_is_of_formulas_up_to_25_symbols(monkeypatch):
    asked = []
    monkeypatch.setattr(
        sweep_proofs,
        "enumerate_theorems",
        lambda *given, **options: asked.append((given, options)) or {},
    )
    monkeypatch.setattr(
        sweep_proofs,
        "detachment_table",
        lambda **options: asked.append(options) or detachment_table(**options),
    )
    sweep_proofs.probe(dict.fromkeys(AXIOMS.values(), 1 / 3))
    assert asked == [{"limit": 25}, ((7,), {"limit": 25})]
