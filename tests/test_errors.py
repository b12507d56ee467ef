"""Errors cross processes whole."""

import inspect
import pickle

import pytest

from eyeline import errors
from eyeline.errors import DamagedMediaError, EyelineError, MissingExtraError, needs_extra

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, EyelineError) and kind is not MissingExtraError
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_same_after_a_pipe(kind: type[EyelineError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what", "hint")))
    assert type(error) is kind
    assert (error.message, error.hint, str(error)) == ("what", "hint", "what (hint)")


def test_what_an_error_carries_comes_along() -> None:
    assert pickle.loads(pickle.dumps(DamagedMediaError("cut", frames=7))).frames == 7
    before = MissingExtraError("Ray", "ray")
    assert str(pickle.loads(pickle.dumps(before))) == str(before)


def test_a_missing_module_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match="no_such is") as caught, needs_extra("eval"):
        import no_such  # noqa: F401
    assert caught.value.hint == "pip install 'eyeline[eval]'"
