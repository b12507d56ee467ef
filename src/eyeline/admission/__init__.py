"""Add models to a registry, check them, write their cards, and promote the best one to the default.

::

    declaration = ModelDeclaration("mine", "MIT", "Salient objects.", "theirs.onnx, size freed")
    add_model(Path("models"), Path("mine.onnx"), declaration, source=Path("theirs.onnx"))
    check_registry(Path("models")).faults
    promote("mine", Path("models"), report=Path("report.json")).promoted

The module `add` checks a model and writes the registry, `check` contains the checks of
`eyeline model check`, `card` writes model cards, and `promote` decides which model becomes the default.
"""
