"""Make ONNX models: export a trained net, mirror somebody else's, quantise one, and prove each equal.

    exported = export_run(Path("run"), Path("mine.onnx"))
    mirrored = mirror_onnx(Path("theirs.onnx"), Path("mirror.onnx"), load_recipe("u2netp_mirror_v1"))
    quantized = quantize_model(resolve_model("mine"), Path("DUTS-TR"), Path("mine_int8.onnx"))

Open `export` for our own nets (torch), `mirror` and `upstream` for nets of others, `quantize` for INT8,
`parity` for how two models are compared, `graph` for changes to ONNX graphs, and `sidecars` for the files
beside a model: I/O spec, licence, manifest, parity report.
"""
