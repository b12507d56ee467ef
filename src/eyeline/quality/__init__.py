"""Measure quality where viewers look: PSNR, SSIM, MS-SSIM and VMAF, whole and weighted by a map.

::

    from eyeline.quality.score import ScoreOptions, score

    result = score("ref.mp4", "dist.mp4", options=ScoreOptions(metrics=("psnr", "ssim")))
    result.log.values["psnr_y"][0], result.log.values["sw_psnr_y"][0]

`score` runs the metrics, `pairs` pairs the frames of two videos, `weights` says how much a sample
counts and where the maps come from, `save` writes the logs. Each metric has a module that takes planes
and weights: `psnr`, `ssim`, `sw_vmaf` and `libvmaf` (VMAF by libvmaf itself, in a process).
"""
