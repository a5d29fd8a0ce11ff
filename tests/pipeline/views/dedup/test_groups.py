"""Who is grouped with whom, on made hashes and on real pictures whose groups are known."""

import hashlib
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.media.decode import Decoded, DecodeLimits, decode, difference_hash
from pipeline.views.dedup.candidates import Candidates
from pipeline.views.dedup.groups import (
    DedupConfig,
    Found,
    NoEmbeddings,
    Side,
    find,
    find_groups,
)
from pipeline.views.dedup.near import as_words
from shards.run.run import Run
from shards.run.view import open_view
from tests.support.embeddings import Exact, unit
from tests.support.hashed_run import Picture, altered, hashed_run, stranger

LOOK = stranger(0)
PICTURES = [
    [
        Picture("small", "1", LOOK, side=50, itm=0.95),
        Picture("again", "1", LOOK, side=50),
        Picture("other", "2", stranger(1)),
    ],
    [Picture("large", "3", altered(LOOK, 5), side=90), Picture("far", "4", altered(LOOK, 60))],
]


def side(run: Run) -> Side:
    return Side(run, open_view(run))


def rows(run: Run, *against: Run, **config: Any) -> list[tuple[Any, ...]]:
    """List the groups: number, whose, key, kind, distance, reason."""
    found = find_groups(side(run), [side(other) for other in against], DedupConfig(**config))
    columns = ["group", "run", "key", "kind", "distance", "reason"]
    return list(zip(*(found[name].to_pylist() for name in columns), strict=True))


DUPLICATE = "duplicate_image"


def test_a_group_is_a_keeper_and_its_copies(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "run", *PICTURES)
    assert rows(run) == [
        (0, None, "large", None, None, None),
        (0, None, "small", "near", 5, DUPLICATE),
        (0, None, "again", "near", 5, DUPLICATE),
    ]
    assert [row[2] for row in rows(run, keep="score")] == ["small", "again", "large"]
    assert [row[2:4] for row in rows(run, keep="first", distance=None)] == [
        ("small", None),
        ("again", "exact"),
    ]


def test_what_stands_elsewhere_is_not_kept_here(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "run", *PICTURES)
    test_set = [Picture("e1", "9", altered(LOOK, 3)), Picture("e2", "2", stranger(1))]
    other = hashed_run(tmp_path / "eval", test_set, version=3)
    url = other.store.url()
    assert [row[1:4] for row in rows(run, other)] == [
        (url, "e1", None),
        (None, "large", "near"),
        (None, "small", "near"),
        (None, "again", "near"),
        (url, "e2", None),
        (None, "other", "exact"),
    ]


def test_hashes_of_another_kind_are_not_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = hashed_run(tmp_path / "run", *PICTURES)
    older = [Picture("e1", "9", LOOK), Picture("e2", "2", stranger(1))]
    other = hashed_run(tmp_path / "older", older, version=2)
    with caplog.at_level(logging.WARNING):
        assert {row[2] for row in rows(run, other) if row[1]} == {"e2"}
    assert "are averaged, those of" in caplog.text


def embedded(**turns: float) -> Exact:
    """Embed pictures, by what names their bytes, at angles (in degrees) from one direction."""
    angles = np.radians(list(turns.values()))
    halves = b"".join(hashlib.sha256(name.encode()).digest()[:16] for name in turns)
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return Exact(vectors, np.frombuffer(halves, np.uint64).reshape(-1, 2))


def alike(run: Run, embeddings: Exact, *against: Run, **config: Any) -> list[tuple[Any, ...]]:
    """List the groups: whose, key, kind, cosine."""
    asked = DedupConfig(similarity=0.95, **config)
    table = find_groups(side(run), [side(other) for other in against], asked, embeddings)
    return [
        (row["run"], row["key"], row["kind"], row["similarity"] and round(row["similarity"], 3))
        for row in table.to_pylist()
    ]


SEEN_ALIKE = [
    Picture("best", "best", stranger(1), side=90),
    Picture("first", "first", LOOK, side=80),
    Picture("again", "first", LOOK, side=80),
    Picture("near", "near", altered(LOOK, 5), side=70),
    Picture("other", "other", stranger(2), side=60),
]


