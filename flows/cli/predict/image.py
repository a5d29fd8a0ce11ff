"""`capfilt caption`, `match`, `ask`, `reason` and `attend`: what the models say about a picture."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import AsJson, Device, Method, device_of, path_option, say_loading
from pipeline.printable import number_of, visible

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.media.pictures import UserPicture
    from pipeline.predict.image import ImageAnswer, TextMatch

CAPTION_EXAMPLES = """
Examples:

  capfilt caption photo.jpg

  capfilt caption photos/ 'web/00000.tar' --method nucleus --count 3 --json

  cat photo.jpg | capfilt caption -
"""
MATCH_EXAMPLES = """
Examples:

  capfilt match photo.jpg "a dog on a beach"

  capfilt match photo.jpg "a dog" "a cat" "a horse"  # a zero-shot classifier
"""
ASK_EXAMPLES = """
Examples:

  capfilt ask photo.jpg "what color is the dog?"

  capfilt ask photo.jpg "what is it?" --answers answer_list.json

  capfilt ask photo.jpg "what color is it?" --answers answers.json \\
      --caption "a dog on a beach" --said "is there a ball? yes"  # a dialogue
"""
REASON_EXAMPLES = """
Example:

  capfilt reason left.jpg right.jpg "both pictures show a dog" \\
      --model runs/nlvr/model
"""
ATTEND_EXAMPLES = """
Example:

  capfilt attend photo.jpg "a dog on a beach" --out attention.png
"""

MATCH_HEADER = "  itm    itc  share"

PicturePath = Annotated[str, typer.Argument(help="picture: a file, a URL, or - for standard input")]


def caption(
    pictures: Annotated[
        list[str], typer.Argument(help="files, folders, tars, URLs, or - for standard input")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="captioner: folder or hub id",
            show_default="blip-image-captioning-base of Salesforce's",
        ),
    ] = "Salesforce/blip-image-captioning-base",
    method: Method = "beam",
    count: Annotated[int, typer.Option(min=1, help="captions of each picture")] = 1,
    prompt: Annotated[str, typer.Option(help="what a caption goes on from")] = "a picture of ",
    min_tokens: Annotated[int, typer.Option(min=0, help="of a caption")] = 5,
    max_tokens: Annotated[int, typer.Option(min=1, help="of a caption")] = 20,
    seed: Annotated[int, typer.Option(help="of nucleus sampling")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures in one pass")] = 8,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Write captions for pictures; one that cannot be read is told, and the others go on."""
    if min_tokens > max_tokens:
        raise typer.BadParameter(f"--min-tokens {min_tokens} is more than {max_tokens}")
    # of several, one that is not there is told, and the others go on
    folder = _checked(model, *(pictures if len(pictures) == 1 else ()))

    from models.decoding.config import Decoding
    from models.roles.captioner import BlipCaptioner
    from pipeline.media.pictures import read_pictures
    from pipeline.predict import image as use

    decoding = Decoding(
        method=method,
        prompt=prompt,
        beams=max(3, count),
        min_tokens=min_tokens,
        max_tokens=max_tokens,
    )
    with _as_usage():
        captioner = BlipCaptioner.load(
            folder, decoding=decoding, seed=seed, device=device_of(device)
        )
    read = unread = 0
    for captioned in use.caption(captioner, read_pictures(pictures), count, batch_size):
        picture = captioned.picture
        if picture.image is None:
            unread += 1
            _report_unread(picture, as_json)
            continue
        read += 1
        texts = [dataclasses.asdict(text) for text in captioned.captions]
        if as_json:
            print(json.dumps({"picture": picture.name, "captions": texts}))
        else:
            for text in texts:
                print(f"{visible(picture.name)}: {visible(text['text'])}")
    _end(read, unread, pictures)


