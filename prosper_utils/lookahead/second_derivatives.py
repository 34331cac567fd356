r"""Second derivatives: are they those of the loss?

Everything that looks ahead multiplies by Hessians, and automatic differentiation gives them by
running backwards through the gradient.  Where an operation states its own gradient, or stops it,
that gradient may be right and its derivative wrong, in silence.  The judge is a difference,

.. math:: H v \approx \frac{\nabla L(w + h v) - \nabla L(w - h v)}{2 h},

in double precision: on a deep network single precision is off by more than such a fault.
`check` compares the two.  It costs several gradients, so `check_structure` first looks through the
graph of the loss for operations that may be at fault, and asks the judge only where there are any.
"""

import contextlib
import contextvars
import re
import weakref
from typing import Any, NamedTuple

from prosper_utils.lookahead.descent import hessian_product, loss_and_gradient

import numpy as np
import tensorflow as tf

FUSED = "the fused batch normalisation states its own gradient (FusedBatchNorm)"
SUSPECTS = {
    "StopGradient": "a gradient is stopped (StopGradient)",
    "PreventGradient": "a second derivative is refused (PreventGradient)",
    "FusedBatchNorm": FUSED,
    "FusedBatchNormV2": FUSED,
    "FusedBatchNormV3": FUSED,
    "Softsign": "TensorFlow has no second derivative for it (Softsign)",
    "PyFunc": "Python runs inside the graph (PyFunc)",
    "EagerPyFunc": "Python runs inside the graph (EagerPyFunc)",
}
CUSTOM = "a gradient is stated by hand (custom_gradient)"
CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
HARMLESS = {"swish"}  # TensorFlow's own custom gradients, right in every order by test
STEPS = (1e-5, 1e-7, 1e-8, 1e-9, 1e-4)  # sizes of differences, as they are tried
BOUND = 1e-6
REMEDY = (
    "Use operations whose gradients TensorFlow can differentiate (for moments tf.reduce_mean and "
    "tf.square, for softsign x / (1 + |x|), and so on); if a gradient is meant as it is, score "
    "inside `with second_derivatives.accept(name)`"
)

_accepted = contextvars.ContextVar("accepted", default=())
_checked = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def accept(*names):
    """Take gradients as they are in the layers, or other scopes, whose name contains one of these.

    Where a gradient is stopped or replaced on purpose, what comes out is no derivative of the
    loss; inside this `with`, `check_structure` lets it pass.
    """
    token = _accepted.set((*_accepted.get(), *names))
    try:
        yield
    finally:
        _accepted.reset(token)


def check(loss, weights, batch, *, directions=3, bound=BOUND, seed=0):
    """Compare derivatives with differences along random directions; return the largest error.

    Args:
        loss: function (weights, batch) -> scalar tensor, in double precision: of a Keras model,
            take `as_loss(model, dtype="float64")`.
        weights: list of float64 tensors.
        batch: whatever the loss takes.
        directions: how many random directions to try.
        bound: how large the relative error may be.
        seed: fixes the directions.

    Raises:
        ValueError: if it is larger, with what may be at fault, by layer; for other float types.
    """
    error = difference(loss, weights, batch, directions=directions, bound=bound, seed=seed)
    if not error <= bound:
        raise ValueError(
            f"second derivatives: expected a relative error of at most {bound:g} against "
            f"differences of gradients, found {error:.2g}.  May be at fault: "
            f"{_listed(suspects(loss, weights, batch)) or 'nothing known'}"
        )
    return error


def check_structure(loss, weights, batch, *, order=2):
    """Raise a ValueError where second derivatives of a loss would be wrong in silence.

    The loss is traced once, and nothing is computed, unless the graph holds an operation that may
    be at fault.  Then derivatives are compared with differences, in double precision.

    Args:
        loss: function (weights, batch) -> scalar tensor.  What `networks.as_loss` makes knows the
            names of weights and layers, and the same loss in double precision; any other one is
            called with weights in double precision if there is something to compare.
        weights: list of tensors.
        batch: whatever the loss takes.
        order: 2, or 1 where nothing is differentiated twice and only the dependence matters.

    Raises:
        ValueError: for operations whose second derivatives are wrong or cannot be compared, by
            layer and with the remedy.  For weights that are read, but do not reach the loss, by
            name, and for a compiled function that reads variables in place of the weights it is
            given.  A weight that nothing reads, since its layer is not called, has gradient zero,
            which is the truth; but a loss that depends on no weight at all is refused.
    """
    key = repr((order, _accepted.get(), _specs(weights), _specs(batch)))
    done = _checked.setdefault(loss, set())
    if key not in done:
        trace = _trace(loss, weights, batch)
        _refuse_unused(trace)
        found = _suspects(trace) if order > 1 else []
        found = [hit for hit in found if not any(name in hit[0] for name in _accepted.get())]
        if found:
            _judge(loss, weights, batch, found)
        done.add(key)


