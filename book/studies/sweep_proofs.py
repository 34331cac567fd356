"""The sweep behind chapter 15: which goals each way of searching proves, at equal budget.

A *case* is one arm at one setting: a step size, a K, a number of steps T, and a seed for what is
random.  All arms combine formulas in a table of their own, which counts what they attempt, failures
included, and stops them at the budget; none may combine a goal, unless the arm says so.  Cases run
in parallel through joblib, each on one thread; a case that ends is stored at once, and the next run
goes on with the rest.

The genetic algorithm's choices are made before by its own sweep, on seeds of their own.  A third
sweep measures the credit itself: its rank correlation with what mass on a lemma does to the loss.
"""

import dataclasses
import functools
import itertools
import time

from prosper_utils.blending import search, worth
from prosper_utils.blending.detachment import enumerate_theorems, parse
from prosper_utils.blending.distributions import distribution, support
from prosper_utils.blending.evolution import (
    Settings,
    detachment_table,
    evolve,
    goal_weights,
    loops,
    padded,
    proofs,
    propagate,
)
from prosper_utils.study import results
from prosper_utils.study.comparison import rank_correlation

import numpy as np
import sweeps

SHORTEST = {  # the shortest known proofs, from the list of the Metamath project
    "Cpp": "DD211",
    "CNpCpq": "DD2D131",
    "CCpCpqCpq": "DD22D21",
    "CCpqCCrpCrq": "DD2D121",
    "CCpqCCpCqrCpr": "DD2D1D221",
    "CpCCpqq": "DD2D1D2DD2111",
    "CpCNpq": "DD2D1D2DD2D1311",
    "CCpqCCqrCpr": "DD2D1D2DD2D1211",
    "CNNpp": "DD2DD2D13DD2D1311",
    "CCpCqrCCspCCsqCsr": "DD2D1D2D12DD2D121",
    "CpNNp": "D3DD2DD2D13DD2D1311",
    "CCpCqrCqCpr": "DD2D1DD22D11DD2D112",
    "CNNpCCpqq": "DD2D1D2DD211DD2D13DD2D131",
    "CCpCqrCCpCrsCpCqs": "DD2D12D2D1DD2D1D2DD2D1211",
    "CNCpNqq": "D3DD2D1D3DD2DD2D13DD2D13111",
    "CCCNpqrCpr": "DD2D1DD22D1DD2D1D2DD2D13111",
    "CCNpqCNqp": "DD2D13D2D1D3DD2DD2D13DD2D1311",
    "CCpNqCqNp": "DD2D13DD2D1DD22D2DD2D13DD2D1311",
    "CNCpqCNpr": "DD2D1DD22D1DD2D131DD2D11DD2D131",
    "CpCqNCpNq": "DD2D13DD2D1D2DD2DD2D13DD2D13111",
    "CNCpNqCrq": "DD2D13DD2D1DD22D11DD2D11DD2D131",
    "CCNppp": "DD2DD2D13D2DD2D1311",
    "CCCpqrCNpr": "DD2D1DD22D1DD2D1311",
    "CNCpqCqr": "DD2D1DD22D11DD2D11DD2D131",
}
BUDGET, LIMIT = 200_000, 25
CHECKPOINTS = (100, 200, 500, 1000, 2000, 5000, *range(10_000, BUDGET + 1, 10_000))
STEP_SIZES, KEEPS, MIDDLE = (0.01, 0.02, 0.03, 0.05), (100, 150, 200), (0.03, 150)
LOOPS = {  # arms of the loop, and how each differs from the blend
    "blend": {},
    "identity": {"credit": "identity"},
    "fixed": {"credit": "fixed"},
    "fitness": {"credit": "fitness"},
    "a = 0": {"persistence": 0.0},
    "a = 0.2": {"persistence": 0.2},
    "a = 0.8": {"persistence": 0.8},
    "random growth": {"credit": "random"},
    "multiplicative": {"credit": "multiplicative"},
    "purge every 1": {"purge_every": 1},
    "purge every 2": {"purge_every": 2},
    "purge every 5": {"purge_every": 5},
    "purge every 20": {"purge_every": 20},
    "never purge": {"purge_every": 1000},  # a run ends before, after 200 loops
    "persistence without credit": {"persists": "value"},
    "identity, persistence without credit": {"credit": "identity", "persists": "value"},
    "without persistence": {"persists": "axioms"},
    "identity, without persistence": {"credit": "identity", "persists": "axioms"},
    "all generated": {"credit": "generated"},
    "1 round": {"rounds": 1},
    "2 rounds": {"rounds": 2},
    "falling steps": {"step_decay": 0.5},
}
LIGHT = functools.partial(search.lightest_first, weight=search.size_and_proof)
SEARCHES = {
    "breadth first": search.breadth_first,
    "lightest first": search.lightest_first,
    "light and short first": LIGHT,
}
PROVERS = {  # the same, as provers do it
    "breadth first, subsumption": functools.partial(search.breadth_first, subsumption=True),
    "lightest first, subsumption": functools.partial(search.lightest_first, subsumption=True),
    "lightest first, subsumption, by age": functools.partial(
        search.lightest_first, subsumption=True, by_age=5
    ),
    "light and short first, subsumption": functools.partial(LIGHT, subsumption=True),
    "light and short first, subsumption, by age": functools.partial(
        LIGHT, subsumption=True, by_age=5
    ),
}
GENETIC = {f"genetic, {fitness}": {"fitness": fitness} for fitness in search.FITNESS}
TRIALS = [
    {"population": population, "mutation": mutation}
    for population, mutation in itertools.product((50, 200, 800), (0.1, 0.4, 0.7))
]
STORED, HELD_OUT, LONG = ", goals stored", ", held out", ", ten budgets"
CASE = ("arm", "steps", "step_size", "keep", "seed")
QUALITY = {"loops": (1, 3, 5, 10), "mass": 0.02, "length": 7, "modes": ("support", "identity")}
WIDTHS = {1: (150, 400, 1_000_000), 2: (150, 400)}  # by T: how many weights a step keeps


