"""Gates: a group's score is the sum of its members', by every sweep, and what differences say."""

import functools
import itertools

from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.pruning import channels, gates
from prosper_utils.pruning.networks import as_loss, dense_300_100, trainable

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dense_with, right_once, with_an_idle_layer
from test_channels import in_double

layers = keras.layers
STEPS, RATE = 3, 0.1


def plain(activation="tanh"):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), dtype="float64"),
            layers.Conv2D(3, 3, activation=activation, dtype="float64", bias_initializer="normal"),
            layers.Flatten(dtype="float64"),
            layers.Dense(4, activation, dtype="float64", bias_initializer="normal"),
            layers.Dense(3, dtype="float64"),
        ]
    )


def normalised():
    """A residual block with batch normalisation, gamma and beta not at their initial values."""
    keras.utils.set_random_seed(4)
    x = inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False)(layers.Activation("tanh")(x))
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def taken(count=STEPS + 1, size=7, seed=5):
    generator = np.random.default_rng(seed)
    return [
        (generator.normal(size=(size, 6, 6, 2)), generator.integers(0, 3, size))
        for _ in range(count)
    ]


MODELS = {"plain": plain, "normalised": lambda: in_double(normalised)}


@functools.cache
def exact(name, on="readers", momentum=0.0):
    """Return the meta-gradient of a network's gates after three steps."""
    options = {"on": on, "steps": STEPS, "learning_rate": RATE, "momentum": momentum}
    return gates.meta_gradient(MODELS[name](), taken(), **options)


def test_places_by_hand():
    """Of the trainable weights 0 to 5: kernel, bias, gamma, beta, kernel, bias."""

    def chain():
        links = [layers.Dense(2), layers.BatchNormalization(), layers.Dense(1)]
        return keras.Sequential([keras.Input((3,)), *links])

    model, none = chain(), [[]]
    inputs = [[(0, 0, [i])] for i in range(3)]
    assert gates.places(model) == inputs + [[(4, 0, [i])] for i in range(2)] + none
    hidden = [[(0, 1, [i]), (1, 0, [i])] for i in range(2)]
    assert gates.places(model, "writers") == none * 3 + hidden + [[(4, 1, [0]), (5, 0, [0])]]
    scales = [[(2, 0, [i]), (3, 0, [i])] for i in range(2)]
    assert gates.places(model, "scales") == none * 3 + scales + none
    model = chain()
    model.layers[0].trainable = False  # where no group can go, a weight may be frozen
    assert gates.places(model) == none * 3 + [[(2, 0, [i])] for i in range(2)] + none


def test_places_of_words_by_hand():
    links = [layers.Embedding(5, 2), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *links])
    assert gates.places(model) == [[(1, 0, [0, 2, 4])], [(1, 0, [1, 3, 5])], []]
    writers = [[(0, 1, [0])], [(0, 1, [1])], [(1, 1, [0]), (2, 0, [0])]]
    assert gates.places(model, "writers") == writers


def after(model, batches, scale, rate=RATE):
    """Return the loss after steps from scaled weights, without the sweeps of the package."""
    weights, loss = as_loss(model)
    weights = [w * s for w, s in zip(weights, scale, strict=True)]
    for batch in batches[:-1]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss(weights, batch)
        gradient = tape.gradient(value, weights, unconnected_gradients="zero")
        weights = [w - rate * g for w, g in zip(weights, gradient, strict=True)]
    return float(loss(weights, batches[-1]))


def gated(model, gates_, number, gate):
    """Return what multiplies the weights if one group's gate is set."""
    found = [np.ones(v.shape) for v in trainable(model)]
    for i, axis, indices in gates_[number]:
        np.moveaxis(found[i], axis, 0)[indices] *= gate
    return found


@pytest.mark.parametrize(
    ("name", "on"),
    [("plain", "readers"), ("plain", "writers")] + [("normalised", on) for on in gates.ON],
)
def test_it_is_the_derivative_for_the_gate(name, on):
    model, batches, h = MODELS[name](), taken(), 1e-5
    where = gates.places(model, on)
    for number, place in list(enumerate(where))[::3]:
        ahead, behind = (
            after(model, batches, gated(model, where, number, 1 + step)) for step in (h, -h)
        )
        slope = (ahead - behind) / (2 * h)
        assert exact(name, on)[number] == pytest.approx(slope, rel=1e-6, abs=1e-9), place


