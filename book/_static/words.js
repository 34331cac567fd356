/* The fifteen pieces of "banana" evolve, with the extra support or without it.
 *
 * One step is F(p) = a p + (1 - a) comb(p) / Z, where comb(p)(z) = Σ p(x) p(y) over xy = z, and Z
 * is its total.  The adjoint of the step credits every word x, with weight or without:
 *
 *     (F*v)(x) = a v(x) + (1 - a) / Z Σ p(y) (v(xy) - u + v(yx) - u),   u = ⟨comb(p), v⟩ / Z,
 *
 * where the sum takes the pairs of words that both have weight, and with the extra support S, the
 * support of the image, also those where one has weight and the other is in S.  A loop makes T
 * steps, pulls the feedback 1 / (p(goal) + ε) back, and moves the weights along the credit above
 * average.  The goal may not keep weight, so it has to be made each time.
 */
const bananaWords = (() => {
  "use strict";
  const { COLOUR, shown, line, mark, text, legend } = figures;

  const TEXT = "banana";
  const [STEPS, PERSISTENCE, STEP_SIZE, EPSILON] = [2, 0.5, 0.05, 1e-6];
  const LOOPS = 20;
  const ROUNDING = 1e-12; // credit above average by less than this part of it is none
  const LOOKS = {
    "weight from the start": { shape: "circle", colour: COLOUR.blue },
    "weight earned": { shape: "diamond", colour: COLOUR.orange },
    "no weight": { shape: "diamond", colour: COLOUR.orange, hollow: true },
  };

  const places = Array.from(TEXT, (_, i) => i);
  const pieces = places.flatMap((more) => places.map((i) => TEXT.slice(i, i + 1 + more)));
  const WORDS = [...new Set(pieces)].sort((x, y) => x.length - y.length);
  const LETTERS = WORDS.map((word) => word.length === 1);
  const TRIPLES = WORDS.flatMap((x, i) => WORDS.map((y, j) => [i, j, WORDS.indexOf(x + y)]));
  const PRODUCTS = TRIPLES.filter(([, , k]) => k >= 0);

  const sum = (v) => v.reduce((total, x) => total + x, 0);
  const dot = (v, w) => sum(v.map((x, k) => x * w[k]));

  /** Return the products to sum: of two words with weight, or of one with weight and one of S. */
  function pairs(p, extra) {
    const joins = (i, j) => p[i] > 0 && (p[j] > 0 || extra[j]);
    return PRODUCTS.filter(([i, j]) => joins(i, j) || joins(j, i));
  }

  /** Return comb(p) and its total. */
  function combine(p, chosen) {
    const image = p.map(() => 0);
    for (const [i, j, k] of chosen) image[k] += p[i] * p[j];
    return [image, sum(image)];
  }

  /** Return F(p). */
  function step(p, chosen) {
    const [image, total] = combine(p, chosen);
    if (total === 0) return p;
    return p.map((x, k) => PERSISTENCE * x + ((1 - PERSISTENCE) * image[k]) / total);
  }

  /** Return F*v at p. */
  function pullBack(p, chosen, v) {
    const [image, total] = combine(p, chosen);
    if (total === 0) return v;
    const credit = v.map((x) => PERSISTENCE * x);
    const mean = dot(image, v) / total;
    for (const [i, j, k] of chosen) {
      const gain = ((1 - PERSISTENCE) / total) * (v[k] - mean);
      credit[i] += gain * p[j];
      credit[j] += gain * p[i];
    }
    return credit;
  }

  /** Return the image of p, the credit, and the change of each weight, the largest being 1. */
  function loop(p, goal, extended, metBefore) {
    const none = p.map(() => false);
    const states = [p];
    for (let m = 0; m < STEPS; m += 1) states.push(step(states[m], pairs(states[m], none)));
    const image = states.pop();
    const support = image.map((x) => x > EPSILON);
    const chosen = states.map((q) => pairs(q, extended ? support : none));
    const met = metBefore || chosen.flat().some(([, , k]) => k === goal);
    const isGoal = p.map((_, k) => met && k === goal);
    const feedback = image.map((x, k) => (isGoal[k] ? 1 / (x + EPSILON) : 0));
    const credit = states.reduceRight((v, q, m) => pullBack(q, chosen[m], v), feedback);
    const average = dot(p, credit);
    const above = credit.map((c, k) => ((p[k] > 0 || support[k]) && !isGoal[k] ? c - average : 0));
    const largest = Math.max(...above.map(Math.abs));
    const atRest = largest <= ROUNDING * Math.max(...credit.map(Math.abs));
    return { image, credit, change: above.map((x) => (atRest ? 0 : x / largest)), met };
  }

  /** Return the weights p after some loops, and what the next loop makes of them. */
  function run({ goal, extended, loops }) {
    const place = WORDS.indexOf(goal);
    let p = LETTERS.map((isLetter) => (isLetter ? 1 / sum(LETTERS) : 0));
    let next = loop(p, place, extended, false);
    for (let n = 0; n < loops; n += 1) {
      const moved = p.map((x, k) => x + STEP_SIZE * next.change[k]);
      const cut = moved.map((x) => (x > EPSILON ? x : 0));
      p = cut.map((x) => x / sum(cut));
      next = loop(p, place, extended, next.met);
    }
    return { p, ...next };
  }

  /** Draw the grid of one column, from the first to the last of its ticks. */
  function grid(svg, title, ticks, at, top, bottom) {
    text(svg, at(ticks.at(-1)) + 4, top - 10, title, { "text-anchor": "end" });
    for (const tick of ticks) {
      line(svg, at(tick), top, at(tick), bottom);
      text(svg, at(tick), bottom + 16, shown(tick));
    }
  }

  /** Draw a row for each word, with its weight and its credit above average. */
  function draw(svg, state, width) {
    const { p, change } = run(state);
    const top = legend(svg, LOOKS, width) + 26;
    const [start, high, room] = [98, 19, (width - 150) / 2];
    const bottom = top + high * WORDS.length;
    const weightAt = (x) => start + (x / 0.8) * room;
    const changeAt = (x) => start + 44 + (1.5 + x / 2) * room;
    grid(svg, "weight", [0, 0.4, 0.8], weightAt, top, bottom);
    grid(svg, "credit above average", [-1, 0, 1], changeAt, top, bottom);
    const [fromStart, earned, without] = Object.values(LOOKS);
    WORDS.forEach((word, k) => {
      const y = top + high * (k + 0.5);
      const name = word === state.goal ? `goal: ${word}` : word;
      text(svg, start - 12, y + 4, name, { "text-anchor": "end" });
      const look = p[k] === 0 ? without : LETTERS[k] ? fromStart : earned;
      const stroke = { stroke: look.colour, "stroke-width": "2" };
      line(svg, weightAt(0), y, weightAt(p[k]), y, stroke);
      line(svg, changeAt(0), y, changeAt(change[k]), y, stroke);
      if (p[k] > 0) mark(svg, weightAt(p[k]), y, look);
      if (change[k] !== 0) mark(svg, changeAt(change[k]), y, look);
    });
    return bottom + 24;
  }

  /** Return the state of the evolution in words. */
  function words(state) {
    const { p, image, change } = run(state);
    const earned = WORDS.filter((_, k) => p[k] > 0 && !LETTERS[k]);
    const next = WORDS.filter((_, k) => p[k] === 0 && change[k] > 0);
    const weight = image[WORDS.indexOf(state.goal)].toFixed(3);
    return [
      `loops made: ${state.loops}, ${state.extended ? "with" : "without"} the extra support`,
      `words that have earned weight: ${earned.join(", ") || "none"}`,
      `words without weight that gain some in the next loop: ${next.join(", ") || "none"}`,
      `weight of ${state.goal} after ${STEPS} steps: ${weight}`,
    ];
  }

  return {
    id: "fig-words-live",
    label: "The weight of each of the fifteen words, and its credit above average",
    state: { goal: TEXT, extended: true, loops: 1 },
    controls: [
      { key: "loops", label: "loops made", type: "range", limits: { min: 0, max: LOOPS } },
      { key: "extended", label: "extra support", type: "checkbox", limits: {} },
      { key: "goal", label: "goal", type: "select", options: [TEXT, "nana"], limits: {} },
    ],
    WORDS,
    run,
    draw,
    words,
  };
})();

figures.live(bananaWords);
