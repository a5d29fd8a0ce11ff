"""The toy world says the truth: captions are checked against the pixels, shards by bytes."""

import hashlib
import io
import json
import random
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from pydantic import ValidationError

from pipeline.toy.layout import RELATIONS
from pipeline.toy.shapes import COLOURS, SHAPES
from pipeline.toy.world import (
    Scene,
    Thing,
    ToyWorldConfig,
    caption,
    captions,
    corpus,
    draw,
    is_true,
    noisy_flags,
    scene,
    scene_from_truth,
    toy_sample,
    vocabulary,
    write_toy_world,
)
from tests.support.tars import read_members

RING, STAR = (
    Thing("red", "ring", (0.3, 0.1, 0.6, 0.4)),
    Thing("blue", "star", (0.35, 0.5, 0.65, 0.8)),
)
RING_ABOVE_STAR = Scene((RING, STAR), "above", (240, 240, 240))


# --- An oracle that knows the picture only: masks by colour, shapes by their silhouettes. ---


def mask_of(image: Image.Image, colour: str) -> np.ndarray:
    distance = np.abs(np.asarray(image, dtype=int) - COLOURS[colour]).sum(axis=-1)
    return np.asarray(distance < 24)  # the bare colour, without blended edges


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def silhouette(mask: np.ndarray) -> np.ndarray:
    left, top, right, bottom = extent(mask)
    crop = Image.fromarray((mask[top:bottom, left:right] * 255).astype(np.uint8))
    return np.asarray(crop.resize((32, 32)), dtype=float) / 255


def portrait(shape: str, px: int = 128) -> Image.Image:
    return draw(Scene((Thing("black", shape, (0.2, 0.2, 0.8, 0.8)),), None, (240, 240, 240)), px)


PORTRAITS = {shape: silhouette(mask_of(portrait(shape), "black")) for shape in SHAPES}


def seen(image: Image.Image) -> dict[str, tuple[int, int, int, int]]:
    """Each thing in a picture whose things differ in colour, as "colour shape", with its extent."""
    found = {}
    for colour in COLOURS:
        mask = mask_of(image, colour)
        if mask.sum() > 40:
            form = silhouette(mask)
            shape = min(PORTRAITS, key=lambda name: np.abs(PORTRAITS[name] - form).mean())
            found[f"{colour} {shape}"] = extent(mask)
    return found


def agrees_with_pixels(text: str, image: Image.Image) -> bool:
    words = rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
    first, second = (" ".join(pair) for pair in re.findall(words, text))
    (relation,) = re.findall("|".join(RELATIONS), text)
    things = seen(image)
    if first not in things or second not in things:
        return False
    a, b = (things[second], things[first]) if " with " in text else (things[first], things[second])
    dx, dy = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    if abs(dx) > abs(dy):
        return bool(relation == ("left of" if dx < 0 else "right of"))
    return bool(relation == ("above" if dy < 0 else "below"))


# --- Pictures and captions. ---


def test_pixels_confirm_true_captions_and_refute_wrong_ones() -> None:
    config = ToyWorldConfig(samples=400, noise=0.5, seed=3)
    checked = {"true": 0, "hard": 0, "easy": 0}
    for index, noisy in enumerate(noisy_flags(config)):
        sample = toy_sample(index, bool(noisy), config)
        if len({thing.colour for thing in sample.scene.things}) == 2:
            image = draw(sample.scene, 128)
            assert agrees_with_pixels(sample.true_caption, image), sample
            assert agrees_with_pixels(sample.text, image) == (sample.kind == "true"), sample
            checked[sample.kind] += 1
    assert min(checked.values()) > 60


def test_every_box_is_tight_around_its_thing() -> None:
    rng = random.Random(1)
    for things in (1, 2) * 100:
        shown = scene(rng, things)
        for thing in shown.things:
            alone = draw(Scene((thing,), None, shown.background), 200)
            painted = np.abs(np.asarray(alone, dtype=int) - shown.background).sum(axis=-1) > 0
            assert np.allclose(extent(painted), np.array(thing.box) * 200, atol=2), thing
            assert min(thing.box) >= 0
            assert max(thing.box) <= 1


def test_pictures_of_one_sentence_differ() -> None:
    rng = random.Random(5)
    pictures = {draw(scene(rng, 1), 40).tobytes() for _ in range(300)}
    assert len(pictures) == 300


# --- Reading sentences. ---


@pytest.mark.parametrize(
    "text",
    [
        *captions(RING_ABOVE_STAR),
        "The red ring is above the blue star.",
        "there is a blue star below  a red ring",
        "a picture of a red ring with a blue star below it",
        "a red ring",
        "a blue star and a red ring",
    ],
)
def test_true_of_the_ring_above_the_star(text: str) -> None:
    assert is_true(text, RING_ABOVE_STAR)


