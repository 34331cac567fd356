"""The second sweep behind chapter 15: the same arms, on goals that no setting was chosen with.

A *domain* is a table and its goals.  A hundred theorems of the three axioms are drawn by the rule
of `search.drawn_goals`, once among those with long proofs alone, and once as a *ladder*, from short
proofs to long ones; ladders of 24 are drawn for two other systems, with a single axiom each and so
with few theorems; and then there are 24 Boolean functions, made of gates.  The loop runs at the
twelve settings of `sweep_proofs`, and the genetic algorithm with the choice that it made there:
nothing is tuned here.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable

from prosper_utils.blending import circuits, search
from prosper_utils.blending.detachment import AXIOMS, parse, show
from prosper_utils.blending.evolution import Settings, detachment_table, evolve, goal_weights

import sweep_proofs
import sweeps
from sweep_proofs import BUDGET, KEEPS, LIMIT, MIDDLE, SHORTEST, STEP_SIZES, STORED

SEED = 0
FAR, LADDER = (15, 21), (5, 21)  # lengths of shortest proofs
LUKASIEWICZ = {"1": parse("CCCpqrCCrpCsp")}  # for implication alone
MEREDITH = {"1": parse("CCCCCpqCNrNsrtCCtpCsp")}  # for implication and negation
LOOPS, BRED = ("blend", "identity"), "genetic, usefulness"
CASE = ("domain", "arm", "step_size", "keep", "seed")


@dataclasses.dataclass(frozen=True)
class Domain:
    """A partial product with goals.

    Attributes:
        table: function of a budget that returns an empty `Table`.
        target: function that returns {goal: weight}.
        searches: {arm: function of a table and the goals}.
    """

    table: Callable
    target: Callable
    searches: dict


def drawn(count, axioms, lengths):
    """Return the domain of theorems drawn from what some axioms prove, by lengths of proofs."""
    known = {"light and short first": sweep_proofs.LIGHT, "breadth first": search.breadth_first}
    for name in tuple(known):
        known[f"{name}, subsumption"] = functools.partial(known[name], subsumption=True)
    options = {"lengths": lengths, "axioms": axioms, "limit": LIMIT}
    avoid = tuple(map(parse, SHORTEST)) if axioms is AXIOMS else ()

    @functools.cache
    def target():
        return goal_weights(search.drawn_goals(count, SEED, avoid=avoid, **options))

    return Domain(functools.partial(detachment_table, axioms, limit=LIMIT), target, known)


def length(table, place):
    """Return the length of the kept circuit of a function."""
    return table.lengths[place]


DOMAINS = {
    "three axioms, far": drawn(100, AXIOMS, FAR),
    "three axioms": drawn(100, AXIOMS, LADDER),
    "implication alone": drawn(24, LUKASIEWICZ, LADDER),
    "one axiom": drawn(24, MEREDITH, LADDER),
    "circuits": Domain(
        circuits.circuit_table,
        circuits.circuit_goals,
        {
            "shortest first": functools.partial(search.lightest_first, weight=length),
            "breadth first": search.breadth_first,
        },
    ),
}


def run_case(domain, arm, step_size, keep, seed, budget=BUDGET):
    """Return the row of one case."""
    chosen = DOMAINS[domain]
    target, table = chosen.target(), chosen.table(budget=budget)
    name, stored = arm.removesuffix(STORED), STORED in arm
    history, begin = [], time.perf_counter()
    if name in chosen.searches:
        chosen.searches[name](table, () if stored else target)
    elif name == BRED:
        options = sweep_proofs.GENETIC[name] | sweep_proofs.chosen_options(name)
        settings = search.Breeding(**options, store_goals=stored, seed=seed)
        history = search.breed(table, target, settings).rows
    else:
        options = sweep_proofs.LOOPS[name] | {"step_size": step_size, "keep": keep}
        history = evolve(table, target, Settings(**options, store_goals=stored))[0].rows
    seconds = time.perf_counter() - begin
    case = dict(zip(CASE, (domain, arm, step_size, keep, seed), strict=True))
    found = sweep_proofs.outcome(table, target, {}, history)
    return case | {"goals": len(target)} | found | {"seconds": seconds}


def plan():
    """Return every case: the middle setting and the searches of all domains first."""
    cases = []
    for domain, own in DOMAINS.items():
        for stored in ("", STORED):
            cases += [(domain, arm + stored, *MIDDLE, 0) for arm in LOOPS]
            cases += [(domain, arm + stored, 0.0, 0, 0) for arm in own.searches]
            cases += [(domain, BRED + stored, 0.0, 0, seed) for seed in range(3)]
    others = [both for both in itertools.product(STEP_SIZES, KEEPS) if both != MIDDLE]
    cases += [(domain, arm, *both, 0) for both in others for domain in DOMAINS for arm in LOOPS]
    return [dict(zip(CASE, case, strict=True)) for case in cases]


def one(case):
    """Return the rows of one case; runs in a process of its own."""
    return [run_case(**case)]


def configuration():
    """Return what determines the results."""
    systems = {"three axioms": AXIOMS, "implication alone": LUKASIEWICZ, "one axiom": MEREDITH}
    return {
        "budget": BUDGET,
        "largest_formula": LIMIT,
        "drawn": {"far": FAR, "ladder": LADDER, "seed": SEED},
        "axioms": {name: list(map(show, own.values())) for name, own in systems.items()},
        "goals": {name: len(own.target()) for name, own in DOMAINS.items()},
        "circuits": list(circuits.GOALS),
        "settings": dataclasses.asdict(Settings()),
    }


SWEEPS = {"proofs_domains": (sweeps.left(plan, CASE), one)}


if __name__ == "__main__":
    import sweep_domains  # by its name, under which the processes of joblib can import it

    sweeps.command(sweep_domains, sweep_domains.SWEEPS, sweep_domains.configuration)
