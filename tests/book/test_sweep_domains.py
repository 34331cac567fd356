"""The sweep over domains: its goals, its plan, and what a case returns."""

import functools
import json
import runpy
import sys
import types

from prosper_utils.blending import circuits, search
from prosper_utils.blending.detachment import AXIOMS, parse, show, subsumes, theorem
from prosper_utils.blending.evolution import History, Settings, detachment_table
from prosper_utils.study import results

import pandas as pd
import pytest
import sweep_domains
import sweep_proofs
from conftest import clock
from goals import GOALS
from sweep_domains import DOMAINS

SYSTEMS = {name: axioms for name, (axioms, _) in sweep_domains.SYSTEMS.items()}
BLEND = {"arm": "blend", "step_size": 0.03, "keep": 150, "seed": 0}
SEARCH = {"arm": "breadth first", "step_size": 0.0, "keep": 0, "seed": 0}


@pytest.fixture(scope="module", autouse=True)
def enumerated():
    """Enumerate the theorems of each system once, though two domains draw from the same."""
    enumerate_theorems, held = search.enumerate_theorems, {}

    def once(*system, **options):
        key = repr((system, options))
        if key not in held:
            held[key] = enumerate_theorems(*system, **options)
        return held[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "enumerate_theorems", once)
        yield


def run(domain, case, budget=1000, **changes):
    return sweep_domains.run_case(domain, **case | changes, budget=budget)


def hits(row):
    return [entry.split(":") for entry in row["hits"].split()]


def test_the_plan_has_no_case_twice_and_every_arm_in_every_domain():
    cases = sweep_domains.plan()
    assert all(tuple(case) == sweep_domains.CASE for case in cases)
    keys = {tuple(case.values()) for case in cases}
    assert len(keys) == len(cases)
    for domain, own in DOMAINS.items():
        arms = {arm for name, arm, *_ in keys if name == domain}
        base = {"blend", "identity", "genetic, usefulness", *own.searches}
        assert arms == base | {f"{arm}, goals stored" for arm in base}
        for arm in ("blend", "identity"):
            assert len([key for key in keys if key[:2] == (domain, arm)]) == 12


@pytest.mark.parametrize("domain", SYSTEMS)
def test_goals_are_drawn_by_the_rule(domain):
    target = DOMAINS[domain].target()
    assert len(target) == (100 if SYSTEMS[domain] is AXIOMS else 24)
    assert sum(target.values()) == pytest.approx(1)
    proofs = sweep_domains.theorems(domain)
    shortest, longest = sweep_domains.SYSTEMS[domain][1]["lengths"]
    assert {len(proof) for proof in proofs.values()} == {*range(shortest, longest + 1, 2)}
    assert all(theorem(proof, SYSTEMS[domain]) == goal for goal, proof in proofs.items())
    assert max(map(len, target)) <= 25
    if SYSTEMS[domain] is AXIOMS:
        assert not any(subsumes(parse(known), goal) for known in GOALS for goal in target)


@pytest.mark.parametrize("domain", SYSTEMS)
def test_what_is_proved_follows_from_the_axioms_of_the_domain(domain):
    row = run(domain, SEARCH, 10_000, arm="breadth first, goals stored")
    assert row["proved"] == len(hits(row)) > 0
    for goal, when, proof in hits(row):
        assert theorem(proof, SYSTEMS[domain]) == parse(goal)
        assert int(when) <= 10_000
    assert {goal for goal, *_ in hits(row)} <= set(map(show, DOMAINS[domain].target()))


def test_circuits_compute_their_goals():
    row = run("circuits", SEARCH, 2000)
    assert row["goals"] == 24
    assert row["proved"] == len(hits(row)) > 2
    for goal, _, circuit in hits(row):
        inputs = [[bool(k >> i & 1) for i in range(4)] for k in range(16)]
        found = sum(circuits.evaluate(circuit, v) << k for k, v in enumerate(inputs))
        assert f"{found:016b}" == goal


def test_arms_keep_their_rule_on_goals():
    barred, stored = (
        run("circuits", SEARCH, 3000, arm=f"breadth first{s}") for s in ("", ", goals stored")
    )
    assert stored["formulas"] != barred["formulas"]


