r"""Evolution: a distribution that earns weight where it has none, by credit pulled back to it.

A step combines what is there, and lets it persist with the weight a,

.. math:: F(p) &= a \, p + (1 - a) \, \frac{\operatorname{comb} p}{\lVert \operatorname{comb} p
          \rVert_1}, \\
          \operatorname{comb} p &= \sum_{x, y} p(x) \, p(y) \, \delta_{x \circ y} ,

and keeps the K largest weights.  One loop (Gadgil, "Blending pruning and backprop", 2015) is

1. propagate the distribution through T steps, with no extra support;
2. take the essential support of the image as the extra support S;
3. recompute: the value is the same, but pairs with one factor in S now take part;
4. pull the feedback on the image back through the T steps;
5. move the weights by this credit, and every so many loops keep only the heaviest.

The objects are formulas and x ∘ y is condensed detachment (see `detachment`), or anything else with
a partial product.  A `Table` numbers them as they are met, and keeps a proof of each.
"""

import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import NamedTuple

from prosper_utils.blending.detachment import (
    AXIOMS,
    canonical,
    canonical_axioms,
    detach,
    parse,
    show,
)
from prosper_utils.blending.distributions import (
    combine,
    distribution,
    divergence,
    feedback,
    index,
    inner_product,
    normalised,
    pairs_at_once,
    support,
    top_k,
)
from prosper_utils.blending.kernel import COMPILED, Detacher
from prosper_utils.lookahead.trajectory import pull_back, roll_out
from prosper_utils.progress import progress

import numpy as np
import tensorflow as tf

CREDITS = ("fixed", "identity", "support", "generated", "fitness", "random", "multiplicative")
DECOUPLED = ("support", "generated", "random", "multiplicative")
PERSISTS = ("all", "value", "axioms")


class BudgetSpent(Exception):  # noqa: N818
    """A product was asked for that the budget does not cover."""


class Table:
    """The partial product x ∘ y of objects, which are numbered as they are met.

    A product is computed once, when it is first asked for, and this is what the budget counts.

    Args:
        axioms: {name: object}; the names are of one character other than D, to be read in proofs.
        product: function of two objects that returns their product, or None if it is undefined.
        budget: how many products may be computed, undefined ones included.
        show: function that returns an object as text.
        batch: function of the list of all objects and a list of pairs of places in it that returns
            their products in a list; None if there is no faster way than one after the other.
        size: function that returns the size of an object, a number.

    Attributes:
        places: {object: place}, the index of all objects met so far.
        objects: the same objects in a list.
        products: {(i, j): k}, places; k is None where the product is undefined.
        met: {k: how many products had been computed when the object was first met}.

    Raises:
        ValueError: if there are no axioms, they have no names, two are equal, or the budget is less
            than 1.
    """

    def __init__(self, axioms, product, budget=math.inf, show=str, batch=None, size=len):
        if not budget >= 1:
            raise ValueError(f"budget: expected at least 1 combination, found {budget}")
        if not isinstance(axioms, dict):
            raise ValueError(f"axioms: expected {{name: object}}, found {type(axioms).__name__}")
        self.places = index(axioms.values())
        self.axioms = list(self.places)
        self.objects = list(self.places)
        self.combine, self.budget, self.batch = product, budget, batch
        self.show, self.size = show, size
        self.products, self.met = {}, dict.fromkeys(range(len(axioms)), 0)
        self.origins, self.lengths = dict(enumerate(axioms)), [1] * len(axioms)
        self._keys, self._found = np.array([np.iinfo(np.int64).max]), np.array([-1])

    def product(self, i, j):
        """Return the place of the product of the objects at i and j; None if it is undefined.

        Raises:
            BudgetSpent: if it has not been computed before, and the budget has been.
        """
        if (i, j) not in self.products:
            if len(self.products) >= self.budget:
                raise BudgetSpent(f"{self.budget} combinations")
            z = self.combine(self.objects[i], self.objects[j])
            self.products[i, j] = None if z is None else self._enter(z, i, j)
        return self.products[i, j]

    def many(self, pairs):
        """Return what `product` returns for each of a list of pairs, in the order of the list.

        Raises:
            BudgetSpent: if the budget does not last; what it covers has been computed then.
            ValueError: if `batch` returns more products than it was given pairs, or fewer.
        """
        if self.batch is not None:
            known, left = self.products, self.budget - len(self.products)
            new = [pair for pair in dict.fromkeys(pairs) if pair not in known]
            new = new[: math.ceil(max(0, min(left, len(new))))]
            found = self.batch(self.objects, new) if new else []
            if len(found) != len(new):
                raise ValueError(
                    f"batch: expected a product for each of {len(new)} pairs, found {len(found)}"
                )
            for pair, z in zip(new, found, strict=True):
                known[pair] = None if z is None else self._enter(z, *pair)
            try:
                return [known[pair] for pair in pairs]
            except KeyError:
                raise BudgetSpent(f"{self.budget} combinations") from None
        return [self.product(i, j) for i, j in pairs]

    def at_once(self, pairs):
        """Return what `many` returns, for an array of pairs: an array of places, -1 for None.

        Pairs that it was asked for before are found by bisection, in a sorted array of them: a loop
        asks for most pairs again and again.

        Args:
            pairs: integers, of shape (n, 2).

        Raises:
            BudgetSpent: as `many`.
        """
        keys = pairs[:, 0] << 32 | pairs[:, 1]
        new = np.flatnonzero(self._keys[np.searchsorted(self._keys, keys)] != keys)
        if len(new):
            places = self.many(list(map(tuple, pairs[new].tolist())))
            places = np.array([-1 if k is None else k for k in places])
            unique, first = np.unique(keys[new], return_index=True)
            at = np.searchsorted(self._keys, unique)
            self._keys = np.insert(self._keys, at, unique)
            self._found = np.insert(self._found, at, places[first])
        return self._found[np.searchsorted(self._keys, keys)]

    def _enter(self, z, i, j):
        """Return the place of the product z of i and j, and keep the shorter proof of it."""
        k = self.places.setdefault(z, len(self.objects))
        length = 1 + self.lengths[i] + self.lengths[j]
        if k == len(self.objects):
            self.objects.append(z)
            self.lengths.append(length)
            self.met[k] = len(self.products) + 1
            self.origins[k] = i, j
        elif length < self.lengths[k]:
            self.lengths[k], self.origins[k] = length, (i, j)
        return k

    def proof(self, x):
        """Return the proof of an object that has been met, in prefix notation: Dij for i ∘ j.

        It is the shortest of those that it was met by, each as long as it was then.
        """
        text, waiting = [], [self.places[x]]
        while waiting:
            origin = self.origins[waiting.pop()]
            if isinstance(origin, tuple):
                text.append("D")
                waiting += reversed(origin)
            else:
                text.append(origin)
        return "".join(text)


