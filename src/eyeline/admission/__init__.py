"""Take models into a registry, check them, describe them, and promote the best one to the default.

    declaration = ModelDeclaration("mine", "MIT", "Salient objects.", "theirs.onnx, size freed")
    add_model(Path("models"), Path("mine.onnx"), declaration, source=Path("theirs.onnx"))
    check_registry(Path("models")).faults
    promote("mine", Path("models"), report=Path("report.json")).promoted

Open `add` for the gates in front of a registry and for writing one, `check` for what
`eyeline model check` looks at, `card` for model cards, and `promote` for the gate of the default.
"""
