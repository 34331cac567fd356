/* Two weights in a valley: the true meta-gradient against two streamed ones.
 *
 * Every batch has the loss L(w) = (w - t)ᵀ A (w - t) / 2, where A has the eigenvalues 2 and 0.15
 * and is turned by an angle.  With J = I - α A, M steps lead to w_M - t = Jᴹ (w - t), the last
 * gradient is g = A (w_M - t), and the scores are
 *
 *     exact     w ⊙ Jᴹ g
 *     row sums  w ⊙ (1 - α A 1)ᴹ ⊙ g
 *     diagonal  w ⊙ (1 - α diag A)ᴹ ⊙ g
 */
const twoWeights = (() => {
  "use strict";
  const { COLOUR, shown, add, line, mark, text, legend } = figures;

  const [WEIGHTS, MINIMUM, EIGENVALUES] = [[1.2, 1.0], [0.2, -0.2], [2, 0.15]];
  const HORIZON = 20;
  const POWERS = [1, 0, -1, -2, -3, -4]; // of ten, on the axis of the scores
  const LOOKS = {
    exact: drawn("circle", COLOUR.ink, "none"),
    "row sums": drawn("diamond", COLOUR.orange, "9 3 2 3"),
    diagonal: drawn("square", COLOUR.blue, "4 3"),
  };

  /** Return how a score is drawn. */
  function drawn(shape, colour, dashes) {
    return {
      shape,
      colour,
      line: { stroke: colour, "stroke-dasharray": dashes, "stroke-width": "1.5" },
    };
  }

  /** Return A, turned by an angle in degrees. */
  function curvature(angle) {
    const [cos, sin] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
    const [steep, flat] = EIGENVALUES;
    const mixed = (steep - flat) * cos * sin;
    return [
      [steep * cos ** 2 + flat * sin ** 2, mixed],
      [mixed, steep * sin ** 2 + flat * cos ** 2],
    ];
  }

  /** Return {name: [score of weight 1, score of weight 2]}. */
  function scores({ alpha, steps, angle }) {
    const A = curvature(angle);
    const times = (v) => A.map(([a, b]) => a * v[0] + b * v[1]);
    const step = (v) => times(v).map((slope, i) => v[i] - alpha * slope);
    const allSteps = (v) => Array.from({ length: steps }).reduce(step, v);
    const g = times(allSteps(WEIGHTS.map((w, i) => w - MINIMUM[i])));
    const streamed = (h) => WEIGHTS.map((w, i) => w * (1 - alpha * h[i]) ** steps * g[i]);
    return {
      exact: allSteps(g).map((v, i) => WEIGHTS[i] * v),
      "row sums": streamed(A.map(([a, b]) => a + b)),
      diagonal: streamed([A[0][0], A[1][1]]),
    };
  }

  /** Return ‖a - b‖ / ‖b‖. */
  function relativeError(a, b) {
    return Math.hypot(a[0] - b[0], a[1] - b[1]) / Math.hypot(...b);
  }

  /** Draw the axes of one weight in a box, and a line at the chosen M. */
  function axes(svg, weight, steps, { x, y, width, height, column, row }) {
    text(svg, x + width / 2, y - 10, `weight ${weight + 1}: |∂F/∂c|, logarithmic`);
    for (const power of POWERS) {
      const at = y + row(10 ** power);
      line(svg, x, at, x + width, at);
      text(svg, x - 6, at + 4, String(10 ** power), { "text-anchor": "end" });
    }
    for (let m = 0; m <= HORIZON; m += 5) text(svg, x + column(m), y + height + 18, String(m));
    text(svg, x + width / 2, y + height + 36, "steps ahead, M");
    const at = x + column(steps);
    line(svg, at, y, at, y + height, { stroke: COLOUR.ink, "stroke-dasharray": "2 3" });
  }

  /** Draw the scores of one weight against M, with a marker at the chosen M. */
  function panel(svg, weight, steps, table, box) {
    const row = (value) => (1 - Math.log10(Math.abs(value))) * (box.height / (POWERS.length - 1));
    const column = (m) => (m / HORIZON) * box.width;
    axes(svg, weight, steps, { ...box, column, row });
    const frame = { x: box.x - 8, y: box.y, width: box.width + 16, height: box.height };
    const inside = add(svg, "svg", frame); // cuts off what is too large or too small for the axis
    for (const [name, look] of Object.entries(LOOKS)) {
      const values = table.map((scores) => scores[name][weight]);
      const ends = values.map((value, m) => {
        return `${(8 + column(m)).toFixed(1)},${Math.min(row(value), 9999).toFixed(1)}`;
      });
      add(inside, "polyline", { points: ends.join(" "), fill: "none", ...look.line });
      const [at, hollow] = [row(values[steps]), values[steps] < 0];
      if (at < box.height) mark(inside, 8 + column(steps), at, { ...look, hollow });
    }
  }

  /** Draw a panel for each weight, side by side where there is room; return the height. */
  function draw(svg, state, width) {
    const table = Array.from({ length: HORIZON + 1 }, (_, steps) => scores({ ...state, steps }));
    const negative = { shape: "circle", colour: COLOUR.ink, hollow: true };
    const top = legend(svg, { ...LOOKS, "hollow: below zero": negative }, width) + 24;
    const columns = width < 520 ? 1 : 2;
    const size = { width: width / columns - 68, height: 200 };
    for (const weight of [0, 1]) {
      const x = 54 + (columns === 2 ? weight * (width / 2) : 0);
      const y = top + (columns === 1 ? weight * 275 : 0);
      panel(svg, weight, state.steps, table, { x, y, ...size });
    }
    return top + size.height + 42 + (columns === 1 ? 275 : 0);
  }

  /** Return the scores at M in words. */
  function words(state) {
    const found = scores(state);
    const sentences = Object.entries(found).map(([name, pair]) => {
      const error = (100 * relativeError(pair, found.exact)).toFixed(0);
      const off = name === "exact" ? "" : `, relative error ${error}%`;
      const kept = Math.abs(pair[0]) > Math.abs(pair[1]) ? 1 : 2;
      const [first, second] = pair.map((value) => shown(value.toPrecision(3)));
      return `${name}: ${first} and ${second}${off}; keeps weight ${kept}`;
    });
    return [`α = ${state.alpha}, M = ${state.steps}, angle ${shown(state.angle)}°`, ...sentences];
  }

  const range = (key, label, min, max, step, unit = "") => {
    return { key, label, type: "range", unit, limits: { min, max, step: `${step}` } };
  };

  return {
    id: "fig-two-weights-live",
    label: "The score of each weight against the number of steps, exact and streamed",
    state: { alpha: 0.25, steps: 5, angle: -30 },
    controls: [
      range("alpha", "learning rate α", 0, 0.9, 0.01),
      range("steps", "steps ahead M", 0, HORIZON, 1),
      range("angle", "angle of the valley", -45, 45, 5, "°"),
    ],
    scores,
    draw,
    words,
  };
})();

figures.live(twoWeights);