def suspects(loss, weights, batch):
    """Return what may make second derivatives wrong, as pairs: where, and what is done there.

    These are operations between the weights and the loss.  Where is said by their scope, the names
    of the model and of the layers that hold them.
    """
    return _suspects(_trace(loss, weights, batch))


def difference(loss, weights, batch, *, directions=1, bound=0.0, seed=0):
    """Return the relative error of derivatives against differences, the largest of some directions.

    Along a random v it is the larger one of two: of H v against differences of gradients, relative
    to H v or a thousandth of the gradient, and of the slope along v against differences of losses,
    relative to the product of the sizes of gradient and v.  Several step sizes are tried until it
    is within the bound, and the least error counts: large steps bend, small ones round, and a step
    across the kink of a ReLU says nothing.

    Args:
        loss, weights, batch, directions, bound, seed: as for `check`.
    """
    weights = [tf.convert_to_tensor(w) for w in weights]
    types = sorted({w.dtype.name for w in weights})
    if types != ["float64"]:
        raise ValueError(
            f"second derivatives: expected weights in float64, found {types}: differences need it; "
            "of a Keras model, take as_loss(model, dtype='float64')"
        )
    generator, functions = np.random.default_rng(seed), _compiled(loss, batch)
    along = [[_direction(generator, w) for w in weights] for _ in range(directions)]
    return max(_along(functions, weights, v, bound) for v in along)


def _along(functions, weights, v, bound):
    """Return the relative error along one direction."""
    first, second = functions
    exact, (_, gradient) = second(weights, v), first(weights)
    size, slope, least = np.linalg.norm(gradient), np.dot(gradient, _flat(v)), np.inf
    for h in STEPS:
        (up, ahead), (down, behind) = (
            first([w + s * h * u for w, u in zip(weights, v, strict=True)]) for s in (1, -1)
        )
        found = (ahead - behind) / (2 * h)
        curved = max(np.linalg.norm(found), np.linalg.norm(exact), 1e-3 * size)
        errors = (
            _relative(np.linalg.norm(found - exact), curved),
            _relative(abs((up - down) / (2 * h) - slope), size * np.linalg.norm(_flat(v))),
        )
        least = min(least, max(errors))
        if least <= bound:
            break
    return float(least)


def _compiled(loss, batch):
    """Return loss and gradient as a function of the weights, and H v of weights and v."""

    @tf.function(autograph=False)
    def first(weights):
        value, gradient = loss_and_gradient(loss, weights, batch)
        return value, _flat(gradient)

    @tf.function(autograph=False)
    def second(weights, v):
        return _flat(hessian_product(loss, weights, batch, v))

    return lambda w: [t.numpy() for t in first(w)], lambda w, v: second(w, v).numpy()


def _direction(generator, weight):
    """Return random normal numbers, of about the size of the weights they change."""
    size = np.sqrt(np.mean(np.square(weight))) or 1.0
    return tf.constant(size * generator.normal(size=weight.shape), weight.dtype)


def _relative(error, scale):
    """Return error / scale: 0 where there is no error."""
    return error / scale if error else 0.0


