r"""Finite distributions and their differentiable functions: a weight of zero still has a gradient.

A distribution gives weights to finitely many objects,

.. math:: p = \sum_x p(x) \, \delta_x .

Its objects stand in Python, numbered by an *index*, a dictionary from each object to its place; its
weights are a vector in TensorFlow.  A function of distributions maps weights to weights and is made
of TensorFlow's operations, so a tape has its adjoint.  The weights are what is differentiated, and
nothing stands between (a softmax could not hold a zero, nor give one a gradient).

The *big sum* takes its terms from the support of its argument united with an extra support S,

.. math:: F_S(p) = \sum_{v \,\in\, \operatorname{supp} p \,\cup\, S} p(v) \, f_v(p) .

Its value does not depend on S, to the last bit: a term with p(v) = 0 adds nothing.  Its gradient
does: the same term adds :math:`\langle f_v(p), w \rangle` to the credit of v for the feedback w
(Gadgil, "Blending pruning and backprop", 2015).
"""

import functools
import math
import operator
from typing import NamedTuple

import numpy as np
import tensorflow as tf


def index(objects):
    """Return {object: place} for objects in their order.

    Raises:
        ValueError: if there are none, or one comes twice.
    """
    objects = list(objects)
    places = {x: i for i, x in enumerate(objects)}
    if not objects or len(places) < len(objects):
        twice = next((x for i, x in enumerate(objects) if places[x] != i), None)
        found = f"{twice!r} twice" if objects else "none"
        raise ValueError(f"support: expected at least one object, each once, found {found}")
    return places


def distribution(places, weights, dtype=tf.float64):
    """Return the weights of a distribution as a vector with one entry per object.

    Args:
        places: the index of the objects.
        weights: {object: weight}; the weight of all others is zero.  They need not add up to one.
        dtype: any float type.

    Raises:
        ValueError: if an object is not in the index, or a weight is negative or not finite, or all
            of them are zero.
    """
    vector = np.zeros(len(places))
    for x, weight in weights.items():
        vector[_place(places, x, "weights")] = weight
    bad = [w for w in vector if not 0 <= w < np.inf]
    if bad or not vector.any():
        found = bad[0] if bad else "zero for every object"
        raise ValueError(f"weights: expected finite ones >= 0, not all zero, found {found}")
    return tf.constant(vector, dtype)


def _place(places, x, what):
    if x not in places:
        raise ValueError(f"{what}: expected objects of the support, found {x!r}")
    return places[x]


def support(p, epsilon=0.0):
    """Return the places of the weights above epsilon, a list of integers: the essential support."""
    return np.flatnonzero(np.asarray(p) > epsilon).tolist()


def identity(p):
    """Return p itself."""
    return tf.identity(p)


def linear_combination(coefficients, functions):
    r"""Return p -> :math:`\sum_i a_i f_i(p)`."""
    if len(coefficients) != len(functions) or not functions:
        raise ValueError(
            f"linear combination: expected one coefficient per function and at least one, "
            f"found {len(coefficients)} for {len(functions)}"
        )

    def combined(p):
        return _sum(a * f(p) for a, f in zip(coefficients, functions, strict=True))

    return combined


def _sum(terms):
    return functools.reduce(operator.add, terms)


def composition(*functions):
    """Return p -> f(g(...(p))) for the functions f, g, ...: the last one is applied first."""
    return lambda p: functools.reduce(lambda value, f: f(value), reversed(functions), p)


def move(places, mapping):
    r"""Return p -> :math:`\sum_x p(x) \, \delta_{m(x)}`, the push-forward along a partial map m.

    Args:
        places: the index of the objects.
        mapping: {object: object}; what is not in it, or mapped to None, loses its weight.

    Raises:
        ValueError: if an object of the map is not in the index.
    """
    defined = {x: z for x, z in mapping.items() if z is not None}
    origins = [_place(places, x, "move") for x in defined]
    images = [_place(places, z, "move") for z in defined.values()]

    def moved(p):
        weights = tf.gather(p, tf.constant(origins, tf.int64))
        return tf.math.unsorted_segment_sum(weights, tf.constant(images, tf.int64), len(places))

    return moved


def scalar_product(c, p):
    """Return the distribution c p; its gradient at the number c is the inner product with p."""
    return c * p


def inner_product(p, w):
    r"""Return :math:`\langle p, w \rangle = \sum_x p(x) w(x)`, a scalar."""
    return tf.reduce_sum(p * w)


def evaluation(places, x):
    """Return p -> p(x), a scalar.

    Raises:
        ValueError: if the object is not in the index.
    """
    place = _place(places, x, "evaluation")
    return lambda p: p[place]


def normalised(p):
    r"""Return :math:`p / \lVert p \rVert_1` for weights that are not negative.

    Raises:
        ValueError: if they do not add up to more than zero, or to more than a float can hold.
    """
    total = tf.reduce_sum(p)
    if not 0 < total < math.inf:
        raise ValueError(
            f"normalised: expected a finite total weight above 0, found {float(total)}"
        )
    return p / total


