"""What each way to the meta-gradient costs: `make bench` measures and stores it for chapter 07.

Times are medians after a warm-up, in one run, and compared as ratios to the same number of plain
training steps in one compiled loop.  Memory is what the peak of a fresh process grows by after a
warm-up at small M, the batches excluded; each number comes from a process of its own.
"""

import argparse
import functools
import itertools
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from prosper_utils.lookahead.descent import sgd, start
from prosper_utils.lookahead.meta_gradient import directional, meta_gradient
from prosper_utils.lookahead.streaming import gauss_newton_diagonal, streamed
from prosper_utils.lookahead.trajectory import advance
from prosper_utils.pruning import networks
from prosper_utils.study import datasets, results
from prosper_utils.study.checks import relative_error

import tensorflow as tf
from tqdm import tqdm

NETWORKS = {
    "LeNet-300-100": networks.dense_300_100,
    "LeNet-5": networks.lenet5,
    "ResNet-20": networks.resnet20,
}
GREY = ("LeNet-300-100", "LeNet-5")
OPTIONS = {"learning_rate": 0.1}
MIB = 2**20
FORWARD = "forward, one group"
STREAMED = ("row_sums", "hutchinson")


def problem(name, steps, batch_size=128, **options):
    """Return (weights, loss, stacked batches) on the embedded digits, ten batches in turn."""
    weights, loss = networks.as_loss(NETWORKS[name](**options))
    data = datasets.digits() if name in GREY else datasets.in_colour(datasets.digits())
    taken = itertools.islice(datasets.batches(data.train, batch_size), 10)
    x, y = (tf.stack(part) for part in zip(*taken, strict=True))
    often = steps // 10 + 1
    return (
        weights,
        loss,
        (tf.tile(x, [often, 1, 1, 1, 1])[: steps + 1], tf.tile(y, [often, 1])[: steps + 1]),
    )


def plain(loss, momentum):
    """Return M training steps as one compiled loop, what all times are compared with."""

    @tf.function
    def run(weights, inner):
        step = sgd(loss, OPTIONS["learning_rate"], momentum)
        return advance(step, start(weights, momentum), inner)

    return run


def seconds_of(function):
    """Return how long one call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def compare(runs, repeats):
    """Return {name: (first call, median of later calls)}; the runs take turns."""
    first = {name: seconds_of(run) for name, run in runs.items()}
    later = {name: [] for name in runs}
    for _ in tqdm(range(repeats), "rounds"):
        for name, run in runs.items():
            later[name].append(seconds_of(run))
    return {name: (first[name], statistics.median(later[name])) for name in runs}


def calls(weights, loss, batches, methods, momentum=0.0):
    """Return {name: a call to time}, with the plain steps first."""
    steps = plain(loss, momentum)
    inner = tuple(part[:-1] for part in batches)
    runs = {"plain steps": lambda: steps(weights, inner)}
    for method in methods:
        runs[method] = lambda method=method: meta_gradient(
            loss, weights, batches, method=method, momentum=momentum, **OPTIONS
        )
    return runs


def gauss_newton(name, steps=5):
    """Return the calls with the Gauss-Newton diagonal, over fewer steps, and the exact scores."""
    model = NETWORKS[name]()
    weights, loss = networks.as_loss(model)
    _, _, batches = problem(name, steps)
    curvature = gauss_newton_diagonal(networks.as_logits(model)[1])
    runs = calls(weights, loss, batches, ("unrolled",))
    exact = runs.pop("unrolled")()
    score = functools.partial(streamed, loss, weights, batches, OPTIONS["learning_rate"])
    return runs | {"gauss_newton": lambda: score(curvature)}, exact


def forward(weights, loss, batches, momentum):
    """Return a call that pushes one tangent forward, that of the first kernel's last unit."""
    direction = [tf.zeros_like(w) for w in weights]
    unit = tf.one_hot(weights[0].shape[-1] - 1, weights[0].shape[-1])
    direction[0] += unit
    return lambda: directional(loss, weights, batches, direction, momentum=momentum, **OPTIONS)


def times(repeats=7):
    """Compare the methods at M = 50 on both networks, with and without momentum."""
    rows = []
    for name in GREY:
        weights, loss, batches = problem(name, 50)
        for momentum in (0.0, 0.9):
            methods = ("reverse", "checkpointed", "first_order", "unrolled")
            runs = calls(weights, loss, batches, methods, momentum=momentum)
            runs[FORWARD] = forward(weights, loss, batches, momentum)
            if not momentum:
                runs |= calls(weights, loss, batches, STREAMED)
            rows += compared(name, momentum, runs, runs["unrolled"](), repeats)
        rows += compared(name, 0.0, *gauss_newton(name), 2)[1:]
    return rows


