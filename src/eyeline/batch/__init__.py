"""Many videos, resumable: locally or on Ray.

One way through: `manifest` names titles, `driver` hands tasks to an engine (`local`, `ray_engine`),
`worker` does them with a `work` (extract, score, roi-map), `store` keeps what is finished.
"""
