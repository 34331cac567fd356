"""What users of other pruning tools met, as tests: each says what they saw, and what holds here.

Where a public report was found, its repository and number are given.
"""

import warnings

from prosper_utils.pruning import masks, regrowth, schedules
from prosper_utils.pruning.networks import kernels, select

import keras
import numpy as np
import pytest
import tensorflow as tf

RULES = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.05),
}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(rule="adam"):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(12, "tanh", name="hidden")
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(3, name="output")])
    model.compile(RULES[rule](), LOSS, jit_compile=False)
    return model


def data(count=64):
    return np.random.default_rng(1).normal(size=(count, 8)).astype("float32"), np.arange(count) % 3


def fit(model, *callbacks, epochs=1):
    model.fit(*data(), 16, epochs, verbose=0, shuffle=False, callbacks=list(callbacks))


def half(model):
    """Return masks like a chess board."""
    return [np.indices(k.shape).sum(0) % 2 == 0 for k in kernels(model)]


@pytest.mark.parametrize("rule", RULES)
def test_momentum_revives_what_was_pruned_after_training_began(rule):
    """Weights pruned between two epochs moved off zero again, for their gradients were masked but
    not what the optimizer had gathered before (he-y/filter-pruning-geometric-median#47).
    """
    model = network(rule)
    fit(model, epochs=2)
    masks.apply(model, half(model))
    assert masks.outside(model) == []
    for _ in range(2):
        fit(model)
        assert masks.outside(model) == []


def test_small_values_between_two_updates_of_the_masks():
    """Masks were multiplied in at the end of an epoch, and within it zeros drifted away
    (tensorflow/model-optimization#720).
    """
    model, found = network(), []
    masks.apply(model, half(model))
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: found.append(masks.outside(model))
    )
    fit(model, look, epochs=2)
    assert found == 8 * [[]]


