"""A small log that the tests of the formats share."""

from eyeline.logs import Log


def make_log(frames: int = 3, columns: tuple[str, ...] = ("saliency_mean", "saliency_std")) -> Log:
    log = Log(list(columns), {"model": 'a, "b" 100 %\n', "options": {"stride": 2}}, fps=23.976)
    for i in range(frames):
        log.append(i, i / 25, {name: (i + 1) / (k + 3) for k, name in enumerate(columns)})
    return log
