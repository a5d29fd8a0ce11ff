"""Human-annotated pairs pass unfiltered, and what cannot be used is counted."""

import json
import pickle
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from shards.inputs.shard import InputChanged
from shards.training.annotation import SourceText
from shards.training.source import Source, SourceConfig, SourceError, SourceSample
from shards.training.source_reader import open_source, read_part


def samples(source: Source) -> list[SourceSample]:
    return [sample for part in source.parts for sample in read_part(part)]


@pytest.fixture
def put(tmp_path: Path, tar_bytes: Any) -> Callable[..., Path]:
    """Write a tar of human-annotated samples."""

    def write(name: str, members: Any, cut: int = 0) -> Path:
        path = tmp_path / "human" / f"{name}.tar"
        path.parent.mkdir(exist_ok=True)
        data = tar_bytes(members)
        path.write_bytes(data[:-cut] if cut else data)
        return path

    return write


def of_shards(path: Path | str, **other: Any) -> Source:
    return open_source(SourceConfig(shards=(str(path),), **other))


def test_human_pairs_pass_unfiltered_and_nothing_is_lost_uncounted(put: Any, pairs: Any) -> None:
    bad = [
        ("l0.jpg", b""),
        ("l0.txt", b"x"),
        ("l1.txt", b"x"),
        ("k000.jpg", b"again"),
        ("k000.txt", b"x"),
        ("l2.jpg", b"x"),
    ]
    put("00000", [*pairs(9), *bad])
    put("00001", pairs(12), cut=20_000)
    put("00002", [])
    source = of_shards(put("00003", pairs(2)).parent)
    reasons = {"image_empty": 1, "image_missing": 1, "duplicate_key": 1, "text_missing": 1}
    assert source.left_out == {**reasons, "shard_truncated": 1}
    assert source.damaged == {"00001": "truncated", "00002": "empty"}
    found = samples(source)
    assert len(found) == source.rows
    assert [s.image for s in found if s.key.startswith("00000/")] == [
        data for name, data in pairs(9) if name.endswith("jpg")
    ]
    assert [s.texts[0].text for s in found[:9]] == [f"text {n}" for n in range(9)]


def test_the_name_is_of_the_content(put: Any, pairs: Any, tmp_path: Path) -> None:
    path = put("00000", pairs(3))
    first = of_shards(path)
    elsewhere = tmp_path / "elsewhere" / "00000.tar"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(path.read_bytes())
    assert of_shards(elsewhere).name == first.name
    path.write_bytes(path.read_bytes().replace(b"text 1", b"text 9"))
    assert of_shards(path).name != first.name
    with pytest.raises(InputChanged, match="sha256"):
        samples(first)


def test_human_pairs_in_another_store(pairs: Any, tar_bytes: Any) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with fsspec.open(f"{url}/a/00000.tar", "wb") as file:
        file.write(tar_bytes(pairs(4)))
    source = of_shards(f"{url}/a", root=url)
    assert [sample.key for sample in samples(source)] == [f"a%2F00000/k{n:03}" for n in range(4)]
    assert pickle.loads(pickle.dumps(source)) == source


def test_a_source_of_nothing_is_an_error(put: Any) -> None:
    path = put("00000", [("k.jpg", b"x")])
    with pytest.raises(SourceError, match=r"no sample to train on.*text_missing"):
        of_shards(path)


def test_one_sample_is_held_at_a_time(put: Any) -> None:
    members = []
    for number in range(60):
        members += [(f"k{number}.jpg", bytes(200_000)), (f"k{number}.txt", b"text")]
    source = of_shards(put("00000", members))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_part(source.parts[0]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 60
    assert peak < 2_000_000


def test_the_texts_of_a_clean_tars_sidecar_keep_their_origins(put: Any) -> None:
    record = {"texts": [{"text": "a ring", "origin": "synthetic", "itm": 0.5, "itc": None}]}
    members = [("s/k.jpg", b"x"), ("s/k.json", json.dumps(record).encode()), ("s/k.txt", b"other")]
    (sample,) = samples(of_shards(put("00000", members)))
    assert sample.texts == (SourceText("a ring", "synthetic"),)


def test_texts_of_shards_may_stand_elsewhere(put: Any) -> None:
    members = [("a.jpg", b"i"), ("a.json", b'{"alt": "from the sidecar"}'), ("a.txt", b"beside")]
    path = put("00000", [*members, ("b.jpg", b"j"), ("b.caption", b"a caption")])
    found = {
        text: [(s.image, s.texts[0].text) for s in samples(of_shards(path, text=text))]
        for text in ("txt", "json:alt", "caption")
    }
    assert found == {
        "txt": [(b"i", "beside")],
        "json:alt": [(b"i", "from the sidecar")],
        "caption": [(b"j", "a caption")],
    }
    names = {of_shards(path, text=text).name for text in found}
    assert len(names) == 3
    with pytest.raises(ValueError, match="no place of texts"):
        SourceConfig(shards=(str(path),), text="a:b")
    with pytest.raises(ValueError, match="text is for shards only"):
        SourceConfig(run="r", text="caption")