@pytest.mark.parametrize(("name", "momentum"), [("plain", 0.9), ("normalised", 0.0)])
def test_every_sweep_gives_the_same(name, momentum):
    model, batches = MODELS[name](), taken()
    options = {"steps": STEPS, "learning_rate": RATE, "momentum": momentum}
    for method in ("checkpointed", "forward"):
        found = gates.meta_gradient(model, batches, method=method, **options)
        expected = exact(name, momentum=momentum)  # by the reverse sweep
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_it_is_the_sum_of_the_members_with_their_signs():
    model, batches = plain(), taken()
    weights, loss = as_loss(model)
    single = meta_gradient(loss, weights, batches, learning_rate=RATE, method="unrolled")
    found = exact("plain")
    by_hand = [single[2].numpy().reshape(4, 4, 3, 4)[:, :, c].sum() for c in range(3)]
    by_hand += single[4].numpy().sum(axis=1).tolist()
    kinds = channels.kinds(channels.groups(model))
    np.testing.assert_allclose(found[kinds[1] + kinds[2]], by_hand, rtol=1e-12)
    assert np.abs(by_hand).sum() < np.abs(single[2]).sum() + np.abs(single[4]).sum()  # they cancel


def test_random_signs_have_no_bias_and_the_variance_that_the_formula_says():
    model, batches, probes = plain(), taken(), 100
    options, expected = {"steps": STEPS, "learning_rate": RATE}, exact("plain")
    found = np.array(
        [
            gates.meta_gradient(model, batches, method="signs", probes=probes, seed=s, **options)
            for s in range(3)
        ]
    )
    variance = (np.sum(expected**2) - expected**2) / probes
    deviation = (found - expected) / np.sqrt(variance)  # of unit variance, if the formula is right
    assert np.all(np.abs(deviation.mean(axis=0)) < 4 / np.sqrt(3))
    assert 0.5 < np.mean(deviation**2) < 1.7
    assert len({tuple(row) for row in found}) == 3


def test_one_probe_is_one_directional_derivative():
    model, batches = plain(), taken()
    options = {"steps": STEPS, "learning_rate": RATE}
    one = gates.meta_gradient(model, batches, method="signs", probes=1, seed=3, **options)
    assert np.ptp(np.abs(one)) < 1e-12 * np.abs(one[0])  # s_g d, with one d for all groups
    signs = np.sign(one * one[0])
    assert np.abs(one[0]) == pytest.approx(np.abs(np.sum(signs * exact("plain"))), rel=1e-9)


def test_behind_batch_statistics_the_sum_over_a_column_vanishes():
    model, batches = in_double(normalised), taken()
    for layer in model.layers:  # epsilon is the only thing that notices the scale
        if isinstance(layer, layers.BatchNormalization):
            layer.epsilon = 0.0
    options = {"steps": 0, "learning_rate": RATE}
    writers = gates.meta_gradient(model, batches[:1], on="writers", **options)
    readers = gates.meta_gradient(model, batches[:1], on="readers", **options)
    convolution = channels.kinds(channels.groups(model))[1]
    assert np.all(np.abs(writers[convolution]) < 1e-12)
    assert np.all(np.abs(readers[convolution]) > 1e-6)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear", "tanh"])
def test_a_gate_passes_through_what_keeps_scales(activation):
    """Without a step ahead, what enters a unit counts as much as what leaves it."""
    model = plain(activation)
    options = {"steps": 0, "learning_rate": RATE}
    found = [gates.meta_gradient(model, taken(1), on=on, **options) for on in gates.ON[:2]]
    inner = [n for n, group in enumerate(channels.groups(model)) if not group.fixed]
    if activation == "tanh":  # which bends
        assert not np.allclose(found[0][inner], found[1][inner], rtol=1e-3)
    else:
        np.testing.assert_allclose(found[0][inner], found[1][inner], rtol=1e-10)


