"""`capfilt evaluate vqa`, `nlvr` and `dialogue`: questions, statements and dialogues."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.display.progress import counted, watch_samples
from flows.cli.evaluate.options import (
    BatchSize,
    Dtype,
    Images,
    Limit,
    MaxTokens,
    Result,
    Split,
    beside,
    folder_of,
    model_options,
)
from flows.cli.evaluate.outcome import check_outcome, keep
from flows.cli.options import AsJson, Checkpoint

if TYPE_CHECKING:
    from shards.training.annotation import Fields
    from shards.training.picture_name import NamesTogether

VQA_EXAMPLES = """
Examples:

  capfilt evaluate vqa runs/vqa/model --annotations val.json --images coco

  capfilt evaluate vqa runs/vqa/model --annotations vqa_test.json \\
      --images coco --answers answer_list.json --result vqa_result.json

  capfilt evaluate vqa runs/vqa/model --images coco \\
      --annotations v2_OpenEnded_mscoco_val2014_questions.json \\
      --answers v2_mscoco_val2014_annotations.json
"""
NLVR_EXAMPLES = """
Example:

  capfilt evaluate nlvr runs/nlvr/model --annotations nlvr_test.json \\
      --images nlvr2
"""
DIALOGUE_EXAMPLES = """
Example:

  capfilt evaluate dialogue runs/dialogue/model \\
      --annotations visdial_1.0_val.json --images VisualDialog_val2018 \\
      --dense visdial_1.0_val_dense_annotations.json
"""

Annotations = Annotated[str, typer.Option(help="the data set's JSON file")]


def vqa(
    checkpoint: Checkpoint,
    annotations: Annotations,
    images: Images = None,
    answers: Annotated[
        list[str] | None,
        typer.Option(
            help="JSON list to rank, as answer_list.json; or what people answered, VQA's "
            "annotations; may be repeated. Default: answers are written"
        ),
    ] = None,
    split: Split = None,
    by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="of the rows: accuracy of each value, too")
    ] = None,
    result: Result = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure answers to questions by VQA's official accuracy."""
    folder = folder_of(checkpoint, None, annotations)

    from flows.cli.display.numbers import print_numbers
    from models.roles.vqa import VqaModel
    from pipeline.evaluate.vqa import measure_vqa

    listed, people = _answers(answers or ())
    model = VqaModel.load(folder, max_tokens=max_tokens, **model_options(dtype))
    written: list[dict[str, Any]] = []
    with _rows(annotations, ("image", "question"), limit, split, people) as (rows, names):
        numbers = measure_vqa(
            model,
            rows,
            images or beside(annotations),
            batch_size,
            answers=listed,
            by=by,
            results=written,
            names=names,
        )
    check_outcome(numbers, "questions", annotations)
    if not numbers["compared"]:
        typer.echo(
            f"capfilt: {annotations} says nothing of what people answered, so nothing is compared: "
            "name the file that does, --answers v2_mscoco_…_annotations.json",
            err=True,
        )
    keep(result, written)
    print_numbers(numbers, as_json)


def nlvr(
    checkpoint: Checkpoint,
    annotations: Annotations,
    images: Images = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 64,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure how many statements about two pictures are judged right (NLVR2)."""
    folder = folder_of(checkpoint, None, annotations)

    from flows.cli.display.numbers import print_numbers
    from models.roles.nlvr import NlvrModel
    from pipeline.evaluate.nlvr import measure_nlvr

    model = NlvrModel.load(folder, max_tokens=max_tokens, **model_options(dtype))
    with _rows(annotations, ("images", "sentence", "label"), limit) as (rows, names):
        numbers = measure_nlvr(model, rows, images or beside(annotations), batch_size, names)
    check_outcome(numbers, "statements", annotations)
    print_numbers(numbers, as_json)


def dialogue(
    checkpoint: Checkpoint,
    annotations: Annotations,
    images: Images = None,
    dense: Annotated[str | None, typer.Option(help="VisDial's dense annotations, for NDCG")] = None,
    result: Result = None,
    limit: Annotated[int | None, typer.Option(min=1, help="dialogues at most")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=3, help="of a dialogue; default: all that the model reads")
    ] = None,
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Rank the candidate answers of dialogues (VisDial): MRR, recall, mean rank and NDCG.

    The pictures are found by their number, anywhere in the folder.
    """
    folder = folder_of(checkpoint, None, annotations)

    from flows.cli.display.numbers import print_numbers
    from models.roles.dialogue import load_ranker
    from pipeline.evaluate.dialogue import measure_dialogue
    from shards.training.annotation_file import read_dialogues
    from shards.training.dialogue_file import read_relevance
    from shards.training.json_file import read_json

    dialogues, left_out = read_dialogues(annotations)
    relevance = None if dense is None else read_relevance(read_json(dense))
    model = load_ranker(folder, max_tokens=max_tokens, **model_options(dtype))
    written: list[dict[str, Any]] = []
    with watch_samples("evaluating", len(dialogues[:limit])) as progress:
        numbers = measure_dialogue(
            model,
            counted(dialogues[:limit], progress),
            images or beside(annotations),
            dense=relevance,
            results=written,
        )
    left_out.join(numbers["left_out"])
    numbers |= {"left_out": left_out}
    check_outcome(numbers, "rounds", annotations)
    keep(result, written)
    print_numbers(numbers, as_json)


@contextmanager
def _rows(
    annotations: str,
    fields: Sequence[str],
    limit: int | None,
    split: str | None = None,
    answers: str | None = None,
) -> "Iterator[tuple[Iterator[Fields], NamesTogether]]":
    """Yield an annotation file's rows, up to the limit, and the names of all its pictures.

    What is taken of the rows moves the progress.
    """
    from shards.training.annotation_file import read_rows
    from shards.training.picture_name import NamesTogether

    listed = read_rows(annotations, fields, split, answers)
    rows, names = listed[:limit], NamesTogether(chain.from_iterable(map(_names, listed)))
    with watch_samples("evaluating", len(rows)) as progress:
        yield counted(rows, progress), names


def _names(row: "Fields") -> list[Any]:
    pictures = row.get("images")
    return [row.get("image"), *(pictures if isinstance(pictures, list) else ())]


def _answers(files: Sequence[str]) -> tuple[list[str], str | None]:
    """Tell a list of candidates, and the file of what people answered, by what is in them."""
    from shards.training.annotation_file import answers_in, read_answers
    from shards.training.json_file import AnnotationError, read_json
    from shards.training.raw_file import has_questions, people_answers

    listed: list[str] = []
    people: str | None = None
    for file in files:
        parsed = read_json(file)
        if people_answers(parsed) is None:
            if has_questions(parsed):
                raise AnnotationError(
                    f"--answers {file} holds questions, not answers: give it as --annotations, "
                    "and the file of what people answered as --answers"
                )
            listed += answers_in(parsed) or read_answers(file)  # which says what is wrong with it
        elif people is None:
            people = file
        else:
            raise typer.BadParameter(f"--answers {people} and {file} both say what people answered")
    return listed, people
