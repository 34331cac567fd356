"""A trial: the tests of a module in a process that begins with everything imported but ours.

Importing TensorFlow takes longer than most tests, and its threads do not outlive a fork.
It starts them with its first operation, so a process that has only imported it can be forked:
a server of forks imports `THEIRS` once, and each trial is a fork of it that imports the package.
"""

import collections
import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

THEIRS = [
    "tensorflow",
    "hypothesis",
    "keras",
    "pandas",
    "pytest",
    "scipy.stats",
    "sklearn.datasets",
]
FOUND, SAID = "found.json", "said.txt"  # what a trial leaves in its folder


class Plugin:
    """A plugin of pytest: what comes first in an order goes first; it notes what tests do.

    Attributes:
        seconds: {test: how long it took}.
        called: {test: the names of the functions of the package that it called}.
        failed: the test that failed, or None.
    """

    def __init__(self, order):
        self.order, self.test = order, None
        self.seconds, self.called, self.failed = collections.Counter(), {}, None

    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.order.get(item.nodeid, 0))

    def pytest_runtest_logstart(self, nodeid):
        self.test, self.called[nodeid] = nodeid, {}

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration
        self.failed = report.nodeid if report.failed else self.failed

    def note(self, frame, *_):
        """Note the call of a function, as `sys.settrace` tells of it."""
        if self.test and "prosper_utils" in frame.f_code.co_filename:
            self.called[self.test][frame.f_code.co_name] = 1


def run(folder, tests, order=None):
    """Run tests in a copy of the project until one fails, and end this process with the status.

    Args:
        folder: of the copy.
        tests: paths in it.
        order: {test: a number, the smaller the earlier}; if None, calls are noted and compiled
            code is stored, which is not the code of the same second in later trials.

    In the folder there is then what pytest said, and the attributes of the `Plugin`.
    """
    os.setsid()  # so that a limit of time ends what the tests have started, too
    parent = multiprocessing.parent_process()
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    os.chdir(folder)
    said = os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    plugin, first = Plugin(order or {}), order is None
    sys.dont_write_bytecode = not first
    sys.settrace(plugin.note if first else None)
    status = _pytest(str(folder), tests, plugin)
    found = {name: getattr(plugin, name) for name in ("seconds", "called", "failed")}
    with open(FOUND, "w") as file:  # read only once this process has ended
        json.dump(found, file)
    sys.exit(status)


def end_with(parent):
    """End this process, and what the tests have started, as soon as its parent has ended.

    A mutant may never end, and whoever stops the command cannot see its trials.
    """
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _pytest(folder, tests, plugin):
    """Return the status of tests of the package that is in a folder, and of no other."""
    import hypothesis
    import pytest

    for name in [name for name in sys.modules if name.split(".")[0] == "prosper_utils"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder  # for processes that tests start
    whole = [
        p for p in hypothesis.Phase if p not in (hypothesis.Phase.shrink, hypothesis.Phase.explain)
    ]
    hypothesis.settings.register_profile("trial", phases=whole)
    hypothesis.settings.load_profile("trial")  # one failure is enough; the tests' own begins here
    options = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts="]
    status = pytest.main([*options, *tests], plugins=[plugin])
    import prosper_utils

    if not Path(prosper_utils.__file__).is_relative_to(folder):
        print(f"expected the package in {folder}, found {prosper_utils.__file__}")
        return 1
    return int(status)
