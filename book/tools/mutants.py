r"""Mutants: small faults planted in the package, one at a time; do the tests of a module see them?

A *mutant* is a module with one operator, comparison, number or the like replaced by another one.
It is *caught* if a test of the module fails or does not end.  The score of a module is the share

.. math:: \frac{\text{caught}}{\text{mutants} - \text{equivalent}} ,

where a mutant is equivalent if it does the same as the module: that is a verdict, written by hand
into the column `verdict` of the stored survivors.  It stays there until the line changes.

Cosmic Ray plants them, since it writes each into a file and starts the tests in a process of their
own: TensorFlow's threads do not outlive the fork that faster tools make after a first run.
Each worker has a copy of the project.  What has been judged is kept under `_build/mutants`, one
session for each state of a module, so that the command goes on where it stopped.
"""

import argparse
import contextlib
import difflib
import functools
import hashlib
import itertools
import json
import os
import random
import shlex
import shutil
import sys
import time
from pathlib import Path

from prosper_utils.study import results

import pandas as pd
from scipy import stats
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
WORK = ROOT / "_build" / "mutants"
SCORES, SURVIVORS = "mutants", "mutants_survivors"
COLUMNS = {
    SCORES: ["module", "date", "mutants", "caught", "equivalent", "score"],
    SURVIVORS: ["module", "where", "line", "mutant", "operator", "verdict"],
}
LEFT_OUT = ".git", ".venv", "_build", "notebooks", "__pycache__", ".hypothesis"
PACKAGES = (*results.PACKAGES, "cosmic-ray")
OWED = "a test is owed"
EQUIVALENT = "equivalent"  # so a verdict begins
WINGS = ("lookahead", "pruning", "blending")
STATISTICS = ("checks", "comparison", "verdicts")  # of study
TESTS = {  # of modules whose tests are not, or not only, in the file of the same name
    "lookahead/chunks": ("lookahead/test_meta_gradient", "lookahead/test_streaming"),
    "lookahead/descent": ("lookahead/test_meta_gradient", "lookahead/test_streaming"),
    "lookahead/streaming": ("lookahead/test_streaming", "lookahead/test_bounds"),
    "pruning/networks": ("pruning/test_networks", "pruning/test_losses", "pruning/test_mode"),
    "pruning/replacement": ("pruning/test_mode",),
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
    found = [name for name in found if not name.endswith("__init__")]
    found += [f"study/{name}" for name in STATISTICS]
    own = {name: ("{}/test_{}".format(*name.split("/")),) for name in found} | TESTS
    return {name: [f"tests/{test}.py" for test in own[name]] for name in found}


def source(name):
    """Return the path of a module, from the root of the project."""
    return Path("prosper_utils") / f"{name}.py"


# One mutant -------------------------------------------------------------------------------------


@functools.cache
def copy():
    """Return the folder of this process with a copy of the project, whose package is imported."""
    folder = WORK / "copies" / str(os.getpid())
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    os.environ["PYTHONPATH"] = str(folder)
    return folder


def command(tests):
    """Return the command that runs tests until one fails."""
    return shlex.join(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    )


def untouched(tests):
    """Return how long the tests of a module take without a fault.

    Raises:
        ValueError: if they fail.
    """
    from cosmic_ray.testing import run_tests
    from cosmic_ray.work_item import TestOutcome

    start = time.monotonic()
    with contextlib.chdir(copy()):
        outcome, said = run_tests(command(tests), 3600)
    if outcome is not TestOutcome.SURVIVED:
        raise ValueError(f"{', '.join(tests)}: expected tests that pass, found\n{said[-2000:]}")
    return time.monotonic() - start


def judge(work, tests, seconds):
    """Return (number of the job, what became of its mutant)."""
    from cosmic_ray.mutating import mutate_and_test

    with contextlib.chdir(copy()):
        return work.job_id, mutate_and_test(work.mutations, command(tests), seconds)


def in_words(work):
    """Return what a mutant is: its function, the line, what became of it, the operator."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    (mutation,) = work.mutations
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


# A module ---------------------------------------------------------------------------------------


def session(name):
    """Return the session of a module as it is now, made if there is none yet, to be closed."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_db import WorkDB
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    state = (ROOT / source(name)).read_text() + " ".join(sorted(OPERATORS))
    digest = hashlib.sha256(state.encode()).hexdigest()[:8]
    path = WORK / f"{name.replace('/', '_')}_{digest}.sqlite"
    if not path.exists():
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = WorkDB(part, WorkDB.Mode.create)
        with contextlib.chdir(ROOT):
            init([source(name)], unfinished, {})
        skipped = [w.job_id for w in unfinished.work_items if not _ours(w)]
        unfinished.set_multiple_results(skipped, WorkResult(WorkerOutcome.SKIPPED))
        unfinished.close()
        part.replace(path)
    return WorkDB(path, WorkDB.Mode.open)


def _ours(work):
    return all(m.operator_name in OPERATORS for m in work.mutations)


def judged(found):
    """Return (all mutants of a session that have been judged, those that survived)."""
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome

    pairs = [(w, r) for w, r in found.completed_work_items if r.worker_outcome != "skipped"]
    broken = [r.output for _, r in pairs if r.worker_outcome is not WorkerOutcome.NORMAL]
    if broken:
        raise RuntimeError(f"expected mutants whose tests ran, found {broken[0]}")
    return [w for w, _ in pairs], [w for w, r in pairs if r.test_outcome is TestOutcome.SURVIVED]


def run(name, tests, jobs, end, again=False):
    """Judge the mutants of a module that are left; return whether none is left.

    Args:
        name, tests: as in `modules`.
        jobs: how many processes.
        end: the time at which no other mutant is begun.
        again: whether the survivors are judged once more, for tests that are new.
    """
    found, begun = session(name), time.monotonic()
    waiting = list(found.pending_work_items) + (judged(found)[1] if again else [])
    if waiting and time.monotonic() < end:
        limit = 30 + 3 * untouched(tests)
        for job, result in in_parallel(waiting, lambda _: (tests, limit), jobs, end, name):
            found.set_result(job, result)
    complete = not found.pending_work_items
    if complete:
        store(name, *judged(found), time.monotonic() - begun)
    found.close()
    return complete


def in_parallel(waiting, options, jobs, end, what):
    """Yield (number of the job, result) of each mutant as it is judged, with a progress bar."""
    import joblib

    work = joblib.Parallel(jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
    begun = itertools.takewhile(lambda _: time.monotonic() < end, waiting)
    done = work(joblib.delayed(judge)(each, *options(each)) for each in begun)
    yield from tqdm(done, what, total=len(waiting), unit="mutant")


# What is stored ---------------------------------------------------------------------------------


def stored(name):
    """Return a stored table, with its columns even if nothing is stored yet."""
    path = results.FOLDER / f"{name}.csv"
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS[name])
    return pd.read_csv(path, keep_default_na=False)


def store(name, mutants, survivors, seconds=0.0):
    """Store the score of a module and its survivors; a verdict stays with its line."""
    others, scores = (
        [row for row in stored(table).to_dict("records") if row["module"] != name]
        for table in (SURVIVORS, SCORES)
    )
    known = {key(row): row["verdict"] for row in stored(SURVIVORS).to_dict("records")}
    rows = [{"module": name} | in_words(work) for work in survivors]
    rows = [row | {"verdict": known.get(key(row), OWED)} for row in rows]
    scores.append(scored(name, len(mutants), rows))
    for table, found in ((SURVIVORS, others + rows), (SCORES, scores)):
        save(table, sorted(found, key=lambda row: row["module"]), seconds)


def key(row):
    """Return what a verdict belongs to."""
    return row["module"], row["line"], row["mutant"]


def scored(name, count, rows):
    """Return the row of a module: how many mutants, caught, equivalent, and the score in percent.

    Args:
        name: the module.
        count: how many mutants were judged.
        rows: its survivors, each with a verdict.
    """
    same = sum(row["verdict"].startswith(EQUIVALENT) for row in rows)
    caught = count - len(rows)
    share = 100 * caught / (count - same) if count > same else 100.0
    return {
        "module": name,
        "date": time.strftime("%Y-%m-%d"),
        "mutants": count,
        "caught": caught,
        "equivalent": same,
        "score": round(share, 1),
    }


def save(table, rows, seconds=0.0):
    """Store a table of mutants with its provenance; the seconds add up."""
    path = results.FOLDER / f"{table}.json"
    if path.is_file():
        seconds += json.loads(path.read_text())["seconds"]
    configuration = {"operators": sorted(OPERATORS), "tests": modules()}
    rows = pd.DataFrame(rows, columns=COLUMNS[table])
    results.save(table, rows, configuration, seconds=seconds, packages=PACKAGES)


def verdicts():
    """Count the verdicts again, after some were written into the table of survivors."""
    survivors = stored(SURVIVORS).to_dict("records")
    rows = [
        scored(
            row["module"], row["mutants"], [s for s in survivors if s["module"] == row["module"]]
        )
        | {"date": row["date"]}
        for row in stored(SCORES).to_dict("records")
    ]
    save(SCORES, rows)


# A sample ---------------------------------------------------------------------------------------


def sample(count, seed, jobs, end):
    """Judge mutants drawn at random from the modules with a stored score; return how it went.

    Returns:
        (how many were judged, how many of them were caught, those that were not, in words).
    """
    same = {
        key(row)
        for row in stored(SURVIVORS).to_dict("records")
        if row["verdict"].startswith(EQUIVALENT)
    }
    tests, works = modules(), []
    for name in stored(SCORES).module:
        found = session(name)
        works += [(name, work) for work in found.work_items if _ours(work)]
        found.close()
    drawn = random.Random(seed).sample(sorted(works, key=str), min(count, len(works)))
    names = {work.job_id: name for name, work in drawn}
    waiting = [w for n, w in drawn if key({"module": n} | in_words(w)) not in same]
    limits = {name: 30 + 3 * untouched(tests[name]) for name in set(names.values())}
    by_job, missed, judged_now = {work.job_id: work for work in waiting}, [], 0

    def options(work):
        return tests[names[work.job_id]], limits[names[work.job_id]]

    for job, result in in_parallel(waiting, options, jobs, end, "sample"):
        judged_now += 1
        if result.test_outcome == "survived":
            missed.append({"module": names[job]} | in_words(by_job[job]))
    return judged_now, judged_now - len(missed), missed


def fallen(judged_now, caught, table, level=0.01):
    """Return whether so few caught of a sample would be a chance below `level` at the stored score.

    Args:
        judged_now, caught: how many mutants of the sample were judged, and caught.
        table: the stored scores.
        level: the chance of a false alarm that is accepted.
    """
    share = table.caught.sum() / (table.mutants - table.equivalent).sum()
    return bool(stats.binom.cdf(caught, judged_now, share) < level)


def main():
    """Judge the mutants of the modules named on the command line, or all, or a random sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="such as pruning/masks")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--again", action="store_true", help="judge survivors once more")
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
    for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(threads, "1")
    try:
        if arguments.sample:
            return _sampled(arguments, end)
        for name in arguments.modules or known:
            done = run(name, known[name], arguments.jobs, end, arguments.again)
            print(f"{name}: {'done' if done else 'not done yet'}")
    finally:
        shutil.rmtree(WORK / "copies", ignore_errors=True)
    return 0


def _sampled(arguments, end):
    """Judge a sample and print how it went; return the exit status."""
    judged_now, caught, missed = sample(arguments.sample, arguments.seed, arguments.jobs, end)
    for row in missed:
        print(f"not caught: {row['module']} {row['where']}: {row['line']} -> {row['mutant']}")
    low = fallen(judged_now, caught, stored(SCORES))
    print(f"{caught} of {judged_now} caught" + (": the score has fallen" if low else ""))
    return int(low)


if __name__ == "__main__":
    sys.exit(main())
