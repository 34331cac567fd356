"""Regrowth: credit against its formula, exactly k weights, runs that go on where they stopped."""

import functools
import itertools
import math
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor

from prosper_utils.pruning import masks, optimizers, regrowth, scores
from prosper_utils.pruning.networks import as_loss, dense_300_100, kernels, lenet5
from prosper_utils.study import datasets, training

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

OPTIMIZERS = {
    "momentum": lambda rate=0.05: keras.optimizers.SGD(rate, momentum=0.9),
    "adam": lambda rate=0.01: keras.optimizers.Adam(rate),
}
small = functools.partial(dense_300_100, units=(20, 10))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flat = keras.layers.Flatten()
        self.hidden, self.out = keras.layers.Dense(20, "relu"), keras.layers.Dense(10)

    def call(self, x):
        return self.out(self.hidden(self.flat(x)))


def subclassed():
    model = Subclassed()
    model(tf.zeros((1, 28, 28, 1)))
    return model


def functional():
    """Return a model with all kinds of state: moving averages, and a seed that draws go on from."""
    x = keras.Input((28, 28, 1))
    h = keras.layers.Dense(20, "relu")(keras.layers.Flatten()(x))
    h = keras.layers.Dropout(0.2)(keras.layers.BatchNormalization()(h))
    return keras.Model(x, keras.layers.Dense(10)(h))


def kept(model):
    return [np.array(m) for m in masks.in_force(model)]


def pruned(sparsity=0.9, **options):
    model = small(**options)
    return model, masks.top_k(scores.random(model, seed=1), sparsity)


def test_what_is_earned_is_the_mean_of_the_steps_that_were_masked(digits):
    model, chosen = pruned(dtype="float64")
    regrowth.earn(model, chosen, decay=0.75)
    expected = [np.zeros(k.shape) for k in kernels(model)]
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    for batch in itertools.islice(datasets.batches(digits.train, 32), 4):
        weights, loss = as_loss(model)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss(weights, batch)
        gradient = tape.gradient(value, weights)
        optimizer.apply(gradient, model.trainable_variables)
        for i, mask in enumerate(chosen):
            step = np.where(mask, 0, -0.1 * gradient[2 * i].numpy())
            expected[i] = 0.75 * expected[i] + 0.25 * step
    for found, value in zip(regrowth.earned(model), expected, strict=True):
        np.testing.assert_allclose(found, abs(value), rtol=1e-4, atol=1e-9)


@functools.cache
def pruned_once():
    """Return one network for all, its masks, and the weights that it begins with."""
    model, chosen = pruned()
    return model, chosen, model.get_weights()


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99))
def test_the_lightest_go_and_the_most_credited_come(seed, share):
    model, chosen, weights = pruned_once()
    model.set_weights(weights)
    masks.apply(model, chosen)
    generator = np.random.default_rng(seed)
    credit = [generator.random(k.shape) for k in kernels(model)]
    before, sizes = kept(model), [abs(k.numpy()) for k in kernels(model)]
    moved = regrowth.regrow(model, share, credit)
    after = kept(model)
    assert sum(m.sum() for m in after) == sum(m.sum() for m in before)
    assert moved == int(share * sum(m.sum() for m in before))
    lost = np.concatenate([s[b & ~a] for s, a, b in zip(sizes, after, before, strict=True)])
    held = np.concatenate([s[b & a] for s, a, b in zip(sizes, after, before, strict=True)])
    new = np.concatenate([c[a & ~b] for c, a, b in zip(credit, after, before, strict=True)])
    out = np.concatenate([c[~a & ~b] for c, a, b in zip(credit, after, before, strict=True)])
    assert len(lost) == len(new) == moved
    if moved:
        assert lost.max() <= held.min()
        assert new.min() >= out.max()
    for kernel, a, b in zip(kernels(model), after, before, strict=True):
        assert not np.any(kernel.numpy()[~(a & b)])


def test_without_credit_nothing_moves():
    model, chosen = pruned()
    masks.apply(model, chosen)
    before, credit = kept(model), [np.zeros(k.shape) for k in kernels(model)]
    assert regrowth.regrow(model, 0.5, credit) == 0
    credit[0][np.nonzero(~before[0])[0][0], np.nonzero(~before[0])[1][0]] = 1.0
    assert regrowth.regrow(model, 0.5, credit) == 1
    assert all(np.sum(a != b) in (0, 1, 2) for a, b in zip(before, kept(model), strict=True))


def looped(build, optimizer, *, every=5, until=30, seed=1, jit_compile=False, **compiled):
    """Return a compiled model, and the loop on it at 90%."""
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile, **compiled)
    chosen = masks.top_k(scores.random(model, seed=seed), 0.9)
    return model, regrowth.Regrowth(model, chosen, every=every, until=until)


