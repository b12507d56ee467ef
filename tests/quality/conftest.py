"""Scores filter with OpenCV (extra `vmaf`)."""

import pytest


@pytest.fixture(autouse=True)
def _opencv() -> None:
    pytest.importorskip("cv2")