def big_sum(places, term, extra=()):
    r"""Return p -> :math:`\sum_v p(v) f_v(p)` over v in the support of p united with `extra`.

    Args:
        places: the index of the objects.
        term: function that takes an object v and returns the function :math:`f_v`.
        extra: the objects S whose terms are taken into the sum even if their weight is zero.  The
            value of the sum does not depend on them, its gradient does.

    Raises:
        ValueError: if an object of `extra` is not in the index; and when it is applied, if there
            are no terms, because no weight is above zero and `extra` is empty.
    """
    objects = list(places)
    specified = [_place(places, v, "extra support") for v in extra]

    def summed(p):
        members = support(p)
        members += sorted(set(specified).difference(members))
        if not members:
            raise ValueError("big sum: expected a weight above zero, found none")
        return _sum(p[v] * term(objects[v])(p) for v in members)

    return summed


class Pairs(NamedTuple):
    """The defined products of pairs of objects: left[k] ∘ right[k] = product[k], as places.

    Those with two weights above zero come first; there are `supported` of them.
    """

    left: tf.Tensor
    right: tf.Tensor
    product: tf.Tensor
    supported: int


def pairs(product, p, q, extra=()):
    """Return the `Pairs` with one factor of weight above zero and the other that or in `extra`.

    A pair of two zero weights has neither value nor gradient, so it is left out.

    Args:
        product: function that takes the places of two objects and returns that of their product, or
            None if it is undefined.
        p, q: the weights of the left and of the right factors.
        extra: the places of the extra support.
    """

    def products(asked):
        places = [product(i, j) for i, j in asked.tolist()]
        return np.array([-1 if k is None else k for k in places], np.int64)

    return pairs_at_once(products, p, q, extra)


def pairs_at_once(products, p, q, extra=()):
    """Return the same as `pairs`, for a function that takes all pairs at once.

    Args:
        products: function of an array of integers, of shape (n, 2), that returns an array of n
            places, -1 where the product is undefined.
        p, q, extra: as for `pairs`.
    """
    left, right = support(p), support(q)
    new_left, new_right = (sorted(set(extra).difference(s)) for s in (left, right))
    blocks = (left, right), (left, new_right), (new_left, right)
    grids = [np.reshape(np.meshgrid(*block, indexing="ij"), (2, -1)) for block in blocks]
    asked = np.concatenate(grids, axis=1).T.astype(np.int64)
    found = products(asked)
    defined = found >= 0
    supported = int(np.count_nonzero(defined[: len(left) * len(right)]))
    return Pairs(*(tf.constant(c[defined]) for c in (*asked.T, found)), supported)


def combine(p, q, chosen):
    r"""Return :math:`\sum p(x) q(y) \, \delta_{x \circ y}` over pairs, and its total weight.

    The total is summed over the pairs with two weights above zero; the others, which come after
    them, add exact zeros to it, and their gradients.  So both do not depend on the extra support.

    Args:
        p, q: the weights of the left and of the right factors, of equal length.
        chosen: the `Pairs` to sum over.
    """
    terms = tf.gather(p, chosen.left) * tf.gather(q, chosen.right)
    image = tf.math.unsorted_segment_sum(terms, chosen.product, p.shape[0])
    inner, outer = terms[: chosen.supported], terms[chosen.supported :]
    return image, tf.reduce_sum(inner) + tf.reduce_sum(outer)


def combination(places, table, extra=()):
    r"""Return p, q -> :math:`\sum p(x) q(y) \, \delta_{x \circ y}` for a partial product x ∘ y.

    It is a big sum in each of its two factors, with the same extra support: the sum runs over the
    pairs that `pairs` returns.

    Args:
        places: the index of the objects.
        table: {(x, y): z}; a pair that is not in it, or has None there, does not combine.
        extra: the objects of the extra support.

    Raises:
        ValueError: if an object of the table or of `extra` is not in the index.
    """
    products = {
        tuple(_place(places, x, "combination table") for x in key): _place(
            places, z, "combination table"
        )
        for key, z in table.items()
        if z is not None
    }
    specified = [_place(places, v, "extra support") for v in extra]

    def combined(p, q):
        chosen = pairs(lambda i, j: products.get((i, j)), p, q, specified)
        return combine(p, q, chosen)[0]

    return combined


def top_k(p, k):
    """Return p with all but its k largest weights set to zero; of equals the first one wins.

    It is straight-through: the gradient passes as if nothing had been set to zero, so it is no
    derivative.

    Raises:
        ValueError: if k is less than 1.
    """
    if k < 1:
        raise ValueError(f"top-k: expected k of at least 1, found {k}")
    best = tf.math.top_k(p, min(k, p.shape[0])).indices
    mask = tf.scatter_nd(best[:, None], tf.ones_like(best, p.dtype), p.shape)
    return p + tf.stop_gradient(mask * p - p)


def divergence(target, p, epsilon):
    r"""Return :math:`\sum_v \tau(v) \log (\tau(v) / (p(v) + \epsilon))`, finite where p is zero.

    It is the divergence of Kullback and Leibler, with p(v) held off zero, in nats.
    """
    return tf.reduce_sum(tf.math.xlogy(target, target) - tf.math.xlogy(target, p + epsilon))


def feedback(target, p, epsilon):
    r"""Return :math:`\tau(v) / (p(v) + \epsilon)`: minus the gradient of the divergence at p."""
    return tf.math.xdivy(target, p + epsilon)
