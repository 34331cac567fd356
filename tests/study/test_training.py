"""Training: it learns, it is fixed by its seeds, and it says when it breaks."""

import functools

from prosper_utils.pruning import masks, scores
from prosper_utils.pruning.networks import cross_entropy, dense_300_100, kernels, lenet5, resnet8
from prosper_utils.pruning.scores import random
from prosper_utils.study import datasets, training
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


def test_losses_are_means_over_the_steps_that_were_made(digits):
    """With a learning rate of zero every step of one batch has the same loss."""
    data = tuple(part[:32] for part in digits.train)
    twice = tuple(np.concatenate([part, part]) for part in data)
    model = dense_300_100(units=(30, 10))
    expected = float(cross_entropy(model(data[0]), data[1]))
    train = training.trainer(model, keras.optimizers.SGD(0.0))
    assert train(data, epochs=2, batch_size=32) == pytest.approx([expected] * 2, rel=1e-5)
    found = train(twice, steps=3, batch_size=64) + train(twice, steps=1, batch_size=32)
    assert found == pytest.approx(found[:1] * 4, rel=0.3)
    whole = train(twice, epochs=1, batch_size=32)
    parts = train(twice, steps=1, batch_size=32) + train(twice, steps=2, batch_size=32, made=1)
    assert whole == pytest.approx([np.mean(parts)], rel=1e-5)


def test_a_training_that_was_interrupted_keeps_what_the_optimizer_remembers(digits):
    """A fresh run forgets the momentum; one that goes on does not."""
    data, moved = tuple(part[:32] for part in digits.train), []
    for made in (0, 1):
        model = dense_300_100(units=(30, 10))
        train = training.trainer(model, keras.optimizers.SGD(0.1, momentum=0.9))
        train(data, steps=1, batch_size=32)
        before = model.get_weights()
        train(data, steps=1 + made, batch_size=32, made=made)
        moved.append([a - b for a, b in zip(model.get_weights(), before, strict=True)])
    assert relative_error(*moved) > 0.3


def test_the_order_of_the_batches_is_that_of_its_seed_in_every_epoch(digits):
    data, ends = tuple(part[:96] for part in digits.train), []
    for seed, epochs in ((1, 1), (1, 2), (2, 2)):
        model = dense_300_100(units=(30, 10), dtype="float64")
        training.trainer(model, keras.optimizers.SGD(0.1))(
            data, epochs=epochs, batch_size=32, seed=seed
        )
        again = dense_300_100(units=(30, 10), dtype="float64")
        for epoch in range(epochs):
            for rows in datasets.epoch_order(96, 32, seed, epoch):
                with tf.GradientTape() as tape:
                    loss = cross_entropy(again(tf.gather(data[0], rows)), tf.gather(data[1], rows))
                variables = again.trainable_variables
                for v, g in zip(variables, tape.gradient(loss, variables), strict=True):
                    v.assign_sub(0.1 * g)
        assert (
            relative_error(model.get_weights(), again.get_weights()) < 1e-8
        )  # the rate is float32
        ends.append(model.get_weights())
    assert relative_error(ends[2], ends[1]) > 1e-4


def test_a_loss_that_becomes_infinite_later_is_refused(digits):
    data = tuple(part[:64] for part in digits.train)
    model = dense_300_100("linear", units=(30, 10))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.0, 1e30])
    train = training.trainer(model, keras.optimizers.SGD(schedule))
    with pytest.raises(ValueError, match=r"finite training loss, found (nan|inf) in epoch [23]"):
        train(data, epochs=4, batch_size=32)


@pytest.mark.parametrize("where", [(0, 0), (6, 9), (4, 3)])
def test_the_error_looks_at_every_chunk_and_every_logit(where):
    x, y = np.zeros((7, 3), "float32"), np.zeros(7, int)
    x[3:, 0] = 1  # right in the first chunk and wrong behind

    class Net(keras.Model):
        def call(self, x):
            return tf.concat([1 - x[:, :1], tf.tile(x[:, :1], [1, 9])], axis=1) + self.add(x)

        def add(self, x):
            place = tf.constant([[where[1]]])
            return tf.where(x[:, 1:2] > 0, np.nan, 0.0) * tf.one_hot(place[0], 10)

    model = Net()
    assert training.error(model, (x, y), chunk=3) == pytest.approx(100 * 4 / 7)
    assert training.error(model, (x, y), chunk=7) == pytest.approx(100 * 4 / 7)
    x[where[0], 1] = 1
    with pytest.raises(ValueError, match="expected finite logits, found NaN"):
        training.error(model, (x, y), chunk=3)


