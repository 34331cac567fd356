r"""Plain search and a genetic algorithm, for comparison with the loop of `evolution`.

They combine the objects of the same `Table`, under the same budget, and pass no credit back.

*Breadth first* asks for all products with the shorter proofs first.  *Lightest first* takes the
lightest object that it has not taken yet, and combines it with all that it has taken, itself too.
Both can leave out what a formula before it subsumes, as provers do (forward subsumption), and the
second can take some by age.
The *genetic algorithm* breeds a population: a child is the product of two parents, each the fittest
of a few drawn at random, or, by mutation, anything met; and who is fit survives,

.. math:: \text{population} \leftarrow {}
          & \text{the fittest of } (\text{population} \\
          & \cup \text{children}) \\
          & \cup \text{some of the others} .

Its fitness is a function of the object alone (`similarity` to a goal, `smallness`), or counts the
proofs of goals that it was of use in (`usefulness`).

In all of them, an object that is barred may be met, and is never combined.  The loop is a little
freer: a goal has no weight when a trajectory begins, but may be combined within it.
"""

import dataclasses
import heapq
import itertools
from collections import Counter, deque

from prosper_utils.blending.detachment import (
    AXIOMS,
    NOT,
    Generals,
    canonical,
    enumerate_theorems,
)
from prosper_utils.blending.distributions import divergence
from prosper_utils.blending.evolution import BudgetSpent, History, check_target, proofs
from prosper_utils.progress import progress

import numpy as np
import tensorflow as tf


def breadth_first(table, barred=(), *, subsumption=False):
    """Ask a table for all products, those with the shorter proofs first, until it is spent.

    It ends before that if no pair is left.

    Args:
        table: an `evolution.Table`, in which new objects are entered.
        barred: objects that must not be combined.
        subsumption: whether to leave out what one before it subsumes; for tables of formulas.
    """
    fresh = _fresh(table, barred, subsumption)
    levels = {1: next(fresh)}
    for n in itertools.count(3, 2):
        if n > 2 * max(levels) + 1:
            return
        for i in range(1, n - 1, 2):
            for x in levels.get(i, ()):
                try:
                    table.many([(x, y) for y in levels.get(n - 1 - i, ())])
                except BudgetSpent:
                    return
                if new := next(fresh):
                    levels.setdefault(n, []).extend(new)


def _fresh(table, barred, subsumption):
    """Yield, each time, the places of what has been met since and may be combined.

    With subsumption, what an object that was yielded before subsumes may not (forward subsumption).
    """
    barred, seen, known = set(barred), 0, Generals()
    while True:
        places = range(seen, len(table.objects))
        seen = len(table.objects)
        yield [k for k in places if _usable(table.objects[k], barred, known, subsumption)]


def _usable(x, barred, known, subsumption):
    """Return whether an object may be combined; with subsumption, enter it if so."""
    if x in barred or (subsumption and known.subsume(x)):
        return False
    if subsumption:
        known.add(x)
    return True


def size(table, place):
    """Return the size of the object at a place."""
    return table.size(table.objects[place])


def size_and_proof(table, place):
    """Return the size of the object at a place and of its kept proof, added up."""
    return size(table, place) + table.lengths[place]


def lightest_first(table, barred=(), weight=size, *, subsumption=False, by_age=0):
    """Ask a table for the products of the lightest objects first, until it is spent.

    It ends before that if no pair is left.

    Args:
        table: an `evolution.Table`, in which new objects are entered.
        barred: objects that must not be combined.
        weight: function of the table and a place, asked when the object is met; among equals, what
            was met first comes first.
        subsumption: whether to leave out what one before it subsumes; for tables of formulas.
        by_age: if it is n > 0, each n-th object taken is what was met first instead.

    Raises:
        ValueError: if `by_age` is negative.
    """
    if by_age < 0:
        raise ValueError(f"by_age: expected at least 0, found {by_age}")
    fresh, waiting, ages, taken = _fresh(table, barred, subsumption), [], deque(), {}
    while True:
        for k in next(fresh):
            heapq.heappush(waiting, (weight(table, k), k))
            ages.append(k)
        oldest = by_age and (len(taken) + 1) % by_age == 0
        given = _take(taken, ages.popleft if oldest else lambda: heapq.heappop(waiting)[1])
        if given is None:
            return
        new = dict.fromkeys(pair for y in taken for pair in ((given, y), (y, given)))
        try:
            table.many(list(new))
        except BudgetSpent:
            return


