"""Budgets: what is chosen costs what was asked, and it is the best of each layer that stays."""

from prosper_utils.pruning import budgets, channels, gates, units
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5, resnet

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_channels import attending, chain, in_double, mixed, residual

BUILT = {
    "dense": lambda: dense_300_100(units=(24, 12)),
    "lenet5": lenet5,
    "residual": lambda: resnet(8, widths=(4, 8, 8), shape=(12, 12, 1)),
    "mixed": lambda: in_double(mixed),
    "attending": lambda: in_double(attending),
    "chain": lambda: in_double(chain),
    "added": lambda: in_double(residual),
}


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in BUILT.items()}


def widths(model):
    return [k.shape[-1] for k in kernels(model)]


@pytest.mark.parametrize("of", budgets.OF)
@pytest.mark.parametrize("name", BUILT)
def test_the_smaller_network_costs_what_was_counted(models, name, of):
    model = models[name]
    keep = budgets.choose(model, gates.random(model), share=0.6, of=of)
    groups, running = channels.groups(model), budgets.Cost(model, of)
    for group, kept in zip(groups, keep, strict=True):
        if not kept:
            running.remove(group)
    small = units.shrink(model, keep)
    assert running.total() == budgets.cost(small, of) <= 0.6 * budgets.cost(model, of)
    if of != "multiply_adds":
        size = 1 if of == "parameters" else np.dtype(model.dtype).itemsize
        assert budgets.cost(small, of) == size * small.count_params()
    else:
        assert budgets.cost(small) == channels.count_multiply_adds(small)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(BUILT)), st.floats(0.35, 1), st.integers(0, 100))
def test_no_more_goes_than_must_and_the_best_of_each_kind_stay(models, name, share, seed):
    model = models[name]
    scores, groups = gates.random(model, seed=seed), channels.groups(model)
    keep = np.array(budgets.choose(model, scores, share=share))
    assert not any(group.fixed for group, kept in zip(groups, keep, strict=True) if not kept)
    for kind in channels.kinds(groups):
        gone, stays = scores[[n for n in kind if not keep[n]]], scores[[n for n in kind if keep[n]]]
        assert len(stays) > 0
        assert len(gone) == 0 or gone.max() <= stays.min()
    if not keep.all():  # with the best of what is gone back, the budget is not met
        back = max(np.flatnonzero(~keep), key=lambda n: (scores[n], n))
        keep[back] = True
        assert budgets.cost(units.shrink(model, keep)) > share * budgets.cost(model)


def test_scores_say_what_goes_across_layers(models):
    model = models["dense"]
    groups = channels.groups(model)
    first, second = channels.kinds(groups)[1:3]
    scores = np.ones(len(groups))
    scores[first] = np.arange(len(first)) / 100
    keep = budgets.choose(model, scores, share=0.5)
    assert sum(keep[n] for n in second) == 12
    assert not keep[first[0]]
    assert keep[first[-1]]


def test_per_cost_is_what_goes_with_a_group(models):
    model = models["dense"]
    groups = channels.groups(model)
    found = budgets.per_cost(model, np.ones(len(groups)), "parameters")
    expected = [1 / group.parameters for group in groups]
    assert found == pytest.approx(expected)
    products = budgets.per_cost(model, np.ones(len(groups)))
    assert products == pytest.approx([1 / group.multiply_adds for group in groups])


@pytest.mark.parametrize("multiple", [2, 8])
def test_widths_are_multiples(multiple):
    model = resnet(8, widths=(16, 32, 64), shape=(12, 12, 1))
    keep = budgets.choose(model, gates.magnitude(model), share=0.4, multiple=multiple)
    found = widths(units.shrink(model, keep))[:-1]
    assert all(width % multiple == 0 for width in found)
    assert found != widths(model)[:-1]
    odd = dense_300_100(units=(30, 13))
    keep = budgets.choose(odd, gates.random(odd), share=0.5, multiple=multiple)
    assert all(
        width % multiple == 0 or width in (30, 13) for width in widths(units.shrink(odd, keep))[:-1]
    )


