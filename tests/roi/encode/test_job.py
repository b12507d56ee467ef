"""Options of an encode: rates that contradict each other, and options that undo regions."""

from pathlib import Path

import pytest

from eyeline.errors import EncoderError, UsageError
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.encode._encoder import encoders

SIDE = [name for name, row in encoders().items() if row.route == "sidedata"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"crf": 20, "bitrate": 800_000},
        {"crf": 99},
        {"bitrate": 10},
        {"qp": 30},
    ],
)
def test_rates_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises((UsageError, EncoderError)):
        encode(tmp_path / "in.mkv", tmp_path / "out.mkv", EncodeOptions(**wrong))


def test_kvazaars_parameters_are_looked_into() -> None:
    with pytest.raises(EncoderError, match="gop=8"):
        EncodeOptions("kvazaar", extra={"kvazaar-params": "owf=0,gop=8"}).checked()


@pytest.mark.parametrize(
    ("codec", "option", "value"),
    [
        (codec, option, value)
        for codec in SIDE
        for option, values in encoders()[codec].refused.items()
        for value in values
    ],
)
def test_refused_by_name(codec: str, option: str, value: str) -> None:
    with pytest.raises(EncoderError, match=option):
        EncodeOptions(codec, extra={option: "22" if value == "*" else value}).checked()
