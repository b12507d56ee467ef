"use strict";
// Drawing: elements made from text (never parsed as HTML), packed numbers, and a chart of lines.

const SVG = "http://www.w3.org/2000/svg";

function append(node, children) {
  for (const child of children) node.append(child);
  return node;
}

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return append(node, children);
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return append(node, children);
}

function unpack(text, Type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Type(bytes.buffer);
}

// First place whose number is at least `value`.
function lowerBound(numbers, value) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function nearest(numbers, value) {
  const at = lowerBound(numbers, value);
  if (at === 0) return 0;
  if (at === numbers.length) return at - 1;
  return value - numbers[at - 1] <= numbers[at] - value ? at - 1 : at;
}

function format(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === "inf" || value === Infinity) return "∞";
  if (value === "-inf" || value === -Infinity) return "−∞";
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-4)) return value.toExponential(3).replace("-", "−");
  const digits = size >= 1000 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
  return value.toFixed(digits).replace("-", "−");
}

function niceTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const digits = Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0)));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    ticks.push([i * step, Math.abs(i * step) >= 1e7 ? (i * step).toExponential(1) : (i * step).toFixed(digits)]);
  }
  return ticks;
}

// A line as SVG path. Where more points than pixels lie, each column of pixels is drawn by its
// first, least, greatest and last value, so that no peak is lost. A value that is not finite is a gap.
function linePath(numbers, values, x, y, from, to, width) {
  const start = Math.max(0, lowerBound(numbers, from) - 1);
  const stop = Math.min(numbers.length, lowerBound(numbers, to) + 2);
  const parts = [];
  let pen = false;
  const point = (px, py) => {
    parts.push(pen ? `L${px.toFixed(1)} ${py.toFixed(1)}` : `M${px.toFixed(1)} ${py.toFixed(1)}h0`);
    pen = true;
  };
  if (stop - start <= 2 * width) {
    for (let i = start; i < stop; i++) {
      if (Number.isFinite(values[i])) point(x(numbers[i]), y(values[i]));
      else pen = false;
    }
    return parts.join("");
  }
  let column = NaN, first, least, greatest, last, leastFirst;
  const flush = () => {
    if (Number.isNaN(column)) return;
    const between = leastFirst ? [least, greatest] : [greatest, least];
    let before = null;
    for (const value of [first, ...between, last]) if (value !== before) point(column, y((before = value)));
    column = NaN;
  };
  for (let i = start; i < stop; i++) {
    const value = values[i];
    if (!Number.isFinite(value)) { flush(); pen = false; continue; }
    const at = Math.round(x(numbers[i]));
    if (at !== column) { flush(); column = at; first = least = greatest = value; leastFirst = true; }
    if (value < least) { least = value; leastFirst = false; }
    if (value > greatest) { greatest = value; leastFirst = true; }
    last = value;
  }
  flush();
  return parts.join("");
}

const LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 20;

