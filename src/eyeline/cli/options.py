"""Options that several commands share: one wording, one default place in `--help`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.registry.records import Task
    from eyeline.registry.registry import Model, Use

MODEL, FRAMES, COLOUR, STEERING = "Model", "Frames", "Colour", "Steering"

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="EYELINE_MODEL",
        help="Registry id or path of an ONNX model.",
        rich_help_panel=MODEL,
    ),
]
Registry = Annotated[
    str | None,
    typer.Option(
        envvar="EYELINE_REGISTRY", help="Your own registry folder.", rich_help_panel=MODEL
    ),
]
MapTask = Annotated[
    Literal["gaze", "objects"] | None,
    typer.Option(
        "--map",
        help="What the map shows: use the registry's production model for `gaze` or for `objects`.",
        rich_help_panel=MODEL,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Short side of the working size in lines, or `native`; the model's own by default.",
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Where the model runs.", rich_help_panel=MODEL),
]
InferenceWorkers = Annotated[
    int,
    typer.Option(
        min=0, max=256, help="Inference threads; 0 = one per core.", rich_help_panel=MODEL
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        min=1, help="Infer every n-th frame and every first of a scene.", rich_help_panel=FRAMES
    ),
]
Still = Annotated[
    float,
    typer.Option(
        min=0,
        max=100,
        help="Fill frames that differ from the last inferred one by less than this percent; 0 = none.",
        rich_help_panel=FRAMES,
    ),
]
Fill = Annotated[
    Literal["linear", "motion", "hold"],
    typer.Option(
        help="How frames between are filled (motion: extra `motion`).", rich_help_panel=FRAMES
    ),
]
Temporal = Annotated[
    Literal["model", "none", "ema", "median", "motion"],
    typer.Option(
        help="Filter on the maps, reset at cuts; `model` is the model's own (motion: extra `motion`).",
        rich_help_panel=FRAMES,
    ),
]
TemporalMs = Annotated[
    float | None,
    typer.Option(
        help="Time constant of `--temporal ema` and `motion`, ms; the model's own, or 80, by default.",
        rich_help_panel=FRAMES,
    ),
]
Matrix = Annotated[
    Literal["bt601", "bt709", "bt2020"] | None,
    typer.Option(help="YUV matrix; overrides the stream's tag.", rich_help_panel=COLOUR),
]
ColorRange = Annotated[
    Literal["limited", "full"] | None,
    typer.Option(
        "--range", help="Sample range; overrides the stream's tag.", rich_help_panel=COLOUR
    ),
]
Hdr = Annotated[
    Literal["map", "refuse"],
    typer.Option(help="PQ and HLG: map to SDR, or refuse.", rich_help_panel=COLOUR),
]
Strength = Annotated[
    float | None,
    typer.Option(
        help="QPs between the most and the least salient (3), or per doubling of the weight with law "
        "`density` (1); 0 encodes plainly.",
        rich_help_panel=STEERING,
    ),
]
SteeringLaw = Annotated[
    Literal["neutral", "symmetric", "density"] | None,
    typer.Option(
        help="`neutral` (for objects): weighted offsets sum to zero; `density` (for gaze): offsets follow "
        "the logarithm of a block's weight; `symmetric`: 2s - 1, twice the span.",
        rich_help_panel=STEERING,
    ),
]
Clamp = Annotated[
    float, typer.Option(help="Largest offset either way, QP.", rich_help_panel=STEERING)
]
Smoothing = Annotated[
    float | None,
    typer.Option(help="Share of the past in the maps, 0..0.99 (0.7).", rich_help_panel=STEERING),
]
Levels = Annotated[
    int | None, typer.Option(help="Distinct offsets at most (9).", rich_help_panel=STEERING)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what is being run.")]


def choose_model(model: str | None, registry: str | None, task: Task | None, use: Use) -> Model:
    """The model of `--model`, or the production model of `--map` or of the command's default task.

    Raises:
        RegistryError: see `eyeline.registry.registry.resolve_model`.
    """
    from eyeline.registry.registry import resolve_model

    chosen = resolve_model(model, registry or None, task=task, use=use)
    warn_of_smoke(chosen)
    return chosen


def warn_of_smoke(model: Model) -> None:
    """Say on stderr that the numbers of a smoke model mean nothing."""
    if model.smoke:
        sys.stderr.write(f"warning: {model.id} is a smoke model: its numbers mean nothing\n")


def check_map_alone(task: Task | None, **files: str | None) -> None:
    """Refuse `--map` beside an option that names ready maps.

    Raises:
        UsageError: both are given.
    """
    for name, path in files.items():
        if task is not None and path is not None:
            raise UsageError(
                f"--map {task} asks for a model's maps, and --{name} {path} for ready ones",
                f"leave out --map or --{name}",
            )


def parse_pairs(texts: list[str]) -> dict[str, str]:
    """`name=value` each.

    Raises:
        UsageError: one without a value.
    """
    for text in texts:
        if "=" not in text[1:]:
            raise UsageError(f"--codec-option {text!r}", "write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)
