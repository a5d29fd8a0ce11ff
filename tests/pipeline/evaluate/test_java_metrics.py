"""The PTB tokenizer and METEOR, where there is Java: as pycocoevalcap itself calls them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from pipeline.evaluate import java_metrics, metrics
from pipeline.evaluate.caption import compare
from pipeline.evaluate.java_metrics import JavaError, meteor, split_ptb

pytestmark = pytest.mark.skipif(not java_metrics.is_there(), reason="no java program here")

HOSTILE = ["", "a\u2028b\nc", "x|||y", "it's (a) dog/cat & 3.5 don't", "EVAL ||| SCORE", "漢字 …"]


def test_texts_are_split_as_the_library_splits_them(data_dir: Path) -> None:
    captions = pq.read_table(data_dir / "pairs" / "pairs.parquet")["caption"].to_pylist()[:300]
    texts = [" ".join(text.split()) for text in captions if text]
    theirs = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(texts)})
    assert [" ".join(parts) for parts in split_ptb(texts)] == [one for (one,) in theirs.values()]


def test_hostile_texts_keep_their_lines() -> None:
    found = split_ptb(HOSTILE)
    assert len(found) == len(HOSTILE)
    assert found[0] == []
    assert found[1] == ["a", "b", "c"]
    assert split_ptb([]) == []


@pytest.mark.nightly
def test_meteor_of_equal_texts_is_one_and_hostile_ones_do_not_stop_it() -> None:
    assert meteor(["a dog runs", "two cats"], [["a dog runs"], ["x", "two cats"]]) == 1
    assert meteor(["a dog"], [["boats far away"]]) == 0
    assert meteor([], []) is None
    plain = [" ".join(parts) for parts in split_ptb(HOSTILE)]
    found = meteor(plain, [[one] for one in plain])
    assert found is not None
    assert 0 <= found <= 1


@pytest.mark.slow
def test_captions_are_compared_by_the_official_words() -> None:
    written, references = ["a well-lit room.", "It's a dog"], [["a well-lit room"], ["it is a dog"]]
    measures = compare(written, references, java=True)
    split = [" ".join(parts) for parts in split_ptb(written)]
    given = [[" ".join(parts) for parts in split_ptb(own)] for own in references]
    assert measures["tokenizer"] == "ptb"
    assert measures["cider"] == pytest.approx(metrics.cider(split, given, str.split), abs=1e-9)
    assert measures["meteor"] > 0
    assert compare(written, references)["cider"] != measures["cider"]
    assert compare(["a"], [[]], java=True)["meteor"] is None


def test_a_java_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(JavaError, match="--no-java"):
        split_ptb(["a dog"])
