"""The sweep over domains: its goals, its plan, and what a case returns."""

import json
import subprocess
import sys

from prosper_utils.blending import circuits, search
from prosper_utils.blending.detachment import AXIOMS, parse, show, subsumes, theorem
from prosper_utils.blending.evolution import History
from prosper_utils.study import results

import pandas as pd
import pytest
import sweep_domains
from conftest import ROOT
from goals import GOALS
from sweep_domains import DOMAINS

SYSTEMS = {name: axioms for name, (axioms, _) in sweep_domains.SYSTEMS.items()}
BLEND = {"arm": "blend", "step_size": 0.03, "keep": 150, "seed": 0}
SEARCH = {"arm": "breadth first", "step_size": 0.0, "keep": 0, "seed": 0}


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


def test_the_loop_starts_only_within_its_horizon():
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
    assert found <= {tuple(case.values()) for case in sweep_domains.plan()}
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


def test_it_is_a_command():
    script = ROOT / "book" / "studies" / "sweep_domains.py"
    said = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert said.returncode == 0
    assert "ladder" in said.stdout


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
