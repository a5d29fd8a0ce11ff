"""An export in a store: the same files as in a folder, and never half of one that looks whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.publish import sets
from pipeline.publish.destination import ExportError, StoreDestination
from pipeline.publish.sets import ExportConfig, export
from shards.run.run import Run
from shards.store import Store

URL = "memory://exports/set"
CONFIG = ExportConfig(form="parquet", file_bytes=20_000)


@pytest.fixture
def store() -> Iterator[Store]:
    """A store that has no folders and no renaming."""
    yield Store(URL)
    memory = fsspec.filesystem("memory")
    if memory.exists("/exports"):
        memory.rm("/exports", recursive=True)


def contents(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.list()}


@pytest.mark.parametrize("form", ["webdataset", "parquet", "index"])
def test_a_store_gets_what_a_folder_gets(run: Run, store: Store, tmp_path: Path, form: Any) -> None:
    config = ExportConfig(form=form, file_bytes=20_000)
    record = export(run, tmp_path / "out", config)
    assert export(run, URL, config) == record
    found = contents(store)
    assert found == contents(Store(str(tmp_path / "out")))
    assert sum(name.startswith("data/train-") for name in found) > (1 if form != "index" else 0)
    assert export(run, URL, config) == record  # it is there
    with pytest.raises(ExportError, match="holds another export"):
        export(run, URL, ExportConfig(form=form))


def test_the_disk_holds_one_file_at_a_time(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, real = [], StoreDestination.add

    def keep(self: StoreDestination, file: Path) -> None:
        most.append(len(list(file.parent.iterdir())))
        real(self, file)
        assert not file.exists()

    monkeypatch.setattr(StoreDestination, "add", keep)
    export(run, URL, CONFIG)
    assert len(most) > 2
    assert set(most) == {1}
    assert store.exists("export.json")


@pytest.mark.parametrize("moment", ["third file", "card"])
def test_what_broke_off_is_no_export_and_is_begun_again(
    run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real, count = Store.publish, 0

    def publish(self: Store, staged: Path, name: str) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError("the connection is lost")
        real(self, staged, name)

    def card(_: Any) -> str:
        raise KeyboardInterrupt

    store.put("export.unfinished", b"")
    store.put("data/train-00077.parquet", b"of a longer export that broke off")
    with monkeypatch.context() as patch:
        if moment == "card":
            patch.setattr(sets, "dataset_card", card)
        else:
            patch.setattr(Store, "publish", publish)
        with pytest.raises((OSError, KeyboardInterrupt)):
            export(run, URL, CONFIG)
    assert not store.exists("export.json")
    assert len(store.list("data")) > 1
    store.put("data/precious.parquet", b"of a stranger")
    export(run, URL, CONFIG)
    assert store.read("data/precious.parquet") == b"of a stranger"
    store.delete("data/precious.parquet")
    export(run, tmp_path / "out", CONFIG)
    assert contents(store) == contents(Store(str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("thesis.txt", b"x", "belongs to no export"),
        ("data/train-00000.parquet", b"of another program", "belongs to no export"),
        ("export.json", b"{", "is no record"),
        ("export.json", b"[]", "is no record"),
    ],
)
def test_what_is_not_ours_is_left_alone(
    run: Run, store: Store, name: str, data: bytes, said: str
) -> None:
    store.put(name, data)
    with pytest.raises(ExportError, match=said):
        export(run, URL, CONFIG)
    assert contents(store) == {name: data}
