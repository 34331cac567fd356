"""What a seed draws.

Stored results rest on it, so none of it changes but on purpose: in its module, and in the table
here.
"""

import itertools

from prosper_utils.pruning import budgets, gates, masks, networks, scores
from prosper_utils.study import controls, datasets

import keras
import numpy as np
import pytest


def model():
    layers = [keras.Input((2,)), keras.layers.Dense(6), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def shuffled_mask(seed):
    return masks.shuffled([np.arange(10) < 3], seed)[0]


def shuffled_units(seed):
    return np.flatnonzero(budgets.shuffled(model(), np.arange(11) < 5, seed))


def random_weights(seed):
    return scores.random(model(), seed=seed)[0][0, :3]


def random_units(seed):
    return gates.random(model(), seed=seed)[2:5]


def uniform_units(seed):
    return gates.uniform(model(), seed=seed)[2:5]


def first_weights(seed):
    """The first one of each kernel."""
    return [np.ravel(kernel)[0] for kernel in networks.kernels(networks.lenet5(seed=seed))]


def fresh_weights(seed):
    return controls.fresh(model(), seed).layers[0].kernel[0, :3]


def order(seed):
    return datasets.epoch_order(9, 4, seed, 1)


def stacked(seed):
    (x, _), *_ = itertools.islice(datasets.batches((np.arange(9), np.arange(9)), 4, seed=seed), 3)
    return x


def shifts(seed):
    image = np.zeros((6, 5, 5, 1), "float32")
    image[:, 2, 3] = 1
    return np.argwhere(np.asarray(datasets.augmented(image, (seed, 4), most=1))[..., 0])[:, 1:]


DRAWS = {
    shuffled_mask: [0, 1, 1, 0, 0, 1, 0, 0, 0, 0],
    shuffled_units: [0, 1, 2, 5, 7],
    random_weights: [0.0856491, 0.2368105, 0.8012744],
    random_units: [0.8012745, 0.582162, 0.0941286],
    uniform_units: [0.9166667, 0.0833333, 0.4166667],
    first_weights: [-0.1126120, -0.0122381, 0.0805176, 0.0938701, -0.1297146],
    fresh_weights: [-0.2408479, 0.1893243, 0.4284070],
    order: [[5, 1, 2, 4], [0, 7, 8, 6]],
    stacked: [7, 0, 2, 1],
    shifts: [[2, 0], [1, 4], [1, 1], [2, 4], [3, 3], [1, 2]],
}


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_a_seed_draws_what_it_drew(draw):
    np.testing.assert_allclose(draw(3), DRAWS[draw], atol=2e-7)
