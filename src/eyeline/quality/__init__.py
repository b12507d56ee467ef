"""Quality where viewers look: PSNR, SSIM, MS-SSIM and VMAF, whole and weighted by saliency.

`score` runs it; `pairs` aligns two videos, `weights` says how much a sample counts, and each metric
is a module of its own that takes planes and weights.
"""
