"""Process many videos, in worker processes of this machine or on Ray; a killed batch can be resumed.

A title is one video, or a pair of videos to compare. `manifest` reads the list of titles. `driver`
hands titles, or segments of titles, as tasks to the workers of an engine (`local` or `ray_engine`).
`task` defines the records that driver and workers exchange. `worker` runs a task, which is an
`extract`, `score` or `roi map` from `work`. `store` reads and writes the output folder.
"""
