r"""Controls: what else could explain that a smaller network trains as well as it does.

A network from which units were removed differs from any other of its kind in three ways: its
widths, which of the channels they are, and the size of the weights, which were drawn for more
inputs than there are now.  Each control keeps some of them and changes the rest: `fresh` keeps the
widths alone, `rescaled` all but the size of the weights,

.. math:: w' = w \sqrt{\text{fan-in before} / \text{fan-in now}} ,

and `budgets.shuffled` the widths, with other channels.
"""

import math

import keras
import numpy as np


def fresh(model, seed=0):
    """Draw all weights of a model anew, in place, as their layers say; return the model.

    Each weight has a seed of its own.  (Layers made from one configuration may share one generator,
    and models cloned from it draw the same numbers for layers of one shape.)

    Raises:
        ValueError: for a weight whose layer has no initializer for it; it is named.
    """
    number = 0
    for layer in model._flatten_layers(include_self=False):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            if not variable.path.endswith("seed_generator_state"):
                drawn = _initializer(layer, variable, np.random.SeedSequence([seed, number]))
                variable.assign(drawn(variable.shape, dtype=variable.dtype))
                number += 1
    return model


def _initializer(layer, variable, sequence):
    for name in (variable.name, variable.name.removesuffix("_kernel"), "depthwise"):
        found = getattr(layer, f"{name}_initializer", None)
        if found is not None:
            config = found.get_config()
            if "seed" in config:
                config["seed"] = int(sequence.generate_state(1)[0])
            return type(found).from_config(config)
    raise ValueError(f"fresh: expected an initializer of {variable.path}, found none")


def rescaled(model, before):
    """Multiply each kernel by the root of its fan-in before over now, in place; return the model.

    Args:
        model: what `units.shrink` made of `before`; dense and convolution layers are scaled.
        before: the model that it was made of; layers of models within it are found, too.

    Raises:
        ValueError: if a layer that would be scaled is not in the other model, or one of several
            of its name; nothing is scaled then.
    """
    kernels = {}
    for layer in _scaled(before):
        kernels.setdefault(layer.name, []).append(layer.kernel)
    layers = _scaled(model)
    for layer in layers:
        if (found := len(kernels.get(layer.name, ()))) != 1:
            raise ValueError(f"rescaled: expected one layer {layer.name!r} before, found {found}")
    for layer in layers:
        was, now = (math.prod(k.shape[:-1]) for k in (*kernels[layer.name], layer.kernel))
        layer.kernel.assign(layer.kernel * math.sqrt(was / now))
    return model


def _scaled(model):
    """Return the dense and convolution layers of a model and of models within it."""
    kinds = keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D
    return [la for la in model._flatten_layers(include_self=False) if isinstance(la, kinds)]
