"""Masks: exactly k, ties, and zeros that stay zero however a Keras model is trained."""

import math
import re
import warnings
from fractions import Fraction

from prosper_utils.pruning import masks
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5
from prosper_utils.pruning.paths import effective
from prosper_utils.pruning.scores import random
from prosper_utils.study import training

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st
from test_networks import Subclassed, functional

SPARSITIES = st.decimals("0", "0.999", places=3).map(float)
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [(0, 266_200), (0.9, 26_620), (0.95, 13_310), (0.98, 5_324), (0.99, 2_662), (0.995, 1_331)],
)
def test_k_is_exact_where_floats_are_not(sparsity, expected):
    assert masks.kept(266_200, sparsity) == expected
    assert masks.kept(266_200, np.float32(sparsity)) == expected


@given(st.integers(1, 10**6), SPARSITIES)
def test_k_is_the_ceiling_of_the_decimal(size, sparsity):
    keep = 1 - Fraction(str(sparsity))
    assert masks.kept(size, sparsity) == math.ceil(size * keep)
    assert masks.kept(size, sparsity) >= 1


@st.composite
def score_lists(draw):
    """Draw scores with many ties, in several kernels."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
    values = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])
    lists = [draw(st.lists(values, min_size=a * b, max_size=a * b)) for a, b in shapes]
    lists[0][0] = 3.0
    return [np.reshape(v, s) for v, s in zip(lists, shapes, strict=True)]


def leaves_enough(scores, sparsity):
    """Return whether there is a weight for every kernel."""
    return masks.kept(sum(s.size for s in scores), sparsity) >= len(scores)


@given(score_lists(), SPARSITIES)
def test_top_k_keeps_the_best_and_of_equals_the_first(scores, sparsity):
    assume(leaves_enough(scores, sparsity))
    found = masks.top_k(scores, sparsity)
    assert [m.shape for m in found] == [s.shape for s in scores]
    flat = np.concatenate([s.ravel() for s in scores])
    kept = np.concatenate([m.numpy().ravel() for m in found])
    by_hand = sorted(range(flat.size), key=lambda i: (-flat[i], i))[
        : masks.kept(flat.size, sparsity)
    ]
    assert sorted(by_hand) == list(np.flatnonzero(kept))


@given(score_lists(), SPARSITIES, st.floats(0.1, 100))
def test_top_k_does_not_depend_on_the_scale(scores, sparsity, scale):
    assume(leaves_enough(scores, sparsity))
    for a, b in zip(
        masks.top_k(scores, sparsity),
        masks.top_k([s * scale for s in scores], sparsity),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@given(st.integers(0, 2**32 - 1), SPARSITIES)
def test_top_k_follows_a_permutation(seed, sparsity):
    generator = np.random.default_rng(seed)
    scores, order = generator.random(40), generator.permutation(40)
    (found,) = masks.top_k([scores], sparsity)
    (permuted,) = masks.top_k([scores[order]], sparsity)
    np.testing.assert_array_equal(found.numpy()[order], permuted)


@given(st.integers(0, 2**32 - 1), SPARSITIES)
def test_top_k_is_nested(seed, sparsity):
    scores = [np.random.default_rng(seed).random((5, 8))]
    (more,), (fewer,) = masks.top_k(scores, sparsity / 2), masks.top_k(scores, sparsity)
    assert np.all(more.numpy() >= fewer.numpy())


def test_what_differs_in_double_precision_only_is_no_tie():
    scores = [1 + 1e-12 * np.arange(6.0), 1 + 1e-12 * np.arange(6.0, 10)]
    assert [int(np.sum(m)) for m in masks.top_k(scores, 0.6)] == [0, 4]
    for mask in masks.top_k(scores, 0.5, per_layer=True):
        np.testing.assert_array_equal(mask, np.arange(len(mask)) >= len(mask) / 2)
    with pytest.warns(UserWarning, match="the floor of"):
        first, second = masks.top_k(scores, 0.6, floor=1)
    assert list(np.flatnonzero(first)) == [5]
    assert list(np.flatnonzero(second)) == [1, 2, 3]


def test_per_layer_keeps_the_same_share_everywhere():
    scores = [np.arange(1.0, 101.0), 1000 + np.arange(1.0, 51.0)]
    kept = masks.top_k(scores, 0.9, per_layer=True)
    assert [int(np.sum(m)) for m in kept] == [10, 5]
    assert [int(np.sum(m)) for m in masks.top_k(scores, 0.9)] == [0, 15]


def test_logarithms_of_scores_choose_the_same():
    scores = [np.array([0.0, 1e-30, 5.0, 0.0]), np.array([2.0, 1e-3])]
    with np.errstate(divide="ignore"):
        logarithms = [np.log(s) for s in scores]
    for sparsity in (0, 0.5, 0.8):
        for a, b in zip(
            masks.top_k(scores, sparsity), masks.top_k(logarithms, sparsity), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, float("nan")])
def test_a_sparsity_outside_is_refused(sparsity):
    with pytest.raises(ValueError, match=rf"expected a number in \[0, 1\), found {sparsity}"):
        masks.top_k([np.ones(4)], sparsity)


def test_a_sparsity_that_leaves_fewer_weights_than_layers_is_refused():
    scores = [np.arange(1.0, 41.0)] * 3
    assert sum(int(np.sum(m)) for m in masks.top_k(scores, 0.975)) == 3
    with pytest.raises(ValueError, match=r"each of 3 kernels, found 0\.99, which leaves 2"):
        masks.top_k(scores, 0.99)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "found an empty list"),
        ([np.ones(3), np.array([1, np.nan, np.inf])], r"scores\[1\]: .* found 2 NaN or infinite"),
        ([np.ones(3), np.array([1, 2, np.inf])], r"scores\[1\]: .* found 1 NaN or infinite"),
        ([np.zeros(3), np.zeros(2)], "found only zeros"),
    ],
)
def test_scores_that_say_nothing_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        masks.top_k(scores, 0.5)


def pruned(model, sparsity=0.8, seed=0):
    """Prune a model at random and return the masks."""
    chosen = masks.top_k(random(model, seed=seed), sparsity)
    masks.apply(model, chosen)
    return chosen


def compiled(model, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss)
    return model


def fit(model, digits):
    before = [k.numpy() for k in kernels(model)]
    model.fit(*digits.train, batch_size=256, epochs=1, verbose=0)
    return before


def assert_masked(model, chosen, before=None):
    """Assert that weights are zero exactly where the mask says, and that the others moved."""
    for i, (kernel, mask) in enumerate(zip(kernels(model), chosen, strict=True)):
        np.testing.assert_array_equal(kernel.numpy()[~mask.numpy()], 0)
        assert np.mean(kernel.numpy()[mask.numpy()] != 0) > 0.9
        if before is not None:
            assert np.any(kernel.numpy() != before[i])


@pytest.fixture(params=["sequential", "convolutional", "functional", "subclassed"])
def model(request):
    if request.param == "subclassed":
        built = Subclassed()
        built(np.zeros((1, 28, 28, 1), "float32"))
        return built
    return {"sequential": dense_300_100, "convolutional": lenet5, "functional": functional}[
        request.param
    ]()


def test_applying_zeroes_at_once(model):
    before = [k.numpy() for k in kernels(model)]
    chosen = pruned(model)
    for kernel, mask, value in zip(kernels(model), chosen, before, strict=True):
        np.testing.assert_array_equal(kernel.numpy(), np.where(mask, value, 0))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_zeros_stay_zero_when_applied_after_a_first_fit(model, digits, optimizer):
    compiled(model, optimizer)
    fit(model, digits)
    chosen = pruned(model)
    assert_masked(model, chosen, fit(model, digits))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_zeros_stay_zero_under_fit_and_the_mask_may_change_between_two(model, digits, optimizer):
    compiled(model, optimizer)
    first = pruned(model)
    assert_masked(model, first, fit(model, digits))
    second = pruned(model, 0.5, seed=1)
    fit(model, digits)
    regrown = 0
    for kernel, old, new in zip(kernels(model), first, second, strict=True):
        np.testing.assert_array_equal(kernel.numpy()[~new.numpy()], 0)
        regrown += np.count_nonzero(kernel.numpy()[new.numpy() & ~old.numpy()])
    assert regrown > 0  # what the first mask held at zero has earned weight under the second one


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("build", [dense_300_100, lenet5, functional])
def test_zeros_stay_zero_after_saving_and_loading(build, digits, optimizer, tmp_path):
    model = compiled(build(), optimizer)
    chosen = pruned(model)
    fit(model, digits)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_masked(loaded, chosen)
    assert_masked(loaded, chosen, fit(loaded, digits))


@pytest.mark.parametrize("more", [1, -1])
def test_a_list_for_more_or_fewer_kernels_is_refused(more):
    model, count = dense_300_100(units=(3, 2)), 3 + more
    scores = [np.abs(kernel) for kernel in kernels(model)]
    with pytest.raises(ValueError, match="prune: expected a boolean for each of 3 kernels"):
        masks.top_k(scores, 0.5, prune=[True] * count)
    with pytest.raises(ValueError, match="sparsity: expected"):
        masks.top_k(scores, [0.5] * count)
    with pytest.raises(ValueError, match=f"masks: expected .*3.*found {count}"):
        masks.apply(model, (scores * 2)[:count])


def test_of_weights_however_small_only_zeros_are_zero():
    model = dense_300_100(units=(3, 2))
    kernel = kernels(model)[-1]
    kernel.assign(np.resize([1e-37, 0.0, -1e-37], kernel.shape))
    expected = np.resize([True, False, True], kernel.shape)
    np.testing.assert_array_equal(masks.nonzero(model)[-1], expected)


def test_a_class_that_rebuilds_its_layers_gets_its_masks_back(digits):
    model, loaded = Subclassed(), Subclassed()
    for m in (model, loaded):
        m(np.zeros((1, 28, 28, 1), "float32"))
    chosen = pruned(model)
    loaded.set_weights(model.get_weights())
    masks.apply(loaded, masks.nonzero(loaded))
    assert_masked(loaded, chosen, fit(compiled(loaded, "adam"), digits))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("compile_it", [False, True])
def test_zeros_stay_zero_in_a_custom_loop(model, digits, optimizer, compile_it):
    chosen, rule = pruned(model), OPTIMIZERS[optimizer]()
    rule.build(model.trainable_variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, logits)
        gradient = tape.gradient(loss, model.trainable_variables)
        rule.apply_gradients(zip(gradient, model.trainable_variables, strict=True))

    before = [k.numpy() for k in kernels(model)]
    step = tf.function(step) if compile_it else step
    for first in range(0, 256, 64):
        step(*(part[first : first + 64] for part in digits.train))
    assert_masked(model, chosen, before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_our_trainer_follows_the_masks_too(digits, optimizer):
    model = dense_300_100()
    train = training.trainer(model, OPTIMIZERS[optimizer]())
    train(digits.train, epochs=1)
    for seed in (0, 1):  # the first one after a run without masks, the second one a changed mask
        chosen = pruned(model, seed=seed)
        before = [k.numpy() for k in kernels(model)]
        train(digits.train, epochs=1)
        for kernel, mask, value in zip(kernels(model), chosen, before, strict=True):
            np.testing.assert_array_equal(kernel.numpy()[~mask.numpy()], 0)
            assert np.any(kernel.numpy() != value)


def test_a_constraint_that_was_there_still_holds(digits, tmp_path):
    layer = keras.layers.Dense(10, kernel_constraint=keras.constraints.MaxNorm(0.1))
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), layer])
    chosen = pruned(compiled(model, "adam"))
    fit(model, digits)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        fit(each, digits)
        assert_masked(each, chosen)
        norms = np.linalg.norm(kernels(each)[0].numpy(), axis=0)
        assert norms.max() < 0.1 + 1e-6


def test_an_inner_constraint_sees_masked_weights_and_cannot_fill_the_zeros():
    mask = masks.Mask([[1, 0], [0, 1]], inner=lambda w: w + tf.reduce_sum(w))
    np.testing.assert_array_equal(mask(tf.ones((2, 2))), [[3, 0], [0, 3]])


def test_what_is_stripped_is_as_it_was_and_trains_its_zeros():
    """Frozen or not, with a constraint of its own or none, in the kernel and in the layer."""
    norm = keras.constraints.MaxNorm(9.0)
    layers = [keras.layers.Dense(4, kernel_constraint=norm), *map(keras.layers.Dense, (4, 3))]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    masks.apply(model, [np.indices(k.shape).sum(0) % 2 for k in kernels(model)])
    layers[1].trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")
    data = np.random.default_rng(0).normal(size=(8, 5)), np.ones((8, 3))
    model.fit(*data, verbose=0)
    masks.strip(model)
    assert [layer.kernel.constraint for layer in layers] == [norm, None, None]
    assert [layer.kernel_constraint for layer in layers] == [norm, None, None]
    model.fit(*data, verbose=0)
    assert all(np.all(layer.kernel.numpy() != 0) for layer in (layers[0], layers[2]))


def test_depthwise_and_recurrent_kernels_are_saved_with_their_masks(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.SeparableConv2D(3, 3, strides=3),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.Reshape((7, 21)),
            keras.layers.LSTM(4),
            keras.layers.Dense(10),
        ]
    )
    chosen = pruned(model, 0.5)
    model.save(tmp_path / "model.keras")
    found = masks.in_force(keras.saving.load_model(tmp_path / "model.keras"))
    assert len(found) == 6
    assert all(np.array_equal(a, b) for a, b in zip(found, chosen, strict=True))


@given(score_lists(), SPARSITIES, st.integers(1, 3))
def test_a_floor_keeps_the_best_of_every_layer_and_the_count(scores, sparsity, floor):
    assume(leaves_enough(scores, sparsity))
    size = sum(s.size for s in scores)
    needed = sum(min(floor, s.size) for s in scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if needed > masks.kept(size, sparsity):
            plain = masks.top_k(scores, sparsity)
            if any(np.sum(m) < min(floor, m.shape.num_elements()) for m in plain):
                with pytest.raises(ValueError, match=f"found {needed}: {floor} in each of"):
                    masks.top_k(scores, sparsity, floor=floor)
            return
        found = masks.top_k(scores, sparsity, floor=floor)
    assert sum(int(np.sum(m)) for m in found) == masks.kept(size, sparsity)
    for score, mask in zip(scores, found, strict=True):
        inside, outside = score[mask.numpy()], score[~mask.numpy()]
        assert inside.size >= min(floor, score.size)
        assert not outside.size or inside.min() >= outside.max()


@given(score_lists(), st.data())
def test_a_list_of_sparsities_prunes_each_kernel_by_its_own(scores, data):
    each = [data.draw(SPARSITIES) for _ in scores]
    scores = [s + 5 for s in scores]  # none is all zero, for `top_k` on one kernel refuses that
    for score, sparsity, found in zip(scores, each, masks.top_k(scores, each), strict=True):
        np.testing.assert_array_equal(found, masks.top_k([score], sparsity)[0])
    equal = masks.top_k(scores, [each[0]] * len(scores))
    for a, b in zip(equal, masks.top_k(scores, each[0], per_layer=True), strict=True):
        np.testing.assert_array_equal(a, b)


@given(score_lists(), SPARSITIES, st.data())
def test_what_is_not_to_be_pruned_stays_whole_and_is_not_counted(scores, sparsity, data):
    prune = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    prune[0] = True
    some = [s for s, chosen in zip(scores, prune, strict=True) if chosen]
    assume(leaves_enough(some, sparsity))
    found = masks.top_k(scores, sparsity, prune=prune)
    expected = iter(masks.top_k(some, sparsity))
    for mask, chosen in zip(found, prune, strict=True):
        np.testing.assert_array_equal(mask, next(expected) if chosen else np.ones(mask.shape))


@pytest.mark.parametrize("compiled", [True, False])
def test_averages_are_held_at_zero_at_once(compiled):
    """Before any update to come, of the compiled optimizer or of one that is handed over."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    optimizer = keras.optimizers.SGD(use_ema=True)
    model.compile(optimizer if compiled else "sgd")
    optimizer.build(model.trainable_variables)
    mask = np.array([[1, 0], [0, 1], [1, 1]], bool)
    average = optimizer._model_variables_moving_average[0]
    average.assign(np.ones((3, 2)))
    masks.apply(model, [mask], None if compiled else optimizer)
    np.testing.assert_array_equal(average, mask)


