"""What the loop of chapter 16 costs, for chapter 17: `make bench` measures and stores it.

The unit is what happens between two purges: EVERY training steps on masked weights.  "masked" are
these steps alone, "loop" the same steps with the running mean and one purge at the end.  A credit
of another kind comes on top, once for each purge, so it is timed alone.  All runs take turns in
one process, times are medians after a warm-up, and a ratio is to "masked".
"""

import itertools
import time

from prosper_utils.pruning import masks, regrowth, scores
from prosper_utils.study import datasets, results, training

import bench
import keras

EVERY, SPARSITY, BATCH_SIZE = 100, 0.99, 128
AHEAD = (3, 10)


def pruned(name, batches):
    """Return a network, its masks by SNIP, and its compiled training loop."""
    model = bench.NETWORKS[name]("relu" if name == "LeNet-300-100" else "tanh")
    chosen = masks.top_k(scores.snip(model, batches), SPARSITY)
    optimizer = keras.optimizers.SGD(bench.OPTIONS["learning_rate"], momentum=0.9)
    return model, chosen, training.trainer(model, optimizer)


def calls(name):
    """Return {what: a call to time}, with the masked steps first."""
    data = datasets.digits().train
    batches = list(itertools.islice(datasets.batches(data, BATCH_SIZE), max(AHEAD) + 1))
    steps = {"steps": EVERY, "batch_size": BATCH_SIZE}
    frozen, chosen, train = pruned(name, batches)
    masks.apply(frozen, chosen)
    moving, chosen, regrow_and_train = pruned(name, batches)
    never = 10**9  # so the share to drop stays what it is at first
    loop = regrowth.Regrowth(moving, chosen, every=EVERY, until=never)
    runs = {
        "masked": lambda: train(data, **steps),
        "loop": lambda: regrow_and_train(data, **steps, every=EVERY, after=loop.after),
        "one batch": lambda: regrowth.gradient_credit(frozen, batches[0]),
    }
    for ahead in AHEAD:
        runs[f"lookahead, M = {ahead}"] = lambda ahead=ahead: regrowth.lookahead_credit(
            frozen, batches, steps=ahead, learning_rate=bench.OPTIONS["learning_rate"]
        )
    return runs


def measured(repeats=15):
    """Compare the loop with plain masked training, and state the other credits' cost apart."""
    rows = []
    for name in bench.GREY:
        times = bench.compare(calls(name), repeats)
        for what, (_, median) in times.items():
            ratio = median / times["masked"][1]
            rows.append({"network": name, "what": what, "seconds": median, "ratio": ratio})
    return rows


def main():
    """Measure what the loop costs on every network, and store the rows."""
    begin = time.perf_counter()
    rows = measured()
    configuration = {"every": EVERY, "sparsity": SPARSITY, "batch_size": BATCH_SIZE}
    configuration |= bench.OPTIONS
    results.save("bench_regrowth", rows, configuration, seconds=time.perf_counter() - begin)


if __name__ == "__main__":
    main()
