/* A weight at zero still has a gradient: two weights in a valley, one of them masked for a while.
 *
 * The loss is L(w) = (w - t)ᵀ A (w - t) / 2.  A step leads from w to c ⊙ (w - α A (w - t)), where
 * the mask c is (1, 0) for the first steps, which pull weight 2 off zero and set it back, and
 * (1, 1) for the others.  A state between two whole steps is one on the way.
 */
const zeroWeight = (() => {
  "use strict";
  const { COLOUR, shown, add, line, mark, text } = figures;

  const [A, MINIMUM, START, ALPHA] = [[[1, -0.4], [-0.4, 1.2]], [1.4, 0.8], [0.1, 0], 0.3];
  const [HELD, STEPS] = [6, 16]; // steps with weight 2 masked, and all steps
  const [LEFT, RIGHT, LOW, HIGH] = [-0.2, 2.2, -0.25, 1.15]; // what the plane shows
  const LEVELS = [0.01, 0.06, 0.2, 0.45, 0.8];

  const times = (v) => A.map(([a, b]) => a * v[0] + b * v[1]);
  const away = (w) => w.map((x, i) => x - MINIMUM[i]);
  const gradient = (w) => times(away(w));
  const loss = (w) => away(w).reduce((sum, x, i) => sum + (x * gradient(w)[i]) / 2, 0);
  const free = (w) => w.map((x, i) => x - ALPHA * gradient(w)[i]);
  const masked = (w, m) => [w[0], m < HELD ? 0 : w[1]];

  /** Return w_0, ..., w_m. */
  function path(m) {
    const states = [START];
    for (let i = 0; i < m; i += 1) states.push(masked(free(states[i]), i));
    return states;
  }

  /** Return the point that is part of the way from v to w. */
  function between(v, w, part) {
    return v.map((x, i) => x + part * (w[i] - x));
  }

  /** Return the weights at any time: pulled for half of a step, then set back for the other half. */
  function at(time) {
    const m = Math.floor(time);
    const w = path(m)[m];
    const [part, pulled] = [time - m, free(w)];
    if (m >= HELD) return between(w, pulled, part);
    if (part < 0.5) return between(w, pulled, 2 * part);
    return between(pulled, masked(pulled, m), 2 * part - 1);
  }

  /** Draw an arrow with its head. */
  function arrow(svg, [x1, y1], [x2, y2], colour) {
    const size = Math.hypot(x2 - x1, y2 - y1);
    if (size < 2) return;
    const [head, turn] = [Math.min(10, size), (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI];
    const [x, y] = between([x2, y2], [x1, y1], head / size);
    line(svg, x1, y1, x, y, { stroke: colour, "stroke-width": "3" });
    const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${turn.toFixed(1)})`;
    add(svg, "path", { d: `M0,-5.5L${head.toFixed(1)},0L0,5.5z`, transform, fill: colour });
  }

  /** Return the ends of a contour of the loss: A = L Lᵀ turns it into a circle. */
  function contour(level) {
    const first = Math.sqrt(A[0][0]);
    const mixed = A[1][0] / first;
    const last = Math.sqrt(A[1][1] - mixed ** 2);
    return Array.from({ length: 73 }, (_, i) => {
      const [angle, radius] = [(i * Math.PI) / 36, Math.sqrt(2 * level)];
      const second = (radius * Math.sin(angle)) / last;
      const one = (radius * Math.cos(angle) - mixed * second) / first;
      return [MINIMUM[0] + one, MINIMUM[1] + second];
    });
  }

  /** Draw the valley, the way so far, and the gradient with respect to weight 2. */
  function plane(svg, time, size) {
    const [width, height] = [size, (size * (HIGH - LOW)) / (RIGHT - LEFT)];
    const scale = width / (RIGHT - LEFT);
    const place = ([x, y]) => [(x - LEFT) * scale, (HIGH - y) * scale];
    const cut = add(svg, "clipPath", { id: "zero-weight-plane" });
    add(cut, "rect", { width, height });
    const inside = add(svg, "g", { "clip-path": "url(#zero-weight-plane)" });
    const through = (points, look) => {
      const ends = points.map((w) => place(w).map((x) => x.toFixed(1)).join(","));
      add(inside, "polyline", { points: ends.join(" "), fill: "none", ...look });
    };
    for (const level of LEVELS) through(contour(level), { stroke: COLOUR.faint });
    const rail = { stroke: COLOUR.ink, "stroke-width": "2" };
    const open = { stroke: COLOUR.ink, "stroke-dasharray": "2 4" };
    through([[LEFT, 0], [RIGHT, 0]], time < HELD ? rail : open);
    text(inside, width - 6, place([0, 0])[1] + 16, "weight 2 = 0", { "text-anchor": "end" });
    const w = at(time);
    const before = path(Math.floor(time));
    through([...before, w], { stroke: COLOUR.blue, "stroke-width": "2" });
    for (const v of before) add(inside, "circle", dot(place(v)));
    const best = place(MINIMUM);
    mark(inside, ...best, { shape: "square", colour: COLOUR.ink });
    text(inside, best[0], best[1] - 10, "least loss");
    if (time <= HELD) {
      const foot = [w[0], 0];
      arrow(inside, place(foot), place([w[0], -0.8 * gradient(foot)[1]]), COLOUR.orange);
    }
    const zero = w[1] === 0;
    mark(inside, ...place(w), { shape: "circle", colour: COLOUR.blue, hollow: zero });
    return height;
  }

  /** Return the look of a small dot. */
  function dot([cx, cy]) {
    return { cx, cy, r: "2.5", fill: COLOUR.blue };
  }

  /** Draw both weights and the loss as bars; a weight at zero is a circle, its credit an arrow. */
  function bars(svg, time, { x, y, width, height }) {
    const w = at(time);
    const [floor, scale] = [y + height - 14, (height - 24) / 1.5];
    const rows = [["weight 1", w[0], COLOUR.blue], ["weight 2", w[1], COLOUR.blue]];
    rows.push(["loss", loss(w) / loss(START), COLOUR.ink]);
    line(svg, x, floor, x + width, floor, { stroke: COLOUR.ink });
    rows.forEach(([name, value, fill], i) => {
      const middle = x + (width * (i + 0.5)) / 3;
      const size = scale * value;
      add(svg, "rect", { x: middle - 14, y: floor - size, width: 28, height: size, fill });
      text(svg, middle, y + height + 4, name);
      if (i !== 1 || time > HELD) return;
      const credit = -0.8 * gradient([w[0], 0])[1];
      arrow(svg, [middle, floor], [middle, floor - scale * credit], COLOUR.orange);
      if (value === 0) mark(svg, middle, floor, { shape: "circle", colour: COLOUR.blue, hollow: true });
    });
  }

  /** Draw the plane, and the bars beside it or, on a phone, below it. */
  function draw(svg, { step }, width) {
    const beside = width >= 520;
    const height = plane(svg, step, beside ? width - 220 : width);
    const box = beside ? { x: width - 200, y: 0, width: 200 } : { x: 0, y: height + 10, width };
    bars(svg, step, { ...box, height: beside ? height - 20 : 130 });
    return beside ? height : height + 150;
  }

  /** Return the weights, the loss and the gradient after whole steps in words. */
  function words({ step }) {
    const w = at(step);
    const [one, two, slope, error] = [...w, gradient(w)[1], loss(w)].map((x) => {
      return shown(x.toFixed(2));
    });
    const atZero = `is at zero, ${step < HELD ? "masked" : "admitted"}, with gradient ${slope}`;
    const second = step <= HELD ? atZero : `is ${two}`;
    const steps = `${step} step${step === 1 ? "" : "s"}`;
    return [`after ${steps}: weight 1 is ${one}, weight 2 ${second}; the loss is ${error}`];
  }

  return {
    id: "fig-zero-weight",
    label: "Two weights in a valley: one is masked, has a gradient all the same, and is admitted",
    state: { step: 4 },
    controls: [{ key: "step", label: "steps", type: "range", limits: { min: 0, max: STEPS } }],
    plays: true,
    path,
    loss,
    draw,
    words,
  };
})();

figures.live(zeroWeight);