def detachment_table(axioms=AXIOMS, *, limit=25, budget=math.inf):
    """Return a `Table` of formulas with condensed detachment as their product.

    Args:
        axioms: {name: formula}, in any variables.
        limit: the largest size of a product; a larger one counts as undefined.
        budget: as for `Table`.

    With Numba and a limit many products are computed at once; they are the same (see `kernel`).
    """
    batch = Detacher(limit) if COMPILED and limit is not None else None
    axioms = canonical_axioms(axioms)
    return Table(axioms, lambda major, minor: detach(major, minor, limit), budget, show, batch)


def goal_weights(goals, halving=6):
    r"""Return the target :math:`\tau(g) \propto 2^{-\text{size}/6}` over goals, {formula: weight}.

    Args:
        goals: formulas as `parse` returns them, or their texts.
        halving: by how many symbols a goal has to be longer for half the weight.

    Raises:
        ValueError: if there are no goals, one comes twice, or one is no formula.
    """
    formulas = [parse(goal) if isinstance(goal, str) else canonical(goal) for goal in goals]
    sizes = 2.0 ** (-np.array([len(formula) for formula in index(formulas)]) / halving)
    return dict(zip(formulas, (sizes / sizes.sum()).tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines a run, besides its table and its target.

    Attributes:
        credit: where credit comes from, and so what can earn weight.
            `"support"`: the blend, pulled back with the support of the image as extra support.
            `"identity"`: pulled back without extra support, for whatever the image holds; an object
            that has no weight yet is credited for having persisted, since it was generated.
            `"fixed"`: the same, for the objects that have weight: their support cannot grow.
            `"generated"`: as `"support"`, but with all objects that the run has met as extra
            support, and they may earn weight.
            `"fitness"`: every Jacobian replaced by the identity: an object is credited with its own
            feedback.
            `"random"`: as `"support"`, but what the objects without weight get is dealt out among
            them at random.
            `"multiplicative"`: as `"support"`, but the weights are multiplied, so zeros stay zeros.
        steps: the number of steps T of a trajectory.
        persistence: the weight a of what persists in a step.
        persists: what does so.
            `"all"`: the distribution, which is the identity term a p, and its credit.
            `"value"`: the same, but no credit comes through it.
            `"axioms"`: equal weights on the axioms instead, whatever p is: there is no identity
            term, and what is generated is gone a step later, but the axioms stay to be combined.
        rounds: how many rounds k the extra support is closed (see `closed`).
        keep: how many weights K a step keeps, and a distribution has.
        step_size: how far the largest change in the first loop goes.
        step_decay: the largest change in loop n is the step size over n to this power.
        purge_every: after how many loops all but the heaviest are dropped.
        purge_to: how many of the heaviest are left then.
        epsilon: a weight is essential if it is above epsilon; it also bounds the feedback.
        loops: the largest number of loops, if the budget lasts for so many.
        store_goals: whether goals may earn weight, so that they are remembered.
        seed: fixes what is random.
    """

    credit: str = "support"
    steps: int = 2
    persistence: float = 0.5
    persists: str = "all"
    rounds: int = 0
    keep: int = 150
    step_size: float = 0.05
    step_decay: float = 0.0
    purge_every: int = 10
    purge_to: int = 32
    epsilon: float = 1e-6
    loops: int = 200
    store_goals: bool = False
    seed: int = 0

    def __post_init__(self):
        for name, known in (("credit", CREDITS), ("persists", PERSISTS)):
            if (found := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}; found {found!r}")
        for name in ("steps", "keep", "purge_every", "purge_to", "loops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("step_size", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, found {getattr(self, name)}")
        for name in ("rounds", "step_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, found {getattr(self, name)}")
        if not 0 <= self.persistence <= 1:
            raise ValueError(f"persistence: expected a number in [0, 1], found {self.persistence}")


def evolution_step(persistence, keep, persists="all", axioms=0):
    r"""Return F as a step of a trajectory, a function (p, chosen) -> next p.

    `chosen` are the `Pairs` to combine, those with extra support included or not.  If nothing
    combines, what persists is all there is: F(p) = p.  Cutting to the largest `keep` weights is
    straight-through (see `top_k`).

    Args:
        persistence, keep, persists: as in `Settings`.
        axioms: how many of the first places are axioms; used for `persists="axioms"`.
    """

    def step(p, chosen):
        image, total = combine(p, p, chosen)
        kept = persisting(p, persists, axioms)
        if total == 0:
            return tf.identity(kept)
        return top_k(persistence * kept + (1 - persistence) * image / total, keep)

    return step


def persisting(p, persists, axioms):
    """Return the distribution of which a step keeps a share, as `Settings.persists` says."""
    if persists == "axioms":
        return tf.cast(tf.range(len(p)) < axioms, p.dtype) / axioms
    return tf.stop_gradient(p) if persists == "value" else p


def step_of(table, settings):
    """Return the `evolution_step` of a run."""
    chosen = settings.persistence, settings.keep, settings.persists
    return evolution_step(*chosen, len(table.axioms))


def padded(p, table):
    """Return p with zeros for the objects that the table has met since."""
    return tf.pad(p, [[0, len(table.objects) - len(p)]])


def propagate(table, p, settings):
    r"""Return :math:`p_0, \dots, p_T` with no extra support; new objects enter the table."""
    forward = step_of(table, settings)

    def step(p, extra):
        chosen = pairs_at_once(table.at_once, p, p, extra)
        return forward(padded(p, table), chosen)

    return roll_out(step, p, [()] * settings.steps)


def closed(table, states, extra, rounds):
    r"""Return the places of the extra support after some rounds, in which it takes in its products.

    A round adds all products of which one factor is in the extra support and the other in the
    support of a state before the last one,

    .. math:: S_0 &= \operatorname{supp} p_T, \qquad D_t = \operatorname{supp} p_t, \\
              S_{j+1} &= S_j \cup \bigcup_{t < T} (S_j \circ D_t \cup D_t \circ S_j) .

    How far credit reaches: let 0 < a < 1, let nothing be cut, and call the depth of an object the
    least t with the object in :math:`\operatorname{supp} p_t`, for a trajectory that goes on.  A
    goal that the T steps do not reach gives credit to an object of weight zero in the image only if
    its depth is at most

    .. math:: \min(T + 1 + k, \, 2T)

    after k rounds, and there are tables where it does so up to there.  For a factor of zero weight
    has to be in :math:`S_k`, and so within depth T + k, and the other factor has weight; and an
    object of the image, within depth T, takes part in T products at most.  With T - 1 rounds the
    credit of the image is exact, and further rounds change none of it.

    Args:
        table: the `Table`, in which new objects are entered.
        states: the states :math:`p_0, \dots, p_T`.
        extra: the places of :math:`S_0`.
        rounds: the number of rounds k.

    Raises:
        BudgetSpent: if the budget of the table does not last.
    """
    for _ in range(rounds):
        found = [pairs_at_once(table.at_once, p, p, extra).product for p in states[:-1]]
        extra = sorted({*extra, *np.concatenate(found).tolist()})
    return extra


def recompute(table, states, extra, settings):
    """Return the states again, over all objects met, and the pairs of each step with `extra`."""
    batches = [pairs_at_once(table.at_once, p, p, extra) for p in states[:-1]]
    return roll_out(step_of(table, settings), padded(states[0], table), batches), batches


class Loop(NamedTuple):
    """One loop: its states, the places of objects that may earn weight, and everyone's credit."""

    states: list
    extra: list
    credit: tf.Tensor


def one_loop(table, p, target, settings):
    """Propagate a distribution, recompute with the support of the image, pull the feedback back.

    Args:
        table: the `Table`, in which new objects are entered.
        p: the weights of the distribution.
        target: {object: weight}, what the image should come close to.
        settings: the `Settings`.

    Raises:
        BudgetSpent: if the budget of the table does not last.
    """
    states = propagate(table, p, settings)
    extra = support(states[-1], settings.epsilon)
    if settings.credit == "generated":
        extra = list(range(len(table.objects)))
    specified = ()
    if settings.credit in DECOUPLED:
        specified = closed(table, states, extra, settings.rounds)
    states, batches = recompute(table, states, specified, settings)
    tau = target_vector(table, target, p.dtype)
    cotangent = feedback(tau, states[-1], settings.epsilon)
    if settings.credit == "fitness":
        return Loop(states, extra, cotangent)
    credit = pull_back(step_of(table, settings), states, batches, cotangent)
    if settings.credit == "fixed":
        return Loop(states, [], tf.where(states[0] > 0, credit, 0))
    return Loop(states, extra, credit)


def target_vector(table, target, dtype=tf.float64):
    """Return the weights of the target over all objects met: goals that were not are left out."""
    met = {x: weight for x, weight in target.items() if x in table.places}
    return distribution(table.places, met, dtype) if met else tf.zeros(len(table.objects), dtype)


def advantages(loop, barred=()):
    r"""Return the credit above average, :math:`w(x) - \sum_y p(y) w(y)`, of what may have weight.

    It is the derivative along :math:`(1 - t) p + t \, \delta_x`; zero for all others.

    Returns:
        The advantages, an array, and which objects may have weight, an array of booleans.
    """
    p, credit = loop.states[0], loop.credit
    allowed = np.zeros(len(p), bool)
    allowed[support(p) + loop.extra] = True
    allowed[list(barred)] = False
    return np.where(allowed, credit - inner_product(p, credit), 0), allowed


def unsettled(loop, barred=()):
    r"""Return how far a distribution is from a stationary point of the loop; zero if it is one.

    At a stationary point what has weight has average credit, and what may have weight and has none
    has no more than that (the conditions of Karush, Kuhn and Tucker on the simplex).  So this is
    the largest of :math:`|A(x)|` where p(x) > 0, and of A(x) elsewhere, A being the `advantages`.
    """
    advantage, _ = advantages(loop, barred)
    held = loop.states[0].numpy() > 0
    return float(np.where(held, np.abs(advantage), advantage).max(initial=0))


def move_weights(loop, barred, settings, generator, n=1):
    r"""Return the distribution after one step along the `advantages`, with total weight 1.

    An object without weight enters if its advantage is positive.  The largest change is the step
    size, however small the advantages are, so that with steps that do not fall even a support that
    stays the same need not settle (see `unsettled`).

    Args:
        loop: the `Loop`.
        barred: places of objects that must not have weight.
        settings: the `Settings`.
        generator: a NumPy generator, for what is random.
        n: the number of the loop, from 1 on.
    """
    p = loop.states[0]
    advantage, allowed = advantages(loop, barred)
    if settings.credit == "random":
        new = np.flatnonzero(allowed & (p.numpy() == 0))
        advantage[new] = generator.permutation(advantage[new])
    size = settings.step_size / n**settings.step_decay
    change = size * advantage / (np.abs(advantage).max() or 1)
    moved = p * np.exp(change) if settings.credit == "multiplicative" else p + change
    moved = tf.where(allowed & (moved > settings.epsilon), moved, 0)
    return normalised(top_k(moved, settings.keep))


def loops(table, target, settings):
    """Yield one `Loop` after the other, until the budget of the table or the loops are spent.

    The first distribution gives equal weights to the axioms.  There is a warning if the first loop
    meets no goal: then there is no feedback, and all loops are alike.

    Args and errors: as for `evolve`.
    """
    check_target(table, target)
    generator = np.random.default_rng(settings.seed)
    p = normalised(distribution(table.places, dict.fromkeys(table.axioms, 1)))
    for n in progress(range(1, settings.loops + 1), "evolving", "loop"):
        try:
            loop = one_loop(table, p, target, settings)
        except BudgetSpent:
            return
        met = [table.places[goal] for goal in target if goal in table.places]
        if n == 1 and not met:
            warnings.warn(
                f"target: expected a goal within reach of the first loop, found none among the "
                f"{len(table.objects)} objects that it met; without feedback nothing earns weight",
                stacklevel=2,
            )
        yield loop
        p = move_weights(loop, () if settings.store_goals else met, settings, generator, n)
        if n % settings.purge_every == 0:
            p = normalised(top_k(p, settings.purge_to))


def check_target(table, target):
    """Raise a ValueError unless the target is a distribution over objects that are no axioms."""
    distribution(index(target), target)
    for goal in target:
        name = table.show(goal)
        if goal in table.axioms:
            raise ValueError(f"target: expected goals that are no axioms, found {name}")


@dataclasses.dataclass
class History:
    """What came of a run; it holds only what JSON can hold.

    Attributes:
        settings: the `Settings` as a dictionary, with the budget of the table.
        rows: one dictionary for each loop: `loop`, from 1 on; `combinations`, how many products had
            been computed after it; `proved`, how many goals had been met; `divergence` of the image
            from the target; `support`, how many objects had weight before it.
        purges: one dictionary for each purge: `loop`, after which it was; `combinations`; and
            `weights`, {object: weight}, what was left.
        proofs: {goal: {`"combinations"`: when it was first met, `"proof"`: the shortest one
            found}}.
    """

    settings: dict
    rows: list = dataclasses.field(default_factory=list)
    purges: list = dataclasses.field(default_factory=list)
    proofs: dict = dataclasses.field(default_factory=dict)

    def save(self, path):
        """Write it to a file as JSON, which is replaced only when the new one is complete."""
        unfinished = Path(f"{path}.unfinished")
        unfinished.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        unfinished.replace(path)

    @classmethod
    def load(cls, path):
        """Return what `save` wrote."""
        return cls(**json.loads(Path(path).read_text()))


def evolve(table, target, settings):
    """Run the loop; return its `History` and the weights of the last distribution propagated.

    These come as {text of the object: weight}, empty if the budget did not last for one loop.
    A goal counts as proved once it is the product of two objects that the run combined.  It may
    have weight within a trajectory, but not before it, so it is proved anew each time.

    Args:
        table: a `Table`, whose axioms are where the run begins.
        target: {goal: weight}, as from `goal_weights`.
        settings: the `Settings`.

    Raises:
        ValueError: if the target is empty, has a weight that is negative or not finite, or only
            zeros; or if a goal is an axiom or, for formulas, no formula.
    """
    history = History(dataclasses.asdict(settings) | {"budget": table.budget})
    weights = {}
    for n, loop in enumerate(loops(table, target, settings)):
        weights = named(table, loop.states[0])
        if n and n % settings.purge_every == 0:
            before = history.rows[-1]["combinations"]
            history.purges.append({"loop": n, "combinations": before, "weights": weights})
        history.rows.append(row(n + 1, table, target, loop, settings))
    history.proofs = proofs(table, target)
    return history, weights


def named(table, p):
    """Return the weights above zero as {text of the object: weight}, the heaviest first."""
    p = p.numpy().tolist()
    places = sorted(support(p), key=lambda k: -p[k])
    return {table.show(table.objects[k]): p[k] for k in places}


def row(n, table, target, loop, settings):
    """Return the row of the history for loop n."""
    image = loop.states[-1].numpy()
    reached = [image[table.places[g]] if g in table.places else 0.0 for g in target]
    tau, reached = (tf.constant(list(x), image.dtype) for x in (target.values(), reached))
    return {
        "loop": n,
        "combinations": len(table.products),
        "proved": sum(goal in table.places for goal in target),
        "divergence": float(divergence(tau, reached, settings.epsilon)),
        "support": len(support(loop.states[0])),
    }


def proofs(table, target):
    """Return {text of the goal: its first meeting and its proof} for the goals met, in order."""
    met = {g: table.met[table.places[g]] for g in target if g in table.places}
    return {
        table.show(g): {"combinations": met[g], "proof": table.proof(g)}
        for g in sorted(met, key=met.get)
    }