def _take(taken, draw):
    """Draw what has not been taken, enter it, and return it; None if nothing is left."""
    try:
        while (k := draw()) in taken:
            continue
    except IndexError:
        return None
    taken[k] = None
    return k


def drawn_goals(count, seed, *, lengths=(15, 21), axioms=AXIOMS, limit=25, avoid=()):
    """Return {formula: one of its shortest proofs} for theorems drawn at random, as goals.

    The rule: enumerate all theorems up to the longest length, without what one before subsumes; of
    those with a shortest proof of one of the lengths, leave out what a formula of `avoid` subsumes;
    draw without replacement, from the lengths in turn, as long as there are any.

    Args:
        count: how many.
        seed: fixes what is random.
        lengths: the smallest and the largest length of a shortest proof.
        axioms, limit: as for `detachment.enumerate_theorems`.
        avoid: formulas, as those that settings were chosen with.

    Raises:
        ValueError: if there are fewer than that.
    """
    known, found = Generals(), {n: [] for n in range(lengths[0], lengths[1] + 1, 2)}
    for formula in avoid:
        known.add(canonical(formula))
    theorems = enumerate_theorems(lengths[1], axioms, limit=limit, subsumption=True)
    for formula, proof in theorems.items():
        if len(proof) in found and not known.subsume(formula):
            found[len(proof)].append(formula)
    generator = np.random.default_rng(seed)
    drawn = [[level[k] for k in generator.permutation(len(level))] for level in found.values()]
    turns = [x for turn in itertools.zip_longest(*drawn) for x in turn if x is not None]
    if len(turns) < count:
        raise ValueError(f"goals: expected at least {count} theorems, found {len(turns)}")
    return {formula: theorems[formula] for formula in turns[:count]}


def smallness(table, target):
    r"""Return the fitness :math:`2^{-\text{size}/6}`, which is how the target weighs its goals."""
    return lambda places: 2.0 ** (-np.array([size(table, k) for k in places]) / 6)


def similarity(table, target):
    r"""Return the fitness :math:`\max_g 2 |x \cap g| / (|x| + |g|)` over the goals g not yet met.

    A formula counts as the collection of its subformulas, each up to renaming of its variables.
    """
    goals, known = [subformulas(g) for g in target], {}

    def score(places):
        for k in set(places).difference(known):
            own = subformulas(table.objects[k])
            known[k] = [_overlap(own, goal) for goal in goals]
        missing = [i for i, g in enumerate(target) if g not in table.places]
        rows = np.array([known[k] for k in places])
        return rows[:, missing or slice(None)].max(axis=1)

    return score


def _overlap(one, other):
    return 2 * (one & other).total() / (one.total() + other.total())


def subformulas(formula):
    """Return how often each subformula is in a formula, each with its variables numbered anew."""
    parts, found = [], Counter()
    for symbol in reversed(formula):
        arity = 0 if symbol >= 0 else 1 if symbol == NOT else 2
        part = (symbol, *itertools.chain.from_iterable(parts.pop() for _ in range(arity)))
        found[canonical(part)] += 1
        parts.append(part)
    return found


def usefulness(table, target):
    r"""Return the fitness :math:`\sum_g \tau(g)` over the goals met whose kept proof uses x.

    A thousandth of `smallness` is added, which decides between those that were of no use.
    """
    small = smallness(table, target)

    def score(places):
        credit = Counter()
        for goal in target:
            if goal in table.places:
                for k in used(table, table.places[goal]):
                    credit[k] += target[goal]
        return np.array([credit[k] for k in places]) + small(places) / 1000

    return score


