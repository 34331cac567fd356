"""Optimizers: each that Keras has leaves the zeros at zero, and its slots are found by variable."""

import warnings

from prosper_utils.pruning import masks, optimizers
from prosper_utils.pruning.networks import kernels

import keras
import numpy as np
import pytest
import tensorflow as tf

APART = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}  # the base, and what has one inside
EVERY = {
    name: kind
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer) and name not in APART
}
WAYS = {
    "plain": {},
    "averaged": {"use_ema": True, "ema_momentum": 0.5, "weight_decay": 0.1},
    "overwritten": {
        **{"use_ema": True, "ema_overwrite_frequency": 3, "global_clipnorm": 0.5},
        "gradient_accumulation_steps": 2,
    },
}
SLOTS = {  # how many numbers each remembers of one weight, without averages
    **{"SGD": 0, "RMSprop": 1, "Adam": 2, "AdamW": 2, "Adadelta": 2, "Adagrad": 1, "Adamax": 2},
    **{"Adafactor": 1, "Nadam": 2, "Ftrl": 2, "Lion": 1, "Lamb": 2, "Muon": 1},
    "ScheduleFreeAdamW": 2,
}


def network(**options):
    """Return a small network and masks like a chess board; one kernel has the shape of another."""
    layers = [keras.layers.Dense(6, "tanh", **options) for _ in range(2)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3, **options)])
    return model, [np.indices(k.shape).sum(0) % 2 == 0 for k in kernels(model)]


def data(batches=4):
    generator = np.random.default_rng(1)
    return generator.normal(size=(16 * batches, 6)).astype("float32"), np.arange(16 * batches) % 3


def compiled(model, rule, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(rule, loss, **{"jit_compile": False} | options)


def fit(model, epochs=2, *callbacks, **options):
    """Fit, and assert after every batch that weights and averages are zero where they must be."""

    def look(batch, logs):
        assert masks.outside(model) == []
        for kernel, mask in zip(kernels(model), masks.in_force(model), strict=True):
            average = optimizers.average(model.optimizer, kernel)
            assert average is None or not np.any(average.numpy()[~mask.numpy()])

    keras.utils.set_random_seed(0)  # the order of the batches, whatever ran before
    before = [k.numpy() for k in kernels(model)]
    callbacks = [*callbacks, keras.callbacks.LambdaCallback(on_train_batch_end=look)]
    model.fit(*data(), 16, epochs, verbose=0, callbacks=callbacks, **options)
    assert masks.outside(model) == []
    return before


def assert_moved(model, before):
    for kernel, value, mask in zip(kernels(model), before, masks.in_force(model), strict=True):
        moved = (kernel.numpy() != value)[mask.numpy()]
        assert np.mean(moved) > 0.5  # two steps of Lion, which are of one size, may cancel


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", EVERY)
def test_zeros_stay_zero_under_every_optimizer(name, way):
    model, chosen = network()
    compiled(model, EVERY[name](0.05, **WAYS[way]), run_eagerly=way != "plain")
    masks.apply(model, chosen)
    assert_moved(model, fit(model))


@pytest.mark.parametrize("when", ["before compile", "after compile", "after build", "after a fit"])
@pytest.mark.parametrize("way", ["averaged", "overwritten"])
def test_averages_are_held_whenever_the_masks_are_applied(way, when):
    model, chosen = network()
    rule = keras.optimizers.Adam(0.05, **WAYS[way])
    if when == "before compile":
        masks.apply(model, chosen)
    compiled(model, rule)
    if when == "after build":
        rule.build(model.trainable_variables)
    if when == "after a fit":
        model.fit(*data(), 16, verbose=0)
    if when != "before compile":
        masks.apply(model, chosen)
    fit(model)
    masks.apply(model, [np.roll(mask, 1, axis=0) for mask in chosen])  # and other ones
    rule.finalize_variable_values(model.trainable_variables)
    assert masks.outside(model) == []
    fit(model)


@pytest.mark.parametrize("on_epoch", [False, True])
def test_swapped_averages_are_zero_too(on_epoch):
    model, chosen = network()
    compiled(model, keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
    masks.apply(model, chosen)
    found = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: found.append(masks.outside(model)),
    )
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch)
    fit(model, 3, swap, look, validation_data=data())
    assert found == 3 * [[]]


