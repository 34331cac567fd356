"""What a network without whole units saves: `make bench` measures and stores it for chapter 11.

Time and size depend on the widths alone, so all layers are cut by one factor, to a quarter of the
multiply-adds: as it comes, and in multiples of eight.  A mask on as many weights stands beside, and
a network with one unit in each layer, whose time is that of the calls alone.
Whatever is compared is timed in turn, in one run on one thread, and stated as a ratio.
"""

import functools
import time

from prosper_utils.pruning import (
    budgets,
    channels,
    deploy,
    gates,
    masks,
    networks,
    scores,
    units,
)
from prosper_utils.study import datasets, results

import keras
import tensorflow as tf
from tqdm import tqdm

SHARE, BATCH_SIZE = 0.25, 128
NETWORKS = {
    "VGG": networks.vgg,
    "LeNet-300-100": networks.dense_300_100,
    "LeNet-5-Caffe": networks.lenet5_caffe,
    "LeNet-5": networks.lenet5,
    "ResNet-8": functools.partial(networks.resnet8, shape=networks.IMAGE),
}
WHOLE, CUT, EIGHTS, MASKED = "whole", "a quarter", "a quarter, in eights", "masked"
ONE = "one unit a layer"


def one_each(model):
    """Return the choice that keeps one group of each kind, and what is fixed."""
    groups = channels.groups(model)
    first = {min(kind) for kind in channels.kinds(groups)}
    return [bool(group.fixed) or n in first for n, group in enumerate(groups)]


def variants(name):
    """Return the models to compare, the whole one first."""
    model, masked = (NETWORKS[name]("relu") for _ in range(2))
    found = {WHOLE: model}
    cuts = {CUT: 1} if name == "LeNet-5" else {CUT: 1, EIGHTS: 8}  # its first layer has six
    for cut, multiple in cuts.items():
        keep = budgets.choose(model, gates.uniform(model), share=SHARE, multiple=multiple)
        found[cut] = units.shrink(model, keep)
    found[ONE] = units.shrink(model, one_each(model))
    masks.apply(masked, masks.top_k(scores.magnitude(masked), 1 - SHARE))
    return found | {MASKED: masked}


def training_step(model, labels):
    """Return one compiled step of training, a function of images."""
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = networks.cross_entropy(model(x, training=True), labels)
        optimizer.apply(tape.gradient(loss, model.trainable_variables))
        return loss

    return step


def measured(name, data, repeats=9):
    """Return the rows of one network: every form of every variant, and a training step."""
    models = variants(name)
    x, y = data.train[0][:300], data.train[1][:300]
    rows, _ = deploy.table(models, x, representative=x[:100], repeats=repeats)
    images, labels = tf.constant(x[:BATCH_SIZE]), tf.constant(y[:BATCH_SIZE])
    steps = {cut: training_step(model, labels) for cut, model in models.items()}
    times = deploy.latency(steps, images, repeats=repeats)
    for cut, found in times.items():
        faster = times[WHOLE]["median"] / found["median"]
        row = {"model": cut, "form": "training step", f"faster_{BATCH_SIZE}": faster}
        rows.append(row | {f"seconds_{BATCH_SIZE}": found["median"]})
    for row in rows:
        model = models[row["model"]]
        row |= {"network": name, "parameters": model.count_params()}
        row |= {"multiply_adds": budgets.cost(model)}
        row |= {"widths": " ".join(str(k.shape[-1]) for k in networks.kernels(model))}
    return rows


def main():
    """Measure every network on one thread, and store the rows."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    begin, digits = time.perf_counter(), datasets.digits()
    rows = [row for name in tqdm(NETWORKS) for row in measured(name, digits)]
    configuration = {"share": SHARE, "batch_size": BATCH_SIZE, "threads": 1}
    results.save("bench_units", rows, configuration, seconds=time.perf_counter() - begin)


if __name__ == "__main__":
    main()