def used(table, place):
    """Return the places of all objects that the kept proof of an object uses, its own included."""
    found, waiting = set(), [place]
    while waiting:
        k = waiting.pop()
        if k not in found:
            found.add(k)
            if isinstance(table.origins[k], tuple):
                waiting += table.origins[k]
    return found


FITNESS = {"similarity": similarity, "smallness": smallness, "usefulness": usefulness}


@dataclasses.dataclass(frozen=True)
class Breeding:
    """What determines a run of the genetic algorithm, besides its table and its target.

    Attributes:
        fitness: the name of a function in `FITNESS`.
        population: how many objects there are at most, and how many pairs breed in a generation.
        elite: the share of the population that is the fittest; the rest are drawn from the others.
        mutation: the probability that a parent is any object met.
        tournament: out of how many, drawn at random, a parent is the fittest.
        generations: the largest number of generations, if the budget lasts for so many.
        store_goals: whether goals may be in the population.
        seed: fixes what is random.
    """

    fitness: str = "similarity"
    population: int = 200
    elite: float = 0.5
    mutation: float = 0.1
    tournament: int = 3
    generations: int = 20_000
    store_goals: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.fitness not in FITNESS:
            known = ", ".join(FITNESS)
            raise ValueError(f"fitness: expected one of {known}; found {self.fitness!r}")
        for name in ("population", "tournament", "generations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("elite", "mutation"):
            if not 0 <= getattr(self, name) <= 1:
                found = getattr(self, name)
                raise ValueError(f"{name}: expected a number in [0, 1], found {found}")


def breed(table, target, settings):
    """Run the genetic algorithm from the axioms; return its `evolution.History`.

    A row stands for a generation, and its divergence is that of the children, each of equal weight,
    from the target.  A generation in which the budget ends is not among them.

    Args:
        table: an `evolution.Table`, in which new objects are entered.
        target: {goal: weight}, as from `evolution.goal_weights`.
        settings: the `Breeding`.

    Raises:
        ValueError: as `evolution.evolve`.
    """
    check_target(table, target)
    generator = np.random.default_rng(settings.seed)
    score = FITNESS[settings.fitness](table, target)
    barred = () if settings.store_goals else set(target)
    population = list(range(len(table.axioms)))
    history = History(dataclasses.asdict(settings) | {"budget": table.budget})
    for n in progress(range(1, settings.generations + 1), "breeding", "generation"):
        try:
            children = offspring(table, population, score(population), barred, settings, generator)
        except BudgetSpent:
            break
        history.rows.append(_row(n, table, target, children))
        pool = [k for k in dict.fromkeys(population + children) if table.objects[k] not in barred]
        population = survivors(pool, score(pool), settings, generator)
    history.proofs = proofs(table, target)
    return history


def offspring(table, population, fitness, barred, settings, generator):
    """Return the children of one generation, as places; pairs that do not combine have none."""
    count = settings.population
    drawn = generator.integers(len(population), size=(2 * count, settings.tournament))
    best = drawn[np.arange(2 * count), fitness[drawn].argmax(axis=1)]
    parents = np.array(population)[best]
    for i in np.flatnonzero(generator.random(2 * count) < settings.mutation):
        anything = int(generator.integers(len(table.objects)))
        if table.objects[anything] not in barred:
            parents[i] = anything
    found = table.many([(i, j) for i, j in parents.reshape(-1, 2).tolist()])
    return [k for k in found if k is not None]


def survivors(pool, fitness, settings, generator):
    """Return the next population: the elite, and others drawn at random."""
    order = np.argsort(-fitness, kind="stable")
    elite = min(len(pool), round(settings.elite * settings.population))
    others = generator.permutation(order[elite:])[: settings.population - elite]
    return [pool[k] for k in (*order[:elite], *others)]


def _row(n, table, target, children):
    counts, total = Counter(children), max(1, len(children))
    image = [counts[table.places[g]] / total if g in table.places else 0.0 for g in target]
    tau = tf.constant(list(target.values()), tf.float64)
    return {
        "generation": n,
        "combinations": len(table.products),
        "proved": sum(g in table.places for g in target),
        "divergence": float(divergence(tau, tf.constant(image, tf.float64), 1e-6)),
    }