def loss_scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05, use_ema=True))


def grouped():
    several = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
        {".*kernel": keras.optimizers.AdamW(0.05, use_ema=True, ema_overwrite_frequency=2)},
    )
    return keras.optimizers.MultiOptimizer(several)


@pytest.mark.parametrize("rule", [loss_scaled, grouped])
def test_the_optimizer_inside_another_one_is_found(rule):
    model, chosen = network()
    compiled(model, rule())
    masks.apply(model, chosen)
    assert_moved(model, fit(model))
    for kernel in kernels(model):
        inner = optimizers.of(model.optimizer, kernel)
        assert inner is not model.optimizer
        found = optimizers.slots(model.optimizer, kernel)
        assert set(found) == {"_momentums", "_velocities", "_model_variables_moving_average"}
        average = optimizers.average(model.optimizer, kernel)
        assert average is found["_model_variables_moving_average"]


@pytest.mark.parametrize(
    "options",
    [{"jit_compile": True}, {"steps_per_execution": 3}, {"run_eagerly": True}],
)
def test_zeros_stay_zero_however_a_step_is_executed(options):
    model, chosen = network()
    compiled(model, keras.optimizers.Adam(0.05, use_ema=True), **options)
    masks.apply(model, chosen)
    assert_moved(model, fit(model))


@pytest.mark.parametrize("averaged", [False, True])
def test_zeros_stay_zero_in_mixed_precision(averaged):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model, chosen = network()
    finally:
        keras.config.set_dtype_policy(before)
    compiled(model, keras.optimizers.Adam(0.05, use_ema=averaged))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    masks.apply(model, chosen)
    assert_moved(model, fit(model))


@pytest.mark.parametrize("compile_it", [False, True])
def test_averages_are_held_in_a_custom_loop_after_loading(compile_it, tmp_path):
    """Neither the model nor its masks know the optimizer here."""
    model, chosen = network()
    masks.apply(model, chosen)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    rule = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
    rule.build(model.trainable_variables)

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x) ** 2)
        gradient = tape.gradient(loss, model.trainable_variables)
        rule.apply(gradient, model.trainable_variables)

    step = tf.function(step) if compile_it else step
    for _ in range(3):
        step(data()[0])
    rule.finalize_variable_values(model.trainable_variables)
    assert masks.outside(model) == []
    other = [~mask for mask in chosen]
    masks.apply(model, other, rule)
    rule.finalize_variable_values(model.trainable_variables)
    assert masks.outside(model) == []


def test_averages_of_the_optimizer_given_and_of_the_compiled_one_are_held():
    model, chosen = network()
    rules = [keras.optimizers.SGD(0.1, use_ema=True), keras.optimizers.Adam(0.1, use_ema=True)]
    compiled(model, rules[0])
    for rule in rules:
        rule.build(model.trainable_variables)
        for kernel in kernels(model):
            optimizers.average(rule, kernel).assign(tf.ones_like(kernel))
    masks.apply(model, chosen, rules[1])
    for rule in rules:
        for kernel, mask in zip(kernels(model), chosen, strict=True):
            np.testing.assert_array_equal(optimizers.average(rule, kernel), mask)


def test_averages_would_fill_the_zeros_otherwise(monkeypatch):
    """What the constraint does for averages is needed: without it these tests would fail."""
    monkeypatch.setattr(optimizers, "average", lambda optimizer, variable: None)
    model, chosen = network()
    compiled(model, keras.optimizers.Adam(0.05, use_ema=True))
    masks.apply(model, chosen)
    model.fit(*data(), 16, verbose=0)
    assert masks.outside(model) != []


