"""Make ONNX models: export a trained network, mirror another project's network, quantise a model.

Each result is compared with its source before it is written. ::

    exported = export_run(Path("run"), Path("mine.onnx"))
    mirrored = mirror_onnx(Path("theirs.onnx"), Path("mirror.onnx"), load_recipe("u2netp_mirror_v1"))
    quantized = quantize_model(resolve_model("mine"), Path("DUTS-TR"), Path("mine_int8.onnx"))

Open `export` for networks that eyeline trained (torch), `mirror` and `upstream` for networks of other
projects, `quantize` for INT8, `parity` for the comparison of two models, `graph` for changes to ONNX
graphs, and `sidecars` for the files beside a model: I/O spec, licence, manifest, parity report.
"""