def test_scores_that_are_not_used_may_be_anything():
    scores = [np.full(4, np.nan), np.arange(10.0), np.zeros(3)]
    found = masks.top_k(scores, 0.9, prune=[False, True, False])
    assert [int(np.sum(m)) for m in found] == [4, 1, 3]
    with pytest.raises(ValueError, match=r"scores\[0\]: .* found 4 NaN or infinite"):
        masks.top_k(scores, 0.9, prune=[True, True, False])
    with pytest.raises(ValueError, match="found only zeros"):
        masks.top_k(scores, 0.9, prune=[False, False, True])


@pytest.mark.parametrize(
    ("sparsity", "prune"), [([0.5], None), ([0.5, 0.5], [True, True]), ([0.5] * 3, None)]
)
def test_lists_that_do_not_fit_are_refused(sparsity, prune):
    with pytest.raises(ValueError, match="sparsity: expected a number, or one for each of 2"):
        masks.top_k([np.ones(4)] * 2, sparsity, prune=prune)
    for wrong in ([], [True], [False, False]):
        with pytest.raises(ValueError, match="prune: expected a boolean for each of 2 kernels"):
            masks.top_k([np.ones(4)] * 2, 0.5, prune=wrong)


def test_each_layer_has_its_floor():
    """By layer the floor cannot take from others: it is kept or refused, and never ignored."""
    scores = [np.arange(1.0, 21), np.arange(1.0, 101)]
    assert [int(np.sum(m)) for m in masks.top_k(scores, 0.9, per_layer=True, floor=2)] == [2, 10]
    with pytest.raises(ValueError, match=r"at most the 2 weights .* found 3: 3 in .* in kernel 0"):
        masks.top_k(scores, 0.9, per_layer=True, floor=3)