@pytest.mark.parametrize("name", EVERY)
def test_slots_are_those_that_change_with_their_variable(name):
    """Move one variable alone: of all that has its shape, its own slots change, and no others."""
    model, _ = network()
    rule = EVERY[name](0.05)
    rule.build(model.trainable_variables)
    assert {len(optimizers.slots(rule, k)) for k in kernels(model)} == {SLOTS[name]}
    chosen = kernels(model)[1]
    before = [v.numpy() for v in rule.variables]
    gradient = [tf.random.stateless_normal(v.shape, (0, 1)) for v in [chosen]]
    rule.apply(gradient, [chosen])
    same = [v for v in rule.variables if v.shape == chosen.shape]
    changed = {
        id(v)
        for v, value in zip(rule.variables, before, strict=True)
        if v.shape == chosen.shape and np.any(v.numpy() != value)
    }
    found = {id(s) for s in optimizers.slots(rule, chosen).values()}
    assert changed <= found <= {id(v) for v in same}
    assert changed == found or name == "Adafactor"  # it keeps rows and columns in place of these


@pytest.mark.parametrize("name", EVERY)
def test_only_the_places_given_are_forgotten(name):
    model, chosen = network()
    rule = EVERY[name](0.05, use_ema=True)
    rule.build(model.trainable_variables)
    own = optimizers.slots(rule, kernels(model)[0]).values()
    for variable in rule.variables:
        variable.assign(tf.ones_like(variable))
    for slot in own:
        slot.assign(np.where(chosen[0], np.inf, 1))  # of an update that diverged, say
    optimizers.forget(rule, kernels(model)[:1], chosen[:1])
    for slot in own:
        np.testing.assert_array_equal(slot.numpy(), np.where(chosen[0], 0, 1))
    for other in rule.variables:
        assert any(other is slot for slot in own) or np.all(other.numpy() == 1)


def test_an_optimizer_that_has_not_seen_the_variable_is_refused():
    model, chosen = network()
    rule = keras.optimizers.Adam()
    optimizers.forget(rule, kernels(model), chosen)  # it remembers nothing yet
    with pytest.raises(ValueError, match=r"expected one that is built on .*kernel, found another"):
        optimizers.slots(rule, kernels(model)[0])
    rule.build(network()[0].trainable_variables)
    with pytest.raises(ValueError, match="found another Adam"):
        optimizers.forget(rule, kernels(model), chosen)


class Hoarder(keras.optimizers.SGD):
    """An optimizer of one's own that keeps its state by name."""

    def build(self, variables):
        super().build(variables)
        self.kept = {v.path: self.add_variable_from_reference(v, "kept") for v in variables}


def test_state_in_another_form_is_refused():
    model, chosen = network()
    rule = Hoarder(0.1)
    rule.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"expected its state in lists .*_kept elsewhere"):
        optimizers.forget(rule, kernels(model), chosen)


def test_outside_an_update_no_optimizer_is_found():
    model, chosen = network()
    compiled(model, keras.optimizers.Adam(use_ema=True))
    masks.apply(model, chosen)
    kernel = kernels(model)[0]
    assert optimizers.updating(kernel) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for weights in (kernel, kernel.value, kernel.numpy()):  # a constraint takes any of them
            np.testing.assert_array_equal(kernel.constraint(weights), kernel.numpy())


def test_a_variable_that_another_part_would_update_is_refused():
    def two(*names):
        stages = [keras.layers.Dense(3, use_bias=False, name=name) for name in names]
        return keras.Sequential([keras.Input((3,)), *stages]).trainable_variables

    slow = keras.optimizers.SGD(0.1, momentum=0.9, name="slow")
    fast = keras.optimizers.SGD(0.5, momentum=0.9, name="fast")
    old = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(slow, {".*quick.*": fast}))
    new = optimizers.again(old)
    before, after = two("quick_a", "b"), two("a", "quick_b")
    old.build(before)
    new.build(after)
    with pytest.raises(ValueError, match="a/kernel: expected to be updated by fast, found slow"):
        optimizers.transfer(old, new, list(zip(before, after, strict=True)), lambda variable, x: x)


def test_what_is_kept_in_another_shape_is_not_handed_on_in_silence():
    old = keras.optimizers.Adafactor(0.1)
    new, variables = optimizers.again(old), [keras.Variable(np.ones((4, 3)))]
    old.build(variables)
    new.build(variables)
    with pytest.raises(ValueError, match="expected slots of the shape of their weights, found "):
        optimizers.transfer(old, new, [(variables[0], variables[0])], lambda variable, x: x)