def test_masks_that_come_between_two_trainings_hold(digits):
    """The compiled loop was traced on a network without them."""
    model, data = dense_300_100(units=(30, 10)), tuple(part[:96] for part in digits.train)
    train = training.trainer(model)
    train(data, steps=2, batch_size=32)
    masks.apply(model, masks.top_k(scores.magnitude(model), 0.9))
    train(data, steps=2, batch_size=32)
    assert masks.outside(model) == []


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


@pytest.mark.parametrize(
    ("every", "after"), [(2, None), (None, print), (0, print), (-1, print), (0, None)]
)
def test_a_call_now_and_then_needs_both_of_its_arguments(digits, every, after):
    model = dense_300_100(units=(30, 10))
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"`every`.*`after`.* found every={every} and after="):
        training.trainer(model)(digits.train, steps=4, every=every, after=after)
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


def test_by_default_it_is_momentum_with_batches_of_128(digits):
    data, ends = tuple(part[:300] for part in digits.train), []
    for optimizer, options in (
        (None, {}),
        (keras.optimizers.SGD(0.1, momentum=0.9), {"batch_size": 128, "seed": 0}),
    ):
        model = dense_300_100(units=(30, 10))
        training.trainer(model, optimizer)(data, steps=5, **options)
        ends.append(model.get_weights())
    assert relative_error(*ends) < 1e-6


def dropping():
    """Return a network with what is different in training: batch statistics, and dropout."""
    layers = [keras.layers.Flatten(), keras.layers.BatchNormalization(momentum=0.5)]
    layers += [keras.layers.Dropout(0.5, seed=0), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers])


def test_training_is_in_training_mode_and_errors_are_in_inference(digits):
    data, model = tuple(part[:64] for part in digits.train), dropping()
    norm = model.layers[1]
    training.trainer(model, keras.optimizers.SGD(0.0))(data, steps=1, batch_size=64)
    mean = tf.reduce_mean(tf.reshape(data[0], (64, -1)), 0)
    np.testing.assert_allclose(norm.moving_mean, 0.5 * mean, atol=1e-6)
    training.trainer(model)(data, steps=30, batch_size=32)
    before = norm.moving_mean.numpy()
    x, y = digits.validation
    expected = 100 * np.mean(np.argmax(model(x, training=False), axis=-1) != y)
    found = [training.error(model, (x, y), chunk=c) for c in (50, 2000)]
    assert found == pytest.approx([expected] * 2, rel=1e-12)
    np.testing.assert_array_equal(norm.moving_mean, before)


def test_dropout_is_on_in_training(digits):
    """A mean loss over many steps that move nothing is not that without dropout."""
    data, model = tuple(part[:32] for part in digits.train), dense_300_100(units=(30, 10))
    odd = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Dropout(0.5, seed=0), model])
    found = training.trainer(odd, keras.optimizers.SGD(0.0))(data, epochs=3, batch_size=32)
    expected = float(cross_entropy(model(data[0]), data[1]))
    assert len(set(found)) == 3
    assert all(abs(loss - expected) > 1e-3 for loss in found)


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


def test_second_derivatives_of_fused_normalisation():
    """An exact score is that of Keras' layer, with the second derivatives that this one has."""
    layers, x = keras.layers, keras.Input((8, 8, 3))
    first = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x))
    h = layers.Activation("tanh")(first)
    h = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(h))
    h = layers.Activation("tanh")(layers.Add()([h, first]))
    model = keras.Model(x, layers.Dense(10)(layers.GlobalAveragePooling2D()(h)))
    generator = np.random.default_rng(0)
    few = [(generator.normal(size=(16, 8, 8, 3)), generator.integers(0, 10, 16)) for _ in range(2)]
    options = {"steps": 1, "learning_rate": 0.05}
    exact = scores.prospr(model, few, dtype="float64", **options)
    for dtype, bound in (("float32", 1e-5), ("float64", 1e-12)):
        found = scores.prospr(training.fused(model), few, dtype=dtype, **options)
        assert relative_error(found, exact) < bound


