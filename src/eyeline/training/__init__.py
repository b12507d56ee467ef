"""Train small saliency models; needs the extra `train`.

::

    from pathlib import Path
    from eyeline.training.material import prepare_objects
    from eyeline.training.recipes import load_recipe
    from eyeline.training.trainer import fit

    recipe = load_recipe("student_v3")
    material = prepare_objects(recipe, [Path("DUTS-TR")], Path("cache"))
    result = fit(recipe, material, Path("runs/v3"))

`recipes` reads the TOML file that describes a run. `material` decodes the pictures and runs a teacher
model on them. `_backbone` reads pretrained encoders. `nets` defines the architectures. `_augment`
changes pictures at random. `module` defines batches, losses and scores for object masks and for recorded
gaze. `trainer` runs the epochs and writes the results.

This module imports nothing, so that an export, which needs `nets` only, does not import Lightning.
"""