def test_places_are_those_of_all_variables():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    variables = [keras.Variable(np.ones(3)), keras.Variable(np.ones(2))]
    optimizers.forget(optimizer, variables, [])  # it remembers nothing
    optimizer.build(variables)
    with pytest.raises(ValueError, match="zip"):
        optimizers.forget(optimizer, variables, [np.ones(3, bool)])


def test_an_optimizer_of_other_variables_is_refused_once_it_is_built():
    (model, _), (other, _) = network(), network()
    optimizer = keras.optimizers.Adam()
    optimizers.expect(optimizer, kernels(model))
    optimizer.build(other.trainable_variables)
    optimizers.expect(optimizer, kernels(other))
    with pytest.raises(ValueError, match=r"expected one that is built on .*kernel, found another"):
        optimizers.expect(optimizer, kernels(model))


def test_each_variable_is_looked_up_before_it_may_be_forgotten():
    """An optimizer of a part of a model, as of its new head, knows some of its kernels only."""
    model, _ = network()
    optimizer, (first, second, third) = keras.optimizers.Adam(), kernels(model)
    optimizer.build([first, third])
    optimizers.expect(optimizer, [third, first])
    for variables in ([second, first], [first, second, third], [first, third, second]):
        with pytest.raises(ValueError, match=r"expected one that is built on .*kernel, found"):
            optimizers.expect(optimizer, variables)
    assert optimizers.of(optimizer, second) is optimizers.average(optimizer, second) is None


def test_of_two_variables_of_one_path_each_has_its_own_average_and_slots():
    twins = [keras.Variable(np.full((2, 2), n), name="kernel") for n in (1.0, 2.0)]
    assert twins[0].path == twins[1].path
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)
    optimizer.build(twins)
    averages = optimizer._model_variables_moving_average
    for n, variable in enumerate(twins):
        assert optimizers.average(optimizer, variable) is averages[n]
        assert optimizers.slots(optimizer, variable)["momentums"] is optimizer.momentums[n]


def test_each_variable_has_the_part_that_updates_it_however_deep():
    """In a group within a loss scale, kernels and biases are updated by parts of their own."""
    model, _ = network()
    plain = keras.optimizers.SGD(0.1, momentum=0.9, name="plain")
    fast = keras.optimizers.Adam(0.05, name="fast", use_ema=True)
    group = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(plain, {".*bias": fast}))
    scaled = keras.optimizers.LossScaleOptimizer(group)
    for variable in model.trainable_variables:
        assert optimizers.of(scaled, variable) is None  # nothing is built
    scaled.build(model.trainable_variables)
    names = [optimizers.of(scaled, variable).name for variable in model.trainable_variables]
    assert names == ["plain", "fast"] * 3
    for kernel, bias in zip(kernels(model), model.trainable_variables[1::2], strict=True):
        assert optimizers.average(scaled, kernel) is None
        assert optimizers.average(scaled, bias).shape == bias.shape
        assert set(optimizers.slots(scaled, kernel)) == {"momentums"}
    assert optimizers.of(scaled, network()[0].trainable_variables[0]) is None
    assert optimizers.of(None, model.trainable_variables[0]) is None


class Rated(keras.optimizers.SGD):
    """An optimizer of one's own, with a rate for each variable, and a memory of some of them."""

    def build(self, variables):
        super().build(variables)
        self.rates = [0.1] * len(variables)
        self.memory = [
            self.add_variable_from_reference(v, "memory") if len(v.shape) > 1 else None
            for v in variables
        ]


def test_lists_of_anything_else_are_no_slots():
    model, chosen = network()
    rule = Rated(0.1)
    rule.build(model.trainable_variables)
    for variable, memory in zip(model.trainable_variables, rule.memory, strict=True):
        expected = {} if memory is None else {"memory": memory}
        assert optimizers.slots(rule, variable) == expected
    for memory in rule.memory[::2]:
        memory.assign(tf.ones_like(memory))
    optimizers.forget(rule, kernels(model), chosen)
    for memory, place in zip(rule.memory[::2], chosen, strict=True):
        np.testing.assert_array_equal(memory, ~place)
