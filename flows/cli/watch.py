"""`capfilt watch` and `capfilt evaluate video`: videos, seen by the image models."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.evaluate import (
    AsJson,
    Checkpoint,
    Dtype,
    DtypeChoice,
    Limit,
    Result,
    beside,
    config_of,
    folder_of,
    keep,
    tell,
)
from flows.cli.progress import counted, watch_samples
from flows.cli.use import Device, device_of

if TYPE_CHECKING:
    from pipeline.video import Frames

WATCH_EXAMPLES = """
Examples:

  capfilt watch clip.mp4 --text "a dog runs" --text "a man sings" --out frames.png

  capfilt watch clip.mp4 --question "what is the man doing?"
"""
EVALUATE_EXAMPLES = """
Examples:

  capfilt evaluate video runs/filter/model msrvtt_test.jsonl --videos MSRVTT/videos

  capfilt evaluate video runs/vqa/model test_qa.json --videos MSVD --answers answers.json
"""
RETRIEVAL, ANSWERS = "Salesforce/blip-itm-base-coco", "Salesforce/blip-vqa-base"

FrameCount = Annotated[
    int | None,
    typer.Option("--frames", min=1, max=256, help="default: 8 for texts, 16 for questions"),
]


def watch(
    video: Annotated[str, typer.Argument(help="file or URL")],
    text: Annotated[list[str] | None, typer.Option(help="to match; may be repeated")] = None,
    question: Annotated[str | None, typer.Option(help="to answer")] = None,
    answers: Annotated[str | None, typer.Option(help="JSON list to choose the answer from")] = None,
    frames: FrameCount = None,
    model: Annotated[
        str | None, typer.Option(help=f"folder or hub id; default: {RETRIEVAL}, or {ANSWERS}")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="PNG of the frames that were looked at")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Match texts with a video, or answer a question about it, by a few of its frames."""
    from models.weights import resolve
    from pipeline import video as videos
    from shards.annotation_file import read_answers

    if bool(text) == (question is not None):
        raise typer.BadParameter("give --text, once or more, or --question, and not both")
    listed = [] if answers is None else read_answers(answers)
    usual = videos.FRAMES_FOR_RETRIEVAL if text else videos.FRAMES_FOR_QUESTIONS
    seen = _frames(video, frames or usual)
    if out is not None:
        _draw(out, seen)
    if text:
        _match(seen, text, resolve(model or RETRIEVAL), device_of(device), as_json)
    else:
        folder = resolve(model or ANSWERS)
        _ask(seen, str(question), listed, folder, device_of(device), as_json)


def evaluate_video(
    checkpoint: Checkpoint,
    annotations: Annotated[
        str, typer.Argument(help="lines of clip_name, caption; or a list of video_id, question")
    ],
    videos: Annotated[
        str | None, typer.Option(help="folder of the videos; default: the file's own")
    ] = None,
    frames: FrameCount = None,
    k: Annotated[int, typer.Option(min=1, help="best of ITC that ITM puts in order")] = 128,
    answers: Annotated[
        str | None, typer.Option(help="JSON list to rank; default: answers are written")
    ] = None,
    result: Result = None,
    limit: Limit = None,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval of videos (MSRVTT), or answers about them, by an image model."""
    from models.roles.video import VideoRetriever
    from models.roles.vqa import Answerer
    from pipeline import video
    from pipeline.evaluate.video import measure_video_questions, measure_video_retrieval
    from shards.annotation_file import read_answers
    from shards.video_file import read_clips

    clips = read_clips(annotations)
    listed = [] if answers is None else read_answers(answers)
    config, folder = config_of(1, 40, dtype), folder_of(checkpoint)  # 40 as in the original
    place, rows = videos or beside(annotations), clips.rows[:limit]
    options: dict[str, Any] = {"dtype": config.dtype, "device": config.device}
    written: list[dict[str, Any]] = []
    with watch_samples("evaluating", len(rows)) as progress:
        taken = counted(rows, progress)
        if clips.kind == "captions":
            retriever = VideoRetriever.load(folder, max_tokens=40, **options)
            count = frames or video.FRAMES_FOR_RETRIEVAL
            found = measure_video_retrieval(retriever, taken, place, count, k=k)
        else:
            answerer = Answerer.load(folder, **options)
            count = frames or video.FRAMES_FOR_QUESTIONS
            found = measure_video_questions(
                answerer, taken, place, count, answers=listed, results=written
            )
    keep(result, written)
    tell(found | {"left_out": clips.left_out | found["left_out"]}, as_json)


def _frames(video: str, count: int) -> "Frames":
    """Read the frames of a video that must be there."""
    from pipeline.printable import visible
    from pipeline.video import read_frames
    from shards.listing import InputError

    found = read_frames(video, count)
    if found.reason is not None:
        raise InputError(f"{video} cannot be used: {found.reason} ({found.detail})")
    if found.note:
        typer.echo(f"{visible(video)}: {found.note}; what is there is used", err=True)
    return found


def _match(seen: "Frames", texts: list[str], folder: Path, device: str, as_json: bool) -> None:
    from models.roles.video import VideoRetriever
    from pipeline import watch
    from pipeline.printable import visible

    found = watch.match(VideoRetriever.load(folder, device=device), seen.images, texts)
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    print("  itm    itc  share")
    for one in found:
        print(f"{one.itm:5.3f} {one.itc:6.3f}  {one.share:5.3f}  {visible(one.text)}")


def _ask(
    seen: "Frames", question: str, listed: list[str], folder: Path, device: str, as_json: bool
) -> None:
    from models.roles.vqa import Answerer
    from pipeline import watch
    from pipeline.printable import visible

    found = watch.ask(Answerer.load(folder, device=device), seen.images, question, listed)[:5]
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    for one in found:
        print(f"{one.score:7.3f}  {visible(one.text)}" if listed else visible(one.text))


def _draw(out: Path, seen: "Frames") -> None:
    from pipeline.sheet import sheet, small

    cells = [
        (f"frame {n} of {len(seen.images)}", small(one)) for n, one in enumerate(seen.images, 1)
    ]
    out.write_bytes(sheet(cells, across=4))
