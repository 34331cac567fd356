"""Pruning with credit: the helpers that the chapters of the book share.

One idea runs through all of them: *a weight at zero still has a gradient*.
We keep a short trajectory, pull a gradient back along it one step at a time,
and prune by what arrives.

There is one wing for each part of the book, and one for what the chapters share:

* `prosper_utils.lookahead`, part I: meta-gradients along a trajectory, exact and streamed.
* `prosper_utils.pruning`, parts II and III: scores and masks for Keras 3 models, and regrowth.
* `prosper_utils.blending`, part III: distributions that evolve, and the proofs that they find.
* `prosper_utils.study`: data, training, comparisons, stored results and figures.

Pruning and blending build on lookahead, study on lookahead and pruning; no wing uses study.
Only study needs more than Keras, NumPy and TensorFlow: it comes with the extra of that name.
"""

import contextlib
import logging
import os

__version__ = "0.1.0"


@contextlib.contextmanager
def quiet_stderr():
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
with quiet_stderr():
    import tensorflow  # noqa: F401

# One graph for each network is what we want here; TensorFlow would warn from the fifth on.
logging.getLogger("tensorflow").addFilter(
    lambda record: "triggered tf.function retracing" not in record.getMessage()
)
