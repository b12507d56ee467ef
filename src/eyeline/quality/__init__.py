"""Measure video quality with PSNR, SSIM, MS-SSIM and VMAF, unweighted and weighted by saliency maps.

::

    from eyeline.quality.score import ScoreOptions, score

    result = score("ref.mp4", "dist.mp4", options=ScoreOptions(metrics=("psnr", "ssim")))
    result.log.values["psnr_y"][0], result.log.values["sw_psnr_y"][0]

A saliency map estimates where viewers look. "Whole" values count all samples of a frame equally;
"weighted" values (columns `sw_...`) count each sample by its saliency.

`score` runs the metrics, `pairs` pairs the frames of two videos, `weights` provides the maps and the
weight of each sample, and `save` writes the logs. Each metric has a module that takes planes and
weights: `psnr`, `ssim`, `sw_vmaf` and `libvmaf` (VMAF by libvmaf itself, in an FFmpeg process).
"""