def test_a_floor_holds(models):
    model = models["dense"]
    groups = channels.groups(model)
    first, second = channels.kinds(groups)[1:3]
    scores = np.ones(len(groups))
    scores[first] = 0
    keep = budgets.choose(model, scores, share=0.5, floor=0.45)
    assert sum(keep[n] for n in first) >= 11
    with pytest.raises(ValueError, match="smallest network that the floors leave"):
        budgets.choose(model, scores, share=0.1, floor=0.45)
    least = budgets.choose(model, scores, limit=784 + 1 + 10)
    assert [sum(least[n] for n in kind) for kind in (first, second)] == [1, 1]


def test_a_budget_that_is_measured(models):
    model, calls = models["dense"], []

    def watts(small):
        calls.append(small)
        return 2.0 * widths(small)[0] + widths(small)[1]

    keep = budgets.choose(model, gates.random(model, seed=3), limit=31.0, of=watts)
    small = units.shrink(model, keep)
    assert watts(small) <= 31
    assert len(calls) <= 9
    assert watts(small) > 31 - 2  # no more than one unit below it
    half = budgets.choose(model, gates.random(model, seed=3), share=0.5, of=watts)
    assert watts(units.shrink(model, half)) <= 30
    with pytest.raises(ValueError, match="watts, where the smallest"):
        budgets.choose(model, gates.random(model), limit=1.0, of=watts)


def test_rounds_look_at_the_network_as_it_is_by_then(models):
    model, seen = models["dense"], []

    def rule(small):
        seen.append(budgets.cost(small) / budgets.cost(model))
        return gates.magnitude(small)

    small = budgets.in_rounds(model, rule, share=0.25, rounds=2)
    assert seen[0] == 1
    assert 0.5 * 0.9 < seen[1] <= 0.5
    assert 0.25 * 0.8 < budgets.cost(small) / budgets.cost(model) <= 0.25
    once = budgets.in_rounds(model, gates.magnitude, share=0.25, rounds=1)
    direct = units.shrink(model, budgets.choose(model, gates.magnitude(model), share=0.25))
    for a, b in zip(once.weights, direct.weights, strict=True):
        assert np.array_equal(a, b)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=36, max_size=36), st.integers(0, 13))
def test_of_equal_scores_the_first_go_and_logarithms_choose_the_same(models, drawn, tenths):
    """Also where scores differ by less than single precision can tell."""
    model = models["dense"]
    groups = channels.groups(model)
    free = np.flatnonzero([not group.fixed for group in groups])
    limit = 20_000 - 1_300 * tenths
    found = []
    for values in (np.array(drawn), 1 + 1e-12 * np.array(drawn), np.array(drawn) - 1.0):
        scores = np.full(len(groups), np.inf)
        scores[free] = values if values.min() >= 0 else [-np.inf if v < 0 else v for v in values]
        found.append(budgets.choose(model, scores, limit=limit))
    assert found[0] == found[1] == found[2]
    keep = np.array(found[0])
    for kind in channels.kinds([groups[n] for n in free]):
        order = sorted(kind, key=lambda n: (drawn[n], n))
        gone = [n for n in order if not keep[free[n]]]
        assert gone == order[: len(gone)]


def test_of_equal_kinds_the_first_goes_and_blocks_count_by_their_mean(models):
    model = models["dense"]
    groups = channels.groups(model)
    first, second = channels.kinds(groups)[1:3]
    whole, scores = budgets.cost(model), np.full(len(groups), np.inf)
    scores[first], scores[second] = 1.0, 1.0
    keep = budgets.choose(model, scores, limit=whole - 1)
    assert [n for n, kept in enumerate(keep) if not kept] == [first[0]]
    scores[first], scores[first[0]] = 3.0, 0.0  # the two lowest have the mean 1.5
    for others, widths_left in ((2.0, [22, 12]), (1.0, [24, 10])):
        scores[second] = others
        keep = budgets.choose(model, scores, limit=whole - 1, multiple=2)
        assert [sum(keep[n] for n in kind) for kind in (first, second)] == widths_left


@pytest.mark.parametrize("of", [*budgets.OF, lambda model: model.count_params()])
def test_the_whole_budget_removes_nothing(models, of):
    for model in models.values():
        assert all(budgets.choose(model, gates.random(model), share=1, of=of))


