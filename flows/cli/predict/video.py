"""`capfilt watch`: what the image models say about videos."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.faults import BAD_USAGE
from flows.cli.options import Device, device_of, path_option
from flows.cli.predict.image import MATCH_HEADER, match_scores, print_answers
from pipeline.printable import visible

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.media.video import Frames
    from pipeline.predict.image import ImageAnswer, TextMatch

    Answers = Sequence[TextMatch] | Sequence[ImageAnswer]
    Judge = Callable[[Sequence[Image]], Answers]

EXAMPLES = """
Examples:

  capfilt watch clip.mp4 --text "a dog runs" --text "a man sings" --out a.png

  capfilt watch clips/ --text "a dog runs"      # which one shows it?

  capfilt watch clip.mp4 --question "what is the man doing?"
"""
RETRIEVAL, ANSWERS = "Salesforce/blip-itm-base-coco", "Salesforce/blip-vqa-base"
_ACROSS = 8  # frames of a row of the sheet
_MOST_DRAWN = 512  # frames

FrameCount = Annotated[
    int | None,
    typer.Option("--frames", min=1, max=64, help="default: 8 for texts, 16 for questions"),
]


def watch(
    videos: Annotated[list[str], typer.Argument(help="files, folders, or URLs")],
    text: Annotated[list[str] | None, typer.Option(help="to match; may be repeated")] = None,
    question: Annotated[str | None, typer.Option(help="to answer")] = None,
    answers: Annotated[str | None, typer.Option(help="JSON list to choose the answer from")] = None,
    top: Annotated[int, typer.Option(min=1, help="answers of the list that are shown")] = 5,
    frames: FrameCount = None,
    model: Annotated[
        str | None, typer.Option(help=f"folder or hub id; default: {RETRIEVAL}, or {ANSWERS}")
    ] = None,
    out: Annotated[Path | None, path_option(help="PNG of the frames that were looked at")] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="for machines: a line per video")] = False,
) -> None:
    """Match texts with videos, or answer a question about each, by a few of their frames.

    Of several texts, `share` is a zero-shot classifier's: a softmax over their cosines. Of several
    videos, each text's best one comes first.
    """
    from pipeline.media.pictures import check_there
    from shards.training.annotation_file import read_answers

    _check(text, question, answers)
    listed = [] if answers is None else read_answers(answers)
    if len(videos) == 1:  # of several the others go on
        check_there(videos)

    from pipeline.media import video as reading
    from pipeline.media.sheet import sheet
    from pipeline.media.video_guard import VideoGuard
    from pipeline.predict.video import list_videos

    count = frames or (reading.FRAMES_FOR_RETRIEVAL if text else reading.FRAMES_FOR_QUESTIONS)
    judge: Judge | None = None
    judged: dict[str, Answers] = {}
    cells: list[tuple[str, Image]] = []
    unread = 0
    with VideoGuard() as guard:
        for name in list_videos(videos):
            seen = reading.read_frames(name, count, decode=guard.decode)
            if seen.reason is not None:
                unread += 1
                _report_unread(name, seen, as_json)
                continue
            if judge is None:  # loaded once there is something to look at
                judge = _load(text, question, listed, model, device_of(device))
            judged[name] = judge(seen.images)[: None if text else top]
            if out is not None and len(cells) < _MOST_DRAWN:
                cells += _cells(name, seen)
            _report(name, seen, {"texts" if text else "answers": judged[name]}, as_json)
    _end(len(judged), unread)
    if out is not None:
        out.write_bytes(sheet(cells, across=_ACROSS))
    if as_json:
        return
    if text:
        _print_matches(judged)
    else:
        _print_all_answers(judged, with_score=bool(listed))


def _check(text: list[str] | None, question: str | None, answers: str | None) -> None:
    from models.blip.tokenizer import normalise

    if bool(text) == (question is not None):
        raise typer.BadParameter("give --text, once or more, or --question, and not both")
    if text and answers is not None:
        raise typer.BadParameter("--answers is for --question")
    if not all(map(normalise, text or ())):
        raise typer.BadParameter("--text is empty")
    if question is not None and not normalise(question):
        raise typer.BadParameter("--question is empty")


def _load(
    text: list[str] | None,
    question: str | None,
    listed: list[str],
    model: str | None,
    device: str,
) -> "Judge":
    """Load the model that texts, or the question, ask for."""
    from models.checkpoints.locate import resolve
    from models.roles.video import VideoRetriever
    from models.roles.vqa import VqaModel
    from pipeline.predict import video as watch

    if text:
        retriever = VideoRetriever.load(resolve(model or RETRIEVAL), device=device)
        return lambda images: watch.match(retriever, images, text)
    answerer = VqaModel.load(resolve(model or ANSWERS), device=device)
    return lambda images: watch.ask(answerer, images, question or "", listed)


def _report_unread(name: str, seen: "Frames", as_json: bool) -> None:
    if as_json:
        print(json.dumps({"video": name, "reason": seen.reason, "detail": seen.detail}))
        return
    line = f"{name} cannot be used: {seen.reason} ({seen.detail})"
    typer.echo(visible(line), err=True)


def _report(name: str, seen: "Frames", judged: Mapping[str, "Answers"], as_json: bool) -> None:
    if seen.note:
        typer.echo(f"{visible(name)}: {seen.note}; what is there is used", err=True)
    if as_json:
        rows = {key: list(map(dataclasses.asdict, answers)) for key, answers in judged.items()}
        print(json.dumps({"video": name, "note": seen.note} | rows))


def _end(read: int, unread: int) -> None:
    """Report how many could not be used; it is a failure where none could."""
    if read + unread > 1 and unread:
        typer.echo(f"{unread} of {read + unread} videos cannot be used", err=True)
    if not read:
        if not unread:
            typer.echo("capfilt: no video there", err=True)
        raise typer.Exit(BAD_USAGE)


def _cells(name: str, seen: "Frames") -> "list[tuple[str, Image]]":
    from pipeline.media.sheet import small

    total, last = len(seen.images), PurePosixPath(name).name
    return [(f"{n}/{total} {last}", small(image)) for n, image in enumerate(seen.images, 1)]


def _print_matches(judged: Mapping[str, Any]) -> None:
    """Print the texts of one video, or of several the best first under each text."""
    print(MATCH_HEADER)
    if len(judged) == 1:
        for match in next(iter(judged.values())):
            print(f"{match_scores(match)}  {visible(match.text)}")
        return
    for of_text in zip(*judged.values(), strict=True):
        print(visible(of_text[0].text))
        ranked = sorted(
            zip(of_text, judged, strict=True), key=lambda row: (-row[0].itm, -row[0].itc)
        )
        for match, name in ranked:
            print(f"{match_scores(match)}  {visible(name)}")


def _print_all_answers(judged: Mapping[str, Any], *, with_score: bool) -> None:
    for name, answers in judged.items():
        if len(judged) > 1:
            print(visible(name))
        print_answers(answers, with_score=with_score)
