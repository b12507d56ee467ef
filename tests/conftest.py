"""Fixtures shared by all tests: real clips, made here or taken from data that stays outside."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from shared import SHARED

settings.register_profile(
    "random",
    deadline=None,  # a busy machine is no failure
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# Whether a commit is taken must not depend on what is drawn; `--hypothesis-profile=random` explores.
settings.register_profile("eyeline", settings.get_profile("random"), derandomize=True)
settings.load_profile("eyeline")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """A command that runs in this process takes Ctrl-C and SIGTERM for itself: until the test ends."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if handler is not None:  # None: not Python's to put back
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of development data; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"development data is not at {SHARED}")
    return SHARED


@pytest.fixture
def no_builtin_models(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's registry is empty, so that a user's registry is alone."""
    package = tmp_path_factory.mktemp("package")
    (package / "registry.json").write_text('{"schema_version": 1, "models": []}')
    monkeypatch.setattr("eyeline.registry.registry.BUILTIN", package)
