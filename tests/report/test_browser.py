"""The page as people use it, in headless Chromium. `open_page` checks that nothing is fetched and
that the console stays silent."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clips import picture, write_clip
from eyeline.report import PageOptions, write_report
from eyeline.report._pictures import MediaOptions
from report_pages import FRAMES, HEIGHT, STEP, WIDTH, MakeLog, Open

BRIGHT = """(track) => {
  const image = views.find((v) => v.pane.track === track).image;
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const { data, width, height } = pen.getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0, count = 0;
  for (let i = 0; i < width * height; i++) if (data[4 * i] > 180) { sum += i % width; count++; }
  return { centre: sum / count, count, width, height };
}"""
DECODED = "Promise.all([...document.querySelectorAll('#panes img')].map((i) => i.decode()))"


@pytest.fixture
def single(saliency_log: Path, clip: Path, tmp_path: Path) -> Path:
    out = tmp_path / "page.html"
    write_report([str(saliency_log)], str(out), PageOptions(media=MediaOptions(str(clip))))
    return out


@pytest.fixture
def pair(scores: Path, clip: Path, distorted: Path, tmp_path: Path) -> Path:
    out = tmp_path / "pair.html"
    media = MediaOptions(str(clip), str(distorted), model="saliency_student_v3")
    write_report([str(scores)], str(out), PageOptions(media=media))
    return out


def plain(tmp_path: Path, *logs: Path, **options: Any) -> Path:
    out = tmp_path / "plain.html"
    write_report([str(log) for log in logs], str(out), PageOptions(**options))
    return out


def bright(page: Any, track: str = "picture") -> float:
    page.evaluate(DECODED)
    found = page.evaluate(BRIGHT, track)
    assert (found["width"], found["height"]) == (WIDTH, HEIGHT)
    assert found["count"] > 500
    return found["centre"]


PAINTED = """(() => { const c = document.querySelector('#panes canvas');
  return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v); })()"""
PIXELS = "document.querySelector('#panes canvas').toDataURL()"


def settle(page: Any) -> None:
    """Wait until what was changed is laid out and drawn: two pictures of the window."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def set_frame(page: Any, frame: int) -> None:
    page.get_by_label("Frame", exact=True).fill(str(frame))


def test_the_scrubber_moves_the_picture(single: Path, open_page: Open) -> None:
    page = open_page(single).page
    for frame in (0, 4, 11):
        set_frame(page, frame)
        assert bright(page) == pytest.approx(8 + STEP * frame + 15.5, abs=1.5)
        assert f"Frame {frame} " in page.locator(".readout").inner_text()


def test_the_scrubber_moves_the_charts_cursor(single: Path, open_page: Open) -> None:
    page = open_page(single).page
    found = []
    for frame in (0, FRAMES - 1):
        set_frame(page, frame)
        found.append({float(c.get_attribute("x1")) for c in page.locator(".cursor").all()})
        assert len(found[-1]) == 1  # every chart at the same place
    assert found[1].pop() - found[0].pop() > 400


def test_the_heat_changes_with_the_frame_and_can_be_hidden(single: Path, open_page: Open) -> None:
    opened = open_page(single)
    page = opened.page
    opened.wait(PAINTED)
    first = page.evaluate(PIXELS)
    set_frame(page, 10)
    opened.wait(f"{PIXELS} !== {json.dumps(first)}")
    page.keyboard.press("h")
    assert not page.locator("#panes canvas").is_visible()


