"""`capfilt evaluate`: numbers of shipped checkpoints, for machines and people, and bad paths."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import locate
from models.decoding.config import Decoding
from pipeline.evaluate import EvaluateConfig, LabelledPair, read_pairs
from pipeline.toy.judges import caption_is_right
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import InProcess
from tests.support.small_evaluation import evaluate_captioner, evaluate_filter, evaluate_retrieval

CONFIG = EvaluateConfig(dtype="fp32")
FP32 = "--dtype=fp32"
CHECKPOINTS = {"retrieval": "tiny-filter", "caption": "tiny-captioner", "filter": "tiny-filter"}
USUAL = {"retrieval": (), "caption": ("--no-java",), "filter": ("--judge=toy",)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of the kind that the shipped checkpoints know, 4 texts in 10 wrong."""
    folder = tmp_path_factory.mktemp("world")
    config = ToyWorldConfig(samples=24, samples_per_shard=9, noise=0.4, kinds=4, seed=11)
    write_toy_world(folder, config)
    return folder


@pytest.fixture
def found(capfilt: InProcess, world: Path) -> Callable[..., dict[str, Any]]:
    """Ask for numbers as JSON."""

    def ask(what: str, *flags: str) -> dict[str, Any]:
        java = ("--no-java",) if what == "caption" else ()
        done = capfilt.run(
            "evaluate", what, CHECKPOINTS[what], world, FP32, "--json", *java, *flags
        )
        assert done.returncode == 0, done.stderr
        numbers: dict[str, Any] = json.loads(done.stdout)
        return numbers

    return ask


def close(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare numbers of batches that may be of other sizes."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            close(value, other[name])
        else:
            assert value == pytest.approx(other[name], abs=1e-6), name


def test_retrieval_is_measured_as_asked(found: Callable[..., dict[str, Any]], world: Path) -> None:
    folder = locate.SHIPPED["tiny-filter"]
    for limit, k in ((None, 256), (10, 3)):
        flags = [] if limit is None else [f"--limit={limit}", f"--k={k}"]
        numbers = found("retrieval", *flags, "--batch-size=7")
        close(numbers, evaluate_retrieval(folder, read_pairs([str(world)], limit), CONFIG, k=k))
        assert (numbers["images"], numbers["k"]) == (limit or 24, k)


def test_captions_are_written_as_asked(found: Callable[..., dict[str, Any]], world: Path) -> None:
    decoding = Decoding(method="greedy", min_tokens=2, max_tokens=8, prompt="a picture of ")
    expected = evaluate_captioner(
        locate.SHIPPED["tiny-captioner"],
        read_pairs([str(world)]),
        decoding,
        CONFIG,
        is_right=caption_is_right,
    )
    numbers = found("caption", "--method=greedy", "--min-tokens=2", "--max-tokens=8", "--judge=toy")
    close(numbers, expected)
    assert numbers["judged"] == 24
    # of a prompt that it was not taught it makes something else
    assert found("caption", "--method=greedy", "--prompt=red")["cider"] != numbers["cider"]


def test_a_filter_is_compared_with_the_labels_that_are_named(
    found: Callable[..., dict[str, Any]], world: Path
) -> None:
    pairs = list(read_pairs([str(world)]))
    noisy = sum(pair.meta["toy"]["is_noisy"] for pair in pairs)

    def label(pair: LabelledPair) -> bool:
        return not pair.meta["toy"]["is_noisy"]

    folder = locate.SHIPPED["tiny-filter"]
    numbers = found("filter", "--threshold=0.7", "--judge=toy")
    close(numbers, evaluate_filter(folder, pairs, CONFIG, threshold=0.7, label=label))
    assert numbers["noise_before"] == pytest.approx(noisy / 24)
    assert numbers["roc_auc"] > 0.8  # it was trained on such a world
    turned = found("filter", "--label=toy.is_noisy")
    assert turned["roc_auc"] == pytest.approx(1 - numbers["roc_auc"])


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_people_get_a_row_for_each_number(
    capfilt: InProcess, found: Callable[..., dict[str, Any]], world: Path, what: str
) -> None:
    done = capfilt.run("evaluate", what, CHECKPOINTS[what], world, FP32, *USUAL[what])
    assert done.returncode == 0, done.stderr
    rows = dict(map(str.split, done.stdout.splitlines()))
    numbers = found(what, *USUAL[what])
    assert rows.pop("tokenizer", None) == numbers.pop("tokenizer", None)
    shown = {name: float(value) for name, value in rows.items()}
    del numbers["left_out"]  # nothing is
    flat = {
        f"{group}.{name}" if group else name: value
        for group in ("", "itc", "itm")
        for name, value in (numbers.get(group, {}) if group else numbers).items()
        if not isinstance(value, dict)
    }
    assert shown == pytest.approx(flat, abs=5e-5)
    assert max(map(len, done.stdout.splitlines())) < 80


def test_what_is_left_out_is_told_of_by_its_reason(
    capfilt: InProcess, world: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.tar"
    whole = (world / "00000.tar").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    done = capfilt.run("evaluate", "filter", "tiny-filter", cut, FP32, "--judge=toy")
    assert done.returncode == 0, done.stderr
    rows = dict(map(str.split, done.stdout.splitlines()))
    assert rows["left_out.shard_truncated"] == "1"
    assert 0 < int(rows["images"]) < 9


@pytest.mark.parametrize("what", CHECKPOINTS)
@pytest.mark.parametrize(
    ("model", "shards", "said"),
    [
        (
            "no/such/model",
            None,
            "there is no checkpoint folder {home}/no/such/model. Give an exist",
        ),
        (None, "nothing", "'nothing': there is no {home}/nothing"),
        ("the other one", None, "expected a"),
    ],
)
def test_a_bad_path_is_one_message(
    capfilt: InProcess, world: Path, what: str, model: str | None, shards: str | None, said: str
) -> None:
    other = {"tiny-filter": "tiny-captioner", "tiny-captioner": "tiny-filter"}[CHECKPOINTS[what]]
    given = other if model == "the other one" else model or CHECKPOINTS[what]
    done = capfilt.run("evaluate", what, given, shards or world, *USUAL[what])
    assert done.returncode == 2
    assert said.format(home=capfilt.home) in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_token_limits_that_contradict_each_other(capfilt: InProcess, world: Path) -> None:
    asked = ["--min-tokens=9", "--max-tokens=3"]
    done = capfilt.run("evaluate", "caption", "tiny-captioner", world, *asked)
    assert done.returncode == 2
    assert "--min-tokens 9 is more than 3" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "--label or --judge"),
        (("--label=a", "--judge=toy"), "--label or --judge"),
        (("--judge=nobody",), "'nobody' is not one of 'toy'"),
    ],
)
def test_a_filter_is_judged_by_one_who_is_there(
    capfilt: InProcess, world: Path, flags: tuple[str, ...], said: str
) -> None:
    done = capfilt.run("evaluate", "filter", "tiny-filter", world, *flags)
    assert done.returncode == 2
    assert said in done.stderr
