"""Turn saliency maps into QP offsets per block."""
