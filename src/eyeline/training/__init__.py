"""Train small saliency models (extra `train`): nets, data, augmentation, losses, recipes, trainer.

torch is imported here and in `eyeline.convert.export` only.
"""
