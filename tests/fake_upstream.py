"""A made-up upstream with everything that an audit must see through; nothing in it is anybody's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

APACHE = (Path(__file__).parents[1] / "LICENSE").read_text()

MIT = """MIT License

Copyright (c) 2021 Jane Example

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

PLANTED = APACHE.replace(
    "   3. Grant of Patent License.",
    "   2a. The Work may not be used for commercial purposes.\n\n   3. Grant of Patent License.",
)

NET = '''\
"""A tiny saliency net in the manner of the field."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 3, padding=1)
        self.bn = nn.BatchNorm2d(b)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class TinyNet(nn.Module):
    def __init__(self, in_ch=3, out_ch=1):
        super().__init__()
        self.one = Block(in_ch, 4)
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.two = Block(4, 4)
        self.head = nn.Conv2d(8, out_ch, 1)
        self.side = nn.Conv2d(4, out_ch, 1)

    def forward(self, x):
        a = self.one(x)
        b = self.two(self.pool(a))
        up = F.interpolate(b, size=a.shape[2:], mode="bilinear")
        d0 = self.head(torch.cat((a, up), 1))
        return torch.sigmoid(d0), torch.sigmoid(self.side(a))
'''

README = """# TinyNet

Download tinynet.pth (4.7 MB) from [GoogleDrive](https://drive.google.com/file/d/1abc/view?usp=sharing)
or [Baidu](https://pan.baidu.com/s/1xyz) and put it into `saved_models/`.
"""

FILES: dict[str, str | bytes] = {
    "LICENSE": APACHE,
    "README.md": README,
    "model/__init__.py": "",
    "model/tinynet.py": NET,
}


RECIPE_FIELDS: dict[str, Any] = {
    "id": "tinynet_mirror",
    "description": "A test's net.",
    "license": "Apache-2.0",
    "upstream": "https://example.org/jane/tinynet",
    "net": "TinyNet",
    "arguments": (3, 1),
    "attribution": "Jane Example, TinyNet.",
    "weights_evidence": "Jane Example's word.",
    "limits": ("Made for a test.",),
    "io": {"working_lines": 64, "multiple": 1},
}
"""Values of a mirror recipe of this upstream."""


def write_files(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def git(folder: Path, *words: str) -> str:
    """Run git with a fixed author and date and no configuration of this machine."""
    stamp = "2024-01-01T00:00:00Z"
    environment = os.environ | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_DATE": stamp,
        "GIT_COMMITTER_DATE": stamp,
    }
    author = ["-c", "user.name=Jane Example", "-c", "user.email=jane@example.org"]
    run = subprocess.run(
        ["git", *author, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def make_checkout(folder: Path, files: dict[str, str | bytes] | None = None, *init: str) -> Path:
    """A git checkout with one commit."""
    folder.mkdir(parents=True)
    write_files(folder, FILES if files is None else files)
    git(folder, "init", "-q", "-b", "main", *init)
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", "first")
    return folder
