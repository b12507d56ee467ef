"""Encode a video with QP offsets per region."""