def test_snip_is_the_meta_gradient_without_steps():
    model, batches = plain(), taken(1)
    found = gates.snip(model, batches)
    expected = np.abs(gates.meta_gradient(model, batches, steps=0))
    free = np.isfinite(found)
    np.testing.assert_allclose(found[free], expected[free], rtol=1e-12)
    single, batch = dense_with("tanh")  # in float32
    found, expected = gates.snip(single, [batch]), gates.prospr(single, [batch], steps=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_snip_of_many_batches_is_that_of_all_examples():
    model = plain()
    parts = [taken(1, size, seed=size)[0] for size in (3, 8)]
    whole = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    np.testing.assert_allclose(gates.snip(model, parts), gates.snip(model, [whole]), rtol=1e-12)


def test_taylor_is_the_root_mean_square_over_batches():
    model, batches = plain(), taken(3)
    squares = [gates.snip(model, [batch]) ** 2 for batch in batches]
    expected = np.sqrt(np.mean(squares, axis=0))
    np.testing.assert_allclose(gates.taylor(model, batches), expected, rtol=1e-12)
    assert not np.allclose(expected, gates.snip(model, batches), rtol=1e-3)


@pytest.mark.parametrize(
    ("on", "method", "of_loss"),
    [
        ("readers", "reverse", {"statistics": "moving"}),
        ("writers", "forward", {"loss": "mean_squared_error"}),
        ("scales", "checkpointed", {}),
    ],
)
def test_where_a_gate_sits_and_all_options_are_handed_on(on, method, of_loss):
    model, batches = in_double(normalised), taken(3)
    if "loss" in of_loss:
        batches = [(x, np.eye(3)[y]) for x, y in batches]
    weights, loss = as_loss(model, **of_loss)
    where = gates.places(model, on)
    free = np.isfinite(gates.random(model))

    def expected(taken, **options):
        options["method"] = "unrolled"
        return np.abs(gates.sums(where, meta_gradient(loss, weights, taken, **options)))[free]

    single = [expected([batch], learning_rate=RATE) for batch in batches]
    found = gates.snip(model, batches[:1], on=on, **of_loss)[free]
    np.testing.assert_allclose(found, single[0], rtol=1e-10, atol=1e-14)
    found = gates.taylor(model, batches, on=on, **of_loss)[free]
    root = np.sqrt(np.mean(np.square(single), axis=0))
    np.testing.assert_allclose(found, root, rtol=1e-10, atol=1e-14)
    options = {"learning_rate": 0.3, "momentum": 0.5}
    ahead = expected(batches, **options)
    found = gates.prospr(model, batches, on=on, method=method, steps=2, **options, **of_loss)
    np.testing.assert_allclose(found[free], ahead, rtol=1e-9, atol=1e-13)


def test_the_signs_follow_the_seed_of_the_score():
    model, batches = plain(), taken(1)
    options = {"method": "signs", "probes": 3, "steps": 0}
    found = [gates.prospr(model, batches, seed=seed, **options) for seed in (7, 7, 8)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("of_loss", [{}, {"statistics": "moving"}])
def test_what_judges_a_sweep_is_the_same_loss_in_float64(monkeypatch, of_loss):
    model, batches, seen = normalised(), taken(2), {}

    def checked(loss, weights, batches, **options):
        seen.update(options)
        return weights

    monkeypatch.setattr("prosper_utils.lookahead.conditioning.checked", checked)
    gates.meta_gradient(model, batches, steps=1, **of_loss)
    fine, judged = seen["double"]
    weights, loss = as_loss(model, **of_loss, dtype="float64")
    assert float(judged(fine, batches[1])) == float(loss(weights, batches[1]))


def test_layers_of_one_width_are_ranked_apart():
    model = dense_300_100(units=(40, 40))
    first, second = channels.kinds(channels.groups(model))[1:3]
    for score in (gates.random, gates.uniform):
        found = score(model, seed=2)
        assert abs(np.corrcoef(found[first], found[second])[0, 1]) < 0.6
        assert np.all((found[[*first, *second]] > 0) & (found[[*first, *second]] < 1))


def test_magnitude_is_the_norm_of_what_reads():
    model = plain()
    found = gates.magnitude(model)
    rows = np.linalg.norm(model.layers[-1].kernel.numpy(), axis=1)
    kinds = channels.kinds(channels.groups(model))
    np.testing.assert_allclose(found[kinds[2]], rows, rtol=1e-12)
    columns = gates.magnitude(model, on="writers")[kinds[2]]
    last = model.layers[-2]
    entering = np.sum(last.kernel.numpy() ** 2, axis=0) + last.bias.numpy() ** 2
    np.testing.assert_allclose(columns, np.sqrt(entering), rtol=1e-12)


def test_uniform_ranks_run_through_each_kind():
    model = dense_300_100(units=(30, 10))
    found = gates.uniform(model, seed=1)
    for kind, size in zip(channels.kinds(channels.groups(model))[1:3], (30, 10), strict=True):
        assert sorted(found[kind]) == pytest.approx((np.arange(size) + 0.5) / size)
    assert not np.array_equal(found, gates.uniform(model, seed=2))
    assert np.array_equal(found, gates.uniform(model, seed=1))
    assert not np.array_equal(gates.random(model, seed=1), gates.random(model, seed=2))
    assert np.array_equal(gates.random(model, seed=1), gates.random(model, seed=1))


@pytest.mark.parametrize("name", gates.SCORES)
def test_what_is_fixed_is_never_chosen_and_the_model_stays(name):
    model = in_double(normalised)
    before = [v.numpy() for v in model.variables]
    found = gates.SCORES[name](model, taken(), seed=0)
    fixed = [bool(group.fixed) for group in channels.groups(model)]
    assert np.array_equal(np.isinf(found), fixed)
    assert any(fixed)
    assert not all(fixed)
    assert np.all(found[~np.array(fixed)] >= 0)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_an_endless_supply_serves_the_scores():
    model, supply = plain(), itertools.cycle(taken(2))
    np.testing.assert_array_equal(gates.snip(model, supply), gates.snip(model, taken(1)))
    supply = itertools.cycle(taken(2))
    np.testing.assert_array_equal(gates.taylor(model, supply), gates.taylor(model, taken(1)))


def test_bad_input():
    model, batches = plain(), taken()
    with pytest.raises(ValueError, match="on: expected one of readers, writers, scales"):
        gates.places(model, "columns")
    with pytest.raises(ValueError, match="expected trainable scales of every group, found none"):
        gates.snip(model, batches, on="scales")
    with pytest.raises(ValueError, match="method: expected one of"):
        gates.meta_gradient(model, batches, method="unrolled")
    with pytest.raises(ValueError, match="steps: expected M >= 0, found -1"):
        gates.meta_gradient(model, batches, steps=-1)
    with pytest.raises(ValueError, match="probes: expected at least 1, found 0"):
        gates.meta_gradient(model, batches, method="signs", probes=0)
    with pytest.raises(ValueError, match="expected at least 4"):
        gates.prospr(model, batches[:2])
    model.layers[-1].trainable = False
    with pytest.raises(ValueError, match="which is not trained"):
        gates.snip(model, batches)


def test_sums_go_along_any_axes_of_one_weight():
    """As in attention, whose output kernel is read along its heads and along their values."""
    values = np.arange(24.0).reshape(2, 3, 4) ** 2
    where = [[(0, 0, [1])], [(0, 1, [0, 2])], [(0, 2, [3]), (0, 0, [0])], [(1, 0, [1])], []]
    expected = [
        values[1].sum(),
        values[:, [0, 2]].sum(),
        values[..., 3].sum() + values[0].sum(),
        7.0,
        0.0,
    ]
    np.testing.assert_array_equal(gates.sums(where, [values, np.array([5.0, 7.0])]), expected)


def test_a_direction_adds_up_where_places_overlap():
    where = [[(0, 0, [1])], [(0, 1, [0, 2]), (0, 0, [1, 0])], [(1, 0, [2])]]
    values = [np.arange(12.0).reshape(3, 4) ** 2, np.arange(3.0) + 1]
    signs = [1.0, -1.0, 1.0]
    found = gates._direction([tf.constant(v) for v in values], where, signs)
    along = sum(np.sum(d * v) for d, v in zip(found, values, strict=True))
    assert along == np.dot(signs, gates.sums(where, values))


@pytest.mark.parametrize("score", [gates.snip, gates.taylor])
def test_a_weight_that_is_read_and_does_not_reach_the_loss_is_named(score):
    model, loss, batch = with_an_idle_layer()
    with pytest.raises(ValueError, match=r"depends on each of them .* none of idle/kernel"):
        score(model, [batch], loss=loss)


@pytest.mark.parametrize("score", [gates.snip, gates.taylor])
def test_a_gradient_taken_once_asks_for_no_second_derivatives(score):
    model, batch = dense_with("tanh")
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    once, twice = (lambda y, z, f=f: plain(y, f(z)) for f in (right_once, tf.tanh))
    found, expected = (score(model, [batch], loss=loss) for loss in (once, twice))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    gates.prospr(model, [batch] * 2, steps=1, loss=twice)
    with pytest.raises(ValueError, match="second derivatives"):
        gates.prospr(model, [batch] * 2, steps=1, loss=once)


def test_sums_are_taken_in_double_precision():
    found = gates.sums([[(0, 0, [0, 1, 2])]], [np.array([1e8, 1, -1e8], "float32")])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1.0])