def test_fused_normalisation_keeps_masks_and_refuses_what_it_is_not():
    model = resnet8(widths=(2, 2, 2), shape=(8, 8, 3))
    again = training.fused(model)
    chosen = [np.arange(np.prod(k.shape)).reshape(k.shape) % 2 for k in kernels(again)]
    masks.apply(again, chosen)
    data = tf.random.normal((32, 8, 8, 3)), tf.zeros(32, tf.int64)
    training.trainer(again)(data, steps=3, batch_size=8)
    for kernel, mask in zip(kernels(again), chosen, strict=True):
        assert np.all(kernel.numpy()[mask == 0] == 0)
    kept = masks.in_force(training.fused(again))
    assert all(np.array_equal(a, b) for a, b in zip(kept, chosen, strict=True))
    first = model.trainable_variables[0]
    first.regularizer = keras.regularizers.L2(0.1)
    expected = 0.1 * float(tf.reduce_sum(first**2))
    assert float(sum(training.fused(model).losses)) == pytest.approx(expected, rel=1e-6)
    first.constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError, match=r"kernel: expected a constraint that its layer stores"):
        training.fused(model)
    for options in ({"axis": 1}, {"center": False}, {"scale": False}):
        odd = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.BatchNormalization(name="odd", **options)]
        )
        with pytest.raises(ValueError, match="layer 'odd': expected normalisation over the last"):
            training.fused(odd)


def test_a_training_goes_on_in_a_later_epoch(digits):
    """With the batches of that epoch: made steps may be more than an epoch has."""
    data, ends = tuple(part[:96] for part in digits.train), []
    for parts in ((10,), (4, 10), (6, 8, 10)):
        model, made = dense_300_100(units=(30, 10)), 0
        train = training.trainer(model, keras.optimizers.SGD(0.1))
        for steps in parts:
            train(data, steps=steps, batch_size=32, made=made)
            made = steps
        ends.append(model.get_weights())
    assert relative_error(ends[1], ends[0]) < 1e-6
    assert relative_error(ends[2], ends[0]) < 1e-6


def test_fused_normalisation_has_the_weights_and_options_of_a_model_that_was_trained():
    norm = keras.layers.BatchNormalization(momentum=0.5, epsilon=0.1)
    layers = [norm, keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4, 4, 2)), *layers])
    generator = np.random.default_rng(0)
    model.set_weights([generator.random(w.shape) + 0.5 for w in model.get_weights()])
    again = training.fused(model)
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    x = tf.constant(generator.normal(size=(64, 4, 4, 2)), tf.float32)
    np.testing.assert_allclose(
        again(x, training=True), model(x, training=True), rtol=1e-4, atol=1e-5
    )
    for a, b in zip(again.non_trainable_variables, model.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.005, atol=1e-5)


def test_fused_normalisation_that_is_frozen_is_that_of_keras():
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((4, 4, 2)), norm, keras.layers.Flatten()])
    generator = np.random.default_rng(0)
    model.set_weights([generator.random(w.shape) + 0.5 for w in model.get_weights()])
    norm.trainable = False
    again, x = training.fused(model), generator.normal(size=(64, 4, 4, 2)).astype("float32")
    before = again.get_weights()
    np.testing.assert_allclose(again(x, training=True), model(x, training=True), rtol=1e-5)
    for a, b in zip(again.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_follows_a_step_is_not_called_after_a_loss_that_is_not_finite(digits):
    data, called = tuple(part[:64] for part in digits.train), []
    model = dense_300_100("linear", units=(30, 10))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.0, 1e30])
    train = training.trainer(model, keras.optimizers.SGD(schedule))
    options = {"every": 1, "after": lambda step, optimizer: called.append(model.get_weights())}
    with pytest.raises(ValueError, match="finite training loss, found"):
        train(data, epochs=2, batch_size=8, **options)
    assert called
    assert all(np.all(np.isfinite(w)) for weights in called[:-1] for w in weights)


SMALL = functools.partial(dense_300_100, units=(30, 10))


def test_how_long_to_train_must_be_said(digits):
    with pytest.raises(ValueError, match="found epochs None and steps None"):
        training.trainer(SMALL())(digits.train)