@pytest.mark.parametrize(
    "text",
    [
        "a blue star above a red ring",
        "a red ring below a blue star",
        "a red ring left of a blue star",
        "a red ring with a blue star above it",
        "a blue ring above a red star",
        "a red star above a blue star",
        "a red ring above a red ring",
        "a red ring and a red ring",
        "a green ring",
        "a red ring above a blue star above a red ring",
        "a red ring above",
        "a ring above a star",
        "red red red",
        "not a red ring",
        "a red ring to the above a blue star",
        "",
        "🜁 \x00",
    ],
)
def test_not_true_of_the_ring_above_the_star(text: str) -> None:
    assert not is_true(text, RING_ABOVE_STAR)


def test_sideways_relations_are_read_with_and_without_to_the() -> None:
    left = Thing("orange", "heart", (0.1, 0.4, 0.4, 0.7))
    right = Thing("orange", "cross", (0.5, 0.3, 0.8, 0.6))
    shown = Scene((right, left), "right of", (240, 240, 240))
    assert "an orange heart left of an orange cross" in captions(shown)
    assert is_true("an orange heart is to the left of an orange cross", shown)
    assert not is_true("an orange heart is to the right of an orange cross", shown)


@pytest.mark.parametrize("things", [1, 2])
def test_captions_are_all_true_and_wrong_ones_false(things: int) -> None:
    config = ToyWorldConfig.model_validate({"samples": 2_000, "things": things})
    kinds = []
    for index in range(config.samples):
        sample = toy_sample(index, True, config)
        assert all(is_true(text, sample.scene) for text in captions(sample.scene))
        assert sample.true_caption in captions(sample.scene)
        assert not is_true(sample.text, sample.scene)
        kinds.append(sample.kind)
    assert 0.45 < kinds.count("hard") / len(kinds) < 0.55


def said(text: str) -> list[str]:
    """Colour, shape, relation, colour, shape: the same for both phrasings of a fact."""
    pattern = "|".join([*COLOURS, *SHAPES, *RELATIONS])
    words = re.findall(pattern, text)
    return [words[2], words[3], words[4], words[0], words[1]] if " with " in text else words


def test_a_hard_caption_differs_from_a_true_one_in_one_word() -> None:
    config = ToyWorldConfig()
    wrong = [toy_sample(index, True, config) for index in range(400)]
    changed = dict.fromkeys(range(5), 0)
    for sample in (sample for sample in wrong if sample.kind == "hard"):
        places = [
            [
                k
                for k, (a, b) in enumerate(zip(said(text), said(sample.text), strict=True))
                if a != b
            ]
            for text in captions(sample.scene)
        ]
        nearest = min(places, key=len)
        assert len(nearest) == 1, sample
        changed[nearest[0]] += 1
        assert said(sample.text)[:2] != said(sample.text)[3:], "no true caption says this"
    assert min(changed.values()) > 10


def test_corpus_and_vocabulary_hold_all_that_is_written() -> None:
    rng = random.Random(7)
    words = set(vocabulary())
    for things in (1, 2) * 300:
        assert set(caption(scene(rng, things), rng).split()) <= words
    assert words >= {"picture", "of", *COLOURS, *SHAPES}
    forms = {re.sub(rf"\b({'|'.join([*COLOURS, *SHAPES])})\b", "_", line) for line in corpus()}
    assert {
        "a _ _ left of an _ _",
        "an _ _ with a _ _ above it",
        "a _ _ on a plain background",
    } <= forms


@pytest.mark.parametrize("kinds", [2, 4, 8])
def test_a_world_of_fewer_kinds_has_so_many_colours_and_shapes(kinds: Any) -> None:
    config = ToyWorldConfig(samples=300, kinds=kinds)
    samples = [toy_sample(index, index % 2 == 0, config) for index in range(config.samples)]
    words = {word for sample in samples for word in sample.text.split()}
    assert len(words & set(COLOURS)) == len(words & set(SHAPES)) == kinds
    for sample in samples:
        assert is_true(sample.text, sample.scene) == (sample.kind == "true")


# --- Shards. ---


