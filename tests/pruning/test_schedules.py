"""Schedules: exactly s_t at every step that is due, on resuming too, and a word if it is short."""

import itertools
import warnings

from prosper_utils.pruning import masks, optimizers, schedules
from prosper_utils.pruning.networks import kernels, select

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

SIZE = 20 * 16 + 16 * 3
RULES = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
}


def network(rule=None, seed=0, **options):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(16, "tanh", name="hidden"), keras.layers.Dense(3, name="output")]
    model = keras.Sequential([keras.Input((20,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(rule or RULES["momentum"](), loss, **{"jit_compile": False} | options)
    return model


def data(batches=10):
    generator = np.random.default_rng(1)
    return generator.normal(size=(8 * batches, 20)).astype("float32"), np.arange(8 * batches) % 3


def fit(model, *callbacks, epochs=2, **options):
    """Train for 10 steps an epoch, in the same order of batches."""
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    return model.fit(*data(), epochs=epochs, callbacks=list(callbacks), **options)


def left(model):
    return sum(int(np.sum(mask)) for mask in masks.in_force(model))


class Counts(keras.callbacks.Callback):
    """Note after every batch how many weights differ from zero."""

    def on_train_begin(self, logs=None):
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(sum(np.count_nonzero(k.numpy()) for k in kernels(self.model)))


@given(
    st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 50), st.integers(0, 9), st.integers(1, 99)
)
def test_the_formula(final, part, begin, rounds, every):
    """The published equation, in its own symbols; at the end it is exact."""
    initial, until = part * final, begin + rounds * every
    ends = {"begin": begin, "until": until, "final": final, "initial": initial}
    for n in range(rounds):
        step = begin + n * every
        expected = final + (initial - final) * (1 - (step - begin) / (rounds * every)) ** 3
        assert schedules.cubic(step, **ends) == pytest.approx(expected, abs=6e-7)
    assert schedules.cubic(until, **ends) == final
    found = [schedules.cubic(begin + t, **ends) for t in range(rounds * every + 2)]
    assert all(b - a >= -2e-6 for a, b in itertools.pairwise(found))
    assert [round(s, 6) for s in found[: rounds * every]] == found[: rounds * every]
    assert found[0] == (pytest.approx(initial, abs=6e-7) if rounds else final)


def test_the_numbers_by_hand():
    ends = {"begin": 100, "until": 500, "final": 0.8, "initial": 0.0}
    found = [schedules.cubic(t, **ends) for t in (100, 200, 300, 400, 500, 900)]
    assert found == [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]


@pytest.mark.parametrize("rule", RULES)
def test_under_fit_it_is_exact_at_every_step(rule):
    model, counts = network(RULES[rule]()), Counts()
    schedule = schedules.Gradual(model, 0.93, begin=2, until=14, every=4, initial=0.2)
    fit(model, schedules.GradualCallback(schedule), counts)
    parts = [0.93 + (0.2 - 0.93) * (1 - n / 3) ** 3 for n in range(4)]
    wanted = [masks.kept(SIZE, round(s, 6)) for s in parts]
    assert schedule.pruned == list(zip((2, 6, 10, 14), wanted, strict=True))
    assert wanted[-1] == masks.kept(SIZE, 0.93)
    assert counts.found == [SIZE] + [k for k in wanted[:-1] for _ in range(4)] + 7 * wanted[-1:]
    assert masks.outside(model) == []
    average = optimizers.average(model.optimizer, kernels(model)[0])
    assert (average is None) == (rule == "momentum")


def test_each_time_it_is_the_smallest_that_go():
    model = network()
    schedule = schedules.Gradual(model, 0.9, until=6, every=3)

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.before = [k.numpy() for k in kernels(self.model)]

    class Compare(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            flat = np.concatenate([abs(w).ravel() for w in look.before])
            kept = np.concatenate([np.ravel(m) for m in masks.in_force(self.model)])
            assert flat[~kept].max(initial=0) <= flat[kept].min()

    look = Look()
    fit(model, look, schedules.GradualCallback(schedule), Compare(), epochs=1)


@pytest.mark.parametrize("at", [0, 10, 13])
def test_one_shot_of_a_trained_model_under_fit(at):
    model, counts = network(), Counts()
    fit(model, epochs=1)
    assert int(model.optimizer.iterations) == 10
    if at < 10:
        schedule = schedules.Gradual(model, 0.9, begin=at, until=at)
        with pytest.raises(ValueError, match=r"begin: expected at least 10, .* found 0 and more"):
            fit(model, schedules.GradualCallback(schedule))
        return
    schedule = schedules.Gradual(model, 0.9, begin=at, until=at)
    fit(model, schedules.GradualCallback(schedule), counts, epochs=1)
    k = masks.kept(SIZE, 0.9)
    assert schedule.pruned == [(at, k)]
    assert counts.found == [SIZE] * max(at - 11, 0) + [k] * (10 - max(at - 11, 0))


@pytest.mark.parametrize("choice", [{}, {"per_layer": True}, {"prune": [True, False]}])
def test_one_shot_as_a_function_is_top_k_of_the_sizes(choice):
    model = network()
    fit(model, epochs=1)
    sizes = [abs(k.numpy()) for k in kernels(model)]
    expected = masks.top_k(sizes, 0.9, **choice)
    found = schedules.prune(model, 0.9, **choice)
    for a, b, now in zip(found, expected, masks.in_force(model), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(now, b)
    fit(model, epochs=1)
    assert masks.outside(model) == []


def test_what_is_pruned_stays_pruned():
    """A lower sparsity opens nothing, and a kept weight at zero is not one that was pruned."""
    model = network()
    schedules.prune(model, 0.9)
    before = masks.in_force(model)
    schedules.prune(model, 0.5)
    for a, b in zip(masks.in_force(model), before, strict=True):
        np.testing.assert_array_equal(a, b)
    kernel = kernels(model)[1]
    kernel.assign(tf.zeros_like(kernel))  # kept weights that are exactly zero
    schedules.prune(model, 0.9)
    assert left(model) == masks.kept(SIZE, 0.9)
    for a, b in zip(masks.in_force(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_plain_loop_prunes_too():
    model, rule = network(), keras.optimizers.SGD(0.1, momentum=0.9)
    schedule = schedules.Gradual(model, 0.8, until=9, every=3, prune=select(model, exclude=[-1]))
    rule.build(model.trainable_variables)
    for step in range(1, 13):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(data()[0]) ** 2)
        rule.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        schedule.after(step, rule)
    assert [step for step, _ in schedule.pruned] == [1 - 1, 3, 6, 9]
    assert masks.per_layer(model)[0][1] == masks.kept(320, 0.8)
    assert masks.per_layer(model)[1][1] == 48
    assert masks.outside(model) == []


@pytest.mark.parametrize("way", ["prune", "after", "start"])
def test_the_optimizer_that_is_given_is_held_to_the_masks(way):
    """Neither the compiled one nor a fit says which it is: its averages fill no zeros."""
    model, rule = network(), RULES["adam"]()
    rule.build(model.trainable_variables)
    for kernel in kernels(model):
        optimizers.average(rule, kernel).assign(tf.ones_like(kernel))
    schedule = schedules.Gradual(model, 0.8, begin=3, until=3)
    {
        "prune": lambda: schedules.prune(model, 0.8, optimizer=rule),
        "after": lambda: schedule.after(3, rule),
        "start": lambda: schedule.start(3, rule),
    }[way]()
    assert left(model) == masks.kept(SIZE, 0.8)
    for kernel, mask in zip(kernels(model), masks.in_force(model), strict=True):
        np.testing.assert_array_equal(optimizers.average(rule, kernel), mask)


def test_from_the_beginning_its_kernels_have_masks_and_a_constant_sparsity_is_one():
    model = network()
    schedule = schedules.Gradual(model, 0.5, initial=0.5, until=4, every=2)
    assert all(isinstance(kernel.constraint, masks.Mask) for kernel in kernels(model))
    assert left(model) == SIZE
    for step in range(6):
        schedule.after(step)
    assert schedule.pruned == [(t, masks.kept(SIZE, 0.5)) for t in (0, 2, 4)]


def test_kept_weights_are_counted_by_their_masks():
    model = network()
    kernels(model)[0].assign(tf.zeros_like(kernels(model)[0]))
    schedule = schedules.Gradual(model, 0.5, until=0)
    schedule.after(0)
    assert schedule.pruned == [(0, masks.kept(SIZE, 0.5))]


def pruned_up_to(step, **choice):
    """Return a model that a schedule has pruned up to a step, and one that takes it up."""
    model, ends = network(), {"until": 8, "every": 2}
    schedules.Gradual(model, 0.9, **ends, **choice).after(step)
    return model, schedules.Gradual(model, 0.9, **ends, **choice)


@pytest.mark.parametrize("choice", [{}, {"per_layer": True}, {"prune": [False, True]}])
def test_taken_up_with_its_own_choice(choice):
    model, schedule = pruned_up_to(6, **choice)
    schedule.start(7)
    assert schedule.pruned == [(6, left(model))]
    model, schedule = pruned_up_to(6, **choice)
    with pytest.raises(ValueError, match="begin: expected at least 9, the steps that have been"):
        schedule.start(9)
    model, schedule = pruned_up_to(6, **choice)
    kernel, mask = kernels(model)[-1], masks.in_force(model)[-1].numpy()
    kernel.value[tuple(np.argwhere(~mask)[-1])].assign(1.0)  # a single weight too many
    with pytest.raises(ValueError, match=r"found 0 and more weights in .*output"):
        schedule.start(7)


@pytest.mark.parametrize("at_once", [1, 3, 5, "auto"])
def test_taken_up_where_several_steps_are_made_at_once(at_once):
    """After 7 steps, pruned up to the fourth: by 3 at a time that is right, one by one late."""
    model, schedule = pruned_up_to(4)
    model.steps_per_execution = at_once
    model.optimizer.iterations.assign(7)
    callback = schedules.GradualCallback(schedule)
    callback.set_model(model)
    callback.set_params({"steps": 10, "epochs": 1})
    callback.on_train_begin()
    if at_once == 1:
        with pytest.raises(ValueError, match="begin: expected at least 7"):
            callback.on_train_batch_begin(0)
        return
    callback.on_train_batch_begin(0)
    assert schedule.pruned[-1][0] == 6


def test_a_second_fit_counts_on_and_says_again_if_it_is_short():
    model = network()
    schedule = schedules.Gradual(model, 0.9, until=18, every=9)
    callback = schedules.GradualCallback(schedule)
    with pytest.warns(UserWarning, match="found at most 10 in"):
        fit(model, callback, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, callback, epochs=1)
    model = network()
    callback = schedules.GradualCallback(schedules.Gradual(model, 0.9, until=40, every=10))
    for made in (10, 20):
        with pytest.warns(UserWarning, match=f"found at most {made} in") as said:
            fit(model, callback, epochs=1)
        assert len(said) == 1


def test_the_epochs_that_a_training_leaves_out_are_not_counted():
    model = network()
    schedule = schedules.Gradual(model, 0.9, until=40, every=10)
    with pytest.warns(UserWarning, match="found at most 20 in") as said:
        fit(model, schedules.GradualCallback(schedule), epochs=4, initial_epoch=2)
    assert len(said) == 1


@pytest.mark.parametrize("at_once", [3, 7])
def test_several_steps_in_one_execution(at_once):
    model, counts = network(steps_per_execution=at_once), Counts()
    schedule = schedules.Gradual(model, 0.9, until=16, every=2)
    fit(model, schedules.GradualCallback(schedule), counts, epochs=3)
    assert left(model) == counts.found[-1] == masks.kept(SIZE, 0.9)
    assert schedule.pruned[-1] == (16, masks.kept(SIZE, 0.9))


def resumable(folder, first, save_freq):
    """Return a fresh model, and its schedule with a callback that restores what a run has left."""
    model = network()
    backup = keras.callbacks.BackupAndRestore(folder, save_freq, delete_checkpoint=False)
    schedule = schedules.Gradual(model, 0.95, until=18, every=2)
    both = [schedules.GradualCallback(schedule), backup]
    return model, both if first else both[::-1]


class Stop(keras.callbacks.Callback):
    """Stop as a process does that is killed."""

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 14:
            raise KeyboardInterrupt


@pytest.mark.parametrize("first", [True, False], ids=["schedule first", "backup first"])
@pytest.mark.parametrize("save_freq", ["epoch", 8])
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path, first, save_freq):
    """Keras begins an epoch anew that was cut in the middle: then the batches are others."""
    model, callbacks = resumable(tmp_path / "parts", first, save_freq)
    with pytest.raises(KeyboardInterrupt):
        fit(model, *callbacks, Stop(), epochs=3)
    model, callbacks = resumable(tmp_path / "parts", first, save_freq)
    counts = Counts()
    fit(model, *callbacks, counts, epochs=3)
    made = int(model.optimizer.iterations)
    assert made == {"epoch": 30, 8: 38}[save_freq]
    until = {"begin": 0, "until": 18, "final": 0.95}
    due = [t - t % 2 for t in range(made - len(counts.found) + 1, made + 1)]
    expected = [masks.kept(SIZE, schedules.cubic(t, **until)) for t in due]
    assert counts.found == expected
    if save_freq == "epoch":
        whole, callbacks = resumable(tmp_path / "whole", first, save_freq)
        fit(whole, *callbacks, epochs=3)
        for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_saved_model_goes_on(tmp_path):
    model = network()
    schedule = schedules.Gradual(model, 0.95, until=18, every=3)
    with pytest.warns(UserWarning, match="found at most 10 in this training"):
        fit(model, schedules.GradualCallback(schedule), epochs=1)
    model.save(tmp_path / "model.keras")
    fit(model, schedules.GradualCallback(schedule), epochs=1)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    schedule = schedules.Gradual(loaded, 0.95, until=18, every=3)
    fit(loaded, schedules.GradualCallback(schedule), epochs=1)
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_that_is_too_short_says_so():
    model = network()
    schedule = schedules.Gradual(model, 0.9, until=40, every=10)
    with pytest.warns(
        UserWarning, match=r"expected 40 steps .* of 0\.9, found at most 20"
    ) as found:
        fit(model, schedules.GradualCallback(schedule))
    assert len(found) == 1
    model = network()
    schedule = schedules.Gradual(model, 0.9, until=18, every=9)
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", batch == 8)
    )
    with pytest.warns(UserWarning, match=r"found 9, which reach 0\.7875"):
        fit(model, schedules.GradualCallback(schedule), stop)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = network()
        fit(model, schedules.GradualCallback(schedules.Gradual(model, 0.9, until=20, every=5)))


def test_bad_input_is_named():
    model = network()
    for initial, final in ((0.5, 0.4), (-0.1, 0.4), (0.5, 1.0)):
        with pytest.raises(ValueError, match=f"initial {initial} and final {final}"):
            schedules.Gradual(model, final, until=10, every=5, initial=initial)
    for begin, until, every in ((0, 10, 3), (5, 4, 1), (-1, 4, 1), (0, 10, 0)):
        with pytest.raises(ValueError, match=f"begin {begin}, until {until} and every {every}"):
            schedules.Gradual(model, 0.9, begin=begin, until=until, every=every)
    other = schedules.GradualCallback(schedules.Gradual(network(), 0.9, until=0))
    with pytest.raises(ValueError, match="Gradual: expected one of the model that is fitted"):
        fit(model, other)
    with pytest.raises(ValueError, match=r"sparsity: expected a number in \[0, 1\), found 1"):
        schedules.prune(model, 1.0)


def test_what_was_said_of_one_training_does_not_silence_the_next():
    model = network()
    callback = schedules.GradualCallback(schedules.Gradual(model, 0.9, until=18, every=9))
    with pytest.warns(UserWarning, match="found at most 10 in"):
        fit(model, callback, epochs=1)
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", batch == 3)
    )
    with pytest.warns(UserWarning, match=r"found 14, which reach 0\.7875"):
        fit(model, callback, stop, epochs=1)


def test_a_schedule_that_is_refused_leaves_the_model_as_it_is():
    model = network()
    for options in ({"until": 10, "every": 3}, {"until": 4, "every": 2, "initial": 0.95}):
        with pytest.raises(ValueError, match="expected 0 <="):
            schedules.Gradual(model, 0.9, **options)
    assert [k.constraint for k in kernels(model)] == [None, None]


def test_sizes_are_told_apart_in_double_precision():
    model = keras.Sequential(
        [keras.Input((5,), dtype="float64"), keras.layers.Dense(4, use_bias=False, dtype="float64")]
    )
    sizes = 1 + 1e-12 * np.random.default_rng(0).permutation(20).reshape(5, 4)
    kernels(model)[0].assign(sizes)
    (found,) = schedules.prune(model, 0.5)
    np.testing.assert_array_equal(found, sizes > 1 + 9.5e-12)


@pytest.mark.parametrize(("number", "weight"), [(0, -1e-6), (1, -1.0), (1, np.nan)])
def test_one_weight_too_many_in_any_kernel_is_found(number, weight):
    model, schedule = pruned_up_to(6)
    kernel, mask = kernels(model)[number], masks.in_force(model)[number].numpy()
    kernel.value[tuple(np.argwhere(~mask)[-1])].assign(weight)
    with pytest.raises(ValueError, match=f"more weights in {kernel.path}"):
        schedule.start(7)


def test_every_step_may_be_one_of_the_schedule():
    model = network()
    schedule = schedules.Gradual(model, 0.75, until=4, every=1)
    for step in range(5):
        schedule.after(step)
    size = sum(int(np.prod(k.shape)) for k in kernels(model))
    shares = [schedules.cubic(step, begin=0, until=4, final=0.75) for step in range(5)]
    assert schedule.pruned == [(n, masks.kept(size, share)) for n, share in enumerate(shares)]


def test_a_training_of_unknown_length_is_judged_at_its_end():
    x, y = data()
    batches = tf.data.Dataset.from_generator(
        lambda: ((x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8]) for i in range(10)),
        output_signature=(tf.TensorSpec((8, 20)), tf.TensorSpec((8,), tf.int64)),
    )
    for until in (10, 20):
        model = network()
        callback = schedules.GradualCallback(schedules.Gradual(model, 0.9, until=until, every=2))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model.fit(batches, verbose=0, callbacks=[callback])
        found = [str(w.message) for w in said if str(w.message).startswith("schedule: ")]
        assert ["which reach 0.7" in words for words in found] == [True] * (until == 20)


def test_gradients_that_are_added_up_make_one_step():
    rule = keras.optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=4)
    model, counts = network(rule), Counts()
    schedule = schedules.Gradual(model, 0.9, begin=1, until=3, every=1)
    fit(model, schedules.GradualCallback(schedule), counts)
    ends = {"begin": 1, "until": 3, "final": 0.9}
    wanted = [masks.kept(SIZE, schedules.cubic(t, **ends)) for t in (1, 2, 3)]
    assert schedule.pruned == list(zip((1, 2, 3), wanted, strict=True))
    assert counts.found[7:11] == [wanted[1]] * 4


def test_what_is_due_after_each_step_by_hand():
    schedule = schedules.Gradual(network(), 0.8, begin=2, until=10, every=4, initial=0.4)
    due = [None, None, 2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10]
    assert [schedule.due(step) for step in range(13)] == due
    assert schedule.due(1000) == 10
    shares = {None: 0.0, 2: 0.4, 6: 0.75, 10: 0.8}  # 0.8 - 0.4 / 8 half-way
    assert [schedule.due_sparsity(step) for step in range(13)] == [shares[t] for t in due]
    at_once = schedules.Gradual(network(), 0.8, begin=3, until=3, initial=0.4)
    assert [at_once.due_sparsity(step) for step in (2, 3, 4, 500)] == [0.0, 0.8, 0.8, 0.8]


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_callback_hands_on_step_optimizer_and_steps_at_once(monkeypatch, at_once):
    """It starts before the first step of each training, and not again."""
    seen = []
    for name in ("start", "after"):
        monkeypatch.setattr(
            schedules.Gradual,
            name,
            lambda self, step, optimizer=None, name=name, **options: seen.append(
                (name, step, optimizer is self.model.optimizer, *options.values())
            ),
        )
    model = network(steps_per_execution=at_once, run_eagerly=True)
    callback = schedules.GradualCallback(schedules.Gradual(model, 0.9, until=4, every=2))
    for made in (0, 4):
        fit(model, callback, epochs=1, steps_per_epoch=4)
        steps = range(made + at_once, made + 5, at_once)
        assert seen == [("start", made, True, at_once)] + [("after", n, True) for n in steps]
        seen.clear()
