"""Read and write videos: probe, decode, convert colour, encode.

::

    with open_video("clip.mp4") as video:
        print(video.info.fps, video.info.frames)
        for frame in video.frames(lambda width, height: (256, 144)):
            print(frame.index, frame.pts_time, frame.rgb.shape)   # uint8 (3, 144, 256)
    print(video.report.corrupt)

`video.frames(plan, start, stop)` decodes a part of a video. If `VideoOptions.index` holds the result of
`index.index_frames`, it seeks to the keyframe before `start`; otherwise it decodes from the beginning.

- `types`: options, facts, frames, and the interface of all readers.
- `source`: `Video` and `open_video`, still images, the scene score.
- `container`: FFmpeg's containers, frame times, seeking; `_raw`: raw YUV and Y4M.
- `_truncation`: files that are shorter than they state; `index`: keyframes to seek to.
- `colour`: the only conversions between YUV, RGB, HDR and planes; `write`: H.264 and FFV1.
"""

from __future__ import annotations

from eyeline.media.colour import upright_rgb
from eyeline.media.source import Video, open_video

__all__ = ["Video", "open_video", "upright_rgb"]
