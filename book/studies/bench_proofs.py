"""How fast proofs are looked for, and where the time goes: `make bench` stores it for chapter 15.

Each way of searching spends the budget of the chapter on its 24 goals, on one thread, after a
warm-up.  Its speed is the number of detachments over processor time, so that other work on the
machine does not count; the best of some runs stands.  One more run is looked at every few
milliseconds of its time, and what has passed since the last look goes to the place where it is.
"""

import collections
import os
import signal
import time

from prosper_utils.blending import search
from prosper_utils.blending.evolution import Settings, detachment_table, evolve, goal_weights
from prosper_utils.blending.kernel import COMPILED
from prosper_utils.study import results

import tensorflow as tf
from sweep_proofs import BUDGET, LIGHT, LIMIT, MIDDLE, PROVERS, SHORTEST
from tqdm import tqdm

BLEND = Settings(step_size=MIDDLE[0], keep=MIDDLE[1])
ARMS = {
    "breadth first": search.breadth_first,
    "breadth first, subsumption": PROVERS["breadth first, subsumption"],
    "light and short first": LIGHT,
    "light and short first, subsumption": PROVERS["light and short first, subsumption"],
    "blend": lambda table, target: evolve(table, target, BLEND),
}
PLACES = {  # the end of a file's path, or of it and the name of a function in it
    "kernel.py": "unification",
    "detachment.py:subsume": "subsumption",
    "detachment.py:add": "subsumption",
    "evolution.py:many": "table",
    "evolution.py:at_once": "table",
    "evolution.py:_enter": "table",
    "distributions.py:pairs_at_once": "table",
}
REST = "rest"
WHERE = ("unification", "table", "subsumption", "TensorFlow", REST)
LOOK = 0.002  # seconds of processor time


def place(frame):
    """Return where a frame is: the innermost of its callers and itself that is in a known place."""
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        name = os.path.basename(file)
        if found := PLACES.get(f"{name}:{function}") or PLACES.get(name):
            return found
        if f"{os.sep}tensorflow{os.sep}" in file:
            return "TensorFlow"
        frame = frame.f_back
    return REST


def shares(run, place=place):
    """Run a function; return {place: share of its processor time}, of all places that were seen.

    What has passed since the last look when it ends counts as rest.

    Args:
        run: a function without arguments.
        place: function of a frame that returns its place.
    """
    spent, last = collections.Counter(), time.process_time()

    def look(_, frame):
        nonlocal last
        now = time.process_time()
        spent[place(frame)] += now - last
        last = now

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, LOOK, LOOK)
    try:
        run()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    spent[REST] += time.process_time() - last
    return {name: seconds / spent.total() for name, seconds in spent.items()}


def counted(table):
    """Return {way to ask: number of products asked for}; it grows as a table is asked.

    What is new to `at_once` is asked of `many` again.
    """
    asked = collections.Counter()

    def watched(name, ask):
        def asking(pairs):
            asked[name] += len(pairs)
            return ask(pairs)

        return asking

    for name in ("many", "at_once"):
        setattr(table, name, watched(name, getattr(table, name)))
    return asked


def measured(arm, budget=BUDGET, repeats=9):
    """Return the row of one way of searching."""
    target, best = goal_weights(SHORTEST), float("inf")
    ARMS[arm](detachment_table(limit=LIMIT, budget=budget // 20), target)
    for _ in range(repeats):
        table, begin = detachment_table(limit=LIMIT, budget=budget), time.process_time()
        ARMS[arm](table, target)
        best = min(best, time.process_time() - begin)
    watched = detachment_table(limit=LIMIT, budget=budget)
    asked = counted(watched)
    found = shares(lambda: ARMS[arm](watched, target))
    row = {"arm": arm, "detachments": len(table.products), "seconds": best}
    row |= {"per_second": len(table.products) / best, "asked": max(asked.values())}
    return row | {f"share_{name}": found.get(name, 0.0) for name in WHERE}


def main():
    """Measure every way of searching on one thread, and store the rows."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    begin = time.perf_counter()
    rows = [measured(arm) for arm in tqdm(ARMS)]
    configuration = {"budget": BUDGET, "largest_formula": LIMIT, "threads": 1}
    configuration |= {"step_size": BLEND.step_size, "keep": BLEND.keep, "compiled": COMPILED}
    results.save("proofs_speed", rows, configuration, seconds=time.perf_counter() - begin)


if __name__ == "__main__":
    main()