def test_masks_that_come_around_another_constraint_hold(digits):
    """The compiled loop was traced with that one alone."""
    model, data = SMALL(), tuple(part[:96] for part in digits.train)
    for kernel in kernels(model):
        kernel.constraint = keras.constraints.NonNeg()
    train = training.trainer(model)
    train(data, steps=2, batch_size=32)
    masks.apply(model, masks.top_k(random(model, seed=1), 0.5))
    train(data, steps=2, batch_size=32)
    assert masks.outside(model) == []


def test_fused_normalisation_under_a_mask_is_that_of_keras():
    model = keras.Sequential([keras.Input((6, 2)), keras.layers.BatchNormalization()])
    (fused,), (plain,) = training.fused(model).layers, model.layers
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8, 6, 2)).astype("float32")
    mask = generator.random((8, 6)) < 0.5
    found, expected = (layer(x, training=True, mask=mask) for layer in (fused, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("begin", "end", "every", "expected"),
    [
        (0, 6, None, [0, 6]),
        (0, 6, 2, [0, 2, 4, 6]),
        (0, 5, 2, [0, 2, 4, 5]),
        (3, 8, 2, [3, 4, 6, 8]),
        (4, 8, 2, [4, 6, 8]),
        (5, 6, 2, [5, 6]),
        (5, 9, 10, [5, 9]),
        (5, 12, 10, [5, 10, 12]),
        (7, 10, 1, [7, 8, 9, 10]),
    ],
)
def test_an_epoch_stops_at_multiples_and_at_its_end(begin, end, every, expected):
    assert training.stops(begin, end, every) == expected


def test_what_follows_a_step_gets_its_number_and_the_optimizer(digits):
    """In epochs of three steps, of which the last is cut short."""
    data, called = tuple(part[:96] for part in digits.train), []
    optimizer = keras.optimizers.SGD(0.1)

    def after(step, given):
        called.append((step, given is optimizer, int(given.iterations.numpy())))

    train = training.trainer(SMALL(), optimizer)
    train(data, steps=7, batch_size=32, every=2, after=after)
    assert called == [(step, True, step) for step in (2, 4, 6)]


def test_what_is_frozen_stays_and_regularisation_is_in_the_losses(digits):
    data, model = tuple(part[:32] for part in digits.train), SMALL()
    first, *others = (la for la in model.layers if isinstance(la, keras.layers.Dense))
    first.trainable = False
    others[0].kernel.regularizer = keras.regularizers.L2(0.5)
    before, plain = [v.numpy() for v in model.variables], cross_entropy(model(data[0]), data[1])
    penalty = 0.5 * np.sum(others[0].kernel.numpy() ** 2)
    (loss,) = training.trainer(model)(data, steps=1, batch_size=32)
    assert penalty > 1
    assert loss == pytest.approx(float(plain) + penalty, rel=1e-5)
    frozen = {v.path for v in first.variables}
    for variable, old in zip(model.variables, before, strict=True):
        assert np.array_equal(variable, old) == (variable.path in frozen)


def test_sizes_that_a_model_leaves_open_fit():
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((None, None, 2)), *layers])
    x = np.ones((4, 5, 6, 2), "float32")
    assert training.error(model, (x, np.zeros(4, "uint8"))) in (0, 100)
    for wrong in (x[..., :1], x[0]):
        with pytest.raises(ValueError, match=r"expected examples of shape \(None, None, 2\)"):
            training.check_fits(model, wrong)


def test_a_model_of_several_inputs_is_not_held_to_one_shape():
    a, b = keras.Input((3,)), keras.Input((4,))
    training.check_fits(keras.Model([a, b], keras.layers.Concatenate()([a, b])), np.ones((2, 7)))


@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 3, 5, 4)])
def test_fused_normalisation_of_what_are_no_images_is_that_of_keras(shape):
    """Of numbers, sequences and volumes, for which there is no such operation."""
    layers = [keras.layers.BatchNormalization(epsilon=0.1), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input(shape), *layers])
    again, x = training.fused(model), np.random.default_rng(0).normal(2, 3, (16, *shape))
    found, expected = (m(x.astype("float32"), training=True) for m in (again, model))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
