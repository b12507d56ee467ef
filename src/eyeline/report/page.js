// The page around the stage: head, charts, picked frames, tables, provenance. Then the first frame.

function buildHead() {
  byId("title").textContent = data.title;
  const frames = app.logs.map((log) => log.frames);
  const log = app.logs[0], seconds = log.times ? log.times[log.times.length - 1] - log.times[0] : NaN;
  const parts = [`${Math.max(...frames).toLocaleString("en")} frame${Math.max(...frames) === 1 ? "" : "s"}`];
  if (new Set(frames).size > 1) parts[0] = `${app.logs.length} logs of ${frames.map((n) => n.toLocaleString("en")).join(", ")} frames`;
  if (seconds > 0) parts.push(`${seconds.toFixed(1)} s`);
  if (log.fps > 0) parts.push(`${Number(log.fps.toFixed(3))} frames/s`);
  const made = log.provenance;
  if (typeof made.model === "string") parts.push(`model ${made.model}`);
  byId("summary").textContent = parts.join(" · ");
  const notices = app.logs.flatMap((l) => l.notices.map((text) => (app.logs.length > 1 ? `${l.name}: ${text}` : text)));
  byId("notices").hidden = !notices.length;
  byId("notices").append(...notices.map((text) => el("li", {}, text)));
  const columns = data.panels[0].columns;
  const head = data.pooled.filter((r) => (app.logs.length > 1 ? columns.includes(r.column) : r.main));
  for (const row of head.slice(0, app.logs.length > 1 ? 8 : 4)) {
    const name = app.logs.length > 1 ? `${row.column} · ${app.logs[row.log].name}` : row.column;
    const span = row.low === null ? "no interval" : `${format(row.low)} to ${format(row.high)}`;
    byId("tiles").append(el("div", { class: "tile" }, el("p", { class: "what" }, name), el("p", { class: "big" }, format(row.mean)), el("p", { class: "span" }, span)));
  }
  byId("tiles-note").textContent = head.length ? "Means over the clip, with 95 % intervals." : "";
  byId("made").textContent = `Made by eyeline ${data.eyeline}. This page holds all it shows and asks nothing of any network.`;
}

function buildCharts() {
  const more = byId("more"), hidden = data.panels.filter((panel) => !panel.main);
  const add = (panel, into) => {
    const chart = new Chart(panel, app, true);
    app.charts.push(chart);
    into.append(chart.node);
    new ResizeObserver(() => chart.draw()).observe(chart.plot);
  };
  for (const panel of data.panels) if (panel.main) add(panel, byId("panels"));
  const cuts = app.cuts.length;
  byId("cuts-note").textContent = cuts ? `Dashed: ${cuts} scene cut${cuts > 1 ? "s" : ""}.${app.worst ? " Circles: the frames picked out below." : ""}` : app.worst ? "Circles: the frames picked out below." : "";
  if (!hidden.length) return;
  more.hidden = false;
  more.querySelector("summary").textContent = `${hidden.length} more column${hidden.length > 1 ? "s" : ""}`;
  more.addEventListener("toggle", () => {
    const into = more.querySelector(".panels");
    if (more.open && !into.children.length) hidden.forEach((panel) => add(panel, into));
  });
}

function buildWorst() {
  if (!app.worst || !app.worst.frames.length) return;
  const { column, end, gap, frames, of } = app.worst;
  byId("worst").hidden = false;
  byId("worst-title").textContent = `Frames with the ${end} ${column}${app.logs.length > 1 ? ` in ${of.name}` : ""}`;
  byId("worst").querySelector(".note").textContent = gap > 1 ? `At least ${gap} frames apart, since neighbours look alike.` : "";
  for (const frame of frames) {
    const card = el("button", { type: "button", class: "card" });
    const at = app.media ? app.media.frames.indexOf(frame) : -1;
    if (at >= 0) {
      const tracks = app.media.tracks.distorted ? [["distorted", true], ["error", false]] : [["picture", true]];
      card.append(el("div", { class: "pair" }, ...tracks.map(([track, heat]) => picture(track, heat, at, "").box)));
    }
    const row = of.row(frame), seconds = of.times ? of.times[row] : NaN;
    const where = Number.isFinite(seconds) ? ` · ${seconds.toFixed(3)} s` : "";
    card.append(el("div", { class: "text" }, el("b", {}, `${column} ${format(of.at(column, frame))}`), el("span", {}, `frame ${frame}${where}`)));
    card.addEventListener("click", () => {
      play(false);
      app.pin(frame);
      byId("bench").scrollIntoView({ block: "start" });
    });
    byId("worst").querySelector(".cards").append(el("li", {}, card));
  }
}