def test_the_heat_has_the_overlays_colours(single: Path, open_page: Open) -> None:
    from eyeline.saliency.overlay import CONTOUR, ramp

    opened = open_page(single)
    page = opened.page
    opened.wait(PAINTED)
    script = """() => { const c = document.querySelector('#panes canvas');
      return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""
    shown = np.array(page.evaluate(script)).reshape(-1, 4)
    known = np.vstack([ramp().view(np.uint8).reshape(256, 4), CONTOUR]).astype(int)
    # A canvas keeps colours multiplied by their opacity: two levels are lost on the way.
    apart = np.abs(np.unique(shown, axis=0)[:, None] - known[None]).max(-1).min(1)
    assert apart.max() <= 3


def test_every_chart_has_a_line_that_spans_it(single: Path, open_page: Open) -> None:
    page = open_page(single).page
    plots = page.locator("#panels .plot")
    assert plots.count() == 6
    for plot in plots.all():
        width = plot.bounding_box()["width"]
        d = plot.locator("path.line").first.get_attribute("d")
        xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", d)]
        assert len(xs) == FRAMES
        assert xs[0] < 60
        assert xs[-1] > width - 20


def test_a_line_has_the_logs_shape(make_log: MakeLog, tmp_path: Path, open_page: Open) -> None:
    page = open_page(plain(tmp_path, make_log(vmaf=[10, 30, 20, 40]))).page
    d = page.locator("path.line").nth(1).get_attribute("d")  # the first is the legend's
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", d)]
    assert (ys[0] - ys[2]) / (ys[0] - ys[3]) == pytest.approx(1 / 3, abs=0.01)
    assert ys[3] < ys[1] < ys[2] < ys[0]


def test_pointing_looks_and_clicking_stays(single: Path, open_page: Open) -> None:
    page = open_page(single).page
    set_frame(page, 2)
    plot = page.locator(".plot").first
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 40)
    assert f"Frame {FRAMES - 1} " in page.locator(".readout").inner_text()
    assert bright(page) > 100
    page.mouse.move(5, 5)
    assert "Frame 2 " in page.locator(".readout").inner_text()
    plot.click(position={"x": box["width"] - 12, "y": 40})
    page.mouse.move(5, 5)
    assert f"Frame {FRAMES - 1} " in page.locator(".readout").inner_text()


def test_keys_step_jump_and_stop_at_the_ends(single: Path, open_page: Open) -> None:
    page = open_page(single).page

    def at() -> int:
        return int(page.get_by_label("Frame", exact=True).input_value())

    set_frame(page, 3)
    page.locator("body").click(position={"x": 5, "y": 5})
    for key, expected in (
        ("ArrowRight", 4),
        ("ArrowLeft", 3),
        ("Shift+ArrowRight", 13),
        ("ArrowRight", 13),
    ):
        page.keyboard.press(key)
        assert at() == expected
    page.locator(".plot").first.focus()
    page.keyboard.press("Home")
    assert at() == 0
    page.keyboard.press("End")
    assert at() == FRAMES - 1
    assert f"frame {FRAMES - 1}" in page.locator(".plot").first.get_attribute("aria-valuetext")


def test_space_plays_to_the_end(single: Path, open_page: Open) -> None:
    opened = open_page(single)
    set_frame(opened.page, FRAMES - 4)
    opened.page.locator("body").click(position={"x": 5, "y": 5})
    opened.page.keyboard.press("Space")
    opened.wait(f"app.pinned === {FRAMES - 1} && !app.playing")


def test_zoom_keeps_the_frame_in_view(make_log: MakeLog, tmp_path: Path, open_page: Open) -> None:
    page = open_page(plain(tmp_path, make_log(vmaf=np.arange(1000)))).page
    set_frame(page, 700)
    for _ in range(4):
        page.get_by_label("Zoom in").click()
    low, high = page.evaluate("app.view")
    assert low < 700 < high
    assert high - low < 80
    page.get_by_label("Whole clip").click()
    assert page.evaluate("app.view") == [0, 999]


def test_everything_is_reached_by_tab_and_has_a_name(pair: Path, open_page: Open) -> None:
    page = open_page(pair).page
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                """() => { const e = document.activeElement;
                return [e.tagName, e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
                  || e.innerText || (e.labels && e.labels[0] && e.labels[0].innerText)
                  || e.textContent]; }"""
            )
        )
        if seen[-1][0] == "BODY":
            break
    assert all(name.strip() for tag, name in seen if tag != "BODY")
    names = [name for _, name in seen]
    order = ["Skip to the charts", "Previous frame", "Frame", "Zoom in", "vmaf over frames"]
    assert [n for n in names if n in order] == order
    assert sum(tag == "BUTTON" and "vmaf" in name for tag, name in seen) >= 2  # the picked frames


def test_a_pair_shows_three_pictures_and_picks_one(pair: Path, open_page: Open) -> None:
    page = open_page(pair).page
    figures = page.locator("#panes figure:visible figcaption b")
    assert figures.all_inner_texts() == ["Reference", "Distorted", "Error"]
    page.get_by_text("Error", exact=True).last.click()
    assert figures.all_inner_texts() == ["Error"]


def test_the_error_map_lights_up_where_the_noise_is(pair: Path, open_page: Open) -> None:
    page = open_page(pair).page
    set_frame(page, 0)
    page.evaluate(DECODED)
    script = """() => { const i = views[2].image, c = document.createElement("canvas");
      c.width = i.naturalWidth; c.height = i.naturalHeight;
      const p = c.getContext("2d"); p.drawImage(i, 0, 0);
      return [c.width, ...p.getImageData(0, 0, c.width, c.height).data]; }"""
    width, *values = page.evaluate(script)
    green = np.array(values).reshape(-1, width, 4)[..., 1]
    assert green[:, width // 2 + 1 :].mean() > 2 * green[:, : width // 2 - 1].mean()


def test_the_worst_frame_is_first_and_shown(pair: Path, open_page: Open) -> None:
    page = open_page(pair).page
    assert "lowest sw_vmaf" in page.locator("#worst-title").inner_text()
    first = page.locator(".card").first
    assert "48.00" in first.inner_text()
    assert "frame 9" in first.inner_text()
    set_frame(page, 0)
    first.click()
    assert "Frame 9 " in page.locator(".readout").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (768, 1024), (1440, 900)])
def test_nothing_sticks_out(
    pair: Path, open_page: Open, size: tuple[int, int], scheme: str
) -> None:
    page = open_page(pair, size, scheme).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]


def test_an_upright_clip_leaves_room_for_the_charts(
    make_log: MakeLog, tmp_path: Path, open_page: Open
) -> None:
    frames = [picture(np.full((320, 96, 3), 30 * i, np.uint8)) for i in range(4)]
    clip = write_clip(tmp_path / "upright.mp4", frames)
    out = tmp_path / "upright.html"
    media = MediaOptions(str(clip), heat=False)
    write_report([str(make_log(vmaf=[1, 2, 3, 4]))], str(out), PageOptions(media=media))
    page = open_page(out, (390, 844)).page
    assert page.locator("#stage").bounding_box()["height"] < 844 * 0.65


CONTRAST = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05); };
  const out = [];
  for (const e of document.querySelectorAll("body *")) {
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    if (!box.width || e.disabled || e.tagName === "SCRIPT") continue;
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const drawn = e instanceof SVGElement;
    const ink = own ? (drawn ? style.fill : style.color) : style.stroke;
    if (own) out.push([ratio(parse(ink), behind(e)), 4.5, e.textContent.slice(0, 40)]);
    else if (e.classList.contains("line")) out.push([ratio(parse(ink), behind(e)), 3, "line"]);
  }
  return out;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_can_be_read(
    make_log: MakeLog, tmp_path: Path, open_page: Open, scheme: str
) -> None:
    """WCAG 2.2: 4.5 for text, 3 for what is drawn (success criteria 1.4.3 and 1.4.11)."""
    logs = [
        make_log(f"{i}.json", {"smoke": True}, vmaf=np.arange(20) + i, odd=np.arange(20.0))
        for i in range(8)
    ]
    page = open_page(plain(tmp_path, *logs), scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    settle(page)
    found = page.evaluate(CONTRAST)
    assert sum(what == "line" for _, _, what in found) >= 8
    assert len(found) > 100
    assert not [f for f in found if f[0] < f[1]]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")


HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1"><!--<script>'
)


def test_hostile_names_are_text(make_log: MakeLog, tmp_path: Path, open_page: Open) -> None:
    log = tmp_path / "<img src=x onerror=hacked=1>&quot;.json"
    frames = [
        {"frameNum": i, "metrics": {HOSTILE: i, "__proto__": 1, "vmaf": 5}} for i in range(12)
    ]
    provenance = {
        HOSTILE: HOSTILE,
        "model": HOSTILE,
        "options": {HOSTILE: [HOSTILE]},
        "cuts": [HOSTILE],
    }
    log.write_text(json.dumps({"frames": frames, "provenance": provenance, "fps": 25}))
    inherited = make_log("second.json", constructor=np.arange(12), toString=np.arange(12))
    page = open_page(plain(tmp_path, log, inherited, title=HOSTILE)).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    settle(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.title() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert HOSTILE in page.locator("#more h3").all_inner_texts()


def test_the_policy_forbids_every_way_out(make_log: MakeLog, tmp_path: Path, browser: Any) -> None:
    path = plain(tmp_path, make_log(vmaf=[1, 2]))
    page = browser.new_page()
    page.goto(path.as_uri())
    tries = """async () => {
      const broken = [];
      document.addEventListener("securitypolicyviolation", (e) => broken.push(e.effectiveDirective));
      await fetch("http://127.0.0.1:9/a").catch(() => 0);
      const add = (tag, set) => document.body.append(Object.assign(document.createElement(tag), set));
      add("img", { src: "http://127.0.0.1:9/b.png" });
      add("script", { textContent: "window.hacked = 1" });
      add("iframe", { src: "http://127.0.0.1:9/c" });
      add("style", { textContent: "body { display: none }" });
      for (let i = 0; i < 1000 && new Set(broken).size < 5; i++)
        await new Promise((done) => setTimeout(done, 20));
      return [broken.sort(), window.hacked, getComputedStyle(document.body).display];
    }"""
    broken, hacked, display = page.evaluate(tries)
    page.close()
    assert {"connect-src", "img-src", "script-src-elem", "frame-src", "style-src-elem"} <= set(
        broken
    )
    assert hacked is None
    assert display == "block"


def test_values_that_are_none(make_log: MakeLog, tmp_path: Path, open_page: Open) -> None:
    nan, inf = float("nan"), float("inf")
    log = make_log(
        "v.csv",
        vmaf=[1, nan, 3, 4, nan, nan, 7, 8],
        psnr_y=[inf, 40, -inf, 41, 42, 43, 44, 45],
        ssim=[nan] * 8,
    )
    page = open_page(plain(tmp_path, log)).page
    vmaf = page.locator("[data-panel=vmaf] .plot path.line").get_attribute("d")
    assert vmaf.count("M") == 3  # a gap is no line
    assert "2 values are infinite" in page.locator("[data-panel=psnr_y]").inner_text()
    assert "no number" in page.locator("[data-panel=ssim]").text_content()
    rows = page.locator("#pooled tbody tr").all_inner_texts()
    assert "3 without a value" in rows[0]
    assert "–" in rows[0]


def test_one_frame(make_log: MakeLog, tmp_path: Path, open_page: Open) -> None:
    page = open_page(plain(tmp_path, make_log(vmaf=[77.5]))).page
    assert page.locator(".dot").first.is_visible()
    assert page.locator(".legend b").first.inner_text() == "77.50"
    assert page.get_by_label("Frame", exact=True).is_disabled()


def test_several_logs_share_a_chart(make_log: MakeLog, tmp_path: Path, open_page: Open) -> None:
    logs = [
        make_log("a.json", vmaf=np.arange(30)),
        make_log("b.json", vmaf=np.arange(50), psnr_y=np.arange(50)),
    ]
    page = open_page(plain(tmp_path, *logs)).page
    legend = page.locator("[data-panel=vmaf] .legend span").all_inner_texts()
    assert legend == ["a.json", "b.json"]
    set_frame(page, 40)
    values = page.locator("[data-panel=vmaf] .legend b").all_inner_texts()
    assert values == ["–", "40.00"]
    ends = [
        float(re.findall(r"[ML]([\d.]+) ", p.get_attribute("d"))[-1])
        for p in page.locator("[data-panel=vmaf] .plot path.line").all()
    ]
    assert ends[0] < ends[1] - 100


def test_100000_frames_stay_quick(make_log: MakeLog, tmp_path: Path, open_page: Open) -> None:
    x = np.random.default_rng(0).normal(90, 2, 100_000)
    x[61_234] = 10.0  # one bad frame among 100,000 must be seen
    path = plain(tmp_path, make_log("long.csv", vmaf=x, sw_vmaf=x - 1, psnr_y=x / 2))
    assert path.stat().st_size < 4_500_000
    page = open_page(path).page
    chart = page.locator("[data-panel=vmaf] .plot")
    d = chart.locator("path.line").first.get_attribute("d")
    assert d.count("L") + d.count("M") < 5 * chart.bounding_box()["width"]
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", d)]
    assert max(ys) > 95  # of 108 from the top: the dip is drawn
    timed = """() => Math.min(...Array.from({ length: 20 }, (_, i) => {
      const start = performance.now();
      app.pin(i * 5000); app.zoom(i % 2 ? 2 : 0.5);
      return performance.now() - start; }))"""
    assert page.evaluate(timed) < 250  # ms for a step and a zoom of all charts, on a busy machine
