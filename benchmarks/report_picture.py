"""Make the picture of docs/report.md: `python benchmarks/report_picture.py build docs/images/report.jpg`.

The script draws a clip, encodes it at CRF 42, scores it with libvmaf, runs the default model on it,
and makes the report. It opens the report in a window of desktop size and in one of phone size. It
needs the extra `vmaf`, playwright, and Chromium on the path.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from playwright.sync_api import Browser, sync_playwright

import demo_clip
from eyeline.report import MediaOptions, PageOptions, write_report
from eyeline.saliency.pipeline import Outputs, extract, run_extraction

WINDOWS = (((1440, 900), "light"), ((390, 844), "dark"))
HEIGHT = 720


def make_page(folder: Path) -> Path:
    """Make the clip, the distorted clip, the logs and the page in `folder`."""
    ref, dist = folder / "demo.mp4", folder / "demo_crf42.mp4"
    vmaf, both, page = folder / "vmaf.json", folder / "both.json", folder / "report.html"
    demo_clip.write_clip(str(ref))
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y"]
    code = ["-i", str(ref), "-c:v", "libx264", "-crf", "42", "-preset", "veryfast", str(dist)]
    subprocess.run([*ffmpeg, *code], check=True)
    graph = f"libvmaf=log_fmt=json:log_path={vmaf}:feature=name=psnr|name=float_ssim"
    score = ["-i", str(dist), "-i", str(ref), "-lavfi", graph, "-f", "null", "-"]
    subprocess.run([*ffmpeg, *score], check=True)
    run_extraction(extract(str(ref)), Outputs(logs=(str(both),), with_log=str(vmaf)))
    media = MediaOptions(str(ref), str(dist))
    write_report([str(both)], str(page), PageOptions(title="demo.mp4 at CRF 42", media=media))
    return page


def shoot(browser: Browser, page: Path, size: tuple[int, int], scheme: str) -> np.ndarray:
    """Return a picture of the page in a window, uint8 (HEIGHT, w, 3)."""
    window = browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, device_scale_factor=1
    )
    window.goto(page.resolve().as_uri())
    window.wait_for_timeout(800)
    shot = page.with_suffix(f".{size[0]}.png")
    window.screenshot(path=shot)
    window.close()
    with av.open(str(shot)) as container:
        frame = next(container.decode(video=0))
    width = round(size[0] * HEIGHT / size[1]) & ~1
    scaled = frame.reformat(width, HEIGHT, format="rgb24", interpolation="AREA")
    return scaled.to_ndarray()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder for the clips and the page")
    parser.add_argument("picture", help="path of the JPEG")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    page = make_page(arguments.folder)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        shots = [shoot(browser, page, size, scheme) for size, scheme in WINDOWS]
        browser.close()
    gap = np.full((HEIGHT, 16, 3), 255, np.uint8)
    whole = np.ascontiguousarray(np.hstack([shots[0], gap, shots[1]]))
    frame = av.VideoFrame.from_ndarray(whole, "rgb24").reformat(format="yuvj444p")
    with av.open(arguments.picture, "w", format="image2", options={"update": "1"}) as out:
        stream = out.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuvj444p"
        stream.options = {"qmin": "4", "qmax": "4"}
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


if __name__ == "__main__":
    main()