function table(rows) {
  const many = app.logs.length > 1;
  const heads = ["Column", ...(many ? ["Log"] : []), "Mean", "95 % interval", "Harmonic mean", "Min", "5 %", "Median", "95 %", "Max", ...(many ? [`Less ${app.logs[0].name}`] : []), "Frames"];
  const head = el("tr", {}, ...heads.map((text, i) => el("th", { scope: "col", class: i === 0 || text === "Log" ? "left" : "" }, text)));
  const lines = rows.map((row) => {
    const cells = [el("th", { scope: "row", title: row.column }, row.column)];
    if (many) cells.push(el("td", { class: "left", title: app.logs[row.log].name }, app.logs[row.log].name));
    const span = row.low === null ? "–" : `${format(row.low)} to ${format(row.high)}`;
    for (const text of [format(row.mean), span, ...["harmonic_mean", "min", "p5", "p50", "p95", "max"].map((name) => format(row[name]))]) cells.push(el("td", {}, text));
    if (many) cells.push(el("td", {}, row.difference ? `${format(row.difference[0])} (${format(row.difference[1])} to ${format(row.difference[2])})` : "–"));
    const few = row.missing ? [el("span", { class: "few" }, ` (${row.missing} without a value)`)] : [];
    cells.push(el("td", {}, String(row.frames), ...few));
    return el("tr", {}, ...cells);
  });
  return el("table", {}, el("thead", {}, head), el("tbody", {}, ...lines));
}

function buildPooled() {
  const section = byId("pooled"), main = data.pooled.filter((row) => row.main), rest = data.pooled.filter((row) => !row.main);
  section.querySelector(".scroll").append(table(main));
  if (rest.length) {
    const more = byId("pooled-more");
    more.hidden = false;
    more.querySelector("summary").textContent = `${rest.length} more row${rest.length > 1 ? "s" : ""}`;
    more.querySelector(".scroll").append(table(rest));
  }
  const blocks = data.pooled.filter((row) => row.block !== null).map((row) => row.block);
  const { draws, least } = data.bootstrap, shortest = Math.min(...blocks), longest = Math.max(...blocks);
  const length = shortest === longest ? `${shortest}` : `${shortest} to ${longest}`;
  const how = blocks.length
    ? `95 % interval: percentiles of the mean over ${draws.toLocaleString("en")} redrawn clips, made of blocks of ${length} frames (circular block bootstrap, block length from the autocorrelation). It says how far the mean would move over other footage of this kind, and nothing of other clips or of viewers' opinions.`
    : `No interval: it takes ${least} frames, each with a value.`;
  const gaps = data.pooled.some((row) => row.missing) ? " A column with a frame that has no value is not pooled." : "";
  const less = data.pooled.some((row) => row.difference) ? " Differences are taken frame by frame, with intervals of the same kind." : "";
  section.querySelector(":scope > .note").textContent = how + less + gaps;
}

const spelt = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function buildProvenance() {
  const place = byId("provenance").querySelector("div");
  for (const log of app.logs) {
    const list = el("dl");
    const put = (name, value) => list.append(el("dt", {}, name), el("dd", {}, value));
    put("log sha256", el("span", { class: "mono" }, log.sha256));
    for (const [name, value] of Object.entries(log.provenance)) {
      const flat = typeof value !== "object" || value === null || Array.isArray(value);
      if (flat) put(name, spelt(value));
      else put(name, el("div", {}, ...Object.entries(value).map(([key, v]) => el("p", {}, `${key} `, el("code", {}, spelt(v))))));
    }
    const details = el("details", { class: "source" }, el("summary", {}, log.name), list);
    details.open = app.logs.length === 1;
    place.append(details);
  }
}

buildPanes();
buildTransport();
buildHead();
buildCharts();
buildWorst();
buildPooled();
buildProvenance();
app.zoomTo(app.first, app.last);
app.pin(app.worst && app.worst.frames.length ? app.worst.frames[0] : app.first);
