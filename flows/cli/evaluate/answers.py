"""`capfilt evaluate vqa`, `nlvr` and `dialogue`: questions, statements and dialogues."""

from typing import Annotated, Any

import typer

from flows.cli.evaluate.pairs import (
    AsJson,
    BatchSize,
    Checkpoint,
    Dtype,
    DtypeChoice,
    Images,
    Limit,
    Result,
    beside,
    config_of,
    folder_of,
    keep,
    rows_of,
    tell,
)
from flows.cli.progress import counted, watch_samples

VQA_EXAMPLES = """
Examples:

  capfilt evaluate vqa runs/vqa/model --annotations val.json --images coco

  capfilt evaluate vqa runs/vqa/model --annotations vqa_test.json \\
      --images coco --answers answer_list.json --result vqa_result.json
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
MaxTokens = Annotated[int, typer.Option(min=3, max=512, help="of a text, special ones included")]


def vqa(
    checkpoint: Checkpoint,
    annotations: Annotations,
    images: Images = None,
    answers: Annotated[
        str | None, typer.Option(help="JSON list to rank, as answer_list.json; default: write one")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="of the rows: accuracy of each value, too")
    ] = None,
    result: Result = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 35,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure answers to questions by VQA's official accuracy."""
    from models.roles.vqa import VqaModel
    from pipeline.evaluate.vqa import measure_vqa
    from shards.training.annotation_file import read_answers

    listed = [] if answers is None else read_answers(answers)
    config = config_of(batch_size, max_tokens, dtype)
    answerer = VqaModel.load(
        folder_of(checkpoint), max_tokens=max_tokens, dtype=config.dtype, device=config.device
    )
    written: list[dict[str, Any]] = []
    with rows_of(annotations, ("image", "question"), limit) as rows:
        found = measure_vqa(
            answerer,
            rows,
            images or beside(annotations),
            batch_size,
            answers=listed,
            by=by,
            results=written,
        )
    keep(result, written)
    tell(found, as_json)


def nlvr(
    checkpoint: Checkpoint,
    annotations: Annotations,
    images: Images = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    max_tokens: MaxTokens = 64,
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure how many statements about two pictures are judged right (NLVR2)."""
    from models.roles.nlvr import NlvrModel
    from pipeline.evaluate.nlvr import measure_nlvr

    config = config_of(batch_size, max_tokens, dtype)
    reasoner = NlvrModel.load(
        folder_of(checkpoint), max_tokens=max_tokens, dtype=config.dtype, device=config.device
    )
    with rows_of(annotations, ("images", "sentence", "label"), limit) as rows:
        found = measure_nlvr(reasoner, rows, images or beside(annotations), batch_size)
    tell(found, as_json)


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
    dtype: Dtype = DtypeChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Rank the candidate answers of dialogues (VisDial): MRR, recall, mean rank and NDCG.

    The pictures are found by their number, anywhere in the folder.
    """
    from models.roles.dialogue import load_ranker
    from pipeline.evaluate.dialogue import measure_dialogue
    from shards.training.annotation_file import read_dialogues, read_json
    from shards.training.dialogue_file import read_relevance

    found, left_out = read_dialogues(annotations)
    relevance = None if dense is None else read_relevance(read_json(dense))
    config = config_of(1, 35, dtype)
    ranker = load_ranker(
        folder_of(checkpoint), max_tokens=max_tokens, dtype=config.dtype, device=config.device
    )
    written: list[dict[str, Any]] = []
    with watch_samples("evaluating", len(found[:limit])) as progress:
        numbers = measure_dialogue(
            ranker,
            counted(found[:limit], progress),
            images or beside(annotations),
            dense=relevance,
            results=written,
        )
    keep(result, written)
    tell(numbers | {"left_out": left_out | numbers["left_out"]}, as_json)
