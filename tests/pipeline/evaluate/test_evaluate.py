"""Evaluation: the numbers that the roles give one pair at a time, and nothing lost uncounted."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.blip.config import blip_config
from models.blip.networks import MatchNetwork
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from models.decoding.generate import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from models.roles.retrieval import Retriever
from pipeline.evaluate import (
    EvaluateConfig,
    LabelledPair,
    evaluate_captioner,
    evaluate_filter,
    evaluate_retrieval,
    metrics,
    read_pairs,
)
from pipeline.toy.judges import pair_is_right
from pipeline.toy.world import (
    ToyWorldConfig,
    captions,
    corpus,
    scene_from_truth,
    write_toy_world,
)

SPREAD = 0.2  # of random weights; at the usual 0.02 all scores are alike
CONFIG = EvaluateConfig(batch_size=4, dtype="fp32")
WORLD = ToyWorldConfig(samples=23, samples_per_shard=9, noise=0.4, image_px=32)
GREEDY = Decoding(method="greedy", max_tokens=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = train(corpus(), 400)
    config = blip_config("tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id)
    config.vision_config.initializer_range = config.text_config.initializer_range = SPREAD
    folder = tmp_path_factory.mktemp("evaluate")
    for role in ("captioner", "filter", "pretrain"):
        checkpoint.create(folder / role, role, config, words, seed=1)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, WORLD)
    return folder


@pytest.fixture(scope="module")
def pairs(world: Path) -> list[LabelledPair]:
    return list(read_pairs([str(world)]))


@pytest.fixture
def put(tmp_path: Path, tar_of: Any) -> Callable[[list[tuple[str, bytes]]], str]:
    def write(members: list[tuple[str, bytes]]) -> str:
        path = tmp_path / "set.tar"
        path.write_bytes(tar_of(members))
        return str(path)

    return write


def resized(role: Any, pair: LabelledPair) -> torch.Tensor:
    with Image.open(io.BytesIO(pair.image)) as image:
        return role.preprocess.resize(image.convert("RGB"))[None]


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
        "fine": {"png": good, "txt": b"a red ring"},
        "tiny": {"png": encode(noise(3, 90, seed=2), "PNG"), "txt": b"a blue ring"},
    }
    members = [(f"{key}.{end}", data) for key, own in spoiled.items() for end, data in own.items()]
    url = put(members)
    expected = dict.fromkeys(list(spoiled)[:-2], 1)  # the keys are the reasons
    found = evaluate_retrieval(folders / "filter", read_pairs([url]), CONFIG)
    assert (found["images"], found["left_out"]) == (2, expected)
    found = evaluate_captioner(folders / "captioner", read_pairs([url]), GREEDY, CONFIG)
    assert (found["images"], found["left_out"]) == (2, expected)
    found = evaluate_filter(
        folders / "filter",
        read_pairs([url]),
        CONFIG,
        label=lambda pair: None if pair.key.endswith("tiny") else True,
    )
    assert (found["images"], found["left_out"]) == (1, {**expected, "label_missing": 1})
    json.dumps(found)  # the numbers are plain


@pytest.mark.parametrize(
    ("spoil", "reason", "whole"),
    [
        (lambda data: data[: len(data) // 2], "shard_truncated", None),
        (lambda data: b"\x1f\x8b" + data, "shard_compressed", 0),
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


def slow_recalls(scores: np.ndarray, right: list[set[int]]) -> dict[int, float]:
    ranks = []
    for row, chosen in zip(scores, right, strict=True):
        best = max(row[n] for n in chosen)
        ranks.append(sum(row[n] >= best for n in range(len(row)) if n not in chosen))
    return {k: sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5, 10)}


def check_both_ways(
    found: dict[str, float], to_text: np.ndarray, to_image: np.ndarray, texts_of: list[set[int]]
) -> None:
    images_of = [{i for i, own in enumerate(texts_of) if t in own} for t in range(len(to_image))]
    for name, expected in (
        ("tr", slow_recalls(to_text, texts_of)),
        ("ir", slow_recalls(to_image, images_of)),
    ):
        assert {k: found[f"{name}@{k}"] for k in (1, 5, 10)} == pytest.approx(expected)


def check_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare numbers, one level deep at most."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


@pytest.fixture(scope="module")
def captioned(pairs: list[LabelledPair]) -> list[LabelledPair]:
    """Give each picture some texts: two of its own, one that a neighbour has too."""
    made = []
    for n, pair in enumerate(pairs):
        own = captions(scene_from_truth(pair.meta["toy"]))[:2]
        shared = f"A Picture  number {n // 2}!" if n % 2 else f"a picture number {n // 2}"
        made.append(replace(pair, texts=(*own, shared)))
    return made


@pytest.mark.parametrize("k", [3, 256])
def test_retrieval_counts_what_the_model_finds(
    folders: Path, captioned: list[LabelledPair], k: int
) -> None:
    found = evaluate_retrieval(folders / "filter", captioned, CONFIG, k=k)
    # to the model the two spellings of a shared text are one
    as_read = [[" ".join(t.lower().strip("!").split()) for t in p.texts] for p in captioned]
    distinct = list(dict.fromkeys(text for texts in as_read for text in texts))
    texts_of = [{distinct.index(text) for text in texts} for texts in as_read]
    assert found["texts"] == len(distinct) < sum(len(own) for own in texts_of)
    assert found["images"] == len(captioned)
    assert found["left_out"] == {}

    scorer = Filter.load(folders / "filter", dtype="fp32")
    rows = [scorer.score(resized(scorer, pair), [distinct])[0] for pair in captioned]
    cosines = np.array([[score.itc for score in row] for row in rows])
    check_both_ways(found["itc"], cosines, cosines.T, texts_of)
    retriever = Retriever.load(folders / "filter", dtype="fp32")
    pictures = torch.cat([resized(retriever, pair) for pair in captioned])
    ranking = retriever.rank(retriever.encode_images(pictures), retriever.encode_texts(distinct), k)
    check_both_ways(found["itm"], ranking.to_text.numpy(), ranking.to_image.numpy(), texts_of)
    assert found["itm"] != found["itc"]


def test_more_texts_than_are_read_at_once_are_all_searched(
    folders: Path, pairs: list[LabelledPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate_retrieval(folders / "filter", pairs, CONFIG)
    monkeypatch.setattr("pipeline.evaluate.retrieval.TEXTS_AT_ONCE", 5)  # of different lengths
    check_alike(evaluate_retrieval(folders / "filter", pairs, CONFIG), whole)


def test_a_pretraining_checkpoint_is_a_retriever_too(
    folders: Path, tmp_path: Path, captioned: list[LabelledPair]
) -> None:
    loaded = checkpoint.load(folders / "pretrain", "pretrain", dtype="fp32", device="cpu")
    described = loaded.description
    network = MatchNetwork(described.config)
    own = loaded.network.state_dict()
    network.load_state_dict({name: own[name] for name in network.state_dict()})
    checkpoint.save(
        tmp_path / "filter",
        network,
        described.config,
        described.tokenizer,
        described.preprocess,
        described.settings,
    )
    expected = evaluate_retrieval(tmp_path / "filter", captioned, CONFIG)
    assert evaluate_retrieval(folders / "pretrain", captioned, CONFIG) == expected


def test_captions_are_compared_with_the_references(
    folders: Path, pairs: list[LabelledPair]
) -> None:
    decoding = Decoding(method="nucleus", max_tokens=8)
    captioner = BlipCaptioner.load(folders / "captioner", decoding=decoding, seed=3, dtype="fp32")
    alone = [captioner.caption(resized(captioner, p), [p.key], 1)[0][0].text for p in pairs]
    scored: dict[str, Any] = {
        "rouge_l": metrics.rouge_l,
        "cider": metrics.cider,
        "exact_match": metrics.exact_match,
    }
    references = [pair.texts for pair in pairs]
    expected = {name: metric(alone, references) for name, metric in scored.items()}
    expected |= metrics.bleu(alone, references)
    found = evaluate_captioner(folders / "captioner", pairs, decoding, CONFIG, seed=3)
    assert found == {"images": len(pairs), "left_out": {}, "tokenizer": "words", **expected}

    # with the model's own captions among the references, all are right
    paired = zip(pairs, alone, strict=True)
    own = [replace(pair, texts=("nothing", text.upper())) for pair, text in paired]
    found = evaluate_captioner(folders / "captioner", own, decoding, CONFIG, seed=3)
    assert found["exact_match"] == 1


def test_captions_are_judged_with_the_sidecar(folders: Path, pairs: list[LabelledPair]) -> None:
    seen = []

    def judge(text: str, meta: Any) -> bool | None:
        seen.append((text, meta["toy"]["true_caption"]))
        return [True, False, None, False][len(seen) % 4]

    folder = folders / "captioner"
    found = evaluate_captioner(folder, pairs[:12], GREEDY, CONFIG, is_right=judge)
    assert [true for _, true in seen] == [pair.meta["toy"]["true_caption"] for pair in pairs[:12]]
    assert (found["judged"], found["right"]) == (9, pytest.approx(3 / 9))
    none = evaluate_captioner(folder, pairs[:3], GREEDY, CONFIG, is_right=lambda *_: None)
    assert (none["judged"], none["right"]) == (0, None)


def test_labels_may_be_given_and_count_for_all_texts_of_a_pair(
    folders: Path, captioned: list[LabelledPair]
) -> None:
    given = {pair.key: n % 3 == 0 for n, pair in enumerate(captioned) if n % 4}
    found = evaluate_filter(
        folders / "filter", captioned, CONFIG, threshold=0, label=lambda pair: given.get(pair.key)
    )
    assert found["left_out"] == {"label_missing": len(captioned) - len(given)}
    assert found["texts"] == 3 * len(given)
    assert found["kept"] == found["recall"] == 1
    assert found["precision"] == pytest.approx(sum(given.values()) / len(given))


def test_nothing_to_evaluate_gives_no_numbers(folders: Path) -> None:
    found = evaluate_retrieval(folders / "filter", [], CONFIG)
    assert (found["images"], found["texts"], found["left_out"]) == (0, 0, {})
    assert set(found["itc"].values()) == set(found["itm"].values()) == {None}
    found = evaluate_captioner(folders / "captioner", [], GREEDY, CONFIG)
    assert found["cider"] is found["bleu_4"] is found["exact_match"] is None
    found = evaluate_filter(folders / "filter", [], CONFIG, label=pair_is_right)
    assert found["roc_auc"] is found["kept"] is found["noise_after"] is None


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
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    configs = [CONFIG.model_copy(update={"device": device}) for device in ("cpu", "cuda")]
    for evaluate in (evaluate_retrieval, partial(evaluate_filter, label=pair_is_right)):
        here, there = (evaluate(folders / "filter", pairs, config) for config in configs)
        check_alike(here, there)
