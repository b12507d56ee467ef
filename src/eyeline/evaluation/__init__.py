"""How good is a saliency model? Models x datasets with ground truth to a report (extra `eval`).

`metrics` scores one map, `scoring` one image, `benchmark` runs models over datasets (`workers` in
processes, `rows` keeps what is finished), `statistics` says how far the numbers can be trusted,
`report` and `sheet` show them.
"""

from __future__ import annotations
