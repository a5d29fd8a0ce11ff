"""Pairs come whole and in order, and what cannot be used is counted, in every task alike."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.evaluate import EvaluateConfig, LabelledPair, read_pairs
from pipeline.toy.judges import pair_is_right
from pipeline.toy.world import (
    captions,
    scene_from_truth,
)
from tests.support.small_evaluation import (
    CONFIG,
    GREEDY,
    check_alike,
    evaluate_captioner,
    evaluate_filter,
    evaluate_retrieval,
)


@pytest.fixture
def put(tmp_path: Path, tar_of: Any) -> Callable[[list[tuple[str, bytes]]], str]:
    def write(members: list[tuple[str, bytes]]) -> str:
        path = tmp_path / "set.tar"
        path.write_bytes(tar_of(members))
        return str(path)

    return write


def test_pairs_come_whole_and_in_order(world: Path, pairs: list[LabelledPair]) -> None:
    assert [pair.key for pair in pairs] == [f"{n // 9:05d}/{n:09d}" for n in range(23)]
    assert all(pair.reason is None and pair.image for pair in pairs)
    for pair in pairs:
        scene = scene_from_truth(pair.meta["toy"])
        assert (pair.texts[0] in captions(scene)) == (not pair.meta["toy"]["is_noisy"])
    assert list(read_pairs([str(world)], limit=11)) == pairs[:11]


def test_texts_are_the_references_or_the_listed_or_the_one(
    put: Any, encode: Any, noise: Any
) -> None:
    sidecars = [
        {"references": ["one  dog", "two\ndogs", " ", 3], "texts": ["no"]},
        {"texts": [{"text": "a cat", "origin": "web"}, "cats"]},
        {"references": "a string"},
        None,
    ]
    members = []
    for n, sidecar in enumerate(sidecars):
        members += [(f"{n}.png", encode(noise(seed=n), "PNG")), (f"{n}.txt", b"  the\ntext ")]
        if sidecar is not None:
            members.append((f"{n}.json", json.dumps(sidecar).encode()))
    found = [pair.texts for pair in read_pairs([put(members)])]
    assert found == [("one dog", "two dogs"), ("a cat", "cats"), ("the text",), ("the text",)]


@pytest.mark.parametrize(
    ("spoil", "reason", "whole"),
    [
        (lambda data: data[: len(data) // 2], "shard_truncated", None),
        (lambda data: b"BZh9" + data, "shard_compressed", 0),
        (lambda data: b"\x1f\x8b" + data, "shard_corrupt", 0),
        (lambda data: gzip.compress(data)[: len(data) // 10], "shard_truncated", None),
        (lambda _: b"<html>" * 200, "shard_not_tar", 0),
        (lambda _: b"", "shard_empty", 0),
    ],
)
def test_a_damaged_shard_says_so_and_its_neighbours_are_read(
    tmp_path: Path, world: Path, spoil: Any, reason: str, whole: int | None
) -> None:
    (tmp_path / "a.tar").write_bytes(spoil((world / "00000.tar").read_bytes()))
    (tmp_path / "b.tar").write_bytes((world / "00001.tar").read_bytes())
    found = list(read_pairs([str(tmp_path)]))
    assert Counter(pair.reason for pair in found) == {None: len(found) - 1, reason: 1}
    of_shard = Counter(pair.key.partition("/")[0] for pair in found if pair.reason is None)
    assert of_shard["b"] == 9
    assert 0 < of_shard["a"] < 9 if whole is None else of_shard["a"] == whole


def test_what_cannot_be_used_is_counted_by_its_reason(
    folders: Path, put: Any, encode: Any, noise: Any
) -> None:
    good = encode(noise(), "PNG")
    spoiled = {
        "image_truncated": {"png": good[: len(good) // 2], "txt": b"a red ring"},
        "image_undecodable": {"png": b"<html>", "txt": b"a red ring"},
        "image_blank": {"png": encode(Image.new("RGB", (40, 40)), "PNG"), "txt": b"a red ring"},
        "image_missing": {"txt": b"a red ring", "json": b"{}"},
        "text_missing": {"png": good},
        "text_empty": {"png": good, "txt": b"  "},
        "text_not_utf8": {"png": good, "txt": b"caf\xe9"},
        "json_unreadable": {"png": good, "txt": b"a red ring", "json": b"[" * 50_000},
        "fine": {"png": good, "txt": b"a red ring", "json": b'\xef\xbb\xbf{"similarity": NaN}'},
        "tiny": {"png": encode(noise(3, 90, seed=2), "PNG"), "txt": b"a blue ring"},
    }
    members = [(f"{key}.{end}", data) for key, own in spoiled.items() for end, data in own.items()]
    url = put(members)
    expected = dict.fromkeys(list(spoiled)[:-2], 1)  # the keys are the reasons
    measures = evaluate_retrieval(folders / "filter", read_pairs([url]), CONFIG)
    assert (measures["images"], measures["left_out"]) == (2, expected)
    measures = evaluate_captioner(folders / "captioner", read_pairs([url]), GREEDY, CONFIG)
    assert (measures["images"], measures["left_out"]) == (2, expected)
    measures = evaluate_filter(
        folders / "filter",
        read_pairs([url]),
        CONFIG,
        label=lambda pair: None if pair.key.endswith("tiny") else True,
    )
    assert (measures["images"], measures["left_out"]) == (1, {**expected, "label_missing": 1})
    json.dumps(measures)  # the numbers are plain


class Held(bytes):
    """Bytes that know how many of them there are."""

    alive = 0

    def __init__(self, _: bytes) -> None:
        type(self).alive += 1

    def __del__(self) -> None:
        type(self).alive -= 1


def test_pictures_are_let_go(folders: Path, pairs: list[LabelledPair]) -> None:
    held = []

    def fresh() -> Iterator[LabelledPair]:
        for pair in pairs:
            yield replace(pair, image=Held(pair.image))
            held.append(Held.alive)

    evaluate_retrieval(folders / "filter", fresh(), CONFIG)
    evaluate_captioner(folders / "captioner", fresh(), GREEDY, CONFIG)
    evaluate_filter(folders / "filter", fresh(), CONFIG, label=pair_is_right)
    assert len(held) == 3 * len(pairs)
    assert max(held) <= 3 * CONFIG.batch_size + 2 < len(pairs)  # two batches, and one ahead


def test_the_batch_size_does_not_change_the_numbers(
    folders: Path, pairs: list[LabelledPair]
) -> None:
    configs = [EvaluateConfig(batch_size=size, dtype="fp32") for size in (1, 32)]
    for evaluate in (evaluate_retrieval, partial(evaluate_filter, label=pair_is_right)):
        one, many = (evaluate(folders / "filter", pairs, config) for config in configs)
        check_alike(one, many)


@pytest.mark.gpu
def test_a_gpu_counts_what_the_processor_counts(folders: Path, pairs: list[LabelledPair]) -> None:
    configs = [CONFIG.model_copy(update={"device": device}) for device in ("cpu", "cuda")]
    for evaluate in (evaluate_retrieval, partial(evaluate_filter, label=pair_is_right)):
        here, there = (evaluate(folders / "filter", pairs, config) for config in configs)
        check_alike(here, there)
