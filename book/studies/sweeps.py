"""What the sweeps have in common: a command that computes what is not stored yet, in parallel.

A sweep is a list of cases.  Each runs on one thread, in a process of joblib or on a Dask cluster; a
case that ends is stored at once, and the next run goes on with the rest.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from prosper_utils.study import results

import joblib
import numpy as np
from tqdm import tqdm

THREADS = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"  # how many TensorFlow takes


def missing(cases, stored, keys):
    """Return the cases, dictionaries, that are not among the stored rows; keys tell them apart."""
    done = set() if stored.empty else set(zip(*(stored[key] for key in keys), strict=True))
    return [case for case in cases if tuple(case[key] for key in keys) not in done]


def left(make, keys):
    """Return the function of the stored rows that says which of the cases made are left."""
    return lambda stored: missing(make(), stored, keys)


def best(name, column, where=None):
    """Return the entry of a column that did best on the validation images of a stored tuning.

    Args:
        name: that of the stored result.
        column: such as the number of the trial; a trial without an error failed, and counts 100.
        where: {column: value} of the rows that are compared, by default all.

    Raises:
        LookupError: if there is no such row; not a ValueError, by which a training says that it
            failed.
    """
    table = results.resume(name)
    for key, value in (where or {}).items():
        table = table[table[key] == value] if len(table) else table
    if table.empty:
        said = ", ".join(f"{key} {value}" for key, value in (where or {}).items()) or "any kind"
        raise LookupError(f"{name}: expected stored trials of {said}, found none: run it first")
    return table.error.fillna(100).groupby(table[column]).mean().idxmin()


def expect_same(name, configuration):
    """Refuse to add rows to those of another configuration.

    What only one of the two has is not compared: options come later, and rows stay.

    Args:
        name: that of the stored result; nothing is expected if there is none.
        configuration: what determines the rows to come, as JSON can hold it.

    Raises:
        ValueError: if the stored rows were made with another value of something.
    """
    path = results.FOLDER / f"{name}.json"
    if path.is_file():
        stored = json.loads(path.read_text())["configuration"]
        if found := list(differences(stored, json.loads(json.dumps(configuration)))):
            raise ValueError(
                f"{name}: expected the configuration of the stored rows, found {'; '.join(found)}: "
                f"restore it, or remove {name}.csv and {name}.json to begin anew"
            )


def differences(stored, now, at=""):
    """Yield in words where two configurations, as JSON holds them, give one thing two values."""
    if not (isinstance(stored, dict) and isinstance(now, dict)):
        if stored != now:
            yield f"{at} = {now} in place of {stored}"
        return
    for key in sorted(stored.keys() & now.keys()):
        yield from differences(stored[key], now[key], f"{at}.{key}" if at else key)


def in_parallel(one, cases, jobs=-1):
    """Yield one(case) for each case as it ends, whatever the order; they are started in order."""
    work = joblib.Parallel(jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
    yield from work(joblib.delayed(one)(case) for case in cases)


def scripts(script):
    """Return the paths of a script, a module, and of those beside it that are imported here."""
    files = [getattr(module, "__file__", None) for module in [script, *sys.modules.values()]]
    files = {Path(file).resolve() for file in files if file}
    return sorted(file for file in files if file.parent == Path(script.__file__).resolve().parent)


@contextlib.contextmanager
def on_dask(cluster, *files):
    """Let joblib send its work to a Dask cluster instead of processes of its own.

    Args:
        cluster: a Dask cluster of two threads or more (joblib leaves one alone, and works in this
            process), or the address of its scheduler; None changes nothing.
        files: the scripts that the workers import, in any order.
    """
    if cluster is None:
        yield
        return
    from distributed import Client, Scheduler
    from distributed.diagnostics.plugin import UploadFile

    # A scheduler in this process has the scripts, and would load them a second time.
    here = isinstance(getattr(cluster, "scheduler", None), Scheduler)
    with Client(cluster) as client, tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "scripts.zip"  # as one file: some import others
        with zipfile.ZipFile(archive, "w") as pack:
            for file in {Path(__file__), *map(Path, files)}:
                pack.write(file, file.name)
        if here:
            client.register_plugin(UploadFile(str(archive)), name=str(sorted(files)))
        else:
            client.upload_file(str(archive))
        with joblib.parallel_config("dask"):
            yield


def command(script, sweeps, configuration):
    """Run the sweeps named on the command line, or all, until done or the minutes are over.

    Args:
        script: the module whose command it is; the processes import it by its name.
        sweeps: {name of the result: (left, one)}; left takes the rows that are stored, a table, and
            returns the cases to run; one takes a case and returns its rows.
        configuration: function that returns what determines the results; one that differs from
            that of the stored rows is an error of the command line (`expect_same`).
    """
    parser = argparse.ArgumentParser(description=script.__doc__)
    parser.add_argument("what", nargs="*", default=list(sweeps))
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop after so many")
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count(), help="processes")
    parser.add_argument("--dask", metavar="ADDRESS", help="the scheduler of a Dask cluster")
    arguments = parser.parse_args()
    for threads in THREADS:
        os.environ.setdefault(threads, "1")  # for the processes: they are what runs in parallel
    end = time.monotonic() + 60 * arguments.minutes
    for name in arguments.what:
        left, one = sweeps[name]
        cases = left(results.resume(name))
        try:
            expect_same(name, configuration() if cases else {})
        except ValueError as error:
            parser.error(str(error))
        waiting = (case for case in cases if time.monotonic() < end)
        with on_dask(arguments.dask, *scripts(script)):
            done = in_parallel(one, waiting, arguments.jobs)
            for rows in tqdm(done, name, total=len(cases), unit="case"):
                results.append(name, rows)
                seconds = np.nansum(results.resume(name).filter(regex="seconds$"))
                results.describe(name, configuration(), seconds=float(seconds))