def test_by_layer_a_kernel_may_score_zero_everywhere_as_it_may_globally():
    scores = [np.zeros(10), np.arange(1.0, 11)]
    found = masks.top_k(scores, 0.5, per_layer=True)
    assert [list(np.flatnonzero(m)) for m in found] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    with pytest.raises(ValueError, match="found only zeros"):
        masks.top_k([np.zeros(3), np.zeros(2)], 0.5, per_layer=True)


@pytest.mark.parametrize("sparsity", [0.99, 0.999])
def test_of_40_connections_to_one_output_one_is_kept(sparsity):
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(1)])
    masks.apply(model, masks.top_k([abs(k.numpy()) for k in kernels(model)], sparsity))
    assert np.count_nonzero(kernels(model)[0]) == 1


def test_no_mask_can_be_changed_from_outside():
    """What goes in and what comes out are copies."""
    model = dense_300_100(units=(20, 10))
    given = [np.array(m) for m in masks.top_k(random(model), 0.8)]
    kept_as = [m.copy() for m in given]
    masks.apply(model, given)
    found = masks.in_force(model)
    for mask in given:
        mask[:] = True
    variables = [tf.Variable(m) for m in kept_as]
    own = masks.Mask(variables[0])
    variables[0].assign(tf.ones_like(variables[0]))
    np.testing.assert_array_equal(own.mask.numpy(), kept_as[0])
    for mask, expected in zip(masks.in_force(model), kept_as, strict=True):
        np.testing.assert_array_equal(mask, expected)
        assert not isinstance(mask, tf.Variable)
    masks.apply(model, [tf.ones(m.shape) for m in kept_as])
    for mask, expected in zip(found, kept_as, strict=True):
        np.testing.assert_array_equal(mask, expected)  # what was in force then
    scores = [np.arange(6.0), np.arange(4.0)]
    (first, second), (other, _) = masks.best(scores, 5), masks.best(scores, 5)
    first[:], before = True, second.copy()
    np.testing.assert_array_equal(second, before)
    assert not other.all()


