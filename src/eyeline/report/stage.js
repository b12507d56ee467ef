// The stage: pictures with their maps, the scrubber and the keys.

const uri = (track, at) => (app.media.tracks[track] && app.media.tracks[track][at] ? `data:image/webp;base64,${app.media.tracks[track][at]}` : "");
const views = [];

function setImage(image, source) {
  image.hidden = !source;
  if (source) image.src = source;
  else image.removeAttribute("src");
}

function picture(track, heat, at, alt) {
  const box = el("div", { class: "picture" });
  box.style.aspectRatio = `${app.media.width} / ${app.media.height}`;
  const image = el("img", { alt });
  box.append(image);
  setImage(image, uri(track, at));
  let layer = null;
  if (heat && app.media.tracks.heat) {
    layer = el("canvas", { class: "heat", width: app.media.width, height: app.media.height, "aria-hidden": "true" });
    box.append(layer);
    paintHeat(layer, at);
  }
  return { box, image, layer };
}

// Colours a grey map as the overlay video has it, with the line at .5. A map that is decoded after
// another one was asked for is dropped.
async function paintHeat(canvas, at) {
  if (canvas.dataset.at === String(at)) return;
  canvas.dataset.at = at;
  const pen = canvas.getContext("2d", { willReadFrequently: true }), { width, height } = canvas;
  const source = uri("heat", at);
  if (!source) { pen.clearRect(0, 0, width, height); return; }
  const map = new Image();
  map.src = source;
  await map.decode();
  if (canvas.dataset.at !== String(at)) return;
  pen.clearRect(0, 0, width, height);
  pen.drawImage(map, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height), out = new Uint32Array(pixels.data.buffer);
  const levels = new Uint8Array(out.length), { level } = app.media.heat;
  for (let i = 0; i < out.length; i++) levels[i] = pixels.data[4 * i];
  for (let i = 0, x = 0; i < out.length; i++, x = x + 1 === width ? 0 : x + 1) {
    const inside = levels[i] >= level;
    const edge = inside && ((x > 0 && levels[i - 1] < level) || (x + 1 < width && levels[i + 1] < level)
      || (i >= width && levels[i - width] < level) || (i + width < out.length && levels[i + width] < level));
    out[i] = edge ? app.contour : app.ramp[levels[i]];
  }
  pen.putImageData(pixels, 0, 0);
}