@pytest.mark.parametrize("method", ["reverse", "checkpointed"])
def test_the_sweep_is_the_one_that_was_asked_for(monkeypatch, method):
    seen = []

    def checked(loss, weights, batches, **options):
        seen.append(options)
        return weights

    monkeypatch.setattr("prosper_utils.lookahead.conditioning.checked", checked)
    gates.meta_gradient(plain(), taken(2), steps=1, method=method, momentum=0.5)
    told = {"method": method, "momentum": 0.5, "learning_rate": 0.1}
    assert seen == [told]  # in float64 already, it is not judged in another precision


@pytest.mark.parametrize("method", gates.METHODS[:3])
def test_without_steps_the_first_batch_is_used(method):
    model, batches = plain(), taken(2)
    found = gates.meta_gradient(model, batches, steps=0, method=method)
    expected = gates.meta_gradient(model, batches[:1], steps=0, method=method)
    np.testing.assert_array_equal(found, expected)


def test_a_reader_that_is_not_trained_is_named_beside_one_that_is():
    x = keras.Input((4,))
    h = layers.Dense(5, "tanh", name="body")(x)
    heads = [layers.Dense(3, name=name, trainable=name == "a") for name in "ab"]
    model = keras.Model(x, [head(h) for head in heads])
    with pytest.raises(ValueError, match=r"found b/kernel, which is not trained, .* body/kernel"):
        gates.places(model)