def test_the_floor_says_when_it_acts():
    scores = [np.arange(1.0, 11), np.arange(11.0, 21)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [int(np.sum(m)) for m in masks.top_k(scores, 0.5, floor=0)] == [0, 10]
    with pytest.warns(UserWarning, match=r"floor of 2 acts in kernels \[0\]") as said:
        assert [int(np.sum(m)) for m in masks.top_k(scores, 0.5, floor=2)] == [2, 8]
    assert said[0].filename == __file__  # the line that called is shown, not one of ours
    with pytest.warns(UserWarning, match="floor of 5"):  # as many as there are, and none to spare
        assert [int(np.sum(m)) for m in masks.top_k(scores, 0.5, floor=5)] == [5, 5]


@pytest.mark.filterwarnings("ignore:the floor of")
def test_connected_leaves_a_path_with_the_smallest_floor():
    model = dense_300_100(units=(30, 20))
    scores = [np.random.default_rng(i).random(k.shape) for i, k in enumerate(kernels(model))]
    scores[1] = scores[1] / 1e3  # global top-k would leave the second layer empty
    assert not any(np.any(m) for m in effective(model, masks.top_k(scores, 0.99)))
    found = masks.connected(model, scores, 0.99)
    assert any(np.any(m) for m in effective(model, found))
    assert sum(int(np.sum(m)) for m in found) == masks.kept(24_320, 0.99)
    floor = int(np.sum(found[1]))
    assert not any(np.any(m) for m in effective(model, masks.top_k(scores, 0.99, floor=floor // 2)))
    with pytest.raises(ValueError, match="floor: expected at most the 3 weights"):
        masks.connected(model, scores, 0.9999)


@pytest.mark.filterwarnings("ignore:the floor of")
def test_connected_starts_with_a_floor_of_one():
    model = dense_300_100(units=(1, 1))
    scores = [np.random.default_rng(i).random(k.shape) for i, k in enumerate(kernels(model))]
    scores[1], scores[2] = scores[1] / 1e6, scores[2] / 1e3
    found = masks.connected(model, scores, 0.9)
    assert [int(np.sum(m)) for m in found] == [masks.kept(795, 0.9) - 2, 1, 1]


@pytest.mark.filterwarnings("ignore:the floor of")
def test_connected_prunes_only_what_it_is_told_to():
    model = dense_300_100(units=(30, 20))
    scores = [np.random.default_rng(i).random(k.shape) for i, k in enumerate(kernels(model))]
    found = masks.connected(model, scores, 0.99, prune=[True, True, False])
    assert np.all(found[2])
    assert sum(int(np.sum(m)) for m in found[:2]) == masks.kept(24_120, 0.99)


def test_connected_doubles_its_floor(monkeypatch):
    model = dense_300_100(units=(30, 20))
    scores = [i + np.random.default_rng(i).random(k.shape) for i, k in enumerate(kernels(model))]
    monkeypatch.setattr(masks, "effective", lambda model, masks: [np.zeros(3)])  # never a path
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="found 1224: 512 in each of 3"):
            masks.connected(model, scores, 0.97)
    floors = [int(str(w.message).split("floor of ")[1].split()[0]) for w in said]
    assert floors == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_connected_leaves_alone_what_has_a_path():
    """One of two parallel branches may be empty: the other one is a path."""
    model = functional()
    scores = [np.random.default_rng(i).random(k.shape) for i, k in enumerate(kernels(model))]
    scores[0] = scores[0] / 1e3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = masks.connected(model, scores, 0.9)
    assert not np.any(found[0])
    expected = masks.top_k(scores, 0.9)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_report_names_what_is_left_empty():
    model = dense_300_100()
    assert masks.empty_layers(model) == []
    chosen = pruned(model)
    chosen[1] = tf.zeros_like(chosen[1])
    masks.apply(model, chosen)
    assert masks.empty_layers(model) == ["lenet_300_100/hidden_2/kernel"]
    lines = masks.report(model).splitlines()
    assert lines[-1] == "EMPTY, nothing passes: lenet_300_100/hidden_2/kernel"
    assert not any("EMPTY" in line for line in lines[:-1])
    total = sum(int(np.sum(m)) for m in chosen)
    assert f"{total:,}" in lines[-2]
    assert "266,200" in lines[-2]


def test_the_effective_sparsity_counts_what_is_on_no_path_by_hand():
    model = dense_300_100(units=(3, 2))
    chosen = [np.ones(k.shape, bool) for k in kernels(model)]
    assert masks.effective_sparsity(model) == 0
    chosen[1][0] = False  # nothing reads the first unit, so what leads to it is on no path
    masks.apply(model, chosen)
    gone, size = 784 + 2, 784 * 3 + 3 * 2 + 2 * 10
    assert masks.effective_sparsity(model) == pytest.approx(gone / size, rel=1e-12)
    for kernel in kernels(model):  # a weight that is kept may be zero, as one just regrown
        kernel.assign(tf.zeros_like(kernel))
    assert masks.effective_sparsity(model) == pytest.approx(gone / size, rel=1e-12)


def dead_in_report(layer, shape, kernel=0, empty=()):
    """Return what the report says of a kernel that is empty at some places: dead in, dead out."""
    model = keras.Sequential([keras.Input(shape), layer])
    chosen = [np.ones(k.shape, bool) for k in kernels(model)]
    for place in empty:
        chosen[kernel][place] = False
    masks.apply(model, chosen)
    return tuple(int(n) for n in masks.report(model).splitlines()[kernel + 1].split()[-2:])


EVERYWHERE = slice(None)


@pytest.mark.parametrize(
    ("layer", "shape", "empty", "expected"),
    [
        (lambda la: la.Dense(4), (3,), [(0,), (2,)], (2, 0)),
        (lambda la: la.Conv2D(5, 2), (4, 4, 3), [(..., 1, EVERYWHERE), (..., 3)], (1, 1)),
        (lambda la: la.Conv2DTranspose(5, 2), (4, 4, 3), [(..., 1), (..., 4, EVERYWHERE)], (1, 1)),
        (lambda la: la.Conv1DTranspose(5, 2), (4, 3), [(..., 0), (..., 2)], (2, 0)),
        (lambda la: la.DepthwiseConv2D(2, depth_multiplier=2), (4, 4, 3), [(..., 1, 0)], (0, 1)),
        (
            lambda la: la.DepthwiseConv1D(2, depth_multiplier=2),
            (4, 3),
            [(..., 1, EVERYWHERE)],
            (1, 2),
        ),
        (lambda la: la.SeparableConv2D(5, 2), (4, 4, 3), [(..., 1, 0), (..., 2, 0)], (2, 2)),
        (lambda la: la.Conv2D(6, 2, groups=2), (4, 4, 4), [(..., 1, slice(3))], (1, 0)),
        (lambda la: la.Conv2D(6, 2, groups=2), (4, 4, 4), [(..., slice(1, 3))], (0, 2)),
        (lambda la: la.EinsumDense("ab,cbd->acd", (2, 5)), (3,), [(1, EVERYWHERE, 2)], (0, 1)),
    ],
)
def test_dead_inputs_and_outputs_where_the_layer_has_them(layer, shape, empty, expected):
    assert dead_in_report(layer(keras.layers), shape, empty=empty) == expected


def test_an_empty_layer_gets_a_warning():
    model = dense_300_100(units=(20, 10))
    chosen = masks.top_k(random(model), 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks.apply(model, chosen)
    words = "masks: empty, nothing passes: lenet_300_100/output/kern"
    with pytest.warns(UserWarning, match=words) as said:
        masks.apply(model, [*chosen[:2], tf.zeros_like(chosen[2])])
    assert said[0].filename == __file__


def test_the_report_says_what_is_not_taken_for_a_kernel():
    """Arrays of two and more axes are, whatever their number; a vector is a bias or a scale."""
    shapes = {"scale": (3,), "matrix": (3, 4), "heads": (2, 3, 1), "volume": (1, 2, 3, 5)}

    class Own(keras.layers.Layer):
        def build(self, _):
            self.w = {n: self.add_weight(shape=shape, name=n) for n, shape in shapes.items()}

        def call(self, x):
            return x * sum(tf.reduce_sum(w) for w in self.w.values())

    model = keras.Sequential([keras.Input((3,)), Own(name="own"), keras.layers.Dense(2)])
    masks.apply(model, [np.eye(3, 2)])
    *_, matrix, heads, volume = masks.report(model).splitlines()
    said = "not a kernel, so not pruned:"
    assert matrix == f"{said} {model.name}/own/matrix, 12 weights"
    assert heads == f"{said} {model.name}/own/heads, 6 weights"
    assert volume == f"{said} {model.name}/own/volume, 30 weights"
    assert masks.report(model).count(said) == 3
    assert "not a kernel" not in masks.report(dense_300_100(units=(2, 2)))


def test_where_weights_differ_from_zero_outside_their_masks():
    model = dense_300_100(units=(20, 10))
    masks.apply(model, masks.top_k(random(model), 0.8))
    assert masks.outside(model) == []
    kernel = kernels(model)[1]
    signs = (-1.0) ** tf.range(10.0)
    kernel.assign_add(signs * tf.ones_like(kernel))
    expected = [("lenet_300_100/hidden_2/kernel", np.count_nonzero(~masks.in_force(model)[1]))]
    assert masks.outside(model) == expected
    masks.apply(model, masks.in_force(model))
    assert masks.outside(model) == []
    place = tuple(np.argwhere(~masks.in_force(model)[2])[-1])
    kernels(model)[2].value[place].assign(1e-30)
    assert masks.outside(model) == [("lenet_300_100/output/kernel", 1)]
    kernels(model)[2].value[place].assign(np.nan)
    assert masks.outside(model) == [("lenet_300_100/output/kernel", 1)]
    assert masks.outside(dense_300_100(units=(2, 2))) == []  # without masks there is no outside


def test_shuffling_keeps_the_counts_of_the_layers():
    chosen = [np.arange(20).reshape(4, 5) < 7, np.arange(6).reshape(2, 3) < 1]
    found = masks.shuffled(chosen, seed=0)
    assert [m.shape for m in found] == [(4, 5), (2, 3)]
    assert [int(np.sum(m)) for m in found] == [7, 1]
    assert not np.array_equal(found[0], chosen[0])
    assert np.array_equal(found[0], masks.shuffled(chosen, seed=0)[0])
    assert not np.array_equal(found[0], masks.shuffled(chosen, seed=1)[0])
    twice = masks.shuffled([chosen[0]] * 2)
    assert not np.array_equal(*twice)  # each kernel in an order of its own
    often = np.mean([masks.shuffled(chosen, seed)[0] for seed in range(400)], axis=0)
    assert often == pytest.approx(np.full((4, 5), 7 / 20), abs=0.1)  # anywhere in the kernel


def test_masks_that_do_not_fit_change_nothing():
    model = dense_300_100()
    before = model.get_weights()
    good = masks.top_k(random(model), 0.5)
    with pytest.raises(ValueError, match="expected one per kernel, 3, found 2"):
        masks.apply(model, good[:2])
    for wrong in (tf.transpose(good[1]), good[1][:, None], good[1][..., None], good[1][:1], 1.0):
        said = rf"hidden_2.*expected shape \(300, 100\), found {re.escape(str(np.shape(wrong)))}"
        with pytest.raises(ValueError, match=said):
            masks.apply(model, [good[0], wrong, good[2]])
    with pytest.raises(ValueError, match="expected zeros and ones, found other values"):
        masks.apply(model, [good[0], good[1], 2 * tf.ones((100, 10))])
    for wrong in (0.5, 2, -1, np.nan):  # a single one is enough
        last = np.ones((100, 10))
        last[-1, -1] = wrong
        with pytest.raises(ValueError, match=r"output/kernel: expected zeros and ones"):
            masks.apply(model, [good[0], good[1], last])
    with pytest.raises(ValueError, match="optimizer: expected a Keras optimizer, found a str"):
        masks.apply(model, good, optimizer="adam")
    assert [k.constraint for k in kernels(model)] == [None] * 3
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
    with pytest.raises(ValueError, match="expected a built model"):
        masks.apply(keras.Sequential([keras.layers.Dense(3)]), [])


layers = keras.layers


def test_the_floor_names_kernels_by_their_place_in_the_model():
    scored = [np.full(4, 9.0), np.arange(11.0, 21), np.arange(1.0, 11)]
    with pytest.warns(UserWarning, match=r"floor of 2 acts in kernels \[2\]"):
        masks.top_k(scored, 0.5, floor=2, prune=[False, True, True])
    scored = [np.arange(1.0, 101), np.arange(1.0, 21)]
    with pytest.raises(ValueError, match=r"found 3: 3 in each of 1 kernels, in kernel 1"):
        masks.top_k(scored, 0.9, per_layer=True, floor=3)


def test_what_is_not_finite_is_zero_outside_the_mask_as_well():
    """An update that diverged is masked, too: zero times infinity would be NaN."""
    mask = masks.Mask([[1, 0], [0, 1]])
    diverged = tf.constant([[1, np.nan], [np.inf, -2]])
    np.testing.assert_array_equal(mask(diverged), [[1, 0], [0, -2]])
    held = keras.Variable(diverged)
    mask.hold(held)
    np.testing.assert_array_equal(held, [[1, 0], [0, -2]])


def test_the_report_counts_what_is_kept_on_a_path_by_hand():
    """A kept weight that happens to be zero is kept all the same."""
    model = dense_300_100(units=(3, 2))
    chosen = [np.ones(k.shape, bool) for k in kernels(model)]
    chosen[1][0] = False  # nothing reads the first unit, so what leads to it is on no path
    masks.apply(model, chosen)
    last = kernels(model)[2]
    last.assign(last * (np.arange(20).reshape(2, 10) > 0))
    rows = [line.split() for line in masks.report(model).splitlines()[1:5]]
    assert [row[1:] for row in rows] == [
        ["2,352", "2,352", "100.00%", "1,568", "0", "0"],
        ["4", "6", "66.67%", "4", "1", "0"],
        ["20", "20", "100.00%", "20", "0", "0"],
        ["kernels", "2,376", "2,378", "99.92%", "1,592"],
    ]


def test_a_table_of_words_is_saved_with_its_mask(tmp_path):
    table = layers.Embedding(9, 4)
    chain = [keras.Input((5,), dtype="int32"), table, layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential(chain)
    chosen = [np.indices(k.shape).sum(0) % 2 == 0 for k in kernels(model)]
    masks.apply(model, chosen)
    assert masks.unsaved(model) == []
    model.save(tmp_path / "model.keras")
    found = masks.in_force(keras.saving.load_model(tmp_path / "model.keras"))
    assert all(np.array_equal(a, b) for a, b in zip(found, chosen, strict=True))
    masks.strip(model)
    assert table.embeddings_constraint is table.embeddings.constraint is None


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_sparsities_by_kernel_come_in_any_sequence(kind):
    scores = [np.arange(1.0, 11), np.arange(11.0, 21), np.arange(1.0, 5)]
    found = masks.top_k(scores, kind([0.5, 0.8, 0.0]))
    assert [list(np.flatnonzero(m)) for m in found] == [[5, 6, 7, 8, 9], [8, 9], [0, 1, 2, 3]]


def test_by_layer_what_is_not_to_be_pruned_stays_whole():
    scores = [np.arange(10.0), np.arange(20.0), np.arange(30.0)]
    found = masks.top_k(scores, 0.9, per_layer=True, prune=[True, False, True])
    assert [list(np.flatnonzero(m)) for m in found] == [[9], list(range(20)), [27, 28, 29]]
    assert {m.dtype for m in found} == {tf.bool}


def test_a_pruned_network_under_a_new_head_is_pruned_with_it():
    """Some kernels have masks and some have none, in a model that has been fitted already."""
    body = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "tanh")])
    masks.apply(body, [np.indices((6, 5)).sum(0) % 2])
    model = keras.Sequential([body, keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    data = np.random.default_rng(0).normal(size=(8, 6)), np.ones((8, 4))
    model.fit(*data, verbose=0)
    chosen = [np.indices((6, 5)).sum(0) % 2 == 0, np.indices((5, 4)).sum(0) % 2 == 0]
    masks.apply(model, chosen)
    model.fit(*data, epochs=2, verbose=0)
    assert masks.outside(model) == []
    for mask, found, kernel in zip(chosen, masks.in_force(model), kernels(model), strict=True):
        np.testing.assert_array_equal(found, mask)
        assert kernel.constraint.inner is None  # none is put around another


def test_what_is_lost_on_saving_is_said_once():
    """When the first masks go on: to change them again and again is silent."""
    model = Subclassed()
    model(np.zeros((1, 28, 28, 1), "float32"))
    chosen = [np.ones(k.shape) for k in kernels(model)]
    with pytest.warns(UserWarning, match="lost on saving") as said:
        masks.apply(model, chosen)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks.apply(model, chosen)


def test_the_whole_report_by_hand():
    """A network in a network, a frozen layer, an empty kernel, and what is no kernel."""

    class Scaled(layers.Layer):
        def build(self, shape):
            self.shift = self.add_weight(shape=(shape[-1],), name="shift")
            self.scales = self.add_weight(shape=(3, shape[-1]), name="scales")

        def call(self, x):
            return x * self.scales[0] + self.shift

    up = [keras.Input((4, 4, 3)), layers.Conv2DTranspose(5, 2, name="up")]
    inner = keras.Sequential(up, name="inner")
    last = [layers.Dense(5, trainable=False), layers.Dense(2, name="last"), Scaled(name="own")]
    links = [inner, layers.GlobalAveragePooling2D(), *last]
    model = keras.Sequential([keras.Input((4, 4, 3)), *links], name="net")
    chosen = [np.ones((2, 2, 5, 3)), np.zeros((5, 2))]
    chosen[0][:, :, :2] = 0
    chosen[0][..., 2] = 0
    with pytest.warns(UserWarning, match="empty, nothing passes"):
        masks.apply(model, chosen)
    lines = masks.report(model).splitlines()
    assert [line.split() for line in lines] == [
        ["kernel", "kept", "of", "share", "on", "a", "path", "dead", "in", "out"],
        ["inner/up/kernel", "24", "60", "40.00%", "-", "1", "2"],
        ["last/kernel", "0", "10", "0.00%", "-", "5", "2"],
        ["all", "kernels", "24", "70", "34.29%", "-"],
        ["not", "a", "kernel,", "so", "not", "pruned:", "net/own/scales,", "6", "weights"],
        ["EMPTY,", "nothing", "passes:", "net/last/kernel"],
    ]
    assert len({len(line) for line in lines[:3]}) == 1  # in columns