def test_what_is_embedded_alike_joins_a_keeper_and_its_copies_go_with_it(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "run", SEEN_ALIKE)
    turned = embedded(best=0, first=10, near=15, other=90)
    assert alike(run, turned) == [
        (None, "best", None, None),
        (None, "first", "semantic", 0.985),
        (None, "again", "semantic", 0.985),
        (None, "near", "semantic", 0.966),
    ]
    assert alike(run, turned, distance=None) == alike(run, turned)
    others = hashed_run(tmp_path / "others", [Picture("theirs", "theirs", stranger(3))])
    url = others.store.url()
    assert alike(run, embedded(best=50, first=90, near=140, other=0, theirs=5), others) == [
        (url, "theirs", None, None),
        (None, "other", "semantic", 0.996),
        (None, "first", None, None),
        (None, "again", "exact", 1.0),
        (None, "near", "near", 0.643),
    ]


def test_what_is_near_a_member_alone_is_kept(tmp_path: Path) -> None:
    """By its hash it is near what has joined another, to which it is a stranger."""
    run = hashed_run(tmp_path / "run", SEEN_ALIKE)
    assert alike(run, embedded(best=0, first=10, near=30, other=90)) == [
        (None, "best", None, None),
        (None, "first", "semantic", 0.985),
        (None, "again", "semantic", 0.985),
    ]


def test_pictures_without_an_embedding_are_compared_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = hashed_run(tmp_path / "run", SEEN_ALIKE)
    with caplog.at_level(logging.WARNING):
        assert [row[1:] for row in alike(run, embedded(best=0, other=3))] == [
            ("best", None, None),
            ("other", "semantic", 0.999),
            ("first", None, None),
            ("again", "exact", None),
            ("near", "near", None),
        ]
    assert "3 of 5 pictures are not in the index" in caplog.text
    with pytest.raises(NoEmbeddings, match="holds none of these pictures"):
        alike(run, embedded(absent=0))


def pictures_of(tars: list[Path]) -> Iterator[tuple[dict[str, Any], bytes]]:
    for path in tars:
        with tarfile.open(path) as tar:
            read = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
        for name, data in read.items():
            if name.endswith((".jpg", ".png")):
                yield json.loads(read[f"{name[:-4]}.json"]), data


def real(tars: list[Path]) -> tuple[Candidates, list[str | None]]:
    """Read real pictures, the largest first, and the group that each is known to be of."""
    read = []
    for facts, data in pictures_of(tars):
        decoded = decode(data, DecodeLimits(1, 10**8, 1e9, 384))
        assert isinstance(decoded, Decoded)
        size = decoded.size[0] * decoded.size[1]
        digest = hashlib.sha256(data).digest()[:16]
        read.append((-size, digest, difference_hash(decoded.image), facts.get("near_dup_group")))
    read.sort(key=lambda row: row[0])
    numbers = np.zeros(len(read), np.int32)
    hashes = np.frombuffer(b"".join(row[2] for row in read), np.uint8).reshape(-1, 32)
    digests = np.frombuffer(b"".join(row[1] for row in read), np.uint64).reshape(-1, 2)
    hashed, worth = np.ones(len(read), bool), np.zeros(len(read))
    candidates = Candidates(numbers, numbers, digests, as_words(hashes), hashed, worth)
    return candidates, [row[3] for row in read]


def quality(found: Found, groups: list[str | None]) -> tuple[float, float]:
    """Return the share of members that are of their keeper's group, and of copies found."""
    members = [n for n, keeper in enumerate(found.keeper.tolist()) if keeper != n]
    right = sum(groups[n] is not None and groups[n] == groups[found.keeper[n]] for n in members)
    sizes = Counter(group for group in groups if group is not None)
    return right / len(members), right / sum(size - 1 for size in sizes.values())


def test_the_flood_is_found(data_dir: Path) -> None:
    tars = sorted((data_dir / "noisy_real" / "web").glob("flood-*.tar"))
    if not tars:
        pytest.skip("no flood")
    candidates, groups = real(tars)
    precision, recall = quality(find(candidates, DedupConfig()), groups)
    assert precision >= 0.98
    assert recall >= 0.9


def test_real_pairs_are_told_apart(data_dir: Path) -> None:
    """Known groups are chains of hashes; one that hangs together by a blank picture is left out."""
    tars = sorted((data_dir / "pairs" / "shards").glob("*.tar"))
    if not tars:
        pytest.skip("no pairs")
    candidates, groups = real(tars)
    blank = {
        group
        for group, look in zip(groups, candidates.hashes, strict=True)
        if group is not None and int.from_bytes(look.tobytes()).bit_count() < 12
    }
    precision, recall = quality(
        find(candidates, DedupConfig()), [None if g in blank else g for g in groups]
    )
    assert precision >= 0.85
    assert recall >= 0.9
    exact_alone = find(candidates, DedupConfig(distance=None))
    assert (exact_alone.keeper == np.arange(len(groups))).all()