def fit(model, loop, digits, *callbacks, epochs=2, batches=20):
    """Fit on so many batches an epoch; return the model."""
    data = tuple(part[: 64 * batches] for part in digits.train)
    callbacks = [regrowth.RegrowthCallback(loop), *callbacks]
    model.fit(*data, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


@pytest.mark.parametrize(("optimizer", "jit_compile"), [("momentum", True), ("adam", False)])
@pytest.mark.parametrize("build", [small, functional, subclassed])
def test_after_every_step_of_fit_k_weights_are_kept_and_the_others_zero(
    build, optimizer, jit_compile, digits
):
    model, loop = looped(build, OPTIMIZERS[optimizer](), jit_compile=jit_compile)
    before, counts, others = kept(model), [], []
    k = sum(m.sum() for m in before)

    def look(batch, logs):
        now = kept(model)
        counts.append(sum(m.sum() for m in now))
        others.extend(np.abs(w.numpy()[~m]).max() for w, m in zip(kernels(model), now, strict=True))

    fit(model, loop, digits, keras.callbacks.LambdaCallback(on_train_batch_end=look))
    assert counts == 40 * [k]
    assert set(others) == {0.0}
    assert [step for step, _ in loop.moved] == [5, 10, 15, 20, 25, 30]
    shares = [0.15 * (1 + math.cos(math.pi * step / 30)) for step, _ in loop.moved]
    assert [count for _, count in loop.moved] == [math.floor(share * k) for share in shares]
    pairs = zip(kernels(model), kept(model), before, strict=True)
    assert any(np.any(kernel.numpy()[now & ~first]) for kernel, now, first in pairs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_convolutions_k_is_exact_zeros_are_zero_and_the_grown_earn_weight(optimizer, digits):
    model = lenet5()
    chosen = masks.top_k(scores.random(model, seed=1), 0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss)
    loop = regrowth.Regrowth(model, chosen, every=5, until=20)
    callback = regrowth.RegrowthCallback(loop)
    model.fit(*digits.train, batch_size=64, epochs=1, verbose=0, callbacks=[callback])
    assert [step for step, _ in loop.moved] == [5, 10, 15, 20]
    assert loop.moved[0][1] > loop.moved[-2][1] > 0
    after = kept(model)
    assert sum(m.sum() for m in after) == sum(int(np.sum(m)) for m in chosen)
    grown = 0
    for kernel, mask, first in zip(kernels(model), after, chosen, strict=True):
        assert not np.any(kernel.numpy()[~mask])
        grown += np.count_nonzero(kernel.numpy()[mask & ~first.numpy()])
    assert grown > 0


def test_the_momentum_of_the_grown_begins_at_zero(digits):
    model, chosen = pruned()
    optimizer = OPTIMIZERS["momentum"]()
    regrowth.earn(model, chosen)
    training.trainer(model, optimizer)(digits.train, steps=4, batch_size=64)
    before = kept(model)
    slots = [v for v in optimizer.variables if "kernel" in v.path]
    assert len(slots) == 3
    assert all(np.any(s.numpy()[~b]) for s, b in zip(slots, before, strict=True))
    assert regrowth.regrow(model, 0.3, regrowth.earned(model), optimizer) > 0
    for slot, a, b in zip(slots, kept(model), before, strict=True):
        assert not np.any(slot.numpy()[a & ~b])
        assert np.any(slot.numpy()[a & b])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_in_the_loop_all_that_is_remembered_of_the_grown_is_forgotten(optimizer, digits):
    model, loop = looped(small, OPTIMIZERS[optimizer]())
    before = kept(model)
    fit(model, loop, digits, epochs=1, batches=5)
    slots = [v for v in model.optimizer.variables if "kernel" in v.path]
    assert len(slots) == {"momentum": 3, "adam": 6}[optimizer]
    grown = [a & ~b for a, b in zip(kept(model), before, strict=True)]
    assert sum(g.sum() for g in grown) == loop.moved[0][1] > 0
    for kernel, g in zip(kernels(model), grown, strict=True):
        for slot in (v.numpy() for v in slots if v.shape == kernel.shape):
            assert not np.any(slot[g])
            assert np.any(slot[~g])


def test_the_loop_regrows_as_its_options_say():
    model, chosen = pruned()
    generator = np.random.default_rng(0)
    credit, weight = ([generator.random(k.shape) for k in kernels(model)] for _ in range(2))
    given = {"credit": lambda model: credit, "weight": lambda model, optimizer: weight}
    loop = regrowth.Regrowth(model, chosen, every=1, until=2, share=0.4, decay=0.5, **given)
    assert [k.constraint.decay for k in kernels(model)] == [0.5, 0.5, 0.5]
    loop.after(1, OPTIMIZERS["momentum"]())
    other, _ = pruned()
    masks.apply(other, chosen)
    assert loop.moved == [(1, regrowth.regrow(other, 0.2, credit, weight=weight))]
    for a, b in zip(kept(model), kept(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_mask_did_before_it_earns_still_holds(digits, tmp_path):
    """A constraint within, a training step that is compiled already, and how it is stored."""
    model, chosen = pruned()
    masks.constrain(model, kernels(model)[0], keras.constraints.NonNeg())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS["momentum"](), loss, jit_compile=False)
    masks.apply(model, chosen)
    model.fit(*digits.train, batch_size=64, verbose=0)
    loop = regrowth.Regrowth(model, chosen, until=1, decay=0.75)
    fit(model, loop, digits)
    assert np.all(kernels(model)[0].numpy() >= 0)
    assert all(np.any(credit) for credit in regrowth.earned(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [k.constraint.decay for k in kernels(loaded)] == [0.75, 0.75, 0.75]
    for a, b in zip(kept(loaded), chosen, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_persistence_what_stood_still_goes(digits):
    model, chosen = pruned()
    optimizer = OPTIMIZERS["momentum"]()
    regrowth.earn(model, chosen)
    training.trainer(model, optimizer)(digits.train, steps=4, batch_size=64)
    before, weights = kept(model), [k.numpy() for k in kernels(model)]
    steps = [s.numpy() for s in regrowth.last_step(model, optimizer)]
    velocity = [v.numpy() for v in optimizer.variables if "kernel" in v.path]
    for step, value in zip(steps, velocity, strict=True):
        np.testing.assert_array_equal(step, abs(value))
    moved = regrowth.regrow(model, 0.3, regrowth.earned(model), optimizer, steps)
    dropped = [b & ~a for b, a in zip(before, kept(model), strict=True)]
    held = [b & a for b, a in zip(before, kept(model), strict=True)]
    largest = max(s[d].max(initial=0) for s, d in zip(steps, dropped, strict=True))
    assert largest <= min(s[h].min() for s, h in zip(steps, held, strict=True))
    assert sum(d.sum() for d in dropped) == moved > 0
    lost = np.concatenate([abs(w[d]) for w, d in zip(weights, dropped, strict=True)])
    assert lost.max() > min(abs(w[h]).min() for w, h in zip(weights, held, strict=True))
    adam = OPTIMIZERS["adam"]()
    adam.build(model.trainable_variables)
    with pytest.raises(ValueError, match="expected SGD with momentum and no more, found Adam"):
        regrowth.last_step(model, adam)


def test_lookahead_credit_is_the_fall_along_a_mask_that_stays(digits):
    model, chosen = pruned(dtype="float64")
    masks.apply(model, chosen)
    batches = list(itertools.islice(datasets.batches(digits.train, 32), 4))
    weights, loss = as_loss(model)

    def outer(c):
        w = [m * v for m, v in zip(c, weights, strict=True)]
        for batch in batches[:-1]:
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = loss(w, batch)
            slope = tape.gradient(value, w)
            w = [v - 0.5 * m * g for v, m, g in zip(w, c, slope, strict=True)]
        return float(loss(w, batches[-1]))

    found = regrowth.lookahead_credit(model, batches, steps=3, learning_rate=0.5)
    base = [np.ones(w.shape) for w in weights]
    for i, mask in enumerate(chosen):
        base[2 * i] = mask.numpy().astype(float)
    for i, mask in enumerate(chosen):
        order = np.argsort(-(found[i].numpy() * ~mask.numpy()), axis=None)
        places = [np.unravel_index(k, mask.shape) for k in order[:3]]  # not in the mask
        places.append(tuple(np.argwhere(mask.numpy())[0]))
        places += [tuple(p) for p in np.argwhere((found[i].numpy() == 0) & ~mask.numpy())[:40:13]]
        for place in places:
            ends = []
            for sign in (1, -1):
                c = [b.copy() for b in base]
                c[2 * i][place] += sign * 1e-5
                ends.append(outer(c))
            gain = max((ends[1] - ends[0]) / 2e-5, 0)
            assert found[i].numpy()[place] == pytest.approx(gain, rel=1e-5, abs=1e-9)


def test_gradient_credit_is_the_size_of_the_gradient(digits):
    model, chosen = pruned()
    masks.apply(model, chosen)
    batch = tuple(part[:64] for part in digits.train)
    with tf.GradientTape() as tape:
        logits = model(batch[0])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(batch[1], logits)
    expected = tape.gradient(loss, model.trainable_variables)[::2]
    for found, value in zip(regrowth.gradient_credit(model, batch), expected, strict=True):
        np.testing.assert_allclose(found, abs(value), rtol=1e-4, atol=1e-7)


def test_credit_is_of_the_loss_that_is_asked_for():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.1)),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential([keras.Input((5,)), *layers])
    masks.apply(model, [np.indices(k.shape).sum(0) % 2 for k in kernels(model)])
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(8, 5)), np.arange(8) % 3) for _ in range(2)]
    credits = []
    for of_loss in ({}, {"statistics": "moving"}, {"regularisation": False}):
        weights, loss = as_loss(model, **of_loss)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss(weights, batches[0])
        gradient = [g for g in tape.gradient(value, weights) if len(g.shape) > 1]
        found = regrowth.gradient_credit(model, batches[0], **of_loss)
        for a, b in zip(found, gradient, strict=True):
            np.testing.assert_allclose(a, abs(b), rtol=1e-5, atol=1e-7)
        credits.append(regrowth.lookahead_credit(model, batches, steps=1, **of_loss))
    for one, other in itertools.combinations(credits, 2):
        assert not all(np.allclose(a, b, rtol=1e-3) for a, b in zip(one, other, strict=True))


def test_of_equal_credit_the_first_grow_and_double_precision_tells_the_rest():
    model, chosen = pruned()
    masks.apply(model, chosen)
    before = kept(model)
    free = [np.flatnonzero(~m) for m in before]
    credit = [np.ones(k.shape) for k in kernels(model)]
    credit[2].ravel()[free[2]] += 1e-12 * np.arange(len(free[2]))
    moved = regrowth.regrow(model, 0.1, credit)
    grown = [np.flatnonzero(a & ~b) for a, b in zip(kept(model), before, strict=True)]
    rest = moved - (len(free[2]) - 1)
    assert rest > 0
    np.testing.assert_array_equal(grown[2], free[2][1:])
    np.testing.assert_array_equal(grown[0], free[0][:rest])


def test_an_optimizer_forgets_the_grown_in_every_kernel_and_averages_are_held():
    model, chosen = pruned()
    rule = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)
    rule.build(model.trainable_variables)
    masks.apply(model, chosen)
    for kernel in kernels(model):
        for slot in optimizers.slots(rule, kernel).values():
            slot.assign(tf.ones_like(slot))
    before = kept(model)
    credit = [np.random.default_rng(i).random(k.shape) for i, k in enumerate(kernels(model))]
    regrowth.regrow(model, 0.5, credit, rule)
    for kernel, a, b in zip(kernels(model), kept(model), before, strict=True):
        assert np.any(a & ~b)
        slots = optimizers.slots(rule, kernel)
        np.testing.assert_array_equal(slots["momentums"], ~(a & ~b))
        np.testing.assert_array_equal(optimizers.average(rule, kernel), a & b)


