"""What is done where nothing is said.

Chapters and stored results rest on it, so none of it changes but on purpose: in its function, and
in the table here.
"""

import inspect

from prosper_utils.pruning import callbacks, masks, optimizers, regrowth, schedules, scores

import pytest

ANY = {"sparsity": None, "seed": 0}  # what every score takes
NO_DATA = {"batches": None, "seed": 0}
DEFAULTS = {
    masks: {
        "top_k": {"per_layer": False, "floor": 0, "prune": None},
        "connected": {"prune": None},
        "shuffled": {"seed": 0},
        "Mask": {"inner": None},
        "apply": {"optimizer": None},
        "dead": {"inputs": (-2,), "outputs": (-1,)},
    },
    scores: {
        "random": {"sparsity": None} | NO_DATA,
        "magnitude": {"sparsity": None} | NO_DATA,
        "snip": ANY,
        "grasp": ANY | {"temperature": 200.0},
        "synflow": NO_DATA | {"rounds": 100},
        "prospr": ANY | {"steps": 3, "learning_rate": 0.1, "momentum": 0.0, "method": "reverse"},
        "streamed_prospr": ANY | {"steps": 3, "learning_rate": 0.1},
        "iterative_prospr": {
            **{"seed": 0, "rounds": 5, "steps": 3, "learning_rate": 0.1},
            "method": "reverse",
        },
        "iterative_snip": {"seed": 0, "rounds": 5},
        "diagonal": ANY | {"steps": 10, "learning_rate": 0.1},
        "curvature_diagonal": {"regularisation": True},
    },
    optimizers: {"expect": {"variables": ()}},
    callbacks: {},
    schedules: {
        "cubic": {"initial": 0.0},
        "prune": {"optimizer": None},
        "Gradual": {"begin": 0, "every": 100, "initial": 0.0},
        "Gradual.start": {"optimizer": None, "at_once": 1},
        "Gradual.after": {"optimizer": None},
    },
    regrowth: {
        "Earning": {"inner": None, "decay": 0.98},
        "earn": {"decay": 0.98},
        "lookahead_credit": {"steps": 3, "learning_rate": 0.1},
        "regrow": {"optimizer": None, "weight": None},
        "Regrowth": {
            **{"every": 100, "share": 0.3, "decay": 0.98, "credit": regrowth.earned},
            **{"weight": None, "scale_free": None},
        },
    },
}


def public(module):
    """Yield name and function of all that a module makes public, methods that hooks are not."""
    for name, found in vars(module).items():
        if getattr(found, "__module__", None) != module.__name__ or name.startswith("_"):
            continue
        yield name, found
        for method, function in vars(found).items() if inspect.isclass(found) else ():
            if inspect.isfunction(function) and not method.startswith(("_", "on_")):
                yield f"{name}.{method}", function


@pytest.mark.parametrize("module", DEFAULTS, ids=lambda module: module.__name__.split(".")[-1])
def test_a_default_is_what_it_was(module):
    found = {}
    for name, function in public(module):
        parameters = inspect.signature(function).parameters.values()
        given = {p.name: p.default for p in parameters if p.default is not p.empty}
        found |= {name: given} if given else {}
    assert found == DEFAULTS[module]