@pytest.mark.parametrize("first", [True, False])
def test_a_checkpoint_callback_before_that_of_the_masks(first, tmp_path):
    """Checkpoints were not sparse when their callback came first
    (tensorflow/model-optimization#206).
    """
    model = network()
    schedule = schedules.Gradual(model, 0.8, until=4, every=2)
    path = str(tmp_path / "{epoch}.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    both = [checkpoint, schedules.GradualCallback(schedule)]
    fit(model, *(both if first else both[::-1]), epochs=2)
    for epoch in (1, 2):
        saved = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        count = sum(np.count_nonzero(k.numpy()) for k in kernels(saved))
        assert count == masks.kept(8 * 12 + 12 * 3, 0.8)
        assert masks.outside(saved) == []


@pytest.mark.parametrize("whole", [True, False])
def test_resuming_that_ignores_the_masks(whole, tmp_path):
    """Training that was resumed from a checkpoint went on without its masks
    (IntelLabs/distiller#76).
    """
    model = network()
    masks.apply(model, half(model))
    fit(model)
    path = tmp_path / ("model.keras" if whole else "model.weights.h5")
    if whole:
        model.save(path)
        resumed = keras.saving.load_model(path)
    else:  # weights alone have no masks but their zeros
        model.save_weights(path)
        resumed = network()
        resumed.load_weights(path)
        masks.apply(resumed, masks.nonzero(resumed))
    fit(resumed)
    for kernel, mask in zip(kernels(resumed), half(resumed), strict=True):
        np.testing.assert_array_equal(kernel.numpy() != 0, mask)


def test_mixed_precision_in_fit():
    """Half precision scales the loss, and skips updates that overflow: masks hold in the others."""
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = network()
    finally:
        keras.config.set_dtype_policy(before)
    masks.apply(model, half(model))
    fit(model, epochs=2)
    assert masks.outside(model) == []
    assert kernels(model)[0].dtype == "float32"


@pytest.mark.parametrize("sparsity", [0.99, 0.999])
def test_a_small_layer_at_a_high_sparsity(sparsity):
    """At 99% a layer with 40 connections failed or was left empty
    (tensorflow/model-optimization#215).
    """
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedules.prune(model, sparsity)
    x = np.random.default_rng(0).normal(size=(32, 40))
    model.fit(x, x[:, :1], verbose=0)
    assert np.count_nonzero(kernels(model)[0]) == 1


def test_a_global_threshold_on_layers_of_unequal_scale():
    """One threshold for all layers emptied those whose weights are small: the report says so, and
    a share by layer, a floor or a choice of layers are the ways out.
    """
    model = network()
    kernel = kernels(model)[1]
    kernel.assign(kernel / 1000)
    sizes = [abs(k.numpy()) for k in kernels(model)]
    with pytest.warns(UserWarning, match="empty, nothing passes: sequential.*/output/kernel"):
        masks.apply(model, masks.top_k(sizes, 0.8))
    lines = masks.report(model).splitlines()
    assert lines[2].split()[:4] == ["output/kernel", "0", "36", "0.00%"]
    assert "EMPTY" in lines[-1]
    by_layer = masks.top_k(sizes, 0.8, per_layer=True)
    assert [int(np.sum(m)) for m in by_layer] == [masks.kept(96, 0.8), masks.kept(36, 0.8)]
    with pytest.warns(UserWarning, match="floor of 5 acts"):
        assert int(np.sum(masks.top_k(sizes, 0.8, floor=5)[1])) == 5
    whole = masks.top_k(sizes, 0.8, prune=select(model, exclude=[-1]))
    assert [int(np.sum(m)) for m in whole] == [masks.kept(96, 0.8), 36]


def test_evaluation_after_a_step_without_masks():
    """A custom loop that updates weights by hand was evaluated before the masks were multiplied in
    again: no constraint acts there, but it can be asked for, and corrected in one line.
    """
    model = network()
    masks.apply(model, half(model))
    with tf.GradientTape() as tape:
        loss = LOSS(data()[1], model(data()[0]))
    gradient = tape.gradient(loss, model.trainable_variables)
    for variable, g in zip(model.trainable_variables, gradient, strict=True):
        variable.assign_sub(0.1 * g)
    names = [path.split("/")[-2] for path, _ in masks.outside(model)]
    assert names == ["hidden", "output"]
    masks.apply(model, masks.in_force(model))
    assert masks.outside(model) == []
    model.evaluate(*data(), verbose=0)


def test_a_schedule_with_too_few_steps():
    """With few batches training ended before the schedule did anything, without a word
    (tensorflow/model-optimization#973 and #975).
    """
    model = network()
    schedule = schedules.Gradual(model, 0.8, until=100, every=50)
    with pytest.warns(UserWarning, match=r"expected 100 steps .* found at most 4 in this training"):
        fit(model, schedules.GradualCallback(schedule))
    loop = regrowth.Regrowth(model, half(model), every=50, until=100)
    with pytest.warns(UserWarning, match="nothing was regrown in 8 steps"):
        fit(model, regrowth.RegrowthCallback(loop))


def test_kernels_that_are_silently_left_out():
    """Depthwise kernels, among others, stayed dense since the tool did not know their layers."""

    class Own(keras.layers.Layer):
        def build(self, shape):
            self.scales = self.add_weight(shape=(3, shape[-1]), name="scales")

        def call(self, x):
            return x * self.scales[0]

    layers = [
        keras.Input((6, 6, 2)),
        keras.layers.DepthwiseConv2D(3, name="depthwise"),
        keras.layers.SeparableConv2D(3, 2, name="separable"),
        keras.layers.Conv2DTranspose(3, 2, name="transposed"),
        Own(name="own"),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ]
    model = keras.Sequential(layers)
    owners = [k.path.split("/")[-2] for k in kernels(model)]
    assert owners[:4] == ["depthwise", "separable", "separable", "transposed"]
    for kernel in kernels(model):  # of each the smaller half goes
        size = np.prod(kernel.shape)
        kernel.assign(np.linspace(-1, 1, size).reshape(kernel.shape))
    schedules.prune(model, 0.5)
    assert all(0 < count < size for _, count, size in masks.per_layer(model))
    last = masks.report(model).splitlines()[-1]
    assert last.startswith("not a kernel, so not pruned: ")  # what is not known is named
    assert last.endswith("scales, 9 weights")


def test_an_emptied_layer():
    """A layer lost all its weights, and the network gave one answer to everything: that gets a
    warning when it happens, by name.
    """
    model = network()
    with pytest.warns(UserWarning, match="empty, nothing passes: .*hidden/kernel"):
        masks.apply(model, [np.zeros((8, 12)), np.ones((12, 3))])
    assert len(masks.empty_layers(model)) == 1
