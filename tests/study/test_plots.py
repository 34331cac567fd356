"""Plots: intervals are drawn as they are; colours are told from the ground, light and dark."""

import re

from prosper_utils.study import plots
from prosper_utils.study.comparison import Interval

import numpy as np
import pytest
from conftest import ROOT

LIGHT, DARK = "#ffffff", "#121212"  # the grounds of the theme
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # WCAG 2.1, relative luminance
GREY_OF = np.tile([0.213, 0.715, 0.072], (3, 1))  # Filter Effects 1, hue-rotate


def channels(colour):
    """Return red, green and blue, from 0 to 1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def contrast(one, other):
    """Return the contrast of two colours after WCAG 2.1, from 1 to 21."""
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (one, other)]
    low, high = sorted(float(LUMINANCE @ c) for c in linear)
    return (high + 0.05) / (low + 0.05)


def turned(colour):
    """Return a colour after `invert(1) hue-rotate(180deg)`."""
    return np.clip((2 * GREY_OF - np.eye(3)) @ (1 - colour), 0, 1)


def test_the_page_turns_inks_by_the_filter_that_is_computed_here():
    style = (ROOT / "book" / "_static" / "book.css").read_text()
    assert re.search(
        r'html\[data-theme="dark"\].*img.* {\n.*\n  filter: invert\(1\) hue-rot', style
    )
    assert turned(channels("#000000")) == pytest.approx(1)
    for name, colour in (("blue", "#0072B2"), ("orange", "#D55E00")):
        found = channels(re.search(rf"--figure-{name}: (#\w+);", style)[1])
        assert found == pytest.approx(turned(channels(colour)), abs=1 / 255)
    assert turned(channels("#ffffff")) == pytest.approx(0)


def test_no_one_grey_is_readable_on_both_grounds():
    greys = [np.full(3, level / 255) for level in range(256)]
    best = max(min(contrast(grey, channels(c)) for c in (LIGHT, DARK)) for grey in greys)
    assert best < 4.5


@pytest.mark.parametrize("name", plots.LOOKS)
def test_a_colour_can_be_told_from_both_grounds_and_keeps_its_hue(name):
    colour = channels(plots.LOOKS[name]["color"])
    dark = turned(colour)
    assert contrast(colour, channels(LIGHT)) > 3
    assert contrast(dark, channels(DARK)) > 3
    assert list(np.argsort(dark.round(3), kind="stable")) == list(
        np.argsort(colour.round(3), kind="stable")
    )


def test_the_ground_is_transparent():
    assert plots.STYLE["figure.facecolor"] == plots.STYLE["axes.facecolor"] == "none"


SPARSITIES = (0.9, 0.98, 0.995)
ARMS = {
    "SNIP": [Interval(2.0, 1.0, 3.0, 0.1), Interval(4.0, 3.5, 4.5, 0.1), Interval(5, -3, 13, 0.1)],
    "ProsPr": [Interval(m, m - 1, m + 1, 0.1) for m in (2.5, 3.0, 40.0)],
}


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


@pytest.mark.parametrize("count", [0, 2, 4])
def test_an_arm_with_another_number_of_intervals_is_refused(axis, count):
    found = [*ARMS["SNIP"], *ARMS["ProsPr"]][:count]
    with pytest.raises(ValueError, match=f"SNIP: expected 3 intervals, found {count}"):
        plots.against_sparsity(axis, {"SNIP": found}, SPARSITIES)
