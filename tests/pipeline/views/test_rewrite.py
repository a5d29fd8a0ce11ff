"""Clean tars written again are those that the run would have written."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset

from pipeline.clean.export import WriteConfig
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.inputs.shard import InputChanged
from shards.run.repair import repair_run
from shards.run.run import Run
from shards.run.snapshot import open_snapshot, write_snapshot
from shards.run.verify.run import verify_run
from shards.run.view import View, view_names
from tests.support.bench import Bench
from tests.support.tars import read_members


def view_of(run: Run, **thresholds: float) -> View:
    wish = ViewRequest("v", thresholds, write_clean=True)
    return rejudge(run, wish, open_snapshot(run), lambda _: None)[0]


def clean_bytes(run: Run, shards: Any) -> dict[str, bytes]:
    return {
        shard.shard: run.store.read(file.name)
        for shard in shards
        for file in shard.files
        if file.table == "clean"
    }


def keys(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return list(dict.fromkeys(name.rpartition(".")[0] for name in opened.getnames()))


def cleaned(bench: Bench, members: Any, tar_of: Any, **write: Any) -> Run:
    """Clean two shards, one of them without any text that is kept."""
    inputs = [bench.put("00000", tar_of(members)), bench.put("00001", tar_of(members[:9]))]
    run: Run = bench.clean(*inputs, write=WriteConfig(**write))
    write_snapshot(run)
    return run


@pytest.mark.parametrize(
    "write", [{}, {"images": "jpeg", "text_policy": "random"}, {"text_policy": "best"}]
)
def test_at_the_own_thresholds_byte_for_byte(
    bench: Bench, members: Any, tar_of: Any, write: Any
) -> None:
    run = cleaned(bench, members, tar_of, **write)
    originals = clean_bytes(run, open_snapshot(run).shards)
    view = view_of(run)
    assert originals
    assert clean_bytes(run, view.shards) == originals
    urls = run.store.read("views/v/clean.txt").decode().split()
    assert [Path(url).read_bytes() for url in urls] == list(originals.values())
    assert all("/views/v/clean/" in url for url in urls)
    for shard in view.shards:
        for file in shard.files:
            if file.table == "clean":
                assert (file.rows, file.size_bytes) == (
                    len(keys(originals[shard.shard])),
                    len(originals[shard.shard]),
                )
    assert verify_run(run).problems == ()


def test_a_run_without_clean_tars_can_have_them(bench: Bench, members: Any, tar_of: Any) -> None:
    with_tars = cleaned(bench, members, tar_of)
    without = cleaned(bench, members, tar_of, clean="none")
    assert clean_bytes(without, open_snapshot(without).shards) == {}
    expected = [m[1] for m in tar_members(clean_bytes(with_tars, open_snapshot(with_tars).shards))]
    found = [m[1] for m in tar_members(clean_bytes(without, view_of(without).shards))]
    assert len(found) == len(expected) > 0
    for one, two in zip(found, expected, strict=True):
        if one.startswith(b'{"key"'):  # the run stands in it
            assert json.loads(one) | {"run": ""} == json.loads(two) | {"run": ""}
        else:
            assert one == two


def tar_members(tars: dict[str, bytes]) -> list[tuple[str, bytes]]:
    found = []
    for data in tars.values():
        found += read_members(data)
    return found


def test_at_other_thresholds(bench: Bench, members: Any, tar_of: Any) -> None:
    run = cleaned(bench, members, tar_of)
    view = view_of(run, web=0.0, synthetic=2.0)
    images = dict(members)
    for shard in view.shards:
        texts = {r["index"]: r for r in bench.rows(run, "texts", shard.shard) if r["text_no"] == 0}
        samples = bench.rows(run, "samples", shard.shard)
        wanted = [row for row in samples if row["index"] in texts]  # all that have a web text
        urls = [run.store.url(f.name) for f in shard.files if f.table == "clean"]
        found = list(webdataset.WebDataset(urls, shardshuffle=False))
        assert [sample["__key__"] for sample in found] == [
            f"{shard.shard}/{row['key']}" for row in wanted
        ]
        for sample, row in zip(found, wanted, strict=True):
            listed = json.loads(sample["json"])["texts"]
            assert [text["origin"] for text in listed] == ["web"]
            assert sample["txt"].decode() == texts[row["index"]]["text"]
            name = next(n for n in images if n.startswith(row["key"]) and not n.endswith("txt"))
            assert next(v for k, v in sample.items() if k in ("jpg", "png", "webp")) == images[name]


def test_no_tar_where_nothing_is_kept(bench: Bench, members: Any, tar_of: Any) -> None:
    run = cleaned(bench, members, tar_of)
    heard: list[int] = []
    wish = ViewRequest("v", {"web": 2, "synthetic": 2}, write_clean=True)
    view, _ = rejudge(run, wish, open_snapshot(run), heard.append)
    assert clean_bytes(run, view.shards) == {}
    assert run.store.read("views/v/clean.txt") == b""
    assert sum(heard) == sum(shard.counts.samples_in for shard in view.shards)


def test_a_list_that_is_changed_is_written_again_by_a_repair(
    bench: Bench, members: Any, tar_of: Any
) -> None:
    run = cleaned(bench, members, tar_of)
    view_of(run)
    listed = run.store.read("views/v/clean.txt")
    run.store.put("views/v/clean.txt", b"elsewhere\n")
    done = repair_run(run)
    assert done.whole
    assert done.actions[0].startswith("wrote views/v/clean.txt: does not list")
    assert run.store.read("views/v/clean.txt") == listed


def test_progress_counts_every_sample(bench: Bench, members: Any, tar_of: Any) -> None:
    run = cleaned(bench, members, tar_of)
    heard: list[int] = []
    rejudge(run, ViewRequest("v", write_clean=True), open_snapshot(run), heard.append)
    assert sum(heard) == sum(shard.counts.samples_in for shard in open_snapshot(run).shards)
    assert all(samples >= 0 for samples in heard)


@pytest.mark.parametrize("what", ["image", "key", "cut"])
def test_a_changed_input_is_an_error(bench: Bench, members: Any, tar_of: Any, what: str) -> None:
    run = cleaned(bench, members, tar_of)
    changed = list(members)
    if what == "image":
        changed[0] = (changed[0][0], changed[3][1])
    elif what == "key":
        changed = [(name.replace("k00", "x00"), data) for name, data in changed]
    else:
        changed = changed[:1]
    bench.put("00000", tar_of(changed))
    before = run.store.list()
    with pytest.raises(InputChanged) as caught:
        view_of(run, web=0.0, synthetic=0.0)
    message = str(caught.value)
    assert "'00000'" in message
    assert "an earlier version of capfilt" in message
    assert "should be key 'k0" in message
    found = {"image": "key 'k00', image sha256", "key": "key 'x00'", "cut": "no such sample"}[what]
    assert f"found {found}" in message
    assert run.store.list() == before
    assert view_names(run) == []


def test_a_killed_run_s_list_is_written_by_the_next(
    bench: Bench, members: Any, tar_of: Any
) -> None:
    run = cleaned(bench, members, tar_of)
    view = view_of(run)
    listed = run.store.read("views/v/clean.txt")
    run.store.delete("views/v/clean.txt")  # as if killed between the view and its list
    assert view_of(run) == view
    assert run.store.read("views/v/clean.txt") == listed
