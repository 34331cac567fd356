"""Replacement: a function of another package that means something else, in one thread, for a while.

Keras and TensorFlow fix in private functions what a derivative or a float type comes to.
`replaced` puts another function in the place of one of them while our own calls run:

* other threads get the original meanwhile;
* the original is back when the last call has ended, also when it has raised;
* a name that is no longer there is an error that says so, never a replacement of nothing.
"""

import contextlib
import functools
import threading

_LOCK = threading.Lock()
_ORIGINALS = {}  # (owner, name) -> [what stood there, how many calls have it replaced]
_THREAD = threading.local()


@contextlib.contextmanager
def replaced(owner, name, by):
    """Replace a function, method or property for what this thread calls inside the `with`.

    Args:
        owner: the module or class.
        name: the attribute to replace; the class itself has to define it.
        by: function of the original and the arguments of a call -> what the original would return.

    Raises:
        ValueError: if there is no such function: the other package has changed.
    """
    key = owner, name
    with _LOCK:
        entry = _ORIGINALS.setdefault(key, [vars(owner).get(name), 0])
        if entry[0] is None:
            del _ORIGINALS[key]
            raise ValueError(
                f"{owner.__name__}.{name}: expected a function to replace, found none: "
                "this version of Keras or TensorFlow is not known here"
            )
        if not entry[1]:
            setattr(owner, name, _dispatcher(key, entry[0]))
        entry[1] += 1
    stack = _stack(key)
    stack.append(by)
    try:
        yield
    finally:
        stack.pop()
        with _LOCK:
            entry[1] -= 1
            if not entry[1]:
                setattr(owner, name, entry[0])
                del _ORIGINALS[key]


def _dispatcher(key, original):
    """Return what stands in for the original: the thread's replacement if it has one."""
    call = original.fget if isinstance(original, property) else original

    @functools.wraps(call)  # Keras reads signatures
    def dispatch(*args, **kwargs):
        stack = _stack(key)
        return stack[-1](call, *args, **kwargs) if stack else call(*args, **kwargs)

    return property(dispatch) if isinstance(original, property) else dispatch


def _stack(key):
    """Return this thread's replacements of one function, the one in force last."""
    return _THREAD.__dict__.setdefault(key, [])
