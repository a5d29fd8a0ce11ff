"""One sample explained on a terminal: facts, texts with scores, and each view's decisions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy import float32
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from pipeline.printable import score, size, visible

Row = Mapping[str, Any]

SCORES = {"itm": "itm", "itm_logit": "logit", "itc": "itc", "logprob": "logprob"}


def print_explanation(explanation: Row) -> None:
    """Print the samples of one key; nothing in them can move the cursor or colour the screen."""
    console = Console()
    for sample in explanation["samples"]:
        title = f"{explanation['shard']}/{visible(sample['key'])}"
        console.print(Text(title, style="bold"))
        console.print(Padding(_grid(_facts(explanation, sample)), (0, 0, 0, 2)))
        for text in sample["texts"]:
            console.print(Padding(_text(text, explanation["views"]), (1, 0, 0, 2)))
        if sample["clean"]:
            console.print(Padding(_grid(_places(sample["clean"])), (1, 0, 0, 2)))
        console.print()


def _facts(explanation: Row, sample: Row) -> Iterator[tuple[str, str | Text]]:
    yield "status", Text(sample["status"], style="green" if sample["status"] == "ok" else "red")
    if sample["reason"]:
        yield "reason", Text(visible(sample["reason"]), style="red")
    yield from _if_there("detail", sample["detail"])
    yield "place", f"sample {sample['index']} of its shard ({explanation['state']['state']})"
    if sample["bytes"] is not None:
        shape = f"{sample['width']} x {sample['height']} {sample['format']}, "
        yield "image", (shape if sample["width"] else "") + size(sample["bytes"])
    yield from _if_there("sha256", sample["sha256"])
    yield from _if_there("url", sample["url"])
    yield from _if_there("notes", ", ".join(sample["notes"] or ()))
    yield from _if_there("web text", sample["text_reason"])
    if sample["status"] != "ok":  # else it stands among the texts
        yield from _if_there("web text", sample["web_text"])
    for view in explanation["views"]:
        if view["fault"]:
            yield f"view {view['name']}", Text(visible(view["fault"]), style="red")


def _if_there(name: str, value: str | None) -> Iterator[tuple[str, str]]:
    if value:
        yield name, visible(value)


def _text(text: Row, views: Sequence[Row]) -> Group:
    """Lay out one text: what it says, its scores, and a line for the decision of each view."""
    head = Text.assemble(
        (f"text {text['text_no']}, {visible(text['origin'])}: ", "bold"), visible(text["text"])
    )
    there = {name: text[column] for column, name in SCORES.items() if text[column] is not None}
    there |= text["scores"]
    scores = "   ".join(f"{name} {score(value)}" for name, value in there.items())
    decided = Table.grid(padding=(0, 2))
    for view in views:
        decision = text["decisions"].get(view["name"])
        if decision is not None:
            rule = Text(visible(_rule(text, view, decision)))
            decided.add_row(Text(view["name"]), _verdict(decision), rule)
    parts: list[Any] = [head, Padding(Text(scores, style="dim"), (0, 2)), Padding(decided, (0, 2))]
    if "words" in text:
        parts.append(Padding(_words(text["words"]), (0, 2)))
    return Group(*parts)


def _words(words: Sequence[Row]) -> Text:
    """Write what each word adds to the logit of the match; those that sink it are red."""
    from pipeline.explain.word_ablation import SINKING

    shown = Text("word by word: ", style="dim")
    for word in words:
        style = "red" if word["effect"] < SINKING else ""
        shown.append(f"{visible(word['text'])} {word['effect']:+.2f}", style=style)
        shown.append("   ")
    return shown


def _verdict(decision: Row) -> Text:
    if decision["keep"]:
        return Text("kept", style="green")
    return Text(visible(decision["reason"]), style="red")


def _rule(text: Row, view: Row, decision: Row) -> str:
    """Write what decided: how the score stands to the threshold, and the condition."""
    reasons = ("kept", "itm_below_threshold", "score_below_threshold")
    if decision["reason"] not in reasons:
        return ""
    said = []
    if (threshold := decision["threshold"]) is not None:
        by = view["by"]
        value = text["scores"].get(by) if "." in by else text[by]
        sign = "missing" if value is None else ">=" if value >= float32(threshold) else "<"
        name = "" if by == "itm" else f"{by} "
        said.append(f"{name}{'' if value is None else score(value)} {sign} {threshold:.6g}")
    if view["where"]:
        said.append(f"where {view['where']}")
    return ", ".join(said)


def _places(clean: Mapping[str, Row]) -> Iterator[tuple[str, str]]:
    for name, place in clean.items():
        yield f"clean, {name}", f"{visible(place['member'])}\nin {visible(place['tar'])}"


def _grid(rows: Iterator[tuple[str, str | Text]]) -> Table:
    """Set names beside values; long values are folded, never cut."""
    grid = Table.grid(Column(style="dim", no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(name), Text(value) if isinstance(value, str) else value)
    return grid
