"""Pruning with credit: the helpers that the chapters of the book share.

One idea runs through all of them: *a weight at zero still has a gradient*.
We keep a short trajectory, pull a gradient back along it one step at a time,
and prune by what arrives.

Each module is one idea:

* `trajectory`: roll a step forward, pull a cotangent back, push a tangent forward.
* `descent`: gradient descent as such a step.
* `meta_gradient`: the gradient of the loss after M steps with respect to a mask.
* `streaming`: one factor per weight and step in place of each Jacobian, and what it costs.
* `scores`: one number per connection: random, magnitude, SNIP, GraSP, SynFlow, ProsPr.
* `masks`: keep the best k and hold the rest at zero, on any Keras 3 model.
* `networks`, `datasets`, `training`: what is pruned, on what, and how it is trained.
* `paths`: what can flow from the inputs of a network to its outputs.
* `distributions`: weights on finitely many objects, and sums that reach beyond their support.
* `evolution`: the loop in which terms of weight zero earn weight.
* `regrowth`: the same loop on a network, whose zero weights earn weight while it trains.
* `detachment`: formulas, unification, and proofs as strings.
* `search`: plain search and a genetic algorithm, to compare the evolution with.
* `comparison`: intervals over seeds, paired differences, and a correction for many claims.
* `plots`, `checks`, `results`: how a chapter shows a figure, states a claim, loads what is stored.
"""

import contextlib
import logging
import os

__version__ = "0.1.0"


@contextlib.contextmanager
def _quiet_stderr():
    """Drop what is written to file descriptor 2, below Python."""
    saved = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


# TensorFlow's log level, set here and nowhere else.  What TensorFlow 2.21 logs while it is being
# imported does not heed it (tensorflow/tensorflow issue 100442), so that is dropped.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _quiet_stderr():
    import tensorflow  # noqa: F401

# One graph for each network is what we want here; TensorFlow would warn from the fifth on.
logging.getLogger("tensorflow").addFilter(
    lambda record: "triggered tf.function retracing" not in record.getMessage()
)