def digests(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def members(paths: list[Path]) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    for path in paths:
        content.update(read_members(path))
    return content


def truths(paths: list[Path]) -> list[dict[str, Any]]:
    found = members(paths)
    return [json.loads(found[name])["toy"] for name in sorted(found) if name.endswith(".json")]


def test_the_same_config_writes_the_same_bytes(tmp_path: Path) -> None:
    config = ToyWorldConfig(samples=25, samples_per_shard=10, seed=4)
    first = write_toy_world(tmp_path / "a", config)
    again = write_toy_world(tmp_path / "b", config)
    other = write_toy_world(tmp_path / "c", config.model_copy(update={"seed": 5}))
    assert [path.name for path in first] == ["00000.tar", "00001.tar", "00002.tar"]
    assert digests(first) == digests(again)
    pictures, others = (
        {content for name, content in members(paths).items() if name.endswith(".png")}
        for paths in (first, other)
    )
    assert len(pictures) == 25
    assert not pictures & others
    assert digests(write_toy_world(tmp_path / "a", config)) == digests(again)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [p.name for p in first]


def test_samples_do_not_depend_on_the_shard_size(tmp_path: Path) -> None:
    sizes = [7, 40, 100]
    worlds = [
        members(write_toy_world(tmp_path / str(n), ToyWorldConfig(samples=40, samples_per_shard=n)))
        for n in sizes
    ]
    assert len(worlds[0]) == 120
    assert worlds[0] == worlds[1] == worlds[2]


@pytest.mark.parametrize(("noise", "wrong"), [(0.0, 0), (0.1, 4), (0.5, 20), (0.52, 21), (1.0, 40)])
def test_the_fraction_of_wrong_captions_is_exact(tmp_path: Path, noise: float, wrong: int) -> None:
    paths = write_toy_world(tmp_path, ToyWorldConfig(samples=40, noise=noise))
    told = truths(paths)
    assert sum(truth["is_noisy"] for truth in told) == wrong
    assert sum(truth["kind"] != "true" for truth in told) == wrong


def test_noise_changes_captions_only_and_grows_by_adding() -> None:
    little, much = (ToyWorldConfig(samples=200, noise=noise) for noise in (0.2, 0.6))
    flags = list(zip(noisy_flags(little), noisy_flags(much), strict=True))
    assert all(a <= b for a, b in flags)
    for index, (a, b) in enumerate(flags):
        one, other = toy_sample(index, bool(a), little), toy_sample(index, bool(b), much)
        assert (one.scene, one.true_caption) == (other.scene, other.true_caption)


@pytest.mark.parametrize(("image_format", "extension"), [("png", "png"), ("jpeg", "jpg")])
def test_webdataset_reads_pictures_texts_and_the_truth(
    tmp_path: Path, image_format: str, extension: str
) -> None:
    config = ToyWorldConfig.model_validate(
        {"samples": 30, "noise": 0.5, "image_format": image_format, "image_px": 48}
    )
    (path,) = write_toy_world(tmp_path, config)
    read = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [f"{index:09d}" for index in range(30)]
    for index, sample in enumerate(read):
        truth = json.loads(sample["json"])["toy"]
        shown = scene_from_truth(truth)
        assert shown == toy_sample(index, truth["is_noisy"], config).scene
        assert is_true(truth["true_caption"], shown)
        assert is_true(sample["txt"].decode(), shown) != truth["is_noisy"]
        with Image.open(io.BytesIO(sample[extension])) as image:
            assert (image.size, image.mode, image.format) == ((48, 48), "RGB", image_format.upper())
            apart = np.abs(np.asarray(image, int) - np.asarray(draw(shown, 48), int))
            assert apart.mean() < (4 if image_format == "jpeg" else 1e-9)


def test_all_texts_are_every_true_caption(tmp_path: Path) -> None:
    (path,) = write_toy_world(tmp_path, ToyWorldConfig(samples=5, all_texts=True))
    for sample in webdataset.WebDataset(str(path), shardshuffle=False):
        sidecar = json.loads(sample["json"])
        shown = scene_from_truth(sidecar["toy"])
        assert sidecar["toy"]["true_caption"] in sidecar["texts"]
        assert len(set(sidecar["texts"])) == 4
        assert all(is_true(text, shown) for text in sidecar["texts"])


def test_shards_are_ustar_without_times_or_owners(tmp_path: Path) -> None:
    (path,) = write_toy_world(tmp_path, ToyWorldConfig(samples=3))
    with tarfile.open(path) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert not member.pax_headers
    assert path.read_bytes()[257:265] == b"ustar\x0000"


def test_a_folder_with_other_shards_is_refused(tmp_path: Path) -> None:
    write_toy_world(tmp_path, ToyWorldConfig(samples=30, samples_per_shard=10))
    with pytest.raises(FileExistsError, match=r"00002\.tar"):
        write_toy_world(tmp_path, ToyWorldConfig(samples=20, samples_per_shard=10))


@pytest.mark.parametrize(
    "wrong", [{"noise": 1.5}, {"samples": 0}, {"things": 3}, {"colour": "red"}, {"image_px": 8}]
)
def test_a_config_that_makes_no_sense_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ToyWorldConfig.model_validate(wrong)