def test_the_loop_starts_only_within_its_horizon(monkeypatch):
    """Without feedback all loops are alike, but for what the first of three purges drops."""
    monkeypatch.setattr(sweep_domains, "Settings", functools.partial(Settings, loops=30))
    with pytest.warns(UserWarning, match="expected a goal within reach of the first loop"):
        far = run("three axioms, far", BLEND, 2000)
    ladder = run("three axioms", BLEND, 2000)
    assert far["proved"] == 0
    assert far["combinations"] < 2000
    assert ladder["proved"] > 10


def test_a_bred_case_takes_the_choice_that_was_made_before():
    row = run("circuits", BLEND, arm="genetic, usefulness", step_size=0.0, keep=0, seed=1)
    assert row["combinations"] == 1000


def test_the_stored_results_are_of_this_plan():
    table, provenance = results.load("proofs_domains")
    found = set(table[list(sweep_domains.CASE)].itertuples(index=False, name=None))
    assert found == {tuple(case.values()) for case in sweep_domains.plan()}
    assert len(found) == len(table)
    expected = json.loads(json.dumps(sweep_domains.configuration()))
    assert provenance["configuration"] == expected
    for row in table.itertuples():
        target = DOMAINS[row.domain].target()
        assert row.goals == len(target)
        for goal, _, proof in hits({"hits": "" if pd.isna(row.hits) else row.hits}):
            if row.domain != "circuits":
                assert theorem(proof, SYSTEMS[row.domain]) == parse(goal)
                assert parse(goal) in target


def test_it_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep_domains.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(sweep_domains.__file__, run_name="__main__")
    assert stopped.value.code == 0
    assert "ladder" in capsys.readouterr().out


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_has_the_settings_of_its_case(monkeypatch, stored):
    given = []

    def noted(table, target, settings):
        given.append(settings)
        return History({})

    monkeypatch.setattr(sweep_domains, "evolve", lambda *run: (noted(*run), {}))
    monkeypatch.setattr(search, "breed", noted)
    end = sweep_domains.STORED if stored else ""
    run("circuits", BLEND, arm="identity" + end, step_size=0.05, keep=200)
    run("circuits", BLEND, arm=sweep_domains.BRED + end, seed=2)
    loop, bred = given
    assert (loop.credit, loop.step_size, loop.keep) == ("identity", 0.05, 200)
    assert (bred.fitness, bred.seed) == ("usefulness", 2)
    assert loop.store_goals == bred.store_goals == stored


@pytest.mark.parametrize("domain", SYSTEMS)
def test_a_domain_of_theorems_has_its_axioms_and_four_searches(domain):
    """Two that the sweep of proofs has too, and both as provers do them."""
    own = DOMAINS[domain]
    assert {*own.searches} == {
        *("light and short first", "breadth first"),
        *("light and short first, subsumption", "breadth first, subsumption"),
    }
    for name, run_search in own.searches.items():
        found = own.table(budget=500)
        expected = detachment_table(SYSTEMS[domain], limit=25, budget=500)
        run_search(found)
        (sweep_proofs.SEARCHES | sweep_proofs.PROVERS)[name](expected)
        assert found.products == expected.products
        assert found.objects == expected.objects
        assert len(found.products) <= 500


@pytest.mark.parametrize("domain", SYSTEMS)
def test_goals_are_drawn_with_the_options_of_their_domain(monkeypatch, domain):
    """Among the three axioms, not one of the goals that settings were chosen with."""
    drawn = []
    monkeypatch.setattr(search, "drawn_goals", lambda **how: drawn.append(how) or {"goal": "D"})
    assert sweep_domains.theorems.__wrapped__(domain) == {"goal": "D"}
    three = SYSTEMS[domain] is AXIOMS
    lengths = (15, 21) if domain == "three axioms, far" else (5, 21)
    assert drawn == [
        {
            **{"count": 100 if three else 24, "lengths": lengths, "seed": 0},
            **{"axioms": SYSTEMS[domain], "limit": 25},
            "avoid": tuple(map(parse, sweep_proofs.SHORTEST)) if three else (),
        }
    ]


