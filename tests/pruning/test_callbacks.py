"""Callbacks: what is none, or is called by hand, says so and says the right call."""

import importlib
import inspect
import re

from prosper_utils.pruning import callbacks, masks, networks, regrowth, schedules

import keras
import numpy as np
import pytest
from conftest import ROOT

PRUNING = ROOT / "prosper_utils" / "pruning"
MAKE = {
    schedules.Gradual: lambda model: schedules.Gradual(model, 0.8, until=4, every=2),
    regrowth.Regrowth: lambda model: regrowth.Regrowth(
        model, [np.eye(*k.shape) for k in networks.kernels(model)], every=2, until=4
    ),
}
TELLS = {
    schedules.Gradual: schedules.GradualCallback,
    regrowth.Regrowth: regrowth.RegrowthCallback,
}
HOOKS = ["on_train_batch_begin", "on_train_batch_end"]  # around each step


def network(*, compiled=True):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(3)])
    if compiled:
        model.compile("sgd", "mse", jit_compile=False)
    return model


def fit(model, given):
    model.fit(np.ones((8, 4)), np.ones((8, 3)), 2, 1, verbose=0, callbacks=given)


def test_these_are_all_loops_and_callbacks():
    modules = [
        importlib.import_module(f"prosper_utils.pruning.{p.stem}")
        for p in PRUNING.glob("[a-z]*.py")
    ]
    classes = {c for m in modules for _, c in inspect.getmembers(m, inspect.isclass)}
    ours = {c for c in classes if c.__module__.startswith("prosper_utils")}
    assert {c for c in ours if hasattr(c, "after")} == set(MAKE) == set(TELLS)
    base = callbacks.LoopCallback
    assert {c for c in ours if issubclass(c, keras.callbacks.Callback)} == {base, *TELLS.values()}
    assert {c.kind: c for c in TELLS.values()} == TELLS


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("wrap", [lambda loop: [loop], lambda loop: loop])
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_a_loop_in_place_of_its_callback_is_refused_and_named(kind, wrap, method):
    model = network()
    loop, before = MAKE[kind](model), [w.numpy() for w in model.weights]
    name = kind.__name__
    right = re.escape(
        f"expected Keras callbacks, found a {name}: wrap it, callbacks=[{name}Callback({name}("
    )
    with pytest.raises(ValueError, match=right):
        getattr(model, method)(np.ones((8, 4)), np.ones((8, 3)), verbose=0, callbacks=wrap(loop))
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    fit(model, wrap(TELLS[kind](loop)))  # as it says
    assert masks.outside(model) == []


@pytest.mark.parametrize("kind", MAKE)
def test_a_callback_of_something_else_is_refused_and_named(kind):
    model = network()
    name, (other,) = kind.__name__, set(MAKE) - {kind}
    for given in (model, MAKE[other](model), kind):
        found = type(given).__name__
        right = (
            rf"{name}Callback: expected a {name}, found a {found}: .* {name}Callback\({name}\(model"
        )
        with pytest.raises(ValueError, match=right):
            TELLS[kind](given)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_is_called_by_hand_names_the_right_call(kind, hook):
    model = network(compiled=False)
    callback = TELLS[kind](MAKE[kind](model))
    for found in (None, model):  # no model, and one that is not compiled
        if found is not None:
            callback.set_model(found)
        with pytest.raises(
            ValueError, match=r"found a call by hand: .* `after\(step, optimizer\)`"
        ):
            getattr(callback, hook)(0)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_looks_whose_model_it_is(kind, hook):
    model, other = network(), network()
    model.name, other.name = "pruned", "fitted"
    callback = TELLS[kind](MAKE[kind](model))
    callback.set_model(other)
    right = (
        f"{kind.__name__}: expected one of the model that is fitted, 'fitted', "
        "found one of 'pruned'$"
    )
    with pytest.raises(ValueError, match=right):
        getattr(callback, hook)(0)


@pytest.mark.parametrize("kind", MAKE)
def test_what_keras_hands_to_hooks_is_no_optimizer(kind):
    """A loop's `after` takes step and optimizer, a hook of Keras batch and logs."""
    model = network()
    loop = MAKE[kind](model)
    before = [w.numpy() for w in model.weights] + list(map(np.array, masks.in_force(model)))
    with pytest.raises(ValueError, match="optimizer: expected a Keras optimizer, found a dict"):
        loop.after(2, {"loss": 1.0})
    after = [*model.weights, *masks.in_force(model)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", MAKE)
def test_a_clone_which_has_the_name_is_another_model(kind):
    model = network()
    clone = keras.models.clone_model(model)
    clone.compile("sgd", "mse", jit_compile=False)
    assert clone.name == model.name
    callback = TELLS[kind](MAKE[kind](model))
    with pytest.raises(ValueError, match=f"{kind.__name__}: expected one of the model that is"):
        fit(clone, callback)


@pytest.mark.parametrize("kind", MAKE)
def test_a_loop_of_ones_own_is_told_as_the_one_that_it_is_derived_from(kind):
    """With the steps that are made and the optimizer that makes them."""
    seen = []
    loop = MAKE[kind](network())
    loop.__class__ = type("Own", (kind,), {"after": lambda self, *args: seen.append(args)})
    loop.moved = [(0, 1)]  # regrown before: nothing to warn of
    model, callback = loop.model, TELLS[kind](loop)
    fit(model, [callback])
    steps = [1, 2, 3, 4] if kind is regrowth.Regrowth else [0, 1, 2, 3, 4]  # it also starts
    assert [step for step, _ in seen] == steps
    assert all(optimizer is model.optimizer for _, optimizer in seen)
