// What the page knows: the logs, the frame shown, the stretch in view. Reads the data block once.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

class Log {
  constructor(raw) {
    Object.assign(this, raw);
    this.numbers = unpack(raw.numbers, Float64Array);
    this.times = raw.times ? unpack(raw.times, Float64Array) : null;
    this.unpacked = new Map();
  }
  values(column) {
    if (!this.unpacked.has(column)) this.unpacked.set(column, unpack(this.series[column], Float32Array));
    return this.unpacked.get(column);
  }
  has(column) { return Object.hasOwn(this.series, column); }
  row(frame) {
    const at = lowerBound(this.numbers, frame);
    return this.numbers[at] === frame ? at : -1;
  }
  at(column, frame) {
    const row = this.row(frame);
    return row < 0 || !this.has(column) ? NaN : this.values(column)[row];
  }
}

const app = {
  logs: data.logs.map((raw) => new Log(raw)),
  media: data.media,
  charts: [],
  serial: 0,
  playing: null,
};
app.first = Math.min(...app.logs.map((log) => log.numbers[0]));
app.last = Math.max(...app.logs.map((log) => log.numbers[log.numbers.length - 1]));
app.view = [app.first, app.last];
app.pinned = app.shown = app.first;
app.cuts = [...new Set(app.logs.flatMap((log) => log.cuts))];
app.worst = data.worst && { ...data.worst, of: app.logs[data.worst.log] };

// The frame nearest to a number that some log holds.
app.snap = (frame) => app.logs.map((log) => log.numbers[nearest(log.numbers, frame)])
  .reduce((best, found) => (Math.abs(found - frame) < Math.abs(best - frame) ? found : best));

app.step = (from, by) => {
  let frame = from;
  for (let i = 0; i < Math.abs(by); i++) {
    const next = app.logs.map((log) => log.numbers[lowerBound(log.numbers, by > 0 ? frame + 1 : frame) - (by > 0 ? 0 : 1)])
      .filter((n) => n !== undefined);
    if (!next.length) break;
    frame = by > 0 ? Math.min(...next) : Math.max(...next);
  }
  return frame;
};

app.pin = (frame) => {
  app.pinned = app.snap(frame);
  app.show(app.pinned);
  const [from, to] = app.view;
  if (app.pinned < from || app.pinned > to) {
    const half = (to - from) / 2;
    app.zoomTo(app.pinned - half, app.pinned + half);
  }
};

// A frame looked at in passing; null goes back to the one that was chosen.
app.look = (frame) => { if (!app.playing) app.show(frame === null ? app.pinned : app.snap(frame)); };

app.show = (frame) => {
  if (app.shown === frame && app.ready) return;
  app.shown = frame;
  app.ready = true;
  for (const chart of app.charts) chart.point(frame);
  showPicture(frame);
  slider.value = frame;
  const log = app.logs.find((l) => l.row(frame) >= 0) || app.logs[0];
  const seconds = log.times && log.row(frame) >= 0 ? log.times[log.row(frame)] : NaN;
  const time = Number.isFinite(seconds) ? ` · ${seconds.toFixed(3)} s` : "";
  slider.setAttribute("aria-valuetext", `frame ${frame}${time}`);
  readout.replaceChildren(`Frame ${frame}`, el("span", {}, ` of ${app.first}–${app.last}${time}`));
};

app.zoomTo = (from, to) => {
  const span = Math.min(app.last - app.first, Math.max(Math.min(8, app.last - app.first), to - from));
  const start = Math.min(Math.max(app.first, from), app.last - span);
  app.view = [Math.round(start), Math.round(start + span)];
  buttons.all.disabled = buttons.out.disabled = app.view[0] <= app.first && app.view[1] >= app.last;
  buttons.in.disabled = app.view[1] - app.view[0] <= 8;
  for (const chart of app.charts) chart.draw();
};

app.zoom = (factor) => {
  const [from, to] = app.view, span = (to - from) * factor;
  const share = to > from ? (app.pinned - from) / (to - from) : 0.5;
  app.zoomTo(app.pinned - span * share, app.pinned - span * share + span);
};
