/* What the generators of these pages leave to be done. */
"use strict";

// Opened from disk, a page may not read its neighbours: the search then goes without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// The references are a list, whose entries have to be its items.
for (const entry of document.querySelectorAll('[role="list"] > .citation')) {
  entry.setAttribute("role", "listitem");
}

// A long signature has a line for each parameter, in a list of definitions that define no term.
for (const list of document.querySelectorAll(".sig > dl")) list.setAttribute("role", "presentation");

/** Return an element whose content stays on one line. */
function unbroken(...content) {
  const whole = document.createElement("span");
  whole.className = "unbroken";
  whole.append(...content);
  return whole;
}

// In a cell of a table a line does not end at a hyphen: neither LeNet-5 nor 1e-07 is two words.
for (const cell of document.querySelectorAll(".cell_output :is(th, td)")) {
  if (cell.children.length) continue;
  const parts = cell.textContent.split(/(\S*-\S*)/);
  cell.replaceChildren(...parts.map((part, i) => (i % 2 ? unbroken(part) : part)));
}

// Nor does it anywhere between a hyphen and a digit, as in LeNet-5 or 1e-07, or inside an arrow.
const hyphened = /(\S*-[\d>]\S*)/;
const fixed = "pre, code, .math, .unbroken, .citation a, svg, script, style, select, textarea";
const texts = document.createTreeWalker(document.querySelector(".bd-main") ?? document.body, 4);
const breaking = [];
while (texts.nextNode()) {
  const text = texts.currentNode;
  const [box, printed] = [text.parentElement.closest(fixed), ".cell_output pre"];
  if (hyphened.test(text.data) && (!box || box.matches(printed))) breaking.push(text);
}
for (const text of breaking) {
  text.replaceWith(...text.data.split(hyphened).map((part, i) => (i % 2 ? unbroken(part) : part)));
}

/** Keep a formula on one line with the punctuation that touches it: a line may break there else. */
function keepTogether(formula) {
  const { previousSibling: before, nextSibling: after } = formula;
  const opening = before instanceof Text ? before.data.match(/[^\s\p{L}\p{N}]*$/u)[0] : "";
  const closing = after instanceof Text ? after.data.match(/^[^\s\p{L}\p{N}]*/u)[0] : "";
  if (!opening && !closing) return;
  if (opening) before.data = before.data.slice(0, -opening.length);
  if (closing) after.data = after.data.slice(closing.length);
  const whole = unbroken();
  formula.replaceWith(whole);
  whole.append(opening, formula, closing);
}

/** Let a box fade out on the sides where there is more to scroll to. */
function fade(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  box.classList.toggle("more-left", box.scrollLeft > 1);
  box.classList.toggle("more-right", box.scrollLeft < hidden - 1);
}

/** Do so with all boxes, now and whenever they scroll or get another size. */
function fadeAll() {
  const sized = new ResizeObserver((entries) => entries.forEach((entry) => fade(entry.target)));
  const tables = ".cell_output > .output, .pst-scrollable-table-container";
  const pictures = ".cell_output .image-reference";
  const boxes = `.bd-article :is(pre, div.math > mjx-container, ${tables}, ${pictures})`;
  for (const box of document.querySelectorAll(boxes)) {
    box.addEventListener("scroll", () => fade(box), { passive: true });
    sized.observe(box);
  }
}

// Formulas are boxes too, once they are set.
Promise.resolve(globalThis.MathJax?.startup.promise).then(() => {
  document.querySelectorAll(".bd-article span.math").forEach(keepTogether);
  fadeAll();
});
