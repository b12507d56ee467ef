"""Quality scores of a distorted video against its reference, whole and weighted by saliency."""