def test_shortest_first_takes_circuits_by_their_length():
    own = DOMAINS["circuits"]
    assert own.target() == circuits.circuit_goals()
    called = {
        "shortest first": functools.partial(
            search.lightest_first, weight=lambda table, place: table.lengths[place]
        ),
        "breadth first": search.breadth_first,
    }
    assert {*own.searches} == {*called}
    orders = set()
    for name, plain in called.items():
        found, expected = own.table(budget=500), circuits.circuit_table(budget=500)
        own.searches[name](found)
        plain(expected)
        assert found.products == expected.products
        orders.add(tuple(found.objects))
    assert len(orders) == 2


SMALL = {"budget": 50, "goals": {"a": 0.25, "b": 0.75}}


@pytest.fixture
def recorded(monkeypatch):
    """Have a domain "small" in which nothing is searched; return what each way is run with."""
    given, spend = [], clock(monkeypatch, sweep_domains)

    def run(name, rows):
        def noted(*how, **more):
            given.append((name, *how, more))
            found = spend(2.5, types.SimpleNamespace(rows=rows))
            return found if name == "breed" else (found, {"a": 1.0})

        return noted

    own = sweep_domains.Domain(
        lambda budget: spend(100, f"table of {budget}"),
        lambda: SMALL["goals"],
        {"first": run("first", []), "second": run("second", [])},
    )
    monkeypatch.setitem(DOMAINS, "small", own)
    monkeypatch.setattr(sweep_domains, "evolve", run("evolve", ["a loop"]))
    monkeypatch.setattr(search, "breed", run("breed", ["a generation"]))
    monkeypatch.setattr(sweep_proofs, "outcome", lambda *how: spend(100, {"outcome": how}))
    monkeypatch.setattr(
        sweep_proofs, "chosen_options", lambda name: {"population": 30, "mutation": 0.7}
    )
    return given


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("arm", ["first", "second", "blend", "identity", "genetic, usefulness"])
def test_a_case_is_searched_bred_or_looped_as_its_arm_says(recorded, arm, stored):
    """No search combines a goal, unless the arm says so; and the row of what came out."""
    case = {"domain": "small", "arm": arm + ", goals stored" * stored}
    case |= {"step_size": 0.02, "keep": 70, "seed": 3}
    row = sweep_domains.run_case(**case, budget=50)
    table, target = "table of 50", SMALL["goals"]
    ((way, *given),) = recorded
    history = []
    if arm in ("first", "second"):
        assert (way, given) == (arm, [table, () if stored else target, {}])
    elif arm == "genetic, usefulness":
        history = ["a generation"]
        options = {"population": 30, "mutation": 0.7, "seed": 3, "store_goals": stored}
        settings = search.Breeding(fitness="usefulness", **options)
        assert (way, given) == ("breed", [table, target, settings, {}])
    else:
        history = ["a loop"]
        credit = {"identity": {"credit": "identity"}, "blend": {}}[arm]
        settings = Settings(**credit, step_size=0.02, keep=70, store_goals=stored)
        assert (way, given) == ("evolve", [table, target, settings, {}])
    expected = case | {"goals": 2, "outcome": (table, target, {}, history), "seconds": 2.5}
    assert row == expected
    assert list(row) == list(expected)


def test_a_case_has_the_budget_of_all_and_its_row_the_columns_that_are_stored(monkeypatch):
    budgets, table = [], DOMAINS["circuits"].table
    own = sweep_domains.Domain(
        lambda budget: budgets.append(budget) or table(budget=100),
        DOMAINS["circuits"].target,
        DOMAINS["circuits"].searches,
    )
    monkeypatch.setitem(DOMAINS, "circuits", own)
    (row,) = sweep_domains.one({"domain": "circuits"} | SEARCH)
    assert budgets == [200_000]
    assert list(row) == list(results.load("proofs_domains")[0])
    assert [row[key] for key in sweep_domains.CASE] == ["circuits", "breadth first", 0.0, 0, 0]


def test_the_middle_setting_and_the_searches_of_all_domains_are_planned_first():
    cases = sweep_domains.plan()
    first = [(case["step_size"], case["keep"]) in ((0.03, 150), (0.0, 0)) for case in cases]
    assert first == sorted(first, reverse=True)
    ((name, (left, _)),) = sweep_domains.SWEEPS.items()
    assert name == "proofs_domains"
    assert left(pd.DataFrame()) == cases
    assert left(pd.DataFrame(cases[:9])) == cases[9:]
