"""The drawings of the chapters: what a figure of numbers cannot show.

`python book/tools/drawings.py` writes `book/drawings/`, one picture for each function here that
takes an axis: the factors of equation 10 forwards and backwards, the light cone of credit, and the
loop as a cycle.  Blue goes forwards, orange goes back.
"""

from pathlib import Path

from prosper_utils.study import plots

import matplotlib.pyplot as plt
import numpy as np

FOLDER = Path(__file__).parents[1] / "drawings"
FORWARD, BACK, GREY = "#0072B2", "#B85100", "#595959"


def say(axis, x, y, words, color="black", **look):
    """Write words around a point."""
    axis.text(x, y, words, **{"color": color, "ha": "center", "va": "center", **look})


def arrow(axis, start, end, color, bend=0.0, gap=11):
    """Draw an arrow that keeps its distance, in points, from where it starts and ends."""
    look = {"arrowstyle": "-|>", "color": color, "linewidth": 1.8}
    look |= {"shrinkA": gap, "shrinkB": gap, "connectionstyle": f"arc3,rad={bend}"}
    axis.annotate("", end, start, arrowprops=look)


def box(axis, x, y, words):
    """Write words in a frame."""
    say(axis, x, y, words, bbox={"boxstyle": "round,pad=0.3", "fc": "none", "ec": GREY})


def factors(axis):
    """Draw the factors once, the states above them from left to right, the gradients back."""
    states = ["$c$", "$w_0$", "$w_1$", "$w_2$", "$w_3$", "$F$"]
    steps = [r"$w_{\mathrm{init}}\!\odot$", "$J_0$", "$J_1$", "$J_2$", r"$\nabla L_3$"]
    for i, (name, factor) in enumerate(zip(states, [*steps, None], strict=True)):
        say(axis, i, 1, name, FORWARD, fontsize=13)
        slope = "1" if name == "$F$" else rf"$\frac{{\partial F}}{{\partial {name[1:-1]}}}$"
        say(axis, i, -1, slope, BACK, fontsize=13 if name == "$F$" else 15)
        if factor:
            box(axis, i + 0.5, 0, factor)
            arrow(axis, (i, 1), (i + 1, 1), FORWARD)
            arrow(axis, (i + 1, -1), (i, -1), BACK, gap=13)
    say(axis, 2.5, 1.75, "forwards: $J_0$ first, $J_2$ last", FORWARD)
    say(axis, 2.5, -1.85, "backwards: $J_2$ first, $J_0$ last", BACK)
    axis.set(xlim=(-0.35, 5.35), ylim=(-2.2, 2.1))
    axis.axis("off")


def cone(axis, steps=3):
    """Draw which depths have weight at each step, and the paths back from the farthest goals."""
    at = np.arange(steps + 1)
    axis.fill_between(at, 0, at, color=FORWARD, alpha=0.3, linewidth=0)
    axis.plot(at, at, color=FORWARD, linewidth=2)
    say(axis, 2.1, 0.7, "weight in $p_t$")
    axis.fill_between(at, at, steps + at, color=BACK, alpha=0.13, linewidth=0)
    say(axis, 0.85, 2.05, "no weight,\nin the cone")
    for rounds, style in enumerate(("-", "--", "-.")):
        path = steps + np.maximum(0, at - (steps - 1 - rounds))
        axis.plot(at, path, style, color=BACK, linewidth=2, clip_on=False)
        axis.plot(steps, path[-1], "*", color=BACK, markersize=12, clip_on=False)
        name = f"goal, $k = {rounds}$"
        axis.text(steps + 0.16, path[-1], name, color=BACK, va="center")
    axis.plot(steps, 2 * steps + 1, "x", color="black", markersize=8, clip_on=False)
    axis.text(steps + 0.16, 2 * steps + 1, "out of reach", va="center")
    axis.set(xlabel="step $t$", ylabel="depth", xticks=at, yticks=range(2 * steps + 2))
    axis.set(xlim=(0, steps + 1.35), ylim=(0, 2 * steps + 1.3))
    axis.grid(False)
    axis.spines["bottom"].set_bounds(0, steps)
    axis.xaxis.set_label_coords(steps / (steps + 1.35) / 2, -0.09)


def loop(axis):
    """Draw the seven lines of the loop around the states that they go through."""
    for m in range(3):
        say(axis, m, 1, f"$p_{m}$", FORWARD, fontsize=15)
        say(axis, m, -1, f"$w_{m}$", BACK, fontsize=15)
    for m in range(2):
        arrow(axis, (m, 1), (m + 1, 1), FORWARD)
        arrow(axis, (m + 1, -1), (m, -1), BACK)
    say(axis, 1, 1.42, "1 propagate, 3 recompute with $S$", FORWARD)
    arrow(axis, (2, 1), (1.1, 0.2), GREY, bend=-0.25, gap=8)
    say(axis, 1.02, 0.2, "$S$", fontsize=15)
    arrow(axis, (0.95, 0.2), (0.5, 1), GREY, bend=-0.3, gap=5)
    say(axis, 1.02, -0.05, "2 support\nof the image", va="top")
    arrow(axis, (2, 1), (2, -1), BACK)
    say(axis, 2.08, 0, "4 feedback", BACK, ha="left")
    say(axis, 1, -1.42, "5 pull back: credit", BACK)
    arrow(axis, (0, -1), (0, 1), GREY)
    say(axis, -0.08, 0, "6 move\n7 at times,\npurge", ha="right")
    axis.set(xlim=(-0.95, 3.0), ylim=(-1.65, 1.65))
    axis.axis("off")


DRAWINGS = {factors: (3.9, 2.5), cone: (3.9, 3.6), loop: (3.9, 3.0)}  # inches


def main():
    """Draw all of them and store them."""
    plots.use_style()
    FOLDER.mkdir(exist_ok=True)
    for draw, size in DRAWINGS.items():
        figure, axis = plt.subplots(figsize=size)
        draw(axis)
        path = FOLDER / f"{draw.__name__}.png"
        figure.savefig(path, dpi=220, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
