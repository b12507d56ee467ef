"""Many videos, resumable, in worker processes of this machine or on Ray.

`manifest` reads which titles there are. `driver` hands them, whole or in segments, to the workers of
an engine (`local` or `ray_engine`; `task` has the records that travel between them). A `worker` does
the `work`: extract, score or roi map. `store` keeps all that is finished in the output folder, so
that a batch that was killed goes on where it ended.
"""