function scale({ stops, marks }, label, kind) {
  const ramp = el("div", { class: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${stops.map(([at, colour]) => `${colour} ${at * 100}%`).join(", ")})`;
  for (const [at, text] of marks) {
    const mark = el("span", {}, text);
    mark.style.left = `${at * 100}%`;
    ramp.append(mark);
  }
  return el("div", { class: `scale ${kind}`, role: "img", "aria-label": label }, ramp);
}

function buildPanes() {
  const bench = byId("bench");
  if (!app.media) { bench.classList.add("bare"); return; }
  bench.classList.add(app.media.panes.length > 1 ? "many" : "one");
  app.ramp = unpack(app.media.heat.ramp, Uint32Array);
  app.contour = new Uint32Array(new Uint8Array(app.media.heat.contour).buffer)[0];
  for (const pane of app.media.panes) {
    const view = picture(pane.track, pane.heat, 0, `${pane.title}: the frame shown`);
    const caption = el("figcaption", {}, el("b", {}, pane.title), el("span", { class: "name", title: pane.name }, pane.name));
    if (pane.track === "error") caption.append(scale(app.media.error, "Scale of the error: 0 to 64 levels of 255, by square root", ""));
    else if (view.layer) caption.append(scale(app.media.heat, "Scale of the heat: 0 to 1", "heat"));
    views.push({ ...view, pane, figure: el("figure", { class: "pane" }, view.box, caption) });
  }
  byId("panes").append(...views.map((view) => view.figure));
  byId("panes").classList.toggle("all", views.length > 1);
}

function showPicture(frame) {
  if (!app.media) return;
  const frames = app.media.frames;
  const at = Math.max(0, lowerBound(frames, frame + 1) - 1);
  for (const { image, layer, pane } of views) {
    setImage(image, uri(pane.track, at));
    image.alt = `${pane.title}, frame ${frames[at]}`;
    if (layer) paintHeat(layer, at);
  }
  const { width, height, every, megabytes, maps, source } = app.media;
  const size = width === source[0] && height === source[1] ? `${width}×${height}` : `${width}×${height} of ${source[0]}×${source[1]}`;
  const which = every > 1 ? `one for every ${every} frames and for those picked out` : "one a frame";
  const other = frames[at] === frame ? "" : ` Shown: frame ${frames[at]}.`;
  byId("media-note").textContent = `Pictures ${size}, ${which}, ${megabytes.toFixed(1)} MB${maps ? `; ${maps}` : ""}.${other}`;
}

function choosePane(which) {
  byId("panes").classList.toggle("all", which === "all");
  for (const view of views) view.figure.hidden = which !== "all" && which !== view.pane.track;
}

// Transport ----------------------------------------------------------------------------------

const ICONS = { back: "M10 2v10L3 7z", play: "M3 1l10 6-10 6z", pause: "M3 1h3v12H3zM8 1h3v12H8z", next: "M4 2l7 5-7 5z" };
const icon = (name) => svg("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));

function button(label, content, action) {
  const node = el("button", { type: "button", "aria-label": label, title: label }, content);
  node.addEventListener("click", action);
  return node;
}

const slider = el("input", { type: "range", min: app.first, max: app.last, step: 1, value: app.first, "aria-label": "Frame" });
const readout = el("div", { class: "readout" });
const buttons = {
  back: button("Previous frame", icon("back"), () => move(-1)),
  play: button("Play", icon("play"), () => play(!app.playing)),
  next: button("Next frame", icon("next"), () => move(1)),
  in: button("Zoom in", "+", () => app.zoom(0.5)),
  out: button("Zoom out", "−", () => app.zoom(2)),
  all: button("Whole clip", "All", () => app.zoomTo(app.first, app.last)),
};

function move(by) {
  play(false);
  app.pin(app.step(app.pinned, by));
}

function play(on) {
  if (Boolean(app.playing) === on) return;
  buttons.play.replaceChildren(icon(on ? "pause" : "play"));
  for (const name of ["aria-label", "title"]) buttons.play.setAttribute(name, on ? "Pause" : "Play");
  if (!on) { cancelAnimationFrame(app.playing.request); app.playing = null; return; }
  const rate = Math.min(app.logs[0].fps || (app.media && app.media.fps) || 25, 120);
  if (app.pinned >= app.last) app.pin(app.first);
  app.playing = { since: performance.now(), done: 0, request: 0 };
  const tick = (now) => {
    const due = Math.floor(((now - app.playing.since) / 1000) * rate) - app.playing.done;
    if (due > 0) { app.playing.done += due; app.pin(app.step(app.pinned, Math.min(due, 30))); }
    if (app.pinned >= app.last) { play(false); return; }
    app.playing.request = requestAnimationFrame(tick);
  };
  app.playing.request = requestAnimationFrame(tick);
}

function setHeat(on) {
  byId("panes").classList.toggle("no-heat", !on);
  byId("worst").classList.toggle("no-heat", !on);
}

function buildTransport() {
  slider.addEventListener("input", () => { play(false); app.pin(Number(slider.value)); });
  const tools = el("div", { class: "buttons" });
  if (views.length > 1) {
    const choice = el("div", { class: "choice", role: "radiogroup", "aria-label": "Picture" });
    for (const [which, text] of [["all", "All"], ...views.map((v) => [v.pane.track, v.pane.title])]) {
      const input = el("input", { type: "radio", name: "pane", value: which });
      input.addEventListener("change", () => choosePane(which));
      choice.append(el("label", {}, input, el("span", {}, text)));
      if (which === (matchMedia("(max-width: 619.9px)").matches ? "distorted" : "all")) { input.checked = true; choosePane(which); }
    }
    tools.append(choice);
  }
  if (app.media && app.media.tracks.heat) {
    const box = el("input", { type: "checkbox", id: "heat" });
    box.checked = true;
    box.addEventListener("change", () => setHeat(box.checked));
    tools.append(el("label", { class: "check" }, box, "Heat"));
  }
  const row = el("div", { class: "row" }, readout);
  if (tools.children.length) row.append(tools);
  byId("transport").append(el("div", { class: "buttons" }, buttons.back, buttons.play, buttons.next), slider, row);
  byId("zoom").append(buttons.in, buttons.out, buttons.all);
  if (app.first === app.last) for (const node of [slider, ...Object.values(buttons)]) node.disabled = true;
}

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest(".scroll") || target.type === "radio") return;
  const range = target === slider;
  const page = Math.max(1, Math.round((app.view[1] - app.view[0]) / 10));
  const steps = { ArrowLeft: event.shiftKey ? -10 : -1, ArrowRight: event.shiftKey ? 10 : 1 };
  const jumps = { Home: () => app.first, End: () => app.last, PageUp: () => app.pinned - page, PageDown: () => app.pinned + page };
  const onPlot = range || target.classList.contains("plot");
  if (event.key in steps) move(steps[event.key]);
  else if (event.key in jumps && onPlot) { play(false); app.pin(jumps[event.key]()); }
  else if (event.key === " " && (onPlot || target === document.body)) play(!app.playing);
  else if (event.key === "+" || event.key === "=") app.zoom(0.5);
  else if (event.key === "-") app.zoom(2);
  else if (event.key === "0") app.zoomTo(app.first, app.last);
  else if (event.key.toLowerCase() === "h" && byId("heat")) byId("heat").click();
  else return;
  event.preventDefault();
});