def run(digits, path, *parts):
    """Train for 24 steps in one go, or in parts that go on from what was saved; return weights."""
    made = 0
    for steps in parts:
        model, chosen = pruned(seed=3)
        optimizer = OPTIMIZERS["momentum"]()
        train = training.trainer(model, optimizer)
        loop = regrowth.Regrowth(model, chosen, every=4, until=20)
        if made:
            loop.load(path, optimizer)
        options = {"batch_size": 64, "every": 4, "after": loop.after, "made": made}
        train(digits.train, steps=steps, **options)
        loop.save(path, optimizer)
        made = steps
    assert len(loop.moved) == 5
    return model.get_weights(), kept(model)


def test_a_run_that_was_interrupted_goes_on_as_if_nothing_had_happened(digits, tmp_path):
    whole = run(digits, tmp_path / "whole.npz", 24)
    parts = run(digits, tmp_path / "parts.npz", 10, 24)
    for a, b in zip(itertools.chain(*whole), itertools.chain(*parts), strict=True):
        np.testing.assert_array_equal(a, b)


def stretch(path, how, optimizer, begin, end, seed):
    """Train with deterministic ops for epochs of 9 steps, go on from what is saved, and save."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    rates = keras.optimizers.schedules.CosineDecay(0.05, 20)
    optimizer = OPTIMIZERS[optimizer](rates)
    model, loop = looped(functional, optimizer, every=4, until=16, seed=seed)
    data = tuple(part[:576] for part in datasets.load("digits").train)
    train = training.trainer(model, optimizer)
    if begin:
        loop.load(path, optimizer)
    if how == "trainer":
        made, options = 9 * begin, {"batch_size": 64, "every": 4, "after": loop.after}
        train(data, steps=9 * end, made=made, **options)
    else:
        options = {"initial_epoch": begin, "epochs": end, "batch_size": 64, "shuffle": False}
        model.fit(*data, verbose=0, callbacks=[regrowth.RegrowthCallback(loop)], **options)
    loop.save(path, optimizer)


def stretches(*jobs):
    for job in jobs:
        stretch(*job)


def test_a_new_process_goes_on_bit_for_bit(tmp_path):
    """Weights, masks, credit, averages, momentum, step, draws: all as in a run in one go."""
    ways = ("trainer", "momentum"), ("fit", "adam")
    files = {
        way: [tmp_path / f"{'_'.join(way)}_{n}.npz" for n in ("whole", "parts")] for way in ways
    }
    first, second = [], []
    for way, (whole, parts) in files.items():
        first += [(whole, *way, 0, 2, 0), (parts, *way, 0, 1, 0)]
        second += [(parts, *way, 1, 2, 1)]  # with other weights and masks to begin with
    for jobs in (first, second):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            process.submit(stretches, *jobs).result()
    for whole, parts in files.values():
        a, b = np.load(whole), np.load(parts)
        assert set(a.files) == set(b.files)
        assert len(a["moved"]) == 4
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{parts.name}: {name}")


def state(loop, optimizer):
    """Return copies of all that changes in training."""
    constraints = [kernel.constraint for kernel in kernels(loop.model)]
    variables = [*loop.model.variables, *optimizer.variables]
    variables += [c.mask for c in constraints] + [c.credit for c in constraints]
    return [v.numpy() for v in variables] + [np.array(loop.moved)]


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """Return the path of what a loop saved after 20 steps of momentum."""
    model, loop = looped(small, keras.optimizers.SGD(0.05, momentum=0.9), until=10)
    fit(model, loop, digits, epochs=1)
    path = tmp_path_factory.mktemp("saved") / "state.npz"
    loop.save(path, model.optimizer)
    return path


@pytest.mark.parametrize(
    ("other", "optimizer", "named"),
    [
        (lambda: dense_300_100(units=(20, 12)), keras.optimizers.SGD, "credit_1"),
        (lambda: dense_300_100(units=(22, 10)), keras.optimizers.SGD, "credit_0"),
        (
            lambda: keras.Sequential([small(), keras.layers.Dense(5)]),
            keras.optimizers.SGD,
            "mask_3",
        ),
        (lambda: small(dtype="float64"), keras.optimizers.SGD, "SGD_2"),
        (small, keras.optimizers.RMSprop, "RMSprop_0"),
    ],
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(saved, other, optimizer, named):
    written, model = saved.read_bytes(), other()
    theirs = regrowth.Regrowth(model, masks.top_k(scores.random(model), 0.5), until=10)
    built = optimizer(0.05, momentum=0.9)
    built.build(model.trainable_variables)
    before = state(theirs, built)
    with pytest.raises(
        ValueError, match=rf"state\.npz: expected the state of this model .*{named}"
    ):
        theirs.load(saved, built)
    for a, b in zip(before, state(theirs, built), strict=True):
        np.testing.assert_array_equal(a, b)
    assert saved.read_bytes() == written
    with pytest.raises(ValueError, match="optimizer: expected a built one"):
        theirs.load(saved, optimizer(0.05, momentum=0.9))
    with pytest.raises(FileNotFoundError):
        theirs.load(saved.with_name("none.npz"), built)


def test_a_save_that_is_interrupted_leaves_the_last_one(digits, tmp_path, monkeypatch):
    model, loop = looped(small, OPTIMIZERS["momentum"]())
    fit(model, loop, digits, epochs=1, batches=5)
    path = tmp_path / "state"
    loop.save(path, model.optimizer)
    written = path.read_bytes()

    def half(file, **arrays):
        file.write(written[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        loop.save(path, model.optimizer)
    assert path.read_bytes() == written
    monkeypatch.undo()
    before, moved = state(loop, model.optimizer), list(loop.moved)
    loop.load(path, model.optimizer)
    assert loop.moved == moved == [(5, moved[0][1])]
    for a, b in zip(before, state(loop, model.optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_input_is_named():
    model, chosen = pruned()
    credit = [np.ones(k.shape) for k in kernels(model)]
    with pytest.raises(ValueError, match="expected weights that earn"):
        regrowth.earned(model)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"share to drop: expected a number in \[0, 1\)"):
            regrowth.regrow(model, share, credit)
        with pytest.raises(ValueError, match="share to drop"):
            regrowth.Regrowth(model, chosen, until=10, share=share)
    for interval in ({"every": 0}, {"until": 0}):
        with pytest.raises(ValueError, match="expected at least 1 step, found 0"):
            regrowth.Regrowth(model, chosen, **{"until": 10} | interval)
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="decay: expected"):
            regrowth.earn(model, chosen, decay=decay)
    assert [k.constraint for k in kernels(model)] == [None] * 3
    with pytest.raises(ValueError, match="steps: expected M >= 1, found 0"):
        regrowth.lookahead_credit(model, [], steps=0)
    masks.apply(model, chosen)
    for bad in (credit[:2], [*credit, credit[0]], [c[..., None] for c in credit], [1.0] * 3):
        with pytest.raises(ValueError, match="credit: expected shapes"):
            regrowth.regrow(model, 0.1, bad)
    with pytest.raises(ValueError, match="expected finite numbers >= 0"):
        regrowth.regrow(model, 0.1, [np.nan * c for c in credit])
    for wrong, kept_there in itertools.product((np.nan, np.inf, -1e-300), (True, False)):
        place = tuple(np.argwhere(chosen[-1].numpy() == kept_there)[-1])
        bad = [c.copy() for c in credit]
        bad[-1][place] = wrong  # a single one, kept or not
        with pytest.raises(ValueError, match=r"credit of .*output.*: expected finite numbers >= 0"):
            regrowth.regrow(model, 0.1, bad)
    regrowth.earn(model, chosen)
    masks.constrain(model, kernels(model)[1], masks.Mask(chosen[1]))
    with pytest.raises(ValueError, match="expected weights that earn"):
        regrowth.earned(model)


@pytest.mark.parametrize(
    ("share", "credit", "weight", "message"),
    [
        (1.0, 1.0, 0.1, r"share to drop: expected a number in \[0, 1\), found 1.0"),
        (0.1, -1.0, 0.1, "credit of .*: expected finite numbers >= 0"),
        (0.1, 1.0, 1.0, "has changed since the mask was made"),
        (0.1, 1.0, np.nan, "expected finite weights"),
        (0.1, 1.0, np.inf, "expected finite weights"),
    ],
)
def test_a_purge_that_is_refused_changes_nothing(share, credit, weight, message):
    model, chosen = pruned()
    masks.apply(model, chosen)
    kernel = kernels(model)[-1]
    kernel.assign(tf.where(kernel == 0, float(weight == 1), weight))
    optimizer = OPTIMIZERS["momentum"]()
    optimizer.build(model.trainable_variables)
    for variable in optimizer.variables[2:]:
        variable.assign(tf.ones_like(variable))
    before = [v.numpy() for v in (*model.variables, *optimizer.variables)] + kept(model)
    with pytest.raises(ValueError, match=message):
        regrowth.regrow(model, share, [np.full(k.shape, credit) for k in kernels(model)], optimizer)
    after = [v.numpy() for v in (*model.variables, *optimizer.variables)] + kept(model)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_fit_hides_from_the_loop_is_refused(digits):
    for hidden in (4, "auto"):
        model, loop = looped(small, OPTIMIZERS["momentum"](), steps_per_execution=hidden)
        before = state(loop, model.optimizer)
        with pytest.raises(ValueError, match=f"steps_per_execution: expected 1, .* found {hidden}"):
            fit(model, loop, digits)
        for a, b in zip(before, state(loop, model.optimizer), strict=True):
            np.testing.assert_array_equal(a, b)
    _, theirs = looped(small, OPTIMIZERS["momentum"]())
    with pytest.raises(ValueError, match="Regrowth: expected one of the model that is fitted"):
        fit(looped(small, OPTIMIZERS["momentum"]())[0], theirs, digits)


def test_a_second_fit_counts_only_steps_that_are_made(digits):
    """Its first batch makes none, though some have been made before."""
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=4)
    model, loop = looped(small, optimizer, every=5, until=10)
    for _ in range(2):
        fit(model, loop, digits, epochs=1)
    assert [step for step, _ in loop.moved] == [5, 10]


def test_gradients_that_are_added_up_make_one_step(digits):
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=4)
    model, loop = looped(small, optimizer, every=2, until=10)
    fit(model, loop, digits)
    assert [step for step, _ in loop.moved] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("frequency", [None, 3])
def test_averages_of_weights_that_come_and_go_are_zero_where_the_masks_are(digits, frequency):
    rule = keras.optimizers.SGD(
        0.05, momentum=0.9, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency
    )
    model, loop = looped(small, rule, every=3, until=30)
    k, looks = sum(m.sum() for m in kept(model)), []

    def look(batch, logs):
        averages = [optimizers.average(rule, kernel).numpy() for kernel in kernels(model)]
        pairs = zip(averages, kept(model), strict=True)
        looks.append(masks.outside(model) == [] and not any(np.any(a[~m]) for a, m in pairs))

    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(model, loop, digits, swap, keras.callbacks.LambdaCallback(on_train_batch_end=look))
    assert looks == 40 * [True]
    assert len(loop.moved) == 10
    assert sum(m.sum() for m in kept(model)) == k
    assert masks.outside(model) == []
    for kernel in kernels(model):  # what is in the model at the end is the average
        np.testing.assert_array_equal(kernel.numpy(), optimizers.average(rule, kernel).numpy())


def test_branches_of_one_name_keep_their_own_momentum(digits):
    """Two layers whose variables have the same path, in two nested models of one name."""

    def branch():
        x = keras.Input((28, 28, 1))
        y = keras.layers.Dense(4, name="same")(keras.layers.Flatten()(x))
        return keras.Model(x, y, name="branch")

    x = keras.Input((28, 28, 1))
    first, second = branch(), branch()
    second.name = "other"
    h = keras.layers.Add()([first(x), second(x)])
    model = keras.Model(x, keras.layers.Dense(10)(h))
    a, b, _ = kernels(model)
    assert a.path == b.path
    regrowth.earn(model, masks.top_k(scores.random(model, seed=1), 0.9))
    optimizer = OPTIMIZERS["momentum"]()
    training.trainer(model, optimizer)(digits.train, steps=3, batch_size=64)
    steps = regrowth.last_step(model, optimizer)
    slots = [m for m in optimizer.momentums if len(m.shape) > 1]
    momenta = [m.numpy() for m in slots]
    for found, momentum in zip(steps, momenta, strict=True):
        np.testing.assert_array_equal(found, abs(momentum))
    before = kept(model)
    credit = [np.zeros(k.shape) for k in kernels(model)]
    place = tuple(np.argwhere(~before[0])[0])
    credit[0][place] = 1.0  # it alone is grown, in the first branch
    assert regrowth.regrow(model, 0.5, credit, optimizer) == 1
    momenta[0][place] = 0
    for slot, value in zip(slots, momenta, strict=True):
        np.testing.assert_array_equal(slot.numpy(), value)


@pytest.mark.parametrize(
    "rule",
    [
        lambda: keras.optimizers.RMSprop(0.01),
        lambda: keras.optimizers.Lion(0.01),
        lambda: keras.optimizers.SGD(0.1),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
    ],
)
def test_steps_that_are_more_than_a_buffer_are_refused(rule):
    """An optimizer with one slot a weight need not hold steps in it."""
    model, chosen = pruned()
    masks.apply(model, chosen)
    optimizer = rule()
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="expected SGD with momentum and no more"):
        regrowth.last_step(model, optimizer)


def test_a_training_shorter_than_an_interval_says_that_nothing_was_regrown(digits):
    model, loop = looped(small, OPTIMIZERS["momentum"](), every=50, until=100)
    with pytest.warns(UserWarning, match=r"nothing was regrown in 5 steps .* every=50"):
        fit(model, loop, digits, epochs=1, batches=5)
    model, loop = looped(small, OPTIMIZERS["momentum"](), every=5, until=3)
    with pytest.warns(UserWarning, match=r"nothing was regrown in 9 steps .* every=5 and until=3"):
        fit(model, loop, digits, epochs=1, batches=9)
    model, loop = looped(small, OPTIMIZERS["momentum"](), every=5, until=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, loop, digits, epochs=1, batches=5)


@pytest.mark.parametrize("first", [True, False])
def test_weights_that_come_back_without_their_masks_are_refused(digits, tmp_path, first):
    """A loop goes on from what it saved itself: weights alone do not say which masks they had."""
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    model, loop = looped(small, OPTIMIZERS["momentum"](), every=2, until=30)
    fit(model, loop, digits, backup, epochs=1, batches=5)
    model, loop = looped(small, OPTIMIZERS["momentum"](), every=2, until=30)
    again = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    callbacks = [again, regrowth.RegrowthCallback(loop)]
    with pytest.raises(ValueError, match=r"expected zeros outside the masks, found \d+ other"):
        model.fit(
            *(part[:320] for part in digits.train),
            batch_size=64,
            epochs=2,
            verbose=0,
            callbacks=callbacks if first else callbacks[::-1],
        )


def normalised(epsilon=1e-14):
    """Return a network whose 20 hidden units are normalised."""
    keras.utils.set_random_seed(0)
    x = keras.Input((28, 28, 1), dtype="float64")
    h = keras.layers.Dense(20, use_bias=False, dtype="float64")(
        keras.layers.Flatten(dtype="float64")(x)
    )
    h = keras.layers.BatchNormalization(epsilon=epsilon, dtype="float64")(h)
    h = keras.layers.Activation("tanh", dtype="float64")(h)  # at 0 it has a slope
    y = keras.layers.Dense(10, dtype="float64")(h)
    return keras.Model(x, y)


@functools.cache
def normalised_once():
    """Return one such network for all, and the weights that it begins with."""
    model = normalised()
    return model, model.get_weights()


def regrown(model, chosen, batch, **options):
    """Return the masks after one time of regrowth by the gradient of a batch."""

    def credit(model):
        return regrowth.gradient_credit(model, batch)

    loop = regrowth.Regrowth(model, chosen, every=1, until=2, credit=credit, **options)
    loop.after(1, OPTIMIZERS["momentum"]())
    return kept(model)


def test_every_kernel_needs_its_credit():
    model = dense_300_100()
    with pytest.raises(ValueError, match="zip"):
        regrowth.scale_free(model, [tf.abs(k.value) for k in kernels(model)][:-1])


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_scale_free_regrowth_does_not_depend_on_the_scale_of_a_normalised_unit(digits, seed):
    scales = 10 ** np.random.default_rng(seed).uniform(-2, 2, 20)
    batch = tuple(part[:256] for part in digits.train)
    model, (kernel, *others) = normalised_once()
    chosen = masks.top_k(scores.random(model, seed=seed % 100), 0.8)
    found = []
    for scale, scale_free in ((1.0, None), (scales, None), (scales, False)):
        model.set_weights([scale * kernel, *others])
        found.append(regrown(model, chosen, batch, scale_free=scale_free))
    once, scaled, by_size = found
    assert any(np.any(a != b) for a, b in zip(once, chosen, strict=True))
    for a, b in zip(once, scaled, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(by_size[0] != once[0])


def test_a_normalised_unit_without_weights_is_not_grown_unless_asked_for(digits):
    batch = tuple(part[:256] for part in digits.train)
    model = normalised(epsilon=1e-5)
    chosen = kept(model)
    chosen[0][:, 3] = False
    first = regrown(model, chosen, batch)
    assert not np.any(first[0][:, 3])
    model = normalised(epsilon=1e-5)
    by_size = regrown(model, chosen, batch, scale_free=False)
    assert np.any(by_size[0][:, 3])


def test_where_nothing_is_normalised_sizes_are_compared_as_they_are():
    for build, expected in ((small, False), (functional, True), (normalised, True)):
        model = build()
        chosen = masks.top_k(scores.random(model), 0.5)
        assert regrowth.Regrowth(model, chosen, until=1).scale_free is expected
        assert regrowth.Regrowth(model, chosen, until=1, scale_free=False).scale_free is False
        weight, credit = regrowth.scale_free(model, [abs(k.value) for k in kernels(model)])
        for w, e, kernel in zip(weight, credit, kernels(model), strict=True):
            np.testing.assert_allclose(w * e, kernel.numpy() ** 2, rtol=1e-5)


def test_the_norm_of_a_unit_is_over_what_it_reads():
    x = keras.Input((8, 8, 3))
    layers = keras.layers
    h = layers.SeparableConv2D(5, 3)(x)
    h = layers.DepthwiseConv2D(3, depth_multiplier=2)(h)
    h = layers.Reshape((-1, 7))(layers.Conv2DTranspose(7, 3)(h))
    h = layers.Flatten()(layers.Conv1D(4, 3)(h))
    model = keras.Model(x, layers.Dense(10)(h))
    over = [(0, 1), (0, 1, 2), (0, 1), (0, 1, 3), (0, 1), (0,)]
    for kernel, axes, norm in zip(kernels(model), over, regrowth.unit_norms(model), strict=True):
        expected = np.sqrt(np.sum(kernel.numpy() ** 2, axes, keepdims=True))
        np.testing.assert_allclose(norm, expected, rtol=1e-5)


def test_the_norm_of_a_unit_of_attention_is_over_one_head():
    x = keras.Input((5, 4))
    h = keras.layers.MultiHeadAttention(2, 3, use_bias=False)(x, x)
    layers = [keras.layers.EinsumDense("btx,xyz->btyz", (5, 2, 3), name="two")]
    layers += [keras.layers.EinsumDense("btyz,tyzo->bto", (5, 7), name="own")]
    model = keras.Sequential([keras.Model(x, h), *layers])
    over = {"two": (0,), "own": (1, 2), "attention_output": (0, 1)}
    for kernel, norm in zip(kernels(model), regrowth.unit_norms(model), strict=True):
        axes = over.get(kernel.path.split("/")[-2], (0,))
        expected = np.sqrt(np.sum(kernel.numpy() ** 2, axes, keepdims=True))
        np.testing.assert_allclose(norm, expected, rtol=1e-5)
    assert len(kernels(model)) == 6


def test_one_callback_looks_again_in_every_training(digits):
    model, loop = looped(small, OPTIMIZERS["momentum"](), every=2, until=30)
    options = {"batch_size": 64, "verbose": 0, "callbacks": [regrowth.RegrowthCallback(loop)]}
    data = tuple(part[:320] for part in digits.train)
    for _ in range(2):
        model.fit(*data, **options)
    outside = [np.sum(~mask.numpy()) for mask in masks.in_force(model)]
    for kernel in kernels(model)[:2]:
        kernel.assign_add(tf.ones_like(kernel))
    assert outside[0] != outside[1]
    message = (
        f"expected zeros outside the masks, found {outside[0]} other .*{kernels(model)[0].path}"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(*data, **options)


@pytest.mark.parametrize("scale_free", [False, True])
def test_what_is_given_to_purge_by_comes_first(scale_free):
    model, chosen = pruned()
    generator = np.random.default_rng(0)
    credit, weight = ([generator.random(k.shape) for k in kernels(model)] for _ in range(2))
    given = {"credit": lambda model: credit, "weight": lambda model, optimizer: weight}
    loop = regrowth.Regrowth(
        model, chosen, every=1, until=2, share=0.4, scale_free=scale_free, **given
    )
    loop.after(1, OPTIMIZERS["momentum"]())
    other, _ = pruned()
    masks.apply(other, chosen)
    credit = regrowth.scale_free(other, credit)[1] if scale_free else credit
    regrowth.regrow(other, 0.2, credit, weight=weight)
    for a, b in zip(kept(model), kept(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: keras.layers.BatchNormalization(), True),
        (lambda: keras.layers.GroupNormalization(2), True),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()]), True),
        (lambda: keras.layers.LayerNormalization(), False),
    ],
)
def test_what_takes_the_scale_of_units_away(layer, expected):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4), layer(), keras.layers.Dense(2)]
    )
    assert regrowth.normalises(model) is expected


@pytest.mark.parametrize(
    "options",
    [{"momentum": 0.0}, {"nesterov": True}, {"weight_decay": 0.1}, {"use_ema": True}],
)
def test_a_step_that_is_more_than_its_buffer_is_refused(options):
    model, _ = pruned()
    rule = keras.optimizers.SGD(0.1, **{"momentum": 0.9} | options)
    rule.build(model.trainable_variables)
    with pytest.raises(ValueError, match="expected SGD with momentum and no more, found SGD"):
        regrowth.last_step(model, rule)


def test_the_share_to_drop_is_a_decimal():
    """In floating point 0.29 times 100 is a little less than 29."""
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10, use_bias=False)])
    masks.apply(model, [np.arange(200).reshape(20, 10) % 2 == 0])
    (kernel,) = kernels(model)
    assert regrowth.regrow(model, 0.29, [np.ones(kernel.shape)]) == 29


@pytest.mark.parametrize("given", [True, False])
def test_weights_are_told_apart_in_double_precision_and_of_equal_ones_the_first_stay(given):
    model = keras.Sequential(
        [keras.Input((20,)), keras.layers.Dense(10, use_bias=False, dtype="float64")]
    )
    before = np.arange(200).reshape(20, 10) % 2 == 0
    masks.apply(model, [before])
    (kernel,) = kernels(model)
    sizes = 1 + 1e-12 * (np.arange(200).reshape(20, 10) >= 180)  # the last ten kept are heavier
    kernel.assign(np.where(before, 1.0 if given else sizes, 0))
    weight = [sizes] if given else None
    assert regrowth.regrow(model, 0.5, [np.ones(kernel.shape)], weight=weight) == 50
    order = np.flatnonzero(before)
    stay = np.flatnonzero(kept(model)[0] & before)
    np.testing.assert_array_equal(stay, [*order[:40], *order[-10:]])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_weight_to_purge_by_that_is_no_number_is_refused(wrong):
    """NaN is neither light nor heavy: the number of kept weights would not be kept."""
    model, chosen = pruned()
    masks.apply(model, chosen)
    before, credit = kept(model), [np.ones(k.shape) for k in kernels(model)]
    weight = [np.ones(k.shape) for k in kernels(model)]
    weight[-1][tuple(np.argwhere(before[-1])[-1])] = wrong
    with pytest.raises(ValueError, match=r"weight of .*output.*: expected finite numbers"):
        regrowth.regrow(model, 0.3, credit, weight=weight)
    with pytest.raises(ValueError, match="weight: expected shapes"):
        regrowth.regrow(model, 0.3, credit, weight=[w.T for w in weight])
    weight[-1] = np.where(before[-1], 1.0, wrong)  # what is not kept is not purged
    assert regrowth.regrow(model, 0.3, credit, weight=weight) > 0
    assert sum(m.sum() for m in kept(model)) == sum(m.sum() for m in before)


@pytest.mark.parametrize(
    "known",
    [
        lambda model: small().trainable_variables,
        lambda model: kernels(model)[:-1],
        lambda model: kernels(model)[1:],
    ],
    ids=["another model", "all but the last", "all but the first"],
)
def test_an_optimizer_that_cannot_forget_is_refused_before_anything_has_changed(known):
    model, chosen = pruned()
    masks.apply(model, chosen)
    rule = OPTIMIZERS["adam"]()
    rule.build(known(model))
    before = [v.numpy() for v in model.variables] + kept(model)
    with pytest.raises(ValueError, match=r"optimizer: expected one that is built on .*, found"):
        regrowth.regrow(model, 0.3, [np.ones(k.shape) for k in kernels(model)], rule)
    for a, b in zip(before, [v.numpy() for v in model.variables] + kept(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_without_what_was_moved_is_refused_and_changes_nothing(tmp_path):
    optimizer = OPTIMIZERS["momentum"]()
    model, loop = looped(small, optimizer)
    optimizer.build(model.trainable_variables)
    loop.save(tmp_path / "state.npz", optimizer)
    with np.load(tmp_path / "state.npz") as file:
        np.savez(tmp_path / "part.npz", **{n: file[n] for n in file.files if n != "moved"})
    kernels(model)[0].assign_add(tf.ones_like(kernels(model)[0]))
    before = state(loop, optimizer)
    with pytest.raises(ValueError, match=r"part\.npz: expected the state .* what was moved"):
        loop.load(tmp_path / "part.npz", optimizer)
    for a, b in zip(before, state(loop, optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


def one_layer(*shape, dtype="float32"):
    """Return a network of one kernel, all of whose weights are kept but for those of a corner."""
    model = keras.Sequential([keras.Input(shape[:1]), keras.layers.Dense(*shape[1:], dtype=dtype)])
    mask = np.ones(shape, bool)
    mask[0] = False
    return model, mask


@pytest.mark.parametrize("given", ["sizes", "weight", "scale-free", "weight, scale-free"])
def test_each_time_is_the_purge_that_the_loop_was_made_for(monkeypatch, given):
    """Steps, shares by hand, and whose credit, weight and optimizer are taken."""
    model, mask = one_layer(4, 3)
    optimizer, seen = OPTIMIZERS["momentum"](), []

    def weight(model, optimizer):
        return ["weight", model, optimizer]

    def purge(model, share, credit, optimizer, weight):
        seen.append((model, round(share, 9), credit, optimizer, weight))
        return 7

    monkeypatch.setattr(regrowth, "regrow", purge)
    monkeypatch.setattr(regrowth, "scale_free", lambda m, c: (["free", m], ["free", m, c]))
    loop = regrowth.Regrowth(
        model,
        [mask],
        every=3,
        until=12,
        share=0.4,
        credit=lambda model: ["credit", model],
        weight=weight if "weight" in given else None,
        scale_free="scale-free" in given,
    )
    for step in range(1, 19):
        loop.after(step, optimizer)
    credit = ["credit", model]
    heavy = {"sizes": None, "scale-free": ["free", model]}.get(given, ["weight", model, optimizer])
    credit = ["free", model, credit] if "scale-free" in given else credit
    shares = [0.2 * (1 + r) for r in (math.sqrt(0.5), 0, -math.sqrt(0.5), -1)]
    assert seen == [(model, round(share, 9), credit, optimizer, heavy) for share in shares]
    assert loop.moved == [(3, 7), (6, 7), (9, 7), (12, 7)]


def test_a_unit_whose_kept_weights_are_zero_is_no_division_by_zero():
    """As of one whose weights have all just been grown: they are the lightest, without credit."""
    model, _ = one_layer(3, 2)
    (kernel,) = kernels(model)
    kernel.assign([[0, 3], [0, 0], [0, -4]])
    (weight,), (credit,) = regrowth.scale_free(model, [np.full((3, 2), 2.0)])
    np.testing.assert_allclose(weight, [[0, 0.6], [0, 0], [0, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(credit, [[0, 10], [0, 10], [0, 10]], rtol=1e-6)


def test_credit_is_that_of_the_others_alone_by_hand():
    """What is kept earns nothing, were it infinite; the sign stays until `earned` is asked."""
    mask = regrowth.Earning(np.array([[1, 0], [0, 1]]), decay=0.5)
    mask(tf.constant([[np.inf, 2.0], [-4.0, np.nan]]))
    np.testing.assert_array_equal(mask.credit, [[0, 1], [-2, 0]])
    mask(tf.constant([[1.0, -2.0], [-4.0, 1.0]]))
    np.testing.assert_array_equal(mask.credit, [[0, -0.5], [-3, 0]])
    plain = regrowth.Earning(np.zeros((1, 1)))
    plain(tf.ones((1, 1)))
    assert plain.credit.numpy() == pytest.approx(0.02, rel=1e-4)


def test_neither_mask_nor_credit_is_trained():
    """A tape takes note of every variable that is read and says that it is trainable."""
    model, mask = one_layer(4, 3)
    regrowth.earn(model, [mask])
    held = kernels(model)[0].constraint
    with tf.GradientTape() as tape:
        read = [tf.identity(held.credit), tf.identity(held.mask)]
    assert [v.shape for v in read] == [(4, 3), (4, 3)]
    assert tape.watched_variables() == ()


def test_what_earns_is_stripped_as_any_mask():
    model, mask = one_layer(4, 3)
    bound = keras.constraints.MaxNorm(9.0)
    masks.constrain(model, kernels(model)[0], bound)
    regrowth.earn(model, [mask])
    assert model.layers[0].kernel_constraint is kernels(model)[0].constraint
    masks.strip(model)
    assert model.layers[0].kernel_constraint is kernels(model)[0].constraint is bound


def test_earning_anew_begins_without_credit_and_with_the_other_decay():
    model, mask = one_layer(4, 3)
    (kernel,) = kernels(model)
    regrowth.earn(model, [mask], decay=0.5)
    kernel.constraint(tf.ones((4, 3)))
    assert np.any(regrowth.earned(model)[0])
    regrowth.earn(model, [~mask], decay=0.75)
    assert not np.any(regrowth.earned(model)[0])
    assert (kernel.constraint.decay, kernel.constraint.inner) == (0.75, None)
    np.testing.assert_array_equal(masks.in_force(model)[0], ~mask)
    assert regrowth.Earning.from_config(kernel.constraint.get_config()).decay == 0.75


def test_a_loop_that_has_not_regrown_is_saved_and_loaded(tmp_path):
    """To the last digit; the path may be a string, and what is written first is gone."""
    model, mask = one_layer(4, 3, dtype="float64")
    optimizer = OPTIMIZERS["momentum"]()
    optimizer.build(model.trainable_variables)
    loop = regrowth.Regrowth(model, [mask], until=10)
    (kernel,) = kernels(model)
    kernel.assign(np.where(mask, 1 + 1e-12 * np.arange(12).reshape(4, 3), 0))
    optimizers.slots(optimizer, kernel)["momentums"].assign(1 / (1 + kernel.numpy()))
    before, path = state(loop, optimizer), str(tmp_path / "state.npz")
    loop.save(path, optimizer)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]
    for variable in (*model.variables, *optimizer.variables, kernels(model)[0].constraint.credit):
        variable.assign(tf.ones_like(variable))
    kernels(model)[0].constraint.mask.assign(~mask)
    loop.moved = [(1, 2)]
    loop.load(path, optimizer)
    for a, b in zip(before, state(loop, optimizer), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loop.moved == []


def test_steps_are_those_of_an_optimizer_that_is_built():
    model, _ = one_layer(4, 3)
    with pytest.raises(ValueError, match=r"expected one that is built on .*kernel, found another"):
        regrowth.last_step(model, OPTIMIZERS["momentum"]())


def test_the_norm_of_a_unit_along_a_sequence():
    """In one dimension, in a recurrent layer and a table of words, as in two."""
    words = keras.Input((9,), dtype="int32")
    h = keras.layers.Embedding(6, 4)(words)
    h = keras.layers.DepthwiseConv1D(3, depth_multiplier=2)(h)
    h = keras.layers.Conv1DTranspose(5, 2)(h)
    h = keras.layers.SeparableConv1D(4, 2, depth_multiplier=3)(h)
    h = keras.layers.Bidirectional(keras.layers.SimpleRNN(3))(h)
    model = keras.Model(words, h)
    over = [(0,), (0,), (0, 2), (0,), (0, 1), *[(0,)] * 4]
    for kernel, axes, norm in zip(kernels(model), over, regrowth.unit_norms(model), strict=True):
        expected = np.sqrt(np.sum(kernel.numpy() ** 2, axes, keepdims=True))
        np.testing.assert_allclose(norm, expected, rtol=1e-5, err_msg=kernel.path)
