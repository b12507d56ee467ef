"""Run a saliency model over frames."""
