"""`capfilt evaluate video`: image models on the field's files about videos."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.display.progress import counted, watch_samples
from flows.cli.evaluate.options import Dtype, Limit, Result, beside, folder_of, model_options
from flows.cli.evaluate.outcome import check_outcome, keep
from flows.cli.options import AsJson, Checkpoint
from flows.cli.predict.video import FrameCount

if TYPE_CHECKING:
    from shards.training.video_file import Clips

EXAMPLES = """
Examples:

  capfilt evaluate video runs/filter/model msrvtt_test.jsonl --videos MSRVTT

  capfilt evaluate video runs/vqa/model test_qa.json --videos MSVD \\
      --answers answers.json
"""
MAX_TOKENS = 40  # of a caption, as in the original's evaluation of videos


def evaluate_video(
    checkpoint: Checkpoint,
    annotations: Annotated[
        str, typer.Argument(help="lines of clip_name, caption; or a list of video_id, question")
    ],
    videos: Annotated[
        str | None, typer.Option(help="folder of the videos; default: the file's own")
    ] = None,
    frames: FrameCount = None,
    k: Annotated[
        int, typer.Option(min=1, help="of captions: best of ITC that ITM puts in order")
    ] = 128,
    answers: Annotated[
        str | None, typer.Option(help="JSON list to rank; default: answers are written")
    ] = None,
    own_answers: Annotated[
        bool, typer.Option("--own-answers", help="rank all answers that the file gives")
    ] = False,
    result: Result = None,
    limit: Limit = None,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure retrieval of videos (MSRVTT), or answers about them, by an image model.

    The checkpoint is a filter or retrieval model for captions, a VQA model for questions.
    """
    folder = folder_of(checkpoint, None, annotations)

    from flows.cli.display.numbers import print_numbers
    from models.roles.video import VideoRetriever
    from models.roles.vqa import VqaModel
    from pipeline.evaluate.video import measure_video_questions, measure_video_retrieval
    from pipeline.media import video
    from shards.training.video_file import read_clips

    clips = read_clips(annotations)
    if clips.kind == "captions" and (answers or own_answers or result):
        raise typer.BadParameter(
            f"{annotations} has captions: --answers, --own-answers and --result are for questions"
        )
    listed = _answers(clips, answers, own_answers)
    rows, options = clips.rows[:limit], model_options(dtype)
    written: list[dict[str, Any]] = []
    videos = videos or beside(annotations)
    with watch_samples("evaluating", len(rows)) as progress:
        taken = counted(rows, progress)
        if clips.kind == "captions":
            retriever = VideoRetriever.load(folder, max_tokens=MAX_TOKENS, **options)
            count, ranked = frames or video.FRAMES_FOR_RETRIEVAL, progress.phase("ranking")
            numbers = measure_video_retrieval(retriever, taken, videos, count, k=k, ranked=ranked)
        else:
            model, count = VqaModel.load(folder, **options), frames or video.FRAMES_FOR_QUESTIONS
            asked: dict[str, Any] = {"answers": listed, "results": written}
            numbers = measure_video_questions(model, taken, videos, count, **asked)
    clips.left_out.join(numbers["left_out"])
    numbers["left_out"] = clips.left_out
    check_outcome(numbers, "videos" if clips.kind == "captions" else "questions", annotations)
    keep(result, written)
    print_numbers(numbers, as_json)


def _answers(clips: "Clips", answers: str | None, from_file: bool) -> list[str]:
    """Return what is ranked; nothing, where answers are written."""
    from shards.training.annotation_file import read_answers

    if from_file and answers is not None:
        raise typer.BadParameter("give --answers, or --own-answers, and not both")
    if answers is not None:
        return read_answers(answers)
    return sorted({clip.answer for clip in clips.rows}) if from_file else []
