"""Run a model: frames to its input, its output to maps, and sessions over verified bytes."""