def compared(name, momentum, runs, exact, repeats):
    """Return one row per run: its time, also as a ratio, its first call, and its error."""
    measured, rows = compare(runs, repeats), []
    for method, (first, median) in measured.items():
        row = {"network": name, "momentum": momentum, "method": method, "seconds": median}
        row["ratio"] = median / measured["plain steps"][1]
        row["first_call"] = first
        is_score = method not in ("plain steps", FORWARD)
        row["error"] = relative_error(runs[method](), exact) if is_score else None
        rows.append(row)
    return rows


def colour(repeats=5):
    """Compare the methods on ResNet-20, and measure the memory of looking far ahead."""
    rows = []
    for steps in (3, 10):
        weights, loss, batches = problem("ResNet-20", steps)
        runs = calls(weights, loss, batches, ("first_order", "reverse", "checkpointed"))
        exact = runs["reverse"]()
        found = compared("ResNet-20", 0.0, runs, exact, repeats)
        rows += [row | {"steps": steps} for row in found]
    cases = itertools.product(["ResNet-20"], ("reverse", "checkpointed"), (1, 10, 100), [0.0])
    return rows + memory(cases)


def growth(repeats=3):
    """Compare how the cost of the reverse sweep grows with M, with n and with the batch."""
    rows = []
    cases = [("steps M", m, 128) for m in (10, 25, 50, 100, 200, 1000)]
    cases += [("batch size", 50, b) for b in (32, 64, 128, 256, 512)]
    for what, steps, batch_size in tqdm(cases, "growth"):
        weights, loss, batches = problem("LeNet-5", steps, batch_size)
        runs = calls(weights, loss, batches, ("reverse", "checkpointed"))
        for method, (_, median) in compare(runs, repeats).items():
            at_x = steps if what == "steps M" else batch_size
            rows.append({"against": what, "x": at_x, "method": method, "seconds": median})
    for units in (75, 150, 300, 600, 1200):
        weights, loss, batches = problem("LeNet-300-100", 50, units=(units, 100))
        runs = calls(weights, loss, batches, ("reverse", "checkpointed"))
        for method, (_, median) in compare(runs, repeats).items():
            n = sum(int(tf.size(w)) for w in weights)
            rows.append({"against": "weights n", "x": n, "method": method, "seconds": median})
    return rows


def resident(what):
    """Return the resident memory of this process in bytes: VmRSS now, VmHWM at its peak (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)[1])


def memory_of(name, method, steps, momentum):
    """Return by how many bytes one call raises the peak of this process.

    For the LeNets a call at small M comes before; for ResNet-20, where the activations of one step
    are what counts, plain training steps.
    """
    weights, loss, batches = problem(name, steps)
    small = tuple(part[:4] for part in batches)
    options = {"method": method, "momentum": momentum, **OPTIONS}
    before = calls(weights, loss, small, (method,), momentum)
    for _ in range(2):
        before[method if name in GREY else "plain steps"]()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    meta_gradient(loss, weights, batches, **options)
    return resident("VmHWM") - before


def memory_cases():
    """Yield (network, method, M, momentum) for all that is measured on LeNets."""
    yield from (("LeNet-5", "unrolled", m, 0.0) for m in (10, 30, 100, 300))
    for method in ("reverse", "checkpointed"):
        yield from (("LeNet-5", method, m, 0.0) for m in (10, 30, 100, 300, 1000))
        yield from (("LeNet-5", method, m, 0.9) for m in (100, 1000))
        yield from (("LeNet-300-100", method, m, 0.0) for m in (100, 300))


def memory(cases=None):
    """Measure the memory of the methods against M, each in a process of its own."""
    cases = list(cases or memory_cases())
    rows = []
    for name, method, steps, momentum in tqdm(cases, "memory"):
        command = [sys.executable, __file__, "memory-of", name, method, str(steps), str(momentum)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        n = NETWORKS[name]().count_params()
        added = int(run.stdout.split()[-1])
        rows.append(
            {
                "network": name,
                "momentum": momentum,
                "method": method,
                "steps": steps,
                "added_mib": added / MIB,
                "bytes_per_step_and_weight": added / steps / n,
            }
        )
    return rows


MEASUREMENTS = {"times": times, "memory": memory, "growth": growth, "colour": colour}


def main():
    """Run the measurements named on the command line, or all, and store each as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=list(MEASUREMENTS))
    what = parser.parse_args().what
    if what[0] == "memory-of":
        name, method, steps, momentum = what[1:]
        print(memory_of(name, method, int(steps), float(momentum)))
        return
    for name in what:
        begin = time.perf_counter()
        rows = MEASUREMENTS[name]()
        configuration = {"learning_rate": OPTIONS["learning_rate"], "batch_size": 128}
        seconds = time.perf_counter() - begin
        results.save(f"bench_{name}", rows, configuration, seconds=seconds)


if __name__ == "__main__":
    main()
