/* What the interactive figures share.
 *
 * A figure stands in its chapter as a picture with a caption.  Where scripts run, the picture gives
 * way to sliders, a drawing and the values in words; where they do not, the picture stays.
 * Text and axes take the colours of the page, so they follow its light and its dark mode.
 */
const figures = (() => {
  "use strict";

  const COLOUR = {
    ink: "var(--pst-color-text-base, #222832)",
    faint: "var(--pst-color-border, #d1d5da)",
    paper: "var(--pst-color-background, #ffffff)",
    orange: "var(--figure-orange, #D55E00)", // these two are Okabe and Ito's, as in every figure
    blue: "var(--figure-blue, #0072B2)",
  };

  const STEP_TIME = 700; // milliseconds in which a playing figure makes a step

  const SHAPE = {
    circle: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    diamond: "M0,-5L5,0L0,5L-5,0z",
    square: "M-3.5,-3.5h7v7h-7z",
  };

  /** Return a number as text, with a true minus sign. */
  function shown(number) {
    return String(number).replaceAll("-", "−");
  }

  /** Append an element to a parent, of the parent's kind, and return it. */
  function add(parent, tag, attributes = {}, text = "") {
    const space = tag === "svg" ? "http://www.w3.org/2000/svg" : parent.namespaceURI;
    const node = parent.appendChild(document.createElementNS(space, tag));
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, typeof value === "number" ? Math.round(value * 10) / 10 : value);
    }
    node.textContent = text;
    return node;
  }

  /** Draw a straight line. */
  function line(parent, x1, y1, x2, y2, look = {}) {
    add(parent, "line", { x1, y1, x2, y2, stroke: COLOUR.faint, ...look });
  }

  /** Draw a marker; a hollow one is filled with the colour of the page. */
  function mark(parent, x, y, { shape, colour, hollow = false }) {
    const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)})`;
    const look = { fill: hollow ? COLOUR.paper : colour, stroke: colour, "stroke-width": "1.5" };
    add(parent, "path", { d: SHAPE[shape], transform, ...look });
  }

  /** Write a text that is centred at x, unless its look says otherwise. */
  function text(parent, x, y, words, look = {}) {
    add(parent, "text", { x, y, "text-anchor": "middle", fill: COLOUR.ink, ...look }, words);
  }

  /** Write the names of looks in rows no wider than the drawing; return the height of the rows. */
  function legend(svg, looks, width) {
    let [x, y] = [0, 12];
    for (const [name, look] of Object.entries(looks)) {
      const room = 36 + 7 * name.length;
      if (x > 0 && x + room > width) [x, y] = [0, y + 20];
      if (look.line) line(svg, x, y, x + 24, y, look.line);
      mark(svg, x + 12, y, look);
      text(svg, x + 28, y + 4, name, { "text-anchor": "start" });
      x += room;
    }
    return y + 12;
  }

  /** Add a slider, a switch or a choice with its label, which keeps state[key] up to date. */
  function control(box, id, state, { key, label, type, unit = "", options = [], limits }, changed) {
    const row = add(box, "div", { class: "live-control" });
    add(row, "label", { for: id }, label);
    const input = add(row, type === "select" ? "select" : "input", { id, ...limits });
    if (type !== "select") input.type = type;
    for (const option of options) add(input, "option", {}, option);
    const value = add(row, "span", { class: "live-value", "aria-hidden": "true" });
    const show = () => {
      if (type !== "range") return;
      value.textContent = shown(state[key]) + unit;
      input.setAttribute("aria-valuetext", value.textContent);
    };
    input[type === "checkbox" ? "checked" : "value"] = state[key];
    input.addEventListener("input", () => {
      state[key] = { range: Number(input.value), checkbox: input.checked }[type] ?? input.value;
      show();
      changed();
    });
    show();
  }

  /** Add a button that plays a figure along its slider, or steps it where motion is unwanted.
   *
   * A figure plays once by itself, when it is first seen.
   */
  function player(box, figure, state, redrawn) {
    const slider = box.querySelector("input[type=range]");
    const [{ key, limits }] = figure.controls;
    const moves = matchMedia("(prefers-reduced-motion: no-preference)");
    const button = add(box.querySelector(".live-controls"), "button", { type: "button" });
    let playing = false;
    const name = () => {
      button.textContent = playing ? "pause" : moves.matches ? "play" : "next step";
      box.querySelector(".live-words").setAttribute("aria-live", playing ? "off" : "polite");
    };
    const put = (value) => {
      slider.value = value;
      slider.dispatchEvent(new Event("input"));
    };
    const frame = (start) => (now) => {
      if (!playing) return;
      const time = Math.min((now - start) / STEP_TIME, limits.max);
      if (Math.floor(time) !== Math.floor(state[key])) put(Math.floor(time));
      state[key] = time;
      redrawn();
      if (time < limits.max) requestAnimationFrame(frame(start));
      else stop();
    };
    const stop = () => {
      playing = false;
      name();
    };
    const play = () => {
      playing = true;
      if (state[key] >= limits.max) put(limits.min);
      requestAnimationFrame((now) => frame(now - state[key] * STEP_TIME)(now));
      name();
    };
    button.addEventListener("click", () => {
      if (playing) stop();
      else if (moves.matches) play();
      else put(state[key] < limits.max ? state[key] + 1 : limits.min);
    });
    slider.addEventListener("pointerdown", stop);
    slider.addEventListener("keydown", stop);
    moves.addEventListener("change", stop);
    name();
    const seen = new IntersectionObserver(([{ isIntersecting }]) => {
      if (!isIntersecting) return;
      seen.disconnect();
      if (!moves.matches) return;
      put(limits.min);
      play();
    }, { threshold: 0.7 });
    seen.observe(box);
  }

  /** Draw a figure into an SVG element, in place of what that holds. */
  function redraw(svg, figure, state, width) {
    svg.replaceChildren();
    const height = Math.ceil(figure.draw(svg, state, width));
    const attributes = { width, height, viewBox: `0 0 ${width} ${height}` };
    const type = { "font-family": "sans-serif", "font-size": "12" };
    for (const each of Object.entries({ ...attributes, ...type })) svg.setAttribute(...each);
  }

  /** Put a figure in the place of its picture, if that is on this page. */
  function live(figure) {
    const picture = document.querySelector(`figure#${figure.id} img`);
    if (!picture) return;
    const state = { ...figure.state };
    const box = document.createElement("div");
    box.className = "live-figure";
    const controls = add(box, "div", { class: "live-controls" });
    const svg = add(box, "svg", { role: "img", "aria-label": figure.label });
    const words = add(box, "div", { class: "live-words", "aria-live": "polite" });
    const fit = () => redraw(svg, figure, state, Math.max(280, Math.min(680, box.clientWidth)));
    const update = () => {
      fit();
      words.replaceChildren();
      for (const sentence of figure.words(state)) add(words, "p", {}, sentence);
    };
    for (const each of figure.controls) {
      control(controls, `${figure.id}-${each.key}`, state, each, update);
    }
    if (figure.plays) player(box, figure, state, fit);
    picture.replaceWith(box);
    window.addEventListener("resize", fit);
    update();
  }

  /** Return a figure in its first state as the text of an SVG file. */
  function picture(figure) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    redraw(svg, figure, figure.state, 680);
    return new XMLSerializer().serializeToString(svg).replaceAll("><", ">\n<") + "\n";
  }

  return { COLOUR, shown, add, line, mark, text, legend, live, picture };
})();
