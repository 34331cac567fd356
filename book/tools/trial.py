"""A trial: the tests of a module in a process that begins with everything imported but ours.

Importing TensorFlow takes longer than most tests, and its threads do not outlive a fork.
It starts them with its first operation, so a process that has only imported it can be forked:
a server of forks imports `THEIRS` once, and each trial is a fork of it that imports the package.
"""

import collections
import json
import os
import sys
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


class ShortestFirst:
    """A plugin of pytest: what took the least time goes first; it notes times, and what failed."""

    def __init__(self, seconds):
        self.seconds, self.taken, self.failed = seconds, collections.Counter(), None

    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report):
        self.taken[report.nodeid] += report.duration
        self.failed = report.nodeid if report.failed else self.failed


def run(folder, tests, seconds=None):
    """Run tests in a copy of the project until one fails, and end this process with the status.

    Args:
        folder: of the copy.
        tests: paths in it.
        seconds: {test: how long it took}; if None, compiled code is stored, which is not the code
            of the same second in later trials.

    In the folder there is then what pytest said, and {"seconds": of each test, "failed": the test}.
    """
    os.setsid()  # so that a limit of time ends what the tests have started, too
    os.chdir(folder)
    said = os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    sys.dont_write_bytecode = seconds is not None
    plugin = ShortestFirst(seconds or {})
    status = _pytest(str(folder), tests, plugin)
    with open(FOUND, "w") as file:  # read only once this process has ended
        json.dump({"seconds": plugin.taken, "failed": plugin.failed}, file)
    sys.exit(status)


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