def match(
    picture: PicturePath,
    texts: Annotated[list[str], typer.Argument(help="one, or several to choose from")],
    model: Annotated[
        str, typer.Option(help="filter: folder or hub id")
    ] = "Salesforce/blip-itm-base-coco",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score texts against a picture: ITM's probability of a match, and ITC's cosine.

    Of several texts, `share` is a zero-shot classifier's: a softmax over their cosines.
    """
    folder = _checked(model, picture)

    from models.roles.filter import Filter
    from pipeline.predict import image as use

    scorer = Filter.load(folder, device=device_of(device))
    matches = use.match(scorer, image_of(picture), texts)
    if as_json:
        print(json.dumps([dataclasses.asdict(match) for match in matches]))
        return
    print(MATCH_HEADER)
    for match in matches:
        print(f"{match_scores(match)}  {visible(match.text)}")


def ask(
    picture: PicturePath,
    question: Annotated[str, typer.Argument(help="in words")],
    model: Annotated[
        str, typer.Option(help="VQA or dialogue model: folder or hub id")
    ] = "Salesforce/blip-vqa-base",
    answers: Annotated[
        Path | None, path_option(help="JSON list to choose from, as VQA's answer_list.json")
    ] = None,
    caption: Annotated[str | None, typer.Option(help="that opens a dialogue")] = None,
    said: Annotated[
        list[str] | None, typer.Option(help="earlier question and answer; may be repeated")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="answers of the list that are shown")] = 5,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Answer a question about a picture: in own words, or out of a list.

    With --caption or --said it goes on a dialogue, and --answers are ranked.
    """
    from shards.training.annotation_file import read_answers

    listed = [] if answers is None else read_answers(str(answers))
    if (caption is not None or said) and not listed:
        raise typer.BadParameter("in a dialogue answers are ranked: give --answers")
    folder = _checked(model, picture)

    from models.roles.dialogue import load_ranker
    from models.roles.vqa import VqaModel
    from models.training.dialogue import Dialogue
    from pipeline.predict import image as use

    image, used = image_of(picture), device_of(device)
    if caption is not None or said:
        dialogue = Dialogue(caption or "", [_round(earlier) for earlier in said or ()], question)
        ranked = use.converse(load_ranker(folder, device=used), image, dialogue, listed)
    else:
        ranked = use.ask(VqaModel.load(folder, device=used), image, question, listed)
    if as_json:
        print(json.dumps([dataclasses.asdict(answer) for answer in ranked[:top]]))
        return
    print_answers(ranked[:top], with_score=bool(listed))


def _round(said: str) -> tuple[str, str]:
    """Take a question and its answer apart."""
    question, mark, answer = said.partition("?")
    if not mark:
        raise typer.BadParameter(f"--said {said!r}: expected a question, ?, and its answer")
    return f"{question}?", answer.strip()


def reason(
    left: PicturePath,
    right: PicturePath,
    statement: Annotated[str, typer.Argument(help="about both pictures")],
    model: Annotated[str, typer.Option(help="NLVR2 model: a folder")],
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say how likely a statement is true of two pictures (NLVR2)."""
    folder = _checked(model, left, right)

    from models.roles.nlvr import NlvrModel
    from pipeline.predict import image as use

    reasoner = NlvrModel.load(folder, device=device_of(device))
    probability = use.reason(reasoner, image_of(left), image_of(right), statement)
    if as_json:
        print(json.dumps({"probability": probability}))
        return
    print(f"{'true' if probability > 0.5 else 'false'} (probability {probability:.3f})")


def attend(
    picture: PicturePath,
    text: Annotated[str, typer.Argument(help="whose words are looked for")],
    out: Annotated[Path, path_option(help="PNG to write")] = Path("attention.png"),
    model: Annotated[
        str, typer.Option(help="filter or captioner: folder or hub id")
    ] = "Salesforce/blip-itm-base-coco",
    layer: Annotated[int | None, typer.Option(help="from 0; default: the middle one")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw where a model looks for each word: a heat map over the picture (Grad-CAM)."""
    if out.is_dir():
        raise typer.BadParameter(f"--out {out} is a folder; give a file, such as {out}/where.png")
    folder = _checked(model, picture)

    from models.checkpoints.description import describe
    from models.roles.attention_explainer import AttentionExplainer
    from pipeline.explain.heatmap import overlay

    writes = describe(folder).role == "captioner"
    attender = AttentionExplainer.load(
        folder, role="captioner" if writes else "filter", device=device_of(device)
    )
    look = attender.caption if writes else attender.match
    image = image_of(picture)
    with _as_usage():
        heatmap = overlay(image, look(attender.preprocess.resize(image), text, layer=layer))
    out.write_bytes(heatmap.png)
    if as_json:
        print(json.dumps({"png": str(out), "words": heatmap.words, "left_out": heatmap.left_out}))
        return
    print(f"wrote {visible(str(out))}: {number_of(len(heatmap.words), 'word')}")


def _checked(model: str, *pictures: str) -> Path:
    """Return the model's folder; refuse pictures that are not there before torch is loaded."""
    from models.checkpoints.locate import resolve
    from pipeline.media.pictures import check_there

    check_there(pictures)
    folder = resolve(model)
    say_loading()
    return folder


@contextmanager
def _as_usage() -> Iterator[None]:
    """Turn a number that does not fit the model into bad usage."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:  # one with a name of its own is told under it
            raise
        raise typer.BadParameter(str(error)) from None


def image_of(path: str) -> "Image":
    """Return one picture; raise InputError where it cannot be read."""
    from pipeline.media.pictures import read_picture
    from shards.inputs.shard import InputError

    picture = read_picture(path)
    if picture.image is None:
        raise InputError(f"{picture.name} cannot be used: {picture.reason}{_detail(picture)}")
    return picture.image


def match_scores(match: "TextMatch") -> str:
    """Write the scores of a match under MATCH_HEADER."""
    return f"{match.itm:5.3f} {match.itc:6.3f}  {match.share:5.3f}"


def print_answers(answers: "Iterable[ImageAnswer]", *, with_score: bool) -> None:
    """Print answers, a line each; scores are worth it where a list was ranked."""
    for answer in answers:
        score = f"{answer.score:7.3f}  " if with_score else ""
        print(f"{score}{visible(answer.text)}")


def _report_unread(picture: "UserPicture", as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"picture": picture.name, "reason": picture.reason}
        print(json.dumps(fields | {"detail": picture.detail}))
        return
    typer.echo(f"{visible(picture.name)}: {picture.reason}{visible(_detail(picture))}", err=True)


def _detail(picture: "UserPicture") -> str:
    return f" ({picture.detail})" if picture.detail else ""


def _end(read: int, unread: int, locations: Sequence[str]) -> None:
    """Report how many could not be read; it is a failure where nothing could."""
    if unread:
        typer.echo(f"{unread} of {number_of(read + unread, 'picture')} could not be read", err=True)
    if not read:
        if not unread:
            typer.echo(f"capfilt: no picture in {visible(', '.join(locations))}", err=True)
        raise typer.Exit(1)
