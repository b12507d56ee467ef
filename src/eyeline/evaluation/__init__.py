"""Evaluate saliency models on datasets with masks or with recorded fixations (extra `eval`).

::

    from eyeline.evaluation.benchmark import evaluate
    from eyeline.registry.registry import resolve_model

    report = evaluate([resolve_model("saliency_student_v4")], [Path("ecssd")])
    report.results[0].estimates["iou"]

`benchmark` evaluates models on datasets with masks, `gaze` on fixation sets. `metrics` and
`gaze_metrics` score one map. `statistics` computes confidence intervals and compares models. `rows`
computes and stores the scores of each image. `results` defines the results and reads and writes their
JSON. `report` shows them as tables, and the worst images as a contact sheet.
"""
