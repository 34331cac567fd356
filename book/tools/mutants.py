r"""Mutants: small faults planted in the package, one at a time; do the tests of a module see them?

A *mutant* is a module with one operator, comparison, number or the like replaced by another one.
It is *caught* if a test of the module fails or does not end.  The score of a module is the share

.. math:: \frac{\text{caught}}{\text{judged} - \text{equivalent}} ,

where a mutant is equivalent if it does the same as the module: that is a verdict, written by hand
into the column `verdict` of the stored survivors.  It stays there until the line changes.

All mutants of a module stand in one shuffled list, which follows from its text.  They are judged
from the first on, and each is stored as soon as it is: those judged so far are a random sample, and
the next run goes on behind them, on any machine.  The sample bounds the score of all from below; in
this bound a survivor counts as such though there is a test now, since others like it have none.

Cosmic Ray plants them, since it writes each into a file: TensorFlow's threads do not outlive the
fork that other tools make after a first run of the tests.  Each is judged in a process of its own
(see `trial`), in one of as many copies of the project as are judged at a time.
"""

import argparse
import contextlib
import difflib
import functools
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from prosper_utils.study import results

import pandas as pd
import trial
from scipy import stats
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
WORK = ROOT / "_build" / "mutants"
SCORES, SURVIVORS = "mutants", "mutants_survivors"
COLUMNS = {
    SCORES: [
        "module",
        "date",
        "state",
        "mutants",
        "judged",
        "caught",
        "equivalent",
        "score",
        "at_least",
    ],
    SURVIVORS: ["module", "place", "where", "line", "mutant", "operator", "verdict"],
}
LAST = 1e6  # seconds, more than any test takes
ROUND = 10  # so many of a module are judged before the next module's turn
LEFT_OUT = ".git", ".venv", "_build", "notebooks", "__pycache__", ".hypothesis"
SETTINGS = {  # of the processes that run tests: a thread each, and no plugins, which load slowly
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
PACKAGES = (*results.PACKAGES, "cosmic-ray")
OWED = "a test is owed"
TESTED = "tested since"
EQUIVALENT = "equivalent"  # so a verdict begins
WINGS = ("lookahead", "pruning", "blending", "study")
LOOKED_AT = ("study/plots",)  # sizes and lines of figures, which people judge by looking
OF_EVERY_MODULE = "test_defaults", "test_seeds"
TESTS = {  # of modules whose tests are not, or not only, in the file of the same name
    "lookahead/chunks": (
        "lookahead/test_chunks",
        "lookahead/test_meta_gradient",
        "lookahead/test_streaming",
    ),
    "lookahead/descent": (
        "lookahead/test_descent",
        "lookahead/test_meta_gradient",
        "lookahead/test_streaming",
    ),
    "lookahead/streaming": ("lookahead/test_streaming", "lookahead/test_bounds"),
    "pruning/networks": ("pruning/test_networks", "pruning/test_losses", "pruning/test_mode"),
    "pruning/replacement": ("pruning/test_mode",),
    "study/hopes": ("study/test_journal", "study/test_attempt"),
}
CHANGES = {
    "Binary": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Div Mod_FloorDiv Pow_Mul RShift_LShift "
    "LShift_RShift BitOr_BitAnd BitAnd_BitOr BitXor_BitAnd",
    "Comparison": "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt "
    "Is_IsNot IsNot_Is",
    "Unary": "USub_UAdd Delete_Not Delete_Invert",
}
OPERATORS = {
    "core/AddNot",
    "core/NumberReplacer",
    "core/RemoveDecorator",
    "core/ReplaceAndWithOr",
    "core/ReplaceBreakWithContinue",
    "core/ReplaceContinueWithBreak",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceOrWithAnd",
    "core/ReplaceTrueWithFalse",
    "core/ZeroIterationForLoop",
} | {
    f"core/Replace{k}Operator_{change}" for k, names in CHANGES.items() for change in names.split()
}


def modules():
    """Return {name: paths of its tests} for every module that mutants are made of."""
    package = ROOT / "prosper_utils"
    found = [f"{wing}/{p.stem}" for wing in WINGS for p in sorted((package / wing).glob("*.py"))]
    found = [name for name in found if not name.endswith("__init__") and name not in LOOKED_AT]
    own = {name: ("{}/test_{}".format(*name.split("/")),) for name in found} | TESTS
    return {name: [f"tests/{test}.py" for test in (*own[name], *OF_EVERY_MODULE)] for name in found}


def source(name):
    """Return the path of a module, from the root of the project."""
    return Path("prosper_utils") / f"{name}.py"


# The mutants of a module -------------------------------------------------------------------------


@functools.cache
def listed(name):
    """Return (digest of a module and the operators, its mutants in shuffled order)."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.ast.ast_query import ASTQuery
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_item import MutationSpec

    text, found = (ROOT / source(name)).read_text(), []
    nodes = list(ast_nodes(get_ast(text)))
    for operator in sorted(OPERATORS):
        positions = get_operator(operator)().mutation_positions
        for count, (node, ends) in enumerate((n, ends) for n in nodes for ends in positions(n)):
            where = ASTQuery(node).get_definition_name()
            if not is_bare_star(node):
                found.append(MutationSpec(source(name), operator, count, *ends, {}, where))
    state = _digest(text + " ".join(sorted(OPERATORS)))[:8]
    return state, sorted(found, key=lambda m: _digest(f"{state} {m.operator_name} {m.occurrence}"))


def is_bare_star(node):
    """Return whether a node is the star before parameters by keyword, which is no product."""
    return node.type == "operator" and node.parent.type == "parameters"


def _digest(text):
    """Return a number in hexadecimal that follows from a text, on any machine."""
    return hashlib.sha256(text.encode()).hexdigest()


def in_words(mutation):
    """Return what a mutant is: its function, the line, what became of it, the operator."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    text = (ROOT / mutation.module_path).read_text()
    operator = get_operator(mutation.operator_name)()
    lines = difflib.ndiff(
        text.splitlines(), mutate_code(text, operator, mutation.occurrence).splitlines()
    )
    changed = {sign: [x[2:].strip() for x in part] for sign, part in _by_sign(lines).items()}
    return {
        "where": mutation.definition_name or "",
        "line": " ".join(changed.get("-", ())),
        "mutant": " ".join(changed.get("+", ())),
        "operator": mutation.operator_name.removeprefix("core/"),
    }


def _by_sign(lines):
    found = {}
    for line in lines:
        found.setdefault(line[0], []).append(line)
    return found


# Judging ----------------------------------------------------------------------------------------


@functools.cache
def copy_of(thread):
    """Return the folder with the copy of the project that a thread changes."""
    folder = WORK / "copies" / str(thread)
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return folder


def passes(name, folder, limit=None, order=None):
    """Return (whether the tests of a module pass in a copy of the project, what was noted of them).

    Args:
        name: of the module.
        folder: the copy.
        limit: after how many seconds they are stopped, and do not pass.
        order: as for `trial.run`, which says what is noted, too.
    """
    note = folder / trial.FOUND
    note.unlink(missing_ok=True)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(trial.THEIRS)
    process = server.Process(target=trial.run, args=(folder, modules()[name], order))
    process.start()
    process.join(limit)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == 0, json.loads(note.read_text()) if note.is_file() else {}


def timed(name):
    """Return (after how many seconds the tests of a module do not end, what was noted of them).

    The limit is far longer than they take.

    Raises:
        ValueError: if they fail without a fault.
    """
    folder, start = copy_of(threading.get_ident()), time.monotonic()
    passed, found = passes(name, folder)
    if not passed:
        said = (folder / trial.SAID).read_text()[-2000:]
        raise ValueError(f"{', '.join(modules()[name])}: expected tests that pass, found\n{said}")
    return 30 + 3 * (time.monotonic() - start), found


def survives(name, mutation, limit, noted):
    """Return whether the tests of a module pass with a mutation in it.

    Those that call the function go first, and of them the shortest; one that has caught a mutant
    counts for half as long, since it may catch others.

    Args:
        name: of the module.
        mutation: one of its mutants.
        limit, noted: as `timed` returns them.
    """
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator

    folder, operator = copy_of(threading.get_ident()), get_operator(mutation.operator_name)()
    seconds, calls = noted["seconds"], noted["called"]
    others = {test for test in seconds if mutation.definition_name not in calls.get(test, ())}
    order = {test: s + LAST * (test in others) for test, s in seconds.items()}
    with use_mutation(folder / mutation.module_path, operator, mutation.occurrence):
        survived, found = passes(name, folder, limit, order)
    if found.get("failed") in seconds:
        seconds[found["failed"]] /= 2
    return survived


def in_order(waiting, jobs, end):
    """Yield whether each mutant survives, in order, with a progress bar.

    How long the tests of a module take is measured once, before the first mutant.

    Args:
        waiting: pairs (module, mutation).
        jobs: how many at a time.
        end: the time at which no other module is measured and no other mutant is begun.
    """
    import joblib

    def each(call, cases, unit):
        begun = itertools.takewhile(lambda _: time.monotonic() < end, cases)
        work = joblib.Parallel(jobs, prefer="threads", return_as="generator", pre_dispatch="n_jobs")
        return tqdm(work(joblib.delayed(call)(*x) for x in begun), total=len(cases), unit=unit)

    names = list(dict.fromkeys(name for name, _ in waiting))
    times = dict(zip(names, each(timed, [(name,) for name in names], "module"), strict=False))
    cases = [(*case, *times.get(case[0], ())) for case in waiting]
    yield from each(survives, cases, "mutant")


def run(names, each, jobs, end, again=False):
    """Judge mutants of modules, and store each; arguments as for `left` and `in_order`."""
    places, before = left(names, each, again), time.monotonic()
    waiting = [(name, listed(name)[1][place - 1]) for name, place in places]
    for (name, place), survived in zip(places, in_order(waiting, jobs, end), strict=False):
        now = time.monotonic()
        record(name, place, survived, now - before)
        before = now


def left(names, each=None, again=False):
    """Return pairs (module, place in its list) of mutants to be judged, all modules in turn.

    Args:
        names: of modules.
        each: how many of each module shall have been judged in the end; None for all.
        again: whether to take instead the survivors that are owed a test.
    """
    found = []
    for name in names:
        judged, survivors = so_far(name)
        if again:
            found += [(name, row["place"]) for row in survivors if row["verdict"] == OWED]
        else:
            last = min(each or math.inf, len(listed(name)[1]))
            found += [(name, place) for place in range(judged + 1, last + 1)]
    return sorted(found, key=lambda pair: (pair[1] - 1) // ROUND)


# What is stored ---------------------------------------------------------------------------------


def stored(table, name=None):
    """Return the rows of a stored table, of one module or all; none if nothing is stored yet."""
    path = results.FOLDER / f"{table}.csv"
    if not path.is_file():
        return []
    rows = pd.read_csv(path, keep_default_na=False, dtype={"state": str}).to_dict("records")
    return [row for row in rows if name in (None, row["module"])]


def so_far(name):
    """Return (how many mutants of a module have been judged, its survivors).

    If the module has changed since, none has; verdicts of before wait at place 0 for their lines.
    """
    survivors = stored(SURVIVORS, name)
    for row in stored(SCORES, name):
        if row["state"] == listed(name)[0]:
            return row["judged"], [s for s in survivors if s["place"] <= row["judged"]]
    kept = [row for row in survivors if row["verdict"].startswith(EQUIVALENT)]
    return 0, [row | {"place": 0} for row in kept]


def record(name, place, survived, seconds=0.0):
    """Store what became of the mutant at a place in the list of a module.

    A verdict stays with its line; one that survived before and does not now has a test since.
    """
    (state, mutants), (judged, rows) = listed(name), so_far(name)
    verdicts = {key(row): row["verdict"] for row in rows if row["verdict"] != TESTED}
    before = [row for row in rows if row["place"] == place]
    rows = [row for row in rows if row["place"] != place]
    if survived:
        row = {"module": name, "place": place} | in_words(mutants[place - 1])
        rows = [r for r in rows if r["place"] or key(r) != key(row)]
        rows.append(row | {"verdict": verdicts.get(key(row), OWED)})
    rows += [row | {"verdict": TESTED} for row in before if not survived]
    judged = max(judged, place)
    if judged == len(mutants):
        rows = [row for row in rows if row["place"]]
    replace(SURVIVORS, name, rows, seconds)
    replace(SCORES, name, [scored(name, state, len(mutants), judged, rows)], seconds)


def key(row):
    """Return what a verdict belongs to."""
    return row["module"], row["line"], row["mutant"]


def scored(name, state, mutants, judged, rows):
    """Return the row of a module, with shares in percent: now, and of all at least.

    Args:
        name, state: the module, and the digest of its list.
        mutants, judged: how many there are, and how many of them were judged.
        rows: its survivors, each with a verdict.
    """
    rows = [row for row in rows if 0 < row["place"] <= judged]
    same = sum(row["verdict"].startswith(EQUIVALENT) for row in rows)
    since = sum(row["verdict"] == TESTED for row in rows)
    caught, counted = judged - len(rows) + since, judged - same
    share = caught / counted if counted else 1.0
    least = share if judged == mutants else at_least(caught - since, counted)
    return {
        "module": name,
        "date": time.strftime("%Y-%m-%d"),
        "state": state,
        "mutants": mutants,
        "judged": judged,
        "caught": caught,
        "equivalent": same,
        "score": round(100 * share, 1),
        "at_least": round(100 * least, 1),
    }


def at_least(caught, judged, level=0.95):
    """Return the share of all that is caught, at least: the exact bound of Clopper and Pearson."""
    if not judged:
        return 0.0
    return stats.binomtest(caught, judged, alternative="greater").proportion_ci(level).low


def replace(table, name, rows, seconds=0.0):
    """Store the rows of one module in place of those it had; the seconds add up."""
    rows = [row for row in stored(table) if row["module"] != name] + rows
    path = results.FOLDER / f"{table}.json"
    if path.is_file():
        seconds += json.loads(path.read_text())["seconds"]
    rows = pd.DataFrame(rows, columns=COLUMNS[table]).sort_values(COLUMNS[table][:2])
    configuration = {"operators": sorted(OPERATORS), "tests": modules()}
    results.save(table, rows, configuration, seconds=seconds, packages=PACKAGES)


def verdicts():
    """Count the verdicts again, after some were written into the table of survivors."""
    for row in stored(SCORES):
        name, state, mutants, judged = (row[x] for x in ("module", "state", "mutants", "judged"))
        found = scored(name, state, mutants, judged, stored(SURVIVORS, name))
        replace(SCORES, name, [found | {"date": row["date"]}])


# A sample ---------------------------------------------------------------------------------------


def unchanged():
    """Return the rows of the stored scores whose modules are still those that were judged."""
    return [row for row in stored(SCORES) if row["state"] == listed(row["module"])[0]]


def sample(count, seed, jobs, end):
    """Judge again mutants that are drawn from those with a stored score; return how it went.

    A module that has changed since has other mutants, and is left out.

    Returns:
        (how many were judged, how many of them were caught, those that were not, in words).
    """
    rows = unchanged()
    judged = [(r["module"], m) for r in rows for m in listed(r["module"])[1][: r["judged"]]]
    drawn = random.Random(seed).sample(judged, min(count, len(judged)))
    words = [{"module": name} | in_words(mutation) for name, mutation in drawn]
    same = {key(r) for r in stored(SURVIVORS) if r["verdict"].startswith(EQUIVALENT)}
    waiting = [i for i, row in enumerate(words) if key(row) not in same]
    outcomes = list(in_order([drawn[i] for i in waiting], jobs, end))
    missed = [words[i] for i, survived in zip(waiting, outcomes, strict=False) if survived]
    return len(outcomes), len(outcomes) - len(missed), missed


def fallen(judged_now, caught, table, level=0.01):
    """Return whether so few caught of a sample would be a chance below `level` at the stored score.

    Args:
        judged_now, caught: how many mutants of the sample were judged, and caught.
        table: the rows of the stored scores.
        level: the chance of a false alarm that is accepted.
    """
    if not judged_now:
        return False
    counted = sum(row["judged"] - row["equivalent"] for row in table)
    share = sum(row["caught"] for row in table) / counted
    return bool(stats.binom.cdf(caught, judged_now, share) < level)


def main():
    """Judge the mutants of the modules named on the command line, or all, or a random sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="such as pruning/masks")
    parser.add_argument("--each", type=int, metavar="N", help="until N of each module are judged")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--again", action="store_true", help="judge survivors that are owed a test")
    parser.add_argument("--verdicts", action="store_true", help="only count the verdicts again")
    parser.add_argument("--sample", type=int, metavar="N", help="judge N drawn at random")
    parser.add_argument("--seed", default=time.strftime("%G-%V"), help="of the sample")
    arguments = parser.parse_args()
    known, end = modules(), time.monotonic() + 60 * arguments.minutes
    if unknown := set(arguments.modules) - set(known):
        parser.error(f"expected some of {', '.join(known)}; found {', '.join(sorted(unknown))}")
    if arguments.verdicts:
        verdicts()
        return 0
    shutil.rmtree(WORK / "copies", ignore_errors=True)
    os.environ |= SETTINGS
    try:
        if arguments.sample:
            return _sampled(arguments, end)
        names = arguments.modules or list(known)
        run(names, arguments.each, arguments.jobs, end, arguments.again)
        for name in names:
            for row in stored(SCORES, name):
                print("{module}: {judged} of {mutants} judged, {score:.1f}% caught".format(**row))
    finally:
        shutil.rmtree(WORK / "copies", ignore_errors=True)
    return 0


def _sampled(arguments, end):
    """Judge a sample and print how it went; return the exit status."""
    judged_now, caught, missed = sample(arguments.sample, arguments.seed, arguments.jobs, end)
    for row in missed:
        print(f"not caught: {row['module']} {row['where']}: {row['line']} -> {row['mutant']}")
    low = fallen(judged_now, caught, unchanged())
    print(f"{caught} of {judged_now} caught" + (": the score has fallen" if low else ""))
    return int(low)


if __name__ == "__main__":
    sys.exit(main())