// One panel. `app` is the page: its logs, the frames in view, and what to call when one is chosen.
class Chart {
  constructor(panel, app, labelled) {
    this.app = app;
    this.lines = [];
    const many = app.logs.length > 1;
    panel.columns.forEach((column, c) => app.logs.forEach((log, l) => {
      if (!log.has(column)) return;
      const values = log.values(column);
      this.lines.push({ log, column, values, colour: (many ? l : c) % 8, dash: many ? c % 4 : 0, name: !many ? column : panel.columns.length > 1 ? `${column} · ${log.name}` : log.name });
    }));
    this.marks = app.worst && panel.columns.includes(app.worst.column) ? app.worst.frames : [];
    this.range();
    this.plot = svg("svg", { class: "plot", tabindex: "0", role: "slider", "aria-label": `${panel.title} over frames`, "aria-valuemin": app.first, "aria-valuemax": app.last });
    const legend = el("ul", { class: "legend" });
    for (const line of this.lines) {
      line.value = el("b");
      const swatch = svg("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" }, svg("path", { d: "M1 4H19", class: `line c${line.colour} d${line.dash}` }));
      legend.append(el("li", {}, swatch, el("span", {}, line.name), line.value));
    }
    const unit = panel.unit ? [" ", el("span", { class: "unit" }, panel.unit)] : [];
    this.node = el("div", { class: "panel" }, el("div", { class: "heading" }, el("h3", {}, panel.title, ...unit), legend), this.plot);
    if (this.infinite) this.node.append(el("p", { class: "note" }, `${this.infinite} values are infinite and not drawn.`));
    if (labelled) this.node.dataset.panel = panel.title;
    this.listen();
  }

  range() {
    let low = Infinity, high = -Infinity;
    this.infinite = 0;
    for (const { values } of this.lines) {
      for (const value of values) {
        if (!Number.isFinite(value)) { if (!Number.isNaN(value)) this.infinite++; continue; }
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (low > high) { low = 0; high = 1; this.empty = true; }
    const pad = (high - low) * 0.07 || Math.max(Math.abs(low) * 0.02, 0.01);
    this.low = low - pad;
    this.high = high + pad;
  }

  listen() {
    const frameAt = (event) => {
      const box = this.plot.getBoundingClientRect();
      const share = (event.clientX - box.left - LEFT) / Math.max(1, box.width - LEFT - RIGHT);
      const [from, to] = this.app.view;
      return from + Math.min(1, Math.max(0, share)) * (to - from);
    };
    this.plot.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this.app.pin(frameAt(event));
      else if (event.pointerType !== "touch") this.app.look(frameAt(event));
    });
    this.plot.addEventListener("pointerleave", () => this.app.look(null));
    this.plot.addEventListener("click", (event) => this.app.pin(frameAt(event)));
  }

  draw() {
    const width = this.plot.clientWidth, height = this.plot.clientHeight;
    if (!width || !height) return;
    const [from, to] = this.app.view;
    const inner = width - LEFT - RIGHT, bottom = height - BOTTOM;
    this.x = (frame) => LEFT + ((frame - from) / (to - from || 1)) * inner;
    if (from === to) this.x = () => LEFT + inner / 2;
    this.y = (value) => bottom - ((value - this.low) / (this.high - this.low)) * (bottom - TOP);
    const parts = [];
    for (const [value, text] of niceTicks(this.low, this.high, 4)) {
      const at = this.y(value);
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      parts.push(svg("text", { x: LEFT - 7, y: at + 4, "text-anchor": "end" }, text));
    }
    const cuts = this.app.cuts.filter((cut) => cut >= from && cut <= to);
    for (const cut of cuts.length > inner / 8 ? [] : cuts) {  // a crowd of them would hide the line
      parts.push(svg("line", { class: "cut", x1: this.x(cut), x2: this.x(cut), y1: TOP, y2: bottom }));
    }
    const frames = from === to ? [[from, String(from)]] : niceTicks(from, to, Math.max(2, inner / 90)).filter(([f]) => Number.isInteger(f));
    for (const [frame, text] of frames) {
      const at = this.x(frame), anchor = at > width - 26 ? "end" : "middle";
      parts.push(svg("text", { x: Math.min(at, width - 2), y: height - 5, "text-anchor": anchor }, text));
    }
    const clip = `clip${this.app.serial++}`;
    parts.push(svg("clipPath", { id: clip }, svg("rect", { x: LEFT - 2, y: 0, width: inner + 4, height: bottom + 4 })));
    const group = svg("g", { "clip-path": `url(#${clip})` });
    for (const line of this.lines) {
      const d = linePath(line.log.numbers, line.values, this.x, this.y, from, to, inner);
      group.append(svg("path", { d, class: `line c${line.colour} d${line.dash}` }));
    }
    for (const frame of this.marks) {
      const line = this.lines.find((l) => l.log === this.app.worst.of && l.column === this.app.worst.column);
      const value = line ? line.log.at(line.column, frame) : NaN;
      if (Number.isFinite(value)) group.append(svg("circle", { class: "mark", cx: this.x(frame), cy: this.y(value), r: 5 }));
    }
    this.cursor = svg("line", { class: "cursor", y1: TOP, y2: bottom });
    group.append(this.cursor);
    for (const line of this.lines) group.append((line.dot = svg("circle", { class: `dot f${line.colour}`, r: 4 })));
    parts.push(group);
    if (this.empty) parts.push(svg("text", { x: LEFT + inner / 2, y: height / 2, "text-anchor": "middle" }, "no number in this column"));
    this.plot.replaceChildren(...parts);
    this.point(this.app.shown);
  }

  point(frame) {
    if (!this.cursor) return;
    const at = this.x(frame);
    this.cursor.setAttribute("x1", at);
    this.cursor.setAttribute("x2", at);
    const said = [];
    for (const line of this.lines) {
      const value = line.log.at(line.column, frame);
      line.value.textContent = format(value);
      said.push(`${line.name} ${format(value)}`);
      line.dot.setAttribute("visibility", Number.isFinite(value) ? "visible" : "hidden");
      if (!Number.isFinite(value)) continue;
      line.dot.setAttribute("cx", at);
      line.dot.setAttribute("cy", this.y(value));
    }
    this.plot.setAttribute("aria-valuenow", frame);
    this.plot.setAttribute("aria-valuetext", `frame ${frame}: ${said.join(", ")}`);
  }
}
