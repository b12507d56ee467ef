"""Train small saliency models; needs the extra `train`.

::

    from pathlib import Path
    from eyeline.training.material import prepare_objects
    from eyeline.training.recipes import load_recipe
    from eyeline.training.trainer import fit

    recipe = load_recipe("student_v3")
    material = prepare_objects(recipe, [Path("DUTS-TR")], Path("cache"))
    result = fit(recipe, material, Path("runs/v3"))

`recipes` reads the TOML file of a run. `material` decodes pictures once and runs a teacher on them;
`_backbone` reads pretrained encoders. `nets` defines the architectures. `_augment` changes pictures
at random. `module` defines batches, losses and scores of a run on object masks, and `_gaze` those of
a run on recorded gaze. `trainer` runs the epochs and writes the results.

`__init__` imports nothing, so that an export, which needs `nets`, does not wait for Lightning.
"""