def split(seed):
    """Return half of the goals, drawn by the seed, and the other half."""
    names = np.random.default_rng(seed).permutation(sorted(SHORTEST)).tolist()
    return names[: len(names) // 2], names[len(names) // 2 :]


def base(arm):
    """Return the name of an arm without what follows it: how goals and budget are dealt with."""
    return arm.removesuffix(LONG).removesuffix(STORED).removesuffix(HELD_OUT)


def run_case(arm, steps, step_size, keep, seed, trial=None, budget=None):
    """Return the row of one case."""
    name, stored = base(arm), STORED in arm
    goals, others = split(seed) if arm.endswith(HELD_OUT) else (list(SHORTEST), [])
    budget = budget or BUDGET * (10 if arm.endswith(LONG) else 1)
    table = detachment_table(limit=LIMIT, budget=budget)
    target, begin = goal_weights(goals), time.perf_counter()
    history, weights, options = [], {}, {}
    if plain := (SEARCHES | PROVERS).get(name):
        plain(table, () if stored else target)
    elif name in GENETIC:
        options = GENETIC[name] | (trial or chosen_options(name))
        settings = search.Breeding(**options, store_goals=stored, seed=seed)
        history = search.breed(table, target, settings).rows
    else:
        options = LOOPS[name] | {"steps": steps, "step_size": step_size, "keep": keep}
        settings = Settings(**options, store_goals=stored, seed=seed)
        found, weights = evolve(table, target, settings)
        history = found.rows
    seconds = time.perf_counter() - begin
    case = dict(zip(CASE, (arm, steps, step_size, keep, seed), strict=True))
    found = outcome(table, target, goal_weights(others) if others else {}, history)
    found["lemmas"] = lemmas(table, target, weights)
    found["options"] = " ".join(f"{key}={value}" for key, value in options.items())
    return case | found | {"seconds": seconds}


def outcome(table, target, others, history):
    """Return what a run came to; a list of things is a text with spaces between them.

    `proved` counts the goals and `held_out` those it was not given; `curve` is the goals proved at
    each checkpoint; `divergence` holds combinations:divergence, from the last loop or generation
    before each; `hits` holds goal:combinations:proof, in order.
    """
    hits = proofs(table, target)
    when = [hit["combinations"] for hit in hits.values()]
    last = {}
    for checkpoint in CHECKPOINTS:
        before = [r for r in history if r["combinations"] <= checkpoint]
        if before:
            last[before[-1]["combinations"]] = before[-1]["divergence"]
    held_out = proofs(table, others)
    return {
        "proved": len(hits),
        "held_out": len(held_out) if others else None,
        "combinations": len(table.products),
        "formulas": len(table.objects),
        "loops": len(history),
        "curve": " ".join(str(sum(n <= c for n in when)) for c in CHECKPOINTS),
        "divergence": " ".join(f"{n}:{value:.4f}" for n, value in last.items()),
        "hits": " ".join(f"{g}:{hit['combinations']}:{hit['proof']}" for g, hit in hits.items()),
    }


def lemmas(table, target, weights, most=16):
    """Return the heaviest formulas as a text of formula:weight:uses:proof.

    `uses` counts the goals met whose kept proof the formula is in.
    """
    met = [table.places[g] for g in target if g in table.places]
    proved = [search.used(table, k) for k in met]
    entries = []
    for text, weight in list(weights.items())[:most]:
        formula = parse(text)
        uses = sum(table.places[formula] in parts for parts in proved)
        entries.append(f"{text}:{weight:.4f}:{uses}:{table.proof(formula)}")
    return " ".join(entries)


def chosen_options(arm):
    """Return the trial in which an arm proved most goals, on average over its seeds."""
    table, _ = results.load("proofs_tuning")
    means = table[table.arm == arm].groupby("trial").proved.mean()
    if means.empty:
        said = f"expected stored trials of arm {arm}, found none: run it first"
        raise LookupError(f"proofs_tuning: {said}")
    return TRIALS[int(means.idxmax())]


def cases_of(arms, steps=(2,), settings=(MIDDLE,), seeds=(0,)):
    """Return the cases of a part of the plan; K and step size are zero where there are none."""
    cases = []
    for arm, count, seed in itertools.product(arms, steps, seeds):
        name = base(arm)
        for step_size, keep in settings if name in LOOPS else [(0.0, 0)]:
            key = (arm, count if name in LOOPS else 0, step_size, keep, seed)
            cases.append(dict(zip(CASE, key, strict=True)))
    return cases


def plan():
    """Return every case, those that the claims of the chapter need first."""
    grid = list(itertools.product(STEP_SIZES, KEEPS))
    middle = [setting for setting in grid if setting[1] == MIDDLE[1]]
    arms, purges = list(LOOPS), [arm for arm in LOOPS if arm.startswith("purge")]
    cases = cases_of(["blend", *SEARCHES, "identity", "fixed", "fitness", "a = 0"], settings=grid)
    cases += cases_of(GENETIC, seeds=range(6))
    cases += cases_of(("blend", "identity"), steps=(1, 3), settings=grid)
    cases += cases_of(["random growth"], seeds=range(6))
    cases += cases_of([arm + HELD_OUT for arm in ("blend", "identity", *SEARCHES)], seeds=range(6))
    cases += cases_of([arm + STORED for arm in ("blend", "identity", *SEARCHES)], settings=grid)
    cases += cases_of([arm + STORED for arm in GENETIC], seeds=range(3))
    cases += cases_of(("a = 0.2", "a = 0.8", "multiplicative"), settings=grid)
    cases += repaired(grid)
    return cases + cases_of([arm for arm in arms if arm in purges], settings=middle)


def repaired(grid):
    """Return the cases of the arms that take the others apart, and of the stronger searches."""
    persistence = [arm for arm in LOOPS if "persistence" in arm]
    cases = cases_of(persistence, settings=grid)
    cases += cases_of(PROVERS)
    cases += cases_of([arm + STORED for arm in ("fitness", "all generated")], settings=grid)
    cases += cases_of(("all generated", "1 round", "falling steps", "never purge"), settings=grid)
    cases += cases_of(("1 round", "2 rounds"), steps=(3,), settings=grid)
    cases += cases_of([arm + STORED for arm in (*persistence, *PROVERS)], settings=grid)
    cases += cases_of([arm + HELD_OUT for arm in PROVERS], seeds=range(6))
    return cases + cases_of([arm + LONG for arm in PROVERS])


def tuning():
    """Return the trials of the genetic algorithm, on two seeds that no other run has."""
    return [
        case | {"trial": trial}
        for trial in range(len(TRIALS))
        for case in cases_of(GENETIC, seeds=(100, 101))
    ]


def one(case):
    """Return the rows of one case; runs in a process of its own."""
    if "trial" not in case:
        return [run_case(**case)]
    trial = case["trial"]
    return [run_case(**case | {"trial": TRIALS[trial]}) | {"trial": trial}]


def quality():
    """Return the cases of the measurement of credit."""
    return [
        {"steps": steps, "keep": keep, "loop": loop}
        for steps, widths in WIDTHS.items()
        for keep in widths
        for loop in QUALITY["loops"]
    ]


@functools.cache
def weights_at(loop):
    """Return {formula: weight} before a loop of the blend at the middle setting."""
    step_size, keep = MIDDLE
    table, target = detachment_table(limit=LIMIT), goal_weights(SHORTEST)
    settings = Settings(step_size=step_size, keep=keep, loops=loop)
    for last in loops(table, target, settings):
        p = last.states[0]
    return {table.objects[k]: float(p[k]) for k in support(p)}


def credit_case(case):
    """Return the rows of one measurement of `worth`, one for each credit mode.

    Lemmas are what the blend's next two steps generate, and the theorems with short proofs, that
    have no weight and are no goals.  They are the extra support of the mode "support".
    """
    begin, target = time.perf_counter(), goal_weights(SHORTEST)
    settings = Settings(steps=case["steps"], keep=case["keep"])
    table, p, extra = probe(weights_at(case["loop"]))
    zero = [k for k in extra if p[k] == 0 and table.objects[k] not in target]
    drop = worth.drops(table, p, zero, target, settings, QUALITY["mass"])
    rows = []
    for mode in ("support", "identity", "fixed"):
        chosen = dataclasses.replace(settings, credit=mode)
        credit = worth.credit(table, p, extra, target, chosen)[zero]
        found = rank_correlation(credit, drop)
        rows.append(case | {"mode": mode, "lemmas": len(zero), "correlation": found})
    seconds = (time.perf_counter() - begin) / len(rows)
    return [row | {"seconds": seconds} for row in rows]


def probe(weights):
    """Return a table without a budget, the weights in it, and the places of the extra support."""
    table = detachment_table(limit=LIMIT)
    short = enumerate_theorems(QUALITY["length"], limit=LIMIT)
    for x in (*weights, *short):
        if x not in table.places:
            table.places[x] = len(table.objects)
            table.objects.append(x)
            table.lengths.append(1)
    p = distribution(table.places, weights)
    image = propagate(table, p, Settings(keep=MIDDLE[1]))[-1]
    extra = sorted({*support(image, 1e-6), *(table.places[x] for x in short)})
    return table, padded(p, table), extra


SWEEPS = {
    "proofs_tuning": (sweeps.left(tuning, (*CASE, "trial")), one),
    "proofs": (sweeps.left(plan, CASE), one),
    "proofs_credit": (sweeps.left(quality, ("steps", "keep", "loop")), credit_case),
}


def configuration():
    """Return what determines the results."""
    return {
        "goals": SHORTEST,
        "budget": BUDGET,
        "largest_formula": LIMIT,
        "settings": dataclasses.asdict(Settings()),
        "arms": LOOPS,
        "trials": TRIALS,
        "breeding": dataclasses.asdict(search.Breeding()),
        "credit": QUALITY | {"keep": WIDTHS},
    }


if __name__ == "__main__":
    import sweep_proofs  # by its name, under which the processes of joblib can import it

    sweeps.command(sweep_proofs, sweep_proofs.SWEEPS, sweep_proofs.configuration)
