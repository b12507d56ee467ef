"""The tensor contract: the names, shapes and normalisation that every saliency model shares."""

from __future__ import annotations

INPUT_NAME = "input"
"""float32 (N, 3, H, W), RGB, ImageNet-normalised."""

OUTPUT_NAME = "saliency_map"
"""float32 (N, 1, H, W) in [0, 1]."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet's training set, R, G, B in [0, 1] (torchvision's model documentation)."""
