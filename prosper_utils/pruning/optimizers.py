r"""Optimizers: what one remembers of a variable, whichever Keras optimizer it is.

A Keras optimizer has lists of *slots*, such as momenta, with one entry for each variable that it
updates, in their order.  So the slots of a variable are found by its place in that order, not by
its name: two layers may have the same one.  One of the slots may be a running average of the
weights themselves,

.. math:: a' = \mu \, a + (1 - \mu) \, u ,

which is written over them at the end of training or now and then.  In it, u is what the optimizer
made of the weights before their constraints act: a mask must hold the average at zero as well.
"""

import sys

import keras
import tensorflow as tf


def expect(optimizer, variables=()):
    """Raise a ValueError unless this is None or a Keras optimizer that `forget` takes.

    Args:
        optimizer: what is to be one.
        variables: those of which it may be told to forget.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer | None):
        raise ValueError(
            f"optimizer: expected a Keras optimizer, found a {type(optimizer).__name__}"
        )
    for variable in variables if optimizer is not None and optimizer.built else ():
        slots(optimizer, variable)


def of(optimizer, variable):
    """Return the optimizer that updates a variable: the one inside a loss scale or a group.

    Returns:
        A built Keras optimizer, or None if none within this one has been built on the variable.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    parts = [inner] if inner is not None else getattr(optimizer, "optimizers", None)
    if parts is not None:
        return next((found for each in parts if (found := of(each, variable)) is not None), None)
    if optimizer is None or not optimizer.built:
        return None
    known = optimizer._trainable_variables_indices
    return optimizer if optimizer._var_key(variable) in known else None


def slots(optimizer, variable):
    """Return the variables in which a built Keras optimizer remembers something of each weight.

    Args:
        optimizer: any Keras optimizer.
        variable: a Keras variable that it updates.

    Returns:
        A dict from the name of the list to the slot, of the shape of the variable.  What is kept of
        whole rows or columns, as by Adafactor, is not among them.

    Raises:
        ValueError: for an optimizer that has not been built on the variable, or keeps state in
            another form than such lists.
    """
    found = _entries(optimizer, variable)
    return {name: slot for name, slot in found.items() if slot.shape == variable.shape}


def _entries(optimizer, variable):
    """Return what `slots` does, and with it what has another shape than the variable."""
    owner = of(optimizer, variable)
    if owner is None:
        raise ValueError(
            f"optimizer: expected one that is built on {variable.path}, "
            f"found another {type(optimizer).__name__}"
        )
    lists = _lists(owner)
    listed = {id(slot) for entries in lists.values() for slot in entries}
    other = [v.path for v in owner.variables if len(v.shape) and id(v) not in listed]
    if other:
        raise ValueError(
            f"optimizer {owner.name!r}: expected its state in lists with an entry for each of its "
            f"{len(owner._trainable_variables)} variables, found {', '.join(other)} elsewhere"
        )
    found = {name: entries[owner._get_variable_index(variable)] for name, entries in lists.items()}
    return {name: slot for name, slot in found.items() if slot is not None}


def _lists(optimizer):
    """Return the attributes of an optimizer that have one entry for each of its variables."""
    count, apart = len(optimizer._trainable_variables), ("_variables", "_trainable_variables")
    return {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, list)
        and name not in apart
        and len(value) == count
        and all(slot is None or isinstance(slot, keras.Variable) for slot in value)
    }


def again(optimizer):
    """Return an optimizer of the same class and configuration, which remembers nothing yet."""
    return type(optimizer).from_config(optimizer.get_config())


def transfer(old, new, pairs, cut):
    """Hand on what a Keras optimizer remembers: slots, steps, learning rate, loss scale.

    Args:
        old: an optimizer; one that has not been built remembers nothing.
        new: what `again` made of it, built on variables that take the place of the old ones.
        pairs: a list of (old variable, new variable).
        cut: function (old variable, array of its shape) -> array of the shape of the new one.

    Raises:
        ValueError: for an optimizer that remembers something in another shape than the variable's,
            as Adafactor does, or whose parts update other variables than before.
    """
    if not old.built:
        return
    numbers = [[v for v in each.variables if v.shape == ()] for each in (old, new)]
    for number, target in zip(*numbers, strict=True):
        target.assign(number)
    for variable, other in pairs:
        targets, names = _entries(new, other), (of(old, variable).name, of(new, other).name)
        if names[0] != names[1]:
            raise ValueError(
                f"{other.path}: expected to be updated by {names[0]}, found {names[1]}"
            )
        for name, slot in _entries(old, variable).items():
            if slot.shape != variable.shape:
                raise ValueError(
                    f"optimizer {old.name!r}: expected slots of the shape of their weights, found "
                    f"{name} {tuple(slot.shape)} for {variable.path} {tuple(variable.shape)}"
                )
            targets[name].assign(cut(variable, keras.ops.convert_to_numpy(slot.value)))


def forget(optimizer, variables, places):
    """Set what a Keras optimizer remembers of these places of variables to zero.

    One that has not been built remembers nothing.
    """
    for variable, place in zip(variables, places, strict=True) if optimizer.built else ():
        for slot in slots(optimizer, variable).values():
            slot.assign(tf.where(place, tf.zeros_like(slot), slot))


def average(optimizer, variable):
    """Return the running average that an optimizer keeps of a variable, or None."""
    owner = of(optimizer, variable)
    if owner is None or not owner.use_ema:
        return None
    return owner._model_variables_moving_average[owner._get_variable_index(variable)]


def updating(variable):
    """Return the optimizer that is updating a variable now, or None.

    Keras hands a constraint the variable and not the optimizer, which may be compiled or not, so
    it is looked up among the callers: it is the one whose method asks for the constraint.
    """
    frame = sys._getframe(1) if isinstance(variable, keras.Variable) else None
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.optimizers.Optimizer):
            return of(caller, variable)
        frame = frame.f_back
    return None
