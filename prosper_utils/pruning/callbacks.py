r"""Callbacks: how a loop learns of the steps that Keras makes.

A loop, be it a schedule or regrowth, changes a model now and then while it trains, at a time that
is counted in steps.  In a training of your own you tell it of each one by `after`; under
`model.fit` a callback does, to which the loop is given.
"""

import keras


class Loop:
    """What is told of the steps of the training of one model, its `model`.

    Attributes:
        callback: the name of the class that tells it of those of `model.fit`.
    """

    callback: str

    def set_model(self, model):
        """Refuse to be taken for a callback by Keras, which begins with this.

        Raises:
            ValueError: in any case; it says what is one.
        """
        name = type(self).__name__
        raise ValueError(
            f"callbacks: expected Keras callbacks, found a {name}: "
            f"wrap it, callbacks=[{self.callback}({name}(...))]"
        )


class LoopCallback(keras.callbacks.Callback):
    """What tells a loop of the steps of `model.fit`; a subclass for each kind of loop.

    Args:
        loop: a `Loop` of the model that is fitted.

    Attributes:
        kind: the class of the loops that it is for.

    Raises:
        ValueError: for anything but such a loop.
    """

    kind = Loop

    def __init__(self, loop):
        super().__init__()
        if not isinstance(loop, self.kind):
            name, kind = type(self).__name__, self.kind.__name__
            raise ValueError(
                f"{name}: expected a {kind}, found a {type(loop).__name__}: "
                f"make one first, {name}({kind}(model, ...))"
            )
        self.loop = loop

    @property
    def model(self):
        """Return the model that is fitted, which is that of the loop.

        Raises:
            ValueError: if it is another one, or none, as in a call by hand.
        """
        model, kind = super().model, self.kind.__name__
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                f"{type(self).__name__}: expected to be called by `fit` of a compiled model, found "
                f"a call by hand: there, call `after(step, optimizer)` of the {kind} for every step"
            )
        if model is not self.loop.model:
            raise ValueError(
                f"{kind}: expected one of the model that is fitted, {model.name!r}, "
                f"found one of {self.loop.model.name!r}"
            )
        return model