def test_what_costs_nothing_keeps_its_score():
    layers = [keras.layers.Embedding(5, 4), keras.layers.GlobalAveragePooling1D()]
    model = keras.Sequential([keras.Input((3,)), *layers])
    scores = np.arange(float(len(channels.groups(model))))
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(budgets.per_cost(model, scores), scores)


def test_rounds_hand_on_what_they_are_given():
    model = dense_300_100(units=(24, 12))
    model.compile("sgd", "mse")
    for of in (*budgets.OF, lambda model: float(widths(model)[0])):
        small = budgets.in_rounds(model, gates.random, share=0.5, rounds=2, of=of)
        keep = budgets.choose(model, gates.random(model), share=0.5**0.5, of=of)
        half = units.shrink(model, keep)
        limit = 0.5 * budgets.cost(model, of)
        again = budgets.choose(half, gates.random(half), limit=limit, of=of)
        assert widths(small) == widths(units.shrink(half, again))
    seen = []

    def rule(small):
        seen.append(small.compiled)
        return gates.random(small)

    kept = budgets.in_rounds(model, rule, share=0.6, rounds=2, multiple=4, floor=0.5, compiled=True)
    assert seen == [True, True]
    assert kept.compiled
    assert not small.compiled
    assert widths(kept)[0] >= 12
    assert widths(kept)[1] >= 6
    assert all(width % 4 == 0 for width in widths(kept)[:2])
    for wrong in (0, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"share: expected a number in \(0, 1\]"):
            budgets.in_rounds(model, rule, share=wrong, rounds=2)
    assert len(seen) == 2


def test_shuffling_draws_each_layer_apart_and_changes_nothing_that_it_is_given():
    model = dense_300_100(units=(24, 24))
    groups = channels.groups(model)
    first, second = channels.kinds(groups)[1:3]
    keep = np.array([bool(group.fixed) or n % 2 == 0 for n, group in enumerate(groups)])
    before = keep.copy()
    found = budgets.shuffled(model, keep, seed=3)
    np.testing.assert_array_equal(keep, before)
    patterns = [[found[n] != bool(before[n]) for n in kind] for kind in (first, second)]
    assert [found[n] for n in first] != [found[n] for n in second]
    assert any(patterns[0])
    assert any(patterns[1])


@pytest.mark.parametrize("place", [0, 17, -1])
def test_one_score_that_is_nan_is_refused_wherever_it_is(models, place):
    model = models["dense"]
    scores = gates.random(model)
    scores[place] = np.nan
    for call in (
        lambda: budgets.choose(model, scores, share=0.5),
        lambda: budgets.per_cost(model, scores),
        lambda: budgets.shuffled(model, scores),
    ):
        with pytest.raises(ValueError, match=f"expected {len(scores)} numbers, .* found NaN"):
            call()


