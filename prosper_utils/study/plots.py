"""One quiet style for every figure: colours that the colour-blind can tell apart, and markers too.

The colours are those of Okabe and Ito (2008); a score has the same colour, marker and line style in
every chapter.  The ground is transparent: a figure stands on that of its page, and where that is
dark the page turns black into white and keeps the hues (`book/_static/book.css`).
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats

LOOKS = {
    "random": {"color": "#767676", "marker": "s", "linestyle": ":"},
    "magnitude": {"color": "#AA4499", "marker": "v", "linestyle": "-."},
    "SNIP": {"color": "#0072B2", "marker": "o", "linestyle": "--"},
    "GraSP": {"color": "#4A9BD0", "marker": "<", "linestyle": "-."},
    "SynFlow": {"color": "#009E73", "marker": "^", "linestyle": "--"},
    "ProsPr": {"color": "#D55E00", "marker": "D", "linestyle": "-"},
    "ProsPr, M = 10": {"color": "#D55E00", "marker": "d", "linestyle": "--"},
    "ProsPr, M = 100": {"color": "#882255", "marker": "P", "linestyle": "-"},
    "iterative SNIP": {"color": "#0072B2", "marker": "p", "linestyle": "-"},
    "iterative ProsPr": {"color": "#C08400", "marker": "*", "linestyle": "-"},
    "first order": {"color": "#000000", "marker": "x", "linestyle": "--"},
    "row sums": {"color": "#332288", "marker": "+", "linestyle": ":"},
    "diagonal": {"color": "#332288", "marker": "1", "linestyle": "-."},
    "magnitude, twice the cost": {"color": "#AA4499", "marker": ">", "linestyle": ":"},
    "gradual magnitude": {"color": "#332288", "marker": "^", "linestyle": "--"},
    "random regrowth": {"color": "#767676", "marker": "s", "linestyle": "--"},
    "credit": {"color": "#000000", "marker": "o", "linestyle": "-"},
}

STYLE = {
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.facecolor": "none",
    "figure.figsize": (6.4, 3.6),
    "font.size": 10.5,
    "grid.color": "#DDDDDD",
    "image.cmap": "cividis",
    "legend.facecolor": "white",
    "legend.frameon": False,
    "lines.markersize": 5,
}


def use_style():
    """Use the book's figure style, at twice the resolution for sharp screens."""
    plt.rcParams.update(STYLE)
    set_matplotlib_formats("retina")


def against_sparsity(axis, arms, sparsities):
    """Draw the test errors of arms against sparsity, on a logarithmic axis, with their intervals.

    Args:
        axis: where to draw.
        arms: {name in `LOOKS`: a list of `Interval`, in percent, one for each sparsity}.
        sparsities: shares of the weights that are removed, evenly spaced in the drawing.

    Raises:
        ValueError: if an arm has not one interval for each sparsity.
    """
    for name, found in arms.items():
        if len(found) != len(sparsities):
            raise ValueError(f"{name}: expected {len(sparsities)} intervals, found {len(found)}")
        mid = np.array([f.mean for f in found])
        half = np.array([f.high for f in found]) - mid
        below = np.minimum(half, 0.9 * mid)  # the axis is logarithmic
        axis.errorbar(range(len(mid)), mid, [below, half], label=name, capsize=2, **LOOKS[name])
    axis.set_yscale("log")
    axis.set_xticks(range(len(sparsities)), [f"{100 * s:g}" for s in sparsities])
    axis.yaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 10, 20, 50, 90]))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
