"""Training: it learns, it is fixed by its seeds, and it says when it breaks."""

from prosper_utils.pruning import masks
from prosper_utils.pruning.networks import cross_entropy, dense_300_100, kernels, lenet5, resnet8
from prosper_utils.study import training
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import tensorflow as tf


def test_it_learns(digits):
    model = dense_300_100()
    before = training.error(model, digits.validation)
    losses = training.trainer(model)(digits.train, epochs=5)
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 2
    assert training.error(model, digits.validation) < before / 2


def test_one_epoch_is_plain_gradient_descent(digits):
    model, again = dense_300_100(), dense_300_100()
    x, y = (part[:96] for part in digits.train)
    training.trainer(model, keras.optimizers.SGD(0.1))((x, y), epochs=1, batch_size=32, seed=5)
    order = np.random.default_rng([5, 0]).permutation(96).reshape(3, 32)
    for rows in order:
        with tf.GradientTape() as tape:
            loss = cross_entropy(again(tf.gather(x, rows)), tf.gather(y, rows))
        for v, g in zip(
            again.trainable_variables,
            tape.gradient(loss, again.trainable_variables),
            strict=True,
        ):
            v.assign_sub(0.1 * g)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_steps_stop_within_an_epoch(digits):
    data = tuple(part[:96] for part in digits.train)
    ends = []
    for steps in (3, 5, 6):
        model = dense_300_100()
        optimizer = keras.optimizers.SGD(0.1)
        losses = training.trainer(model, optimizer)(data, steps=steps, batch_size=32)
        assert len(losses) == -(-steps // 3)
        assert int(optimizer.iterations.numpy()) == steps
        ends.append(model.get_weights())
    model = dense_300_100()
    training.trainer(model, keras.optimizers.SGD(0.1))(data, epochs=2, batch_size=32)
    assert relative_error(model.get_weights(), ends[-1]) < 1e-6
    assert relative_error(ends[1], ends[2]) > 1e-4
    with pytest.raises(ValueError, match="found epochs 1 and steps 2"):
        training.trainer(model)(data, epochs=1, steps=2, batch_size=32)


def test_an_interrupted_training_goes_on(digits):
    """In two parts, momentum included, as in one."""
    data, ends = tuple(part[:96] for part in digits.train), []
    for parts in ((5,), (2, 5)):
        model, made = dense_300_100(units=(30, 10)), 0
        train = training.trainer(model)
        for steps in parts:
            train(data, steps=steps, batch_size=32, made=made)
            made = steps
        ends.append(model.get_weights())
    assert relative_error(ends[1], ends[0]) < 1e-6


def test_a_training_that_is_complete_makes_no_step_more(digits):
    data, called = tuple(part[:96] for part in digits.train), []
    model = dense_300_100(units=(30, 10))
    train = training.trainer(model)
    options = {"batch_size": 32, "every": 2, "after": lambda step, optimizer: called.append(step)}
    train(data, steps=4, **options)
    before = model.get_weights()
    assert train(data, steps=4, made=4, **options) == []
    assert called == [2, 4]
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_regularisation_is_part_of_the_loss(digits):
    """One step with an L2 penalty of r w^2 moves by -2 r times the weight more."""
    data, ends = tuple(part[:32] for part in digits.train), []
    for rate in (0.0, 0.01):
        model = dense_300_100()
        initial = model.get_weights()
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(rate)
        training.trainer(model, keras.optimizers.SGD(0.1))(data, steps=1, batch_size=32)
        ends.append(model.get_weights())
    moved = [a - b for a, b in zip(*ends, strict=True)]
    assert relative_error(moved[::2], [0.1 * 2 * 0.01 * w for w in initial[::2]]) < 1e-3


@pytest.mark.parametrize("optimizer", [None, "adam"])
def test_every_run_starts_afresh_and_seeds_fix_it(digits, optimizer):
    model = dense_300_100()
    initial = model.get_weights()
    train = training.trainer(model, optimizer and keras.optimizers.get(optimizer))
    runs = []
    for seed in (0, 0, 1):
        model.set_weights(initial)
        runs.append(train(digits.train, epochs=2, seed=seed))
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert abs(runs[0][0] - runs[2][0]) > 1e-3


def test_a_loss_that_breaks_is_named(digits):
    train = training.trainer(dense_300_100("relu"), keras.optimizers.SGD(1e20))
    with pytest.raises(ValueError, match=r"found (nan|inf) in epoch \d: try a smaller learning"):
        train(digits.train, epochs=20)


def test_bad_data_is_named(digits):
    x, y = digits.train
    model = dense_300_100()
    train = training.trainer(model)
    with pytest.raises(ValueError, match="at most the 100 examples, found 128"):
        train((x[:100], y[:100]), epochs=1)
    with pytest.raises(ValueError, match="found 3 for 4"):
        train((x[:4], y[:3]), epochs=1, batch_size=1)
    with pytest.raises(ValueError, match="at most the 0 examples"):
        training.error(model, (x[:0], y[:0]))
    with pytest.raises(ValueError, match="expected a built model"):
        training.trainer(keras.Sequential([keras.layers.Dense(10)]))


def test_error_counts_the_wrong_ones():
    model = keras.Sequential([keras.Input((10,)), keras.layers.Identity()])
    x, y = tf.eye(10), tf.constant([0, 1, 2, 3, 4, 5, 6, 7, 0, 0])
    assert training.error(model, (x, y)) == training.error(model, (x, y), chunk=3) == 20.0
    with pytest.raises(ValueError, match="expected finite logits, found NaN"):
        training.error(model, (x * np.nan, y))


def test_examples_that_do_not_fit_are_named(digits):
    model = resnet8(widths=(2, 2, 2))
    for call in (training.trainer(model), training.error):
        arguments = (digits.train,) if call is not training.error else (model, digits.test)
        options = {"steps": 1} if call is not training.error else {}
        with pytest.raises(
            ValueError, match=r"expected examples of shape \(32, 32, 3\), found \(28"
        ):
            call(*arguments, **options)
    training.trainer(lenet5())(digits.train, steps=1)


def test_prepared_batches_are_what_the_model_sees(digits):
    """A preparation that is known makes the steps of a training on what it returns."""
    data, ends = tuple(part[:96] for part in digits.train), []
    seen = []

    def prepare(x, seed):
        tf.py_function(lambda pair: seen.append(pair.numpy().tolist()), [seed], [])
        return 0.5 * x

    for x, options in ((data[0], {"prepare": prepare}), (0.5 * data[0], {})):
        model = dense_300_100(units=(30, 10))
        train = training.trainer(model, **options)
        train((x, data[1]), steps=5, batch_size=32, seed=7, every=2, after=lambda *_: None)
        ends.append(model.get_weights())
    assert relative_error(*ends) < 1e-5
    assert seen == [[7, step] for step in range(5)]


def test_fused_normalisation_is_that_of_keras():
    """Outputs and gradients in training and inference, and the moving statistics."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(2.0, 3.0, (16, 8, 8, 3)), tf.float32)
    model = resnet8("tanh", widths=(2, 3, 4), shape=(8, 8, 3))
    again = training.fused(model)
    assert [v.path.split("/")[-2:] for v in again.weights] == [
        v.path.split("/")[-2:] for v in model.weights
    ]
    for mode in (False, True, True):
        found = []
        for network in (model, again):
            with tf.GradientTape() as tape:
                outputs = network(x, training=mode)
                loss = tf.reduce_sum(outputs**2)
            found.append([outputs, *tape.gradient(loss, network.trainable_variables)])
        assert relative_error(found[1], found[0]) < 1e-4
    for a, b in zip(again.non_trainable_variables, model.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02 if "variance" in a.path else 1e-4, atol=1e-5)


def test_fused_normalisation_keeps_masks_and_refuses_what_it_is_not():
    model = resnet8(widths=(2, 2, 2), shape=(8, 8, 3))
    again = training.fused(model)
    chosen = [np.arange(np.prod(k.shape)).reshape(k.shape) % 2 for k in kernels(again)]
    masks.apply(again, chosen)
    data = tf.random.normal((32, 8, 8, 3)), tf.zeros(32, tf.int64)
    training.trainer(again)(data, steps=3, batch_size=8)
    for kernel, mask in zip(kernels(again), chosen, strict=True):
        assert np.all(kernel.numpy()[mask == 0] == 0)
    for options in ({"axis": 1}, {"center": False}, {"scale": False}):
        odd = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.BatchNormalization(name="odd", **options)]
        )
        with pytest.raises(ValueError, match="layer 'odd': expected normalisation over the last"):
            training.fused(odd)
