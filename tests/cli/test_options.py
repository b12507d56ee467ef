"""Options: records become flags, and texts become values or one clear error."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from eyeline.cli.options import (
    REQUIRED,
    ColourTagOptions,
    ModelChoice,
    RawVideo,
    SteeringOptions,
    argument,
    command,
    group,
    option,
    parse_frames,
    parse_numbers,
    parse_pairs,
    parse_size,
)
from eyeline.errors import UsageError


@dataclass(frozen=True)
class Size:
    panel: ClassVar = "Sizes"
    width: int = option(4, "--width", "-w", min=1, help="Width.")
    names: list[str] | None = option(None, "--name", help="Names.")


@dataclass(frozen=True)
class NamedSize(Size):
    kind: Literal["a", "b"] = option("a", help="Kind.")


def runs(function: Any, *words: str) -> Any:
    app = typer.Typer()
    app.command()(command("draw x")(function))
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "160", "NO_COLOR": "1"})


def draw(
    target: str = argument("TARGET", "What is drawn."),
    out: str = option(REQUIRED, "--out", help="File."),
    size: NamedSize = group(),
    loud: bool = option(False, "--loud", help="Be loud."),
) -> None:
    """Draw a target."""
    typer.echo(f"{target} {out} {size} {loud}")


def test_a_record_arrives_whole_with_its_defaults() -> None:
    assert runs(draw, "cat", "--out", "f").output == f"cat f {NamedSize()} False\n"


def test_flags_fill_the_fields_of_the_record() -> None:
    done = runs(
        draw, "cat", "--out", "f", "-w", "9", "--name", "x", "--name", "y", "--kind", "b", "--loud"
    )
    assert done.output == f"cat f {NamedSize(9, ['x', 'y'], 'b')} True\n"


@pytest.mark.parametrize(
    "words", [["cat"], ["cat", "--out", "f", "-w", "0"], ["cat", "--out", "f", "--kind", "c"]]
)
def test_typer_checks_what_a_field_allows(words: list[str]) -> None:
    assert runs(draw, *words).exit_code == 2


def test_help_has_panel_flags_and_examples() -> None:
    text = runs(draw, "--help").output
    for part in ("Sizes", "--width", "-w", "Draw a target.", "draw x", "[default: 4]"):
        assert part in text


def test_raw_video_takes_names_of_ffmpeg_and_of_libvmaf() -> None:
    tags = ColourTagOptions("bt709", "full")
    made = RawVideo(64, 48, "420", 10, "30000/1001").video_options(tags)
    assert (made.width, made.height, made.pix_fmt, made.fps) == (
        64, 48, "yuv420p10le", Fraction(30000, 1001),
    )  # fmt: skip
    assert (made.matrix, made.color_range) == ("bt709", "full")
    assert RawVideo(pix_fmt="422").video_options().pix_fmt == "yuv422p"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (RawVideo(pix_fmt="420", bitdepth=9), "8, 10, 12 or 16"),
        (RawVideo(bitdepth=10), "needs -p"),
        (RawVideo(fps="0/0"), "not a frame rate"),
        (RawVideo(fps="-1"), "above 0"),
        (RawVideo(fps="1e9"), "at most 100000"),
    ],
)
def test_a_wrong_layout_is_one_clear_error(raw: RawVideo, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        raw.video_options()


def test_steering_keeps_the_librarys_defaults() -> None:
    default = SteeringOptions().record()
    assert SteeringOptions(strength=2.0).record().strength == 2.0
    assert SteeringOptions(strength=2.0).record().levels == default.levels


def test_map_and_ready_maps_exclude_each_other() -> None:
    ModelChoice(None, None, None).refuse_ready_maps(maps="m.npz")
    with pytest.raises(UsageError, match=r"--map gaze .* --masks m/"):
        ModelChoice(None, "gaze", None).refuse_ready_maps(masks="m/")


@pytest.mark.parametrize(
    ("text", "frames"), [(None, (0, None)), ("3:", (3, None)), (":9", (0, 9)), ("3:9", (3, 9))]
)
def test_frames(text: str | None, frames: tuple[int, int | None]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize("text", ["9", "a:b", "-1:2", "1:2:3"])
def test_frames_of_another_form(text: str) -> None:
    with pytest.raises(UsageError, match="is not A:B"):
        parse_frames(text)


def test_sizes_numbers_and_pairs() -> None:
    assert (parse_size(None), parse_size("192"), parse_size("native")) == (None, 192, "native")
    assert parse_numbers("--rates", "22,27.5", "22,27") == (22.0, 27.5)
    assert parse_pairs(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    for call in (
        lambda: parse_size("big"),
        lambda: parse_numbers("--rates", "22,", "22,27"),
        lambda: parse_pairs(["=b"]),
    ):
        with pytest.raises(UsageError):
            call()
