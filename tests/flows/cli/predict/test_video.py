"""`capfilt watch`, as a user types it."""

import json
from pathlib import Path

import av
import pytest
from PIL import Image

from tests.support.driving import InProcess

CLIPS = 8


def captions(videos: Path) -> list[str]:
    lines = (videos / "msrvtt_test.jsonl").read_text().splitlines()
    return [json.loads(line)["caption"] for line in lines]


def test_texts_are_matched_and_the_frames_drawn(
    capfilt: InProcess, videos: Path, tmp_path: Path
) -> None:
    own, other, *_ = captions(videos)
    sheet = tmp_path / "frames.png"
    texts = ("--text", own, "--text", other, "--model", "tiny-filter")
    done = capfilt.run("watch", videos / "video0.mp4", *texts, "--out", sheet, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    first, second = told["texts"]
    assert told["video"] == str(videos / "video0.mp4")
    assert (first["text"], second["text"]) == (own, other)
    assert first["itc"] > second["itc"]
    with Image.open(sheet) as drawn:
        assert drawn.width > 8 * 64  # eight frames in a row
        assert drawn.height > 64
    done = capfilt.run("watch", videos / "video0.mp4", *texts)
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["itm", "itc", "share"]
    assert [line.split(maxsplit=3)[3] for line in lines] == [own, other]
    assert float(lines[0].split()[1]) == pytest.approx(first["itc"], abs=1e-3)


def test_several_videos_are_ranked_under_each_text(capfilt: InProcess, videos: Path) -> None:
    texts = captions(videos)[:2]
    flags = ("--text", texts[0], "--text", texts[1], "--model", "tiny-filter")
    done = capfilt.run("watch", videos, *flags)
    assert done.returncode == 0, done.stderr
    _, *lines = done.stdout.splitlines()
    groups = [lines[: CLIPS + 1], lines[CLIPS + 1 :]]
    told = [
        json.loads(line)
        for line in capfilt.run("watch", videos, *flags, "--json").stdout.splitlines()
    ]
    assert [one["video"] for one in told] == [str(videos / f"video{n}.mp4") for n in range(CLIPS)]
    for number, (text, *rows) in enumerate(groups):
        assert text == texts[number]
        scored = {one["video"]: one["texts"][number]["itm"] for one in told}
        assert [row.split()[-1] for row in rows] == sorted(scored, key=lambda n: -scored[n])


def test_questions_are_answered_and_ranked(
    capfilt: InProcess, videos: Path, answering: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "answers.json"
    listed.write_text(json.dumps(["red", "blue", " ", "green"]))
    flags = ("--question", "what color is it?", "--model", answering)
    done = capfilt.run("watch", videos / "video0.mp4", *flags)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 1
    done = capfilt.run("watch", videos / "video0.mp4", *flags, "--answers", listed, "--top", "2")
    scores, words = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert len(words) == 2
    assert set(words) < {"red", "blue", "green"}
    assert float(scores[0]) >= float(scores[1])
    one = capfilt.run("watch", videos / "video0.mp4", *flags, "--answers", listed, "--json")
    assert [a["text"] for a in json.loads(one.stdout)["answers"]][:2] == list(words)


def test_one_that_cannot_be_watched_takes_no_other_along(
    capfilt: InProcess, videos: Path, broken: Path
) -> None:
    places = (broken, videos / "video1.mp4", videos / "gone.mp4")
    flags = ("--text", "a red circle", "--model", "tiny-filter")
    done = capfilt.run("watch", *places, *flags)
    assert done.returncode == 0, done.stderr
    for reason in ("video_empty", "video_undecodable", "video_missing", "3 of 4 videos"):
        assert reason in done.stderr
    rows = [
        json.loads(line)
        for line in capfilt.run("watch", *places, *flags, "--json").stdout.splitlines()
    ]
    reasons = [row.get("reason") for row in rows]
    assert reasons == ["video_empty", "video_undecodable", None, "video_missing"]


def test_a_video_that_is_cut_off_is_used_and_told(
    capfilt: InProcess, videos: Path, tmp_path: Path
) -> None:
    """Its index stands first, as in what is made for the web, so that half of it can be read."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut\x1b[1m.mp4"
    with (
        av.open(str(videos / "video0.mp4")) as source,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as made,
    ):
        stream = made.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 3 // 4])
    flags = ("--text", "a red circle", "--model", "tiny-filter")
    done = capfilt.run("watch", cut, *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["note"] == "video_truncated"
    assert "video_truncated" in done.stderr
    assert "\x1b" not in done.stderr
    assert json.loads(capfilt.run("watch", whole, *flags, "--json").stdout)["note"] is None


def test_names_and_texts_that_steer_a_terminal_are_written_out(
    capfilt: InProcess, videos: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "\x1b[31mred.mp4"
    hostile.write_bytes((videos / "video0.mp4").read_bytes())
    places = (hostile, videos / "video1.mp4", tmp_path / "\x1b[2J.mp4")
    done = capfilt.run("watch", *places, "--text", "a \x1b[1mdog", "--model", "tiny-filter")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("watch", "{broken}/text.mp4", "--text", "x"), "video_undecodable"),
        (("watch", "{broken}/empty.mp4", "--question", "x"), "video_empty"),
        (("watch", "{videos}/gone.mp4", "--text", "x"), "no such file or folder"),
        (("watch", "{videos}/video0.mp4"), "give --text"),
        (("watch", "{videos}/video0.mp4", "--text", "x", "--question", "y"), "not both"),
        (("watch", "{videos}/video0.mp4", "--text", " . "), "--text is empty"),
        (("watch", "{videos}/video0.mp4", "--question", ""), "--question is empty"),
        (("watch", "{videos}/video0.mp4", "--text", "x", "--answers", "y"), "is for --question"),
        (("watch", "{nothing}", "--text", "x"), "no video there"),
        (("watch", "{videos}/video0.mp4", "--text", "x", "--model", "{broken}"), "config.json"),
    ],
)
def test_what_cannot_be_watched_is_one_message(
    capfilt: InProcess,
    videos: Path,
    broken: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    said: str,
) -> None:
    places = {"videos": videos, "broken": broken, "nothing": tmp_path}
    done = capfilt.run(*(flag.format(**places) for flag in flags))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
