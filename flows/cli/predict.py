"""`capfilt caption`, `match`, `ask`, `reason` and `attend`: what the models say about a picture."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.evaluate.pairs import Method

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.media.pictures import UserPicture

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

Place = Annotated[str, typer.Argument(help="picture: a file, a URL, or - for standard input")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
AsJson = Annotated[bool, typer.Option("--json", help="for machines")]


def caption(
    pictures: Annotated[
        list[str], typer.Argument(help="files, folders, tars, URLs, or - for standard input")
    ],
    model: Annotated[
        str, typer.Option(help="captioner: folder or hub id")
    ] = "Salesforce/blip-image-captioning-base",
    method: Annotated[Method, typer.Option(help="of decoding")] = Method.BEAM,
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
    from models.checkpoints.weights import resolve
    from models.decoding.generate import Decoding
    from models.roles.captioner import BlipCaptioner
    from pipeline.media.pictures import read_pictures
    from pipeline.predict import image as use

    if min_tokens > max_tokens:
        raise typer.BadParameter(f"--min-tokens {min_tokens} is more than {max_tokens}")
    decoding = Decoding(
        method=method.value,
        prompt=prompt,
        beams=max(3, count),
        min_tokens=min_tokens,
        max_tokens=max_tokens,
    )
    with _as_usage():
        captioner = BlipCaptioner.load(
            resolve(model), decoding=decoding, seed=seed, device=device_of(device)
        )
    read = unread = 0
    for found in use.caption(captioner, read_pictures(pictures), count, batch_size):
        if found.picture.image is None:
            unread += 1
            _tell_unread(found.picture, as_json)
            continue
        read += 1
        texts = [dataclasses.asdict(text) for text in found.captions]
        if as_json:
            print(json.dumps({"picture": found.picture.name, "captions": texts}))
        else:
            for text in texts:
                print(f"{_shown(found.picture.name)}: {_shown(text['text'])}")
    _end(read, unread)


def match(
    picture: Place,
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
    from models.checkpoints.weights import resolve
    from models.roles.filter import Filter
    from pipeline.predict import image as use

    scorer = Filter.load(resolve(model), device=device_of(device))
    found = use.match(scorer, image_of(picture), texts)
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    print("  itm    itc  share")
    for one in found:
        print(f"{one.itm:5.3f} {one.itc:6.3f}  {one.share:5.3f}  {_shown(one.text)}")


def ask(
    picture: Place,
    question: Annotated[str, typer.Argument(help="in words")],
    model: Annotated[
        str, typer.Option(help="VQA or dialogue model: folder or hub id")
    ] = "Salesforce/blip-vqa-base",
    answers: Annotated[
        Path | None, typer.Option(help="JSON list to choose from, as VQA's answer_list.json")
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
    from models.checkpoints.weights import resolve
    from models.roles.dialogue import load_ranker
    from models.roles.vqa import VqaModel
    from models.training.dialogue import Dialogue
    from pipeline.predict import image as use
    from shards.training.annotation_file import read_answers

    listed = [] if answers is None else read_answers(str(answers))
    folder, image, used = resolve(model), image_of(picture), device_of(device)
    if caption is not None or said:
        if not listed:
            raise typer.BadParameter("in a dialogue answers are ranked: give --answers")
        dialogue = Dialogue(caption or "", [_round(one) for one in said or ()], question)
        found = use.converse(load_ranker(folder, device=used), image, dialogue, listed)
    else:
        found = use.ask(VqaModel.load(folder, device=used), image, question, listed)
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found[:top]]))
        return
    for one in found[:top]:
        print(f"{one.score:7.3f}  {_shown(one.text)}" if listed else _shown(one.text))


def _round(said: str) -> tuple[str, str]:
    """Take a question and its answer apart."""
    question, mark, answer = said.partition("?")
    if not mark:
        raise typer.BadParameter(f"--said {said!r}: expected a question, ?, and its answer")
    return f"{question}?", answer.strip()


def reason(
    left: Place,
    right: Place,
    statement: Annotated[str, typer.Argument(help="about both pictures")],
    model: Annotated[str, typer.Option(help="NLVR2 model: a folder")],
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say how likely a statement is true of two pictures (NLVR2)."""
    from models.checkpoints.weights import resolve
    from models.roles.nlvr import NlvrModel
    from pipeline.predict import image as use

    reasoner = NlvrModel.load(resolve(model), device=device_of(device))
    probability = use.reason(reasoner, image_of(left), image_of(right), statement)
    if as_json:
        print(json.dumps({"probability": probability}))
        return
    print(f"{'true' if probability > 0.5 else 'false'} (probability {probability:.3f})")


def attend(
    picture: Place,
    text: Annotated[str, typer.Argument(help="whose words are looked for")],
    out: Annotated[Path, typer.Option(help="PNG to write")] = Path("attention.png"),
    model: Annotated[
        str, typer.Option(help="filter or captioner: folder or hub id")
    ] = "Salesforce/blip-itm-base-coco",
    layer: Annotated[int | None, typer.Option(help="from 0; default: the middle one")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw where a model looks for each word: a heat map over the picture (Grad-CAM)."""
    from models.checkpoints import checkpoint
    from models.checkpoints.weights import resolve
    from models.roles.attention_explainer import AttentionExplainer
    from pipeline.explain.heatmap import overlay_caption, overlay_match

    folder = resolve(model)
    writes = checkpoint.describe(folder).role == "captioner"
    attender = AttentionExplainer.load(
        folder, role="captioner" if writes else "filter", device=device_of(device)
    )
    draw = overlay_caption if writes else overlay_match
    image = image_of(picture)
    with _as_usage():
        found = draw(attender, image, text, layer=layer)
    out.write_bytes(found.png)
    if as_json:
        print(json.dumps({"png": str(out), "words": found.words, "left_out": found.left_out}))
        return
    print(f"wrote {_shown(str(out))}: {len(found.words)} words")


def device_of(given: str) -> str:
    """Name the device that was asked for; auto is a GPU, if there is one."""
    import torch

    if given == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(given)
    except RuntimeError as error:
        raise typer.BadParameter(f"--device {given}: {error}") from None
    return given


@contextmanager
def _as_usage() -> Iterator[None]:
    """Say of a number that does not fit the model that the command is wrong."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:  # one with a name of its own is told under it
            raise
        raise typer.BadParameter(str(error)) from None


def image_of(place: str) -> "Image":
    """Read one picture that must be there."""
    from pipeline.media.pictures import read_picture
    from shards.inputs.listing import InputError

    found = read_picture(place)
    if found.image is None:
        detail = f" ({found.detail})" if found.detail else ""
        raise InputError(f"{found.name} cannot be used: {found.reason}{detail}")
    return found.image


def _tell_unread(picture: "UserPicture", as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"picture": picture.name, "reason": picture.reason}
        print(json.dumps(fields | {"detail": picture.detail}))
        return
    detail = f" ({picture.detail})" if picture.detail else ""
    typer.echo(f"{_shown(picture.name)}: {picture.reason}{_shown(detail)}", err=True)


def _end(read: int, unread: int) -> None:
    """Say what could not be read; it is a failure where nothing could."""
    if unread:
        typer.echo(f"{unread} of {read + unread} pictures could not be read", err=True)
    if not read:
        if not unread:
            typer.echo("capfilt: no picture there", err=True)
        raise typer.Exit(1)


def _shown(text: str) -> str:
    from pipeline.printable import visible

    return visible(text)
