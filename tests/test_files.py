import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from eyeline.errors import ContractError, DamagedMediaError, OutputError, UsageError
from eyeline.files import (
    PendingFile,
    Sink,
    check_outputs,
    open_output,
    whole_file,
    whole_folder,
    write_bytes,
)


def names(folder):
    return [p.name for p in folder.iterdir()]


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_an_exception_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), open_output(tmp_path / "a") as out:
        out.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_a_pending_file_commits_or_vanishes(tmp_path):
    pending = PendingFile(tmp_path / "a")
    pending.temporary.write_bytes(b"x")
    assert not (tmp_path / "a").exists()
    pending.commit()
    assert (tmp_path / "a").read_bytes() == b"x"
    PendingFile(tmp_path / "b").discard()
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE)
    write_bytes(tmp_path / "pipe", b"through")
    assert reader.communicate()[0] == b"through"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize(("name", "words"), [(".", "is a folder"), ("no/a", "No such file")])
def test_what_can_not_be_a_file_is_refused(tmp_path, name, words):
    with pytest.raises(OutputError, match=words), whole_file(tmp_path / name):
        pass


def test_a_closed_pipe_on_stdout_is_one_line():
    script = (
        "import sys\n"
        "from eyeline.errors import OutputError\n"
        "from eyeline.files import open_output\n"
        "try:\n"
        "    with open_output('-') as out:\n"
        "        for _ in range(100): out.write(b'x' * 65536)\n"
        "except OutputError as exc: print(exc, file=sys.stderr); sys.exit(7)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    assert child.wait() == 7
    assert child.stderr.read().count("\n") == 1


def test_writing_bytes_to_a_closed_stdout_is_one_line():
    script = (
        "import sys\n"
        "from eyeline.errors import OutputError\n"
        "from eyeline.files import write_bytes\n"
        "try: write_bytes('-', bytes(10_000_000))\n"
        "except OutputError as exc: print(exc, file=sys.stderr); sys.exit(7)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    assert child.wait() == 7
    assert child.stderr.read().count("\n") == 1


def test_a_name_of_the_longest_allowed_length_works(tmp_path):
    name = "n" * 250 + ".json"
    write_bytes(tmp_path / name, b"x")
    assert names(tmp_path) == [name]


def test_a_name_that_is_too_long_is_refused_in_one_line(tmp_path):
    with pytest.raises(OutputError, match="File name too long") as caught:
        write_bytes(tmp_path / ("n" * 300), b"x")
    assert "\n" not in str(caught.value)


def test_a_symbolic_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="symbolic links"):
        write_bytes(tmp_path / "loop", b"x")


def test_a_symbolic_link_to_nothing_makes_the_file_it_names(tmp_path):
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"x")
    assert (tmp_path / "real").read_bytes() == b"x"
    assert (tmp_path / "link").is_symlink()


def test_a_folder_in_the_place_of_a_file_above_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="Not a directory"):
        write_bytes(tmp_path / "file" / "a", b"x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device_is_refused():
    with pytest.raises(OutputError, match="No space left on device"):
        write_bytes("/dev/full", b"x")


def limited(body):
    """Run `body` in a child in which no file may grow beyond 64 KiB, the way a disk fills up."""
    script = (
        "import resource, sys\n"
        "from eyeline.errors import OutputError\n"
        "from eyeline.files import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        f"try:\n{body}"
        "except OutputError as exc: print(exc); sys.exit(exc.exit_code)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )


def test_a_file_that_can_not_grow_leaves_the_old_one(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    done = limited(f"  write_bytes({str(tmp_path / 'a')!r}, bytes(100_000))\n")
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'a'}: can't be written: File too large")
    assert done.stdout.count("\n") == 1
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_output(tmp_path / "a") as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_nothing_is_visible_under_the_name_before_the_end(tmp_path):
    with whole_file(tmp_path / "a.json") as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        assert not (tmp_path / "a.json").exists()
    assert names(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o555, 0o700])
def test_a_folder_of_somebody_else_is_refused(mode):
    script = (
        "import os, sys\n"
        "from eyeline.errors import OutputError\n"
        "from eyeline.files import write_bytes\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: write_bytes(sys.argv[1], b'x')\n"
        "except OutputError as exc: print(exc)\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # tmp_path is closed to other users
        Path(folder).chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", script, f"{folder}/a"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Permission denied" in done.stdout, done.stderr
        assert names(Path(folder)) == []


class Steps(Sink):
    def __init__(self):
        self.steps = []

    def commit(self):
        self.steps.append("commit")

    def discard(self):
        self.steps.append("discard")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "out").exists()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "other") as folder:
        (folder / "a").write_text("a")
        _ = 1 / 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/a").read_text() == "a"


def test_a_folder_may_take_the_place_of_an_empty_one_alone(tmp_path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    with pytest.raises(OutputError, match="exists already"), whole_folder(tmp_path / "out"):
        pass
    with pytest.raises(OutputError, match="can't be written"), whole_folder(tmp_path / "no/out"):
        pass


def test_a_sink_commits_when_the_block_ends_well():
    with Steps() as sink:
        pass
    assert sink.steps == ["commit"]


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (KeyboardInterrupt(), "commit"),  # what was finished is kept
        (DamagedMediaError("cut off"), "commit"),
        (ContractError("a map with NaN"), "discard"),
        (OutputError("full"), "discard"),
        (ZeroDivisionError(), "discard"),
    ],
)
def test_a_sink_keeps_what_damage_and_ctrl_c_left_and_nothing_else(error, step):
    sink = Steps()
    with pytest.raises(type(error)), sink:
        raise error
    assert sink.steps == [step]


def test_outputs_are_checked_before_a_long_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_outputs(["a.json", "-", None], folders=["maps", None], inputs=["-", "in.mp4"])
    assert names(tmp_path) == []
    for outputs, message in (
        (["a", "./a"], "./a: another output has the same name"),
        (["-", "-"], "-: another output has the same name"),
        (["in.mp4"], "in.mp4: an input has the same name"),
    ):
        with pytest.raises(UsageError, match=message):
            check_outputs(outputs, inputs=["in.mp4"])
    with pytest.raises(UsageError, match="in: an input has the same name"):
        check_outputs([], folders=["in"], inputs=["in"])
    with pytest.raises(OutputError, match="nowhere/a: its folder does not exist"):
        check_outputs(["nowhere/a"])
    with pytest.raises(OutputError, match="is a folder"):
        check_outputs([str(tmp_path)])