def test_shuffling_keeps_the_widths(models):
    for model in models.values():
        keep = budgets.choose(model, gates.random(model), share=0.6)
        found = budgets.shuffled(model, keep, seed=1)
        groups = channels.groups(model)
        for kind in channels.kinds(groups):
            assert sum(found[n] for n in kind) == sum(keep[n] for n in kind)
        assert all(kept for group, kept in zip(groups, found, strict=True) if group.fixed)
        assert widths(units.shrink(model, found)) == widths(units.shrink(model, keep))
    model = models["lenet5"]
    keep = budgets.choose(model, gates.random(model), share=0.6)
    drawn = [budgets.shuffled(model, keep, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != keep


def test_a_budget_that_fixed_channels_forbid_says_which():
    x = keras.Input((8,))
    hidden = keras.layers.LayerNormalization(name="norm")(keras.layers.Dense(16)(x))
    model = keras.Model(x, keras.layers.Dense(3)(hidden))
    why = "normalises over all channels together, so that each counts for all others"
    said = rf"can be met, .*; fixed: LayerNormalization 'norm' {why}$"
    with pytest.raises(ValueError, match=said):
        budgets.choose(model, gates.random(model), share=0.5)
    plain = dense_300_100(units=(4, 3))  # inputs and outputs are not worth a word
    with pytest.raises(ValueError, match=r"network that the floors leave takes [\d,]+$"):
        budgets.choose(plain, gates.random(plain), limit=1)


def test_bad_input(models):
    model = models["dense"]
    scores = gates.random(model)
    before = [w.numpy() for w in model.weights]
    for wrong, words in {
        "share or limit, found share=None": {},
        "share or limit, found share=0.5": {"share": 0.5, "limit": 3},
        r"share: expected a number in \(0, 1\], found 0": {"share": 0},
        r"floor: expected a share in \[0, 1\), found 1": {"share": 0.5, "floor": 1},
        "multiple: expected a whole number from 1 on, found 0": {"share": 0.5, "multiple": 0},
        "of: expected one of multiply_adds, parameters, bytes": {"share": 0.5, "of": "flops"},
        "budget: expected one that can be met, found 5 multiply_adds": {"limit": 5},
        "budget: expected one that can be met, found 0 multiply_adds": {"limit": 0},
    }.items():
        with pytest.raises(ValueError, match=wrong):
            budgets.choose(model, scores, **words)
    for wrong in (scores[:-1], [*scores, 1.0], scores[:, None], 1.0):
        said = f"scores: expected {len(scores)} numbers, one per group, found shape"
        with pytest.raises(ValueError, match=said):
            budgets.choose(model, wrong, share=0.5)
    with pytest.raises(ValueError, match="found NaN"):
        budgets.choose(model, scores * np.nan, share=0.5)
    with pytest.raises(ValueError, match="rounds: expected at least 1, found 0"):
        budgets.in_rounds(model, gates.magnitude, share=0.5, rounds=0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    any_size = keras.Model(inputs, keras.layers.Dense(2)(x))
    with pytest.raises(ValueError, match="expected a known input size"):
        budgets.Cost(any_size)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


def test_a_block_goes_by_the_mean_of_its_scores_however_many_it_has():
    """Of 6 channels 2 bring it to a multiple of 4; of 8 channels it takes 4 of lower scores."""
    inputs = keras.Input((3,))
    x = keras.layers.Dense(8, name="wide")(keras.layers.Dense(6, name="narrow")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    scores = np.full(len(channels.groups(model)), np.inf)
    kinds = {len(kind): kind for kind in channels.kinds(channels.groups(model))}
    scores[kinds[6]], scores[kinds[8]] = 3.0, 2.0  # 2 * 3 is less than 4 * 2
    keep = budgets.choose(model, scores, limit=budgets.cost(model) - 1, multiple=4)
    assert [int(np.sum(np.array(keep)[kinds[n]])) for n in (6, 8)] == [6, 4]


def only_free(model, begin):
    """Return the first layer's groups, and scores of 1 for those from a place on, else infinite."""
    groups = channels.groups(model)
    first, scores = channels.kinds(groups)[1], np.full(len(groups), np.inf)
    scores[first[begin:]] = 1.0
    return first, scores


def test_widths_are_multiples_also_where_some_groups_are_to_stay():
    model = dense_300_100(units=(24, 12))
    first, scores = only_free(model, 3)
    keep = budgets.choose(model, scores, limit=budgets.cost(model) - 1, multiple=8)
    assert sum(keep[n] for n in first) == 16


def test_a_floor_is_a_share_of_all_groups_of_a_kind():
    model = dense_300_100(units=(24, 12))
    first, scores = only_free(model, 4)
    wanted = 12 * 784 + 12 * 12 + 12 * 10
    found = budgets.choose(model, scores, limit=wanted, floor=0.5)
    assert sum(found[n] for n in first) == 12
    with pytest.raises(ValueError, match=f"smallest network .* takes {wanted:,}"):
        budgets.choose(model, scores, limit=wanted - 1, floor=0.5)


def test_what_is_to_stay_is_not_removed_to_meet_a_budget():
    model = dense_300_100(units=(24, 12))
    scores = np.where([bool(g.fixed) for g in channels.groups(model)], np.inf, 1.0)
    scores[channels.kinds(channels.groups(model))[1][:20]] = np.inf
    with pytest.raises(ValueError, match="budget: expected one that can be met"):
        budgets.choose(model, scores, share=0.2)


def test_blocks_of_equal_scores_go_from_the_widest_on():
    """Their means differ in the last bit; the second block must not go before the first."""
    model = dense_300_100(units=(30, 12))
    first, scores = only_free(model, 0)
    for score in (0.1, 0.3, 0.35, 0.7):
        keep = budgets.choose(model, score * scores, limit=budgets.cost(model) - 1, multiple=8)
        assert sum(keep[n] for n in first) == 24


def test_a_floor_is_a_decimal_and_rounded_up():
    """In floating point 0.07 times 100 is a little more than 7."""
    exact = (0.07, 100, 7), (0.14, 50, 7), (0.55, 100, 55), (0.29, 100, 29)
    for floor, width, least in (*exact, (0.5, 7, 4), (0.07, 50, 4), (0.3, 4, 2)):
        model = dense_300_100(units=(width, 3))
        first, scores = only_free(model, 0)
        wanted = least * 784 + least * 3 + 3 * 10
        keep = budgets.choose(model, scores, limit=wanted, floor=floor)
        assert sum(keep[n] for n in first) == least
        with pytest.raises(ValueError, match="smallest network that the floors leave"):
            budgets.choose(model, scores, limit=wanted - 1, floor=floor)


def test_a_floor_is_of_the_network_as_it_came_in_every_round():
    model = dense_300_100(units=(24, 12))
    for share in (0.51, 0.6, 0.8):
        small = budgets.in_rounds(model, gates.random, share=share, rounds=3, floor=0.5)
        assert all(np.array(widths(small)[:2]) >= (12, 6))
    with pytest.raises(ValueError, match="budget: expected one that can be met"):
        budgets.in_rounds(model, gates.random, share=0.2, rounds=3, floor=0.5)


@pytest.mark.parametrize("begin", [3, 12])
def test_widths_are_multiples_down_to_the_smallest_network(begin):
    """With 12 groups to go a second block of 8 is not there, and 4 do not make one."""
    model = dense_300_100(units=(24, 12))
    first, scores = only_free(model, begin)
    width = {3: 8, 12: 16}[begin]
    wanted = width * 784 + width * 12 + 12 * 10
    keep = budgets.choose(model, scores, limit=wanted, multiple=8)
    assert sum(keep[n] for n in first) == width
    with pytest.raises(ValueError, match=f"smallest network .* takes {wanted:,}"):
        budgets.choose(model, scores, limit=wanted - 1, multiple=8)


def test_a_multiple_is_a_whole_number_of_any_type(models):
    model = models["dense"]
    scores = gates.random(model)
    expected = budgets.choose(model, scores, share=0.5, multiple=8)
    assert budgets.choose(model, scores, share=0.5, multiple=8.0) == expected
    for wrong in (2.5, -1):
        with pytest.raises(ValueError, match=f"multiple: expected a whole number .* found {wrong}"):
            budgets.choose(model, scores, share=0.5, multiple=wrong)


@pytest.mark.parametrize("floor", [-0.1, 1.0, np.nan])
def test_a_floor_out_of_range_is_refused(models, floor):
    model = models["dense"]
    with pytest.raises(ValueError, match=rf"floor: expected a share in \[0, 1\), found {floor}"):
        budgets.choose(model, gates.random(model), share=0.5, floor=floor)


def test_scores_per_cost_are_told_apart_in_double_precision(models):
    model = models["dense"]
    count = len(channels.groups(model))
    scores = 1 + 1e-12 * np.random.default_rng(0).permutation(count)
    price = budgets.per_cost(model, np.ones(count))
    np.testing.assert_allclose(budgets.per_cost(model, scores) / price, scores, rtol=1e-15)


@pytest.mark.parametrize("options", [{"limit": 9.0}, {"share": 0.5}])
def test_what_is_no_number_is_no_budget_and_no_cost(models, options):
    """NaN is neither above a budget nor below it, and would remove nothing."""
    model = models["dense"]
    scores = gates.random(model)

    def lost(small):
        return np.nan

    with pytest.raises(ValueError, match="lost: expected a number, found nan"):
        budgets.choose(model, scores, of=lost, **options)
    with pytest.raises(ValueError, match="limit: expected a number, found nan"):
        budgets.choose(model, scores, limit=np.nan)
