"""How fast proofs are looked for: what is counted as time, where it is said to go, and how much."""

import collections
import sys
import time

from prosper_utils.blending.evolution import detachment_table
from prosper_utils.study import results

import bench_proofs
import numpy as np
import pytest
import tensorflow as tf


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def here(seconds):
    busy(seconds)


def there(seconds):
    busy(seconds)


def test_time_goes_where_the_processor_is():
    """Three parts to one, with a sleep that takes none of it."""

    def run():
        here(0.45)
        time.sleep(0.3)
        there(0.15)

    def place(frame):
        names = {"here", "there"}
        while frame and frame.f_code.co_name not in names:
            frame = frame.f_back
        return frame.f_code.co_name if frame else "else"

    found = bench_proofs.shares(run, place)
    assert sum(found.values()) == pytest.approx(1)
    assert found["here"] == pytest.approx(0.75, abs=0.1)
    assert found["there"] == pytest.approx(0.25, abs=0.1)


def test_a_frame_is_in_the_innermost_place_that_is_known():
    seen = collections.Counter()

    def look(frame, event, argument):
        if event == "call":
            seen[bench_proofs.place(frame)] += 1

    table = detachment_table(limit=13, budget=50)
    sys.setprofile(look)
    try:
        table.at_once(np.array([[0, 0], [1, 0]]))
        tf.constant([1.0]) + 1.0
    finally:
        sys.setprofile(None)
    assert {"table", "TensorFlow"} <= set(seen) <= set(bench_proofs.WHERE)
    assert ("unification" in seen) == (table.batch is not None)


def test_what_is_asked_for_is_counted_whatever_is_known():
    table = detachment_table(limit=13, budget=50)
    asked = bench_proofs.counted(table)
    pairs = np.array([[0, 0], [1, 0]])
    for _ in range(3):
        table.at_once(pairs)
    assert asked == {"at_once": 6, "many": 2}


@pytest.mark.parametrize("arm", bench_proofs.ARMS)
def test_a_row_says_how_many_and_where(arm):
    row = bench_proofs.measured(arm, budget=2000, repeats=1)
    assert row["detachments"] == 2000 <= row["asked"]
    assert row["per_second"] == pytest.approx(2000 / row["seconds"])
    shares = [value for name, value in row.items() if name.startswith("share")]
    assert len(shares) == len(bench_proofs.WHERE)
    assert sum(shares) == pytest.approx(1)


def test_what_is_stored_has_a_row_for_each_way():
    table, provenance = results.load("proofs_speed")
    assert list(table.arm) == list(bench_proofs.ARMS)
    assert set(table.detachments) == {provenance["configuration"]["budget"]}
    assert np.allclose(table.filter(like="share").sum(axis=1), 1, atol=1e-4)
