"""`capfilt watch` and `capfilt evaluate video`, as commands."""

import json
from pathlib import Path

import pytest
from driving import InProcess
from PIL import Image

from pipeline.toy_tasks import ToyTasksConfig
from pipeline.toy_video import write_videos


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, ToyTasksConfig(samples=8, kinds=4, seed=3))
    (folder / "broken.mp4").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def test_texts_are_matched_and_the_frames_drawn(
    capfilt: InProcess, videos: Path, tmp_path: Path
) -> None:
    lines = (videos / "msrvtt_test.jsonl").read_text().splitlines()
    own, other = (json.loads(line)["caption"] for line in lines[:2])
    sheet = tmp_path / "frames.png"
    done = capfilt.run(
        "watch", videos / "video0.mp4", "--text", own, "--text", other,
        "--model", "tiny-filter", "--out", sheet, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["itc"] > second["itc"]
    with Image.open(sheet) as drawn:
        assert drawn.width > 4 * 64
        assert drawn.height > 2 * 64  # eight frames, four in a row


def test_videos_of_a_file_are_measured(capfilt: InProcess, videos: Path) -> None:
    done = capfilt.run("evaluate", "video", "tiny-filter", videos / "msrvtt_test.jsonl")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split() for line in done.stdout.splitlines())
    assert rows["videos"] == "8"
    assert float(rows["itc.ir@1"]) > 0.3  # chance is 0.125
    assert float(rows["itc.ir_median_rank"]) < 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("watch", "{videos}/broken.mp4", "--text", "x"), "video_undecodable"),
        (("watch", "{videos}/empty.mp4", "--question", "x"), "video_empty"),
        (("watch", "{videos}/gone.mp4", "--text", "x"), "video_missing"),
        (("watch", "{videos}/video0.mp4"), "give --text"),
        (("watch", "{videos}/video0.mp4", "--text", "x", "--question", "y"), "not both"),
        (("evaluate", "video", "tiny-filter", "{videos}/broken.mp4"), "expected lines of"),
    ],
)
def test_what_cannot_be_watched_is_one_message(
    capfilt: InProcess, videos: Path, flags: tuple[str, ...], said: str
) -> None:
    done = capfilt.run(*(flag.format(videos=videos) for flag in flags))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
