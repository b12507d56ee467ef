"""Measure the cost of training: milliseconds per image for recipes, and the hours of a whole run.

    python benchmarks/train.py student_v3 student_v3_long

The script makes batches of artificial pictures at each recipe's crops, and runs a training step on
them, in turn, on one thread each. A real run does both at once on two cores, so the slower of the
two decides. Times are CPU times. Hours are for the recipe's epochs of 10,030 images, the training
fold of DUTS-TR. The output is a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from eyeline.training.material import Arrays, TrainingMaterial
from eyeline.training.module import ObjectBatches, ObjectModule
from eyeline.training.recipes import Recipe, load_recipe

IMAGES = 10_030


def made_up(count: int, size: int) -> Arrays:
    """Make noise with masks of discs; the time of a batch does not depend on its content."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    disc = ((x - size / 2) ** 2 + (y - size / 2) ** 2 < (size / 4) ** 2) * np.uint8(255)
    return Arrays(
        names=[str(i) for i in range(count)],
        images=draw.integers(0, 256, (count, size, size, 3), np.uint8),
        targets=np.repeat(disc[None], count, 0),
        aspect=np.full(count, 4 / 3, np.float32),
        train=np.ones(count, bool),
        digest="",
        facts={},
    )


def measure(recipe: Recipe, rounds: int) -> list[tuple[int, float, float]]:
    """Return per phase its epochs, and the milliseconds per image for making it and for learning."""
    arrays = made_up(recipe.batch, recipe.store)
    teacher = arrays.targets if recipe.teacher else None
    material = TrainingMaterial("objects", ["made up"], arrays, teacher=teacher)
    torch.manual_seed(0)
    module = ObjectModule(recipe, material)
    module.net = module.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(module.net.parameters(), lr=1e-3)
    rows, begin = [], 0
    for phase in recipe.phases:
        batches = ObjectBatches(recipe, material, begin, torch.device("cpu"))
        making, learning = [], []
        for step in range(rounds * len(phase.crops)):
            start = time.thread_time()
            batch = batches.make(np.arange(recipe.batch), step)
            made = time.thread_time()
            module.training_step(batch, step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            module.average.update_parameters(module.net)
            making.append(made - start)
            learning.append(time.thread_time() - made)
        each = 1e3 / recipe.batch
        rows.append(
            (
                phase.until - begin,
                statistics.fmean(making) * each,
                statistics.fmean(learning) * each,
            )
        )
        begin = phase.until
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=["student_v3", "student_v3_long"])
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| recipe | epochs | making, ms per image | learning, ms per image | hours |")
    print("|---|---|---|---|---|")
    for name in args.recipes:
        for epochs, making, learning in measure(load_recipe(name), args.rounds):
            hours = epochs * IMAGES * max(making, learning) / 3.6e6
            print(
                f"| {name} | {epochs} | {making:.1f} | {learning:.1f} | {hours:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