def _flat(tensors):
    """Return the entries of all tensors as one vector."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def _judge(loss, weights, batch, found):
    """Raise a ValueError unless derivatives equal differences in spite of what was found."""
    exact = loss.in_float64() if hasattr(loss, "in_float64") else loss
    try:
        error = difference(exact, [tf.cast(w, tf.float64) for w in weights], batch, bound=BOUND)
    except Exception as problem:
        said = (str(problem) or "without a word").splitlines()[0]
        raise ValueError(
            f"second derivatives: expected operations that are known to have right ones, found "
            f"{_listed(found)}; and no comparison with differences in float64 was possible "
            f"({type(problem).__name__}: {said}).  {REMEDY}"
        ) from problem
    if not error <= BOUND:
        raise ValueError(
            "second derivatives: expected Hessian products equal to differences of gradients, "
            f"found a relative error of {error:.2g}, from {_listed(found)}.  {REMEDY}"
        )


def _listed(found):
    """Return what was found as words."""
    return "; ".join(f"{where}: {what}" for where, what in found)


class _Trace(NamedTuple):
    """The graph of a loss: its operations, its weights and value as tensors, and their names."""

    graph: Any
    weights: list
    value: Any
    names: list
    layers: list


def _trace(loss, weights, batch):
    """Return the `_Trace` of a loss; nothing is computed."""
    given = tf.function(loss, autograph=False, reduce_retracing=False)
    graph = given.get_concrete_function(_specs(list(weights)), _specs(batch)).graph
    inputs = graph.inputs[: len(weights)]
    names = getattr(loss, "names", [f"weights[{i}]" for i in range(len(inputs))])
    return _Trace(graph, inputs, graph.outputs[0], names, getattr(loss, "layers", []))


def _specs(structure):
    """Return the shapes and types of tensors or arrays, in the structure they come in."""
    if isinstance(structure, dict):
        return {k: _specs(v) for k, v in structure.items()}
    if isinstance(structure, list | tuple):
        return (tuple if isinstance(structure, tuple) else list)(_specs(v) for v in structure)
    if structure is None:
        return None
    tensor = structure if tf.is_tensor(structure) else np.asarray(structure)
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _refuse_unused(trace):
    """Raise a ValueError for weights that something reads, but not the loss, and for variables."""
    behind = _reachable([trace.value.op], lambda op: [t.op for t in op.inputs])
    compiled = [
        _place(op.name, trace.layers)
        for op in behind
        if op.type in CALLS and any(t.dtype == tf.resource for t in op.inputs)
    ]
    if compiled:
        raise ValueError(
            "weights: expected a loss that reads no others than it is given, found a compiled "
            f"function with variables of its own in {', '.join(sorted(compiled))}: "
            "call what was compiled, not the compiled one"
        )
    dead = [i for i, w in enumerate(trace.weights) if w.op not in behind]
    idle = [trace.names[i] for i in dead if trace.weights[i].consumers()]
    if idle or len(dead) == len(trace.weights):
        raise ValueError(
            "weights: expected a loss that depends on each of them whose layer is called, found "
            f"none of {', '.join(idle or trace.names)} in it: freeze the layer, or score the part "
            "of the model that the loss needs"
        )


def _suspects(trace):
    """Return what `suspects` does, from a trace."""
    behind = _reachable([trace.value.op], lambda op: [t.op for t in op.inputs])
    ahead = _reachable(
        [w.op for w in trace.weights], lambda op: [c for t in op.outputs for c in t.consumers()]
    )
    library = {f.signature.name: f for f in trace.graph.as_graph_def().library.function}
    found = []
    for op in trace.graph.get_operations():
        if op in behind and op in ahead:
            hits = _faults(op.node_def, library)
            if hits != [CUSTOM] or not _harmless(op):
                found += [(_place(op.name, trace.layers), hit) for hit in hits]
    return list(dict.fromkeys(found))


def _reachable(first, following):
    """Return all that can be reached from the first operations."""
    seen, todo = set(), list(first)
    while todo:
        op = todo.pop()
        if op not in seen:
            seen.add(op)
            todo += following(op)
    return seen


def _faults(node, library, entered=()):
    """Return what may be wrong with one node of a graph, and with the functions that it calls."""
    found = [SUSPECTS[node.op]] if node.op in SUSPECTS else []
    if node.op not in CALLS and "_gradient_op_type" in node.attr:
        found.append(CUSTOM)
    called = [f.name for a in node.attr.values() for f in (a.func, *a.list.func) if f.name]
    for name in set(called) - set(entered):
        for inner in library[name].node_def if name in library else ():
            found += _faults(inner, library, (*entered, name))
    return list(dict.fromkeys(found))


def _harmless(op):
    """Return whether a custom gradient is one of TensorFlow's own that are known to be right."""
    frames = [(f.filename.replace("\\", "/"), f.name) for f in op.traceback or ()]
    return any(name in HARMLESS and "/tensorflow/" in file for file, name in frames)


def _place(name, layers):
    """Return the scope of an operation, its layers named as in the model, not numbered by calls."""
    scope = [(part, re.sub(r"_\d+$", "", part)) for part in name.split("/")[:-1]]
    return "/".join(b if b in layers else a for a, b in scope) or "the loss"
