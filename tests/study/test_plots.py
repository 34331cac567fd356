"""Plots: what is drawn against sparsity is what the intervals say."""

from prosper_utils.study import plots
from prosper_utils.study.comparison import Interval

import matplotlib.pyplot as plt
import numpy as np
import pytest

SPARSITIES = (0.9, 0.98, 0.995)
ARMS = {
    "SNIP": [Interval(2.0, 1.0, 3.0, 0.1), Interval(4.0, 3.5, 4.5, 0.1), Interval(5, -3, 13, 0.1)],
    "ProsPr": [Interval(m, m - 1, m + 1, 0.1) for m in (2.5, 3.0, 40.0)],
}


@pytest.fixture
def axis():
    figure, drawn = plt.subplots()
    yield drawn
    plt.close(figure)


def test_means_and_intervals_are_drawn_and_stay_on_the_logarithmic_axis(axis):
    plots.against_sparsity(axis, ARMS, SPARSITIES)
    assert axis.get_yscale() == "log"
    assert [t.get_text() for t in axis.get_xticklabels()] == ["90", "98", "99.5"]
    assert axis.get_legend_handles_labels()[1] == list(ARMS)
    for (name, found), drawn in zip(ARMS.items(), axis.containers, strict=True):
        line, _, (bars,) = drawn
        np.testing.assert_array_equal(line.get_ydata(), [f.mean for f in found])
        assert line.get_color() == plots.LOOKS[name]["color"]
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        low = [max(f.mean - (f.high - f.mean), 0.1 * f.mean) for f in found]
        np.testing.assert_allclose(ends, np.transpose([low, [f.high for f in found]]))


def test_an_arm_with_too_few_intervals_is_refused(axis):
    with pytest.raises(ValueError, match="SNIP: expected 3 intervals, found 2"):
        plots.against_sparsity(axis, {"SNIP": ARMS["SNIP"][:2]}, SPARSITIES)
