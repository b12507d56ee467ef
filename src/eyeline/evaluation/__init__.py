"""Evaluate saliency models on datasets with ground truth: masks or recorded fixations (extra `eval`).

::

    from eyeline.evaluation.benchmark import evaluate
    from eyeline.registry.registry import resolve_model

    report = evaluate([resolve_model("saliency_student_v4")], [Path("ecssd")])
    report.results[0].estimates["iou"]

`benchmark` runs models over datasets, `gaze` over fixation sets. `metrics` and `gaze_metrics` score one
map, `statistics` computes intervals and compares models. `rows` makes and keeps the row of each image.
`results` holds the results, their JSON and its reader; `report` shows them as tables, and the
worst images as a contact sheet.
"""
