"""Run folders that an earlier version wrote are read as ever, and never gone on with unasked."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import IO, Any, cast

import pytest

from pipeline.clean.config import OUTPUT_VERSION
from shards.run.run import Run
from tests.golden.world import write_input
from tests.support.driving import InProcess
from tests.support.report_page import Node, Tree, words

EARLIER = sorted(Path(__file__).parent.glob("output_version_*"))
COUNTS = ("samples_in", "kept", "filtered", "rejected")


@pytest.fixture(params=EARLIER, ids=lambda folder: folder.name)
def expected(request: pytest.FixtureRequest, capfilt: InProcess) -> Any:
    """What the version said that wrote them; its runs are copied to where commands run."""
    for name in ("finished", "unfinished"):
        shutil.copytree(request.param / name, capfilt.home / name)
    return json.loads((request.param / "expected.json").read_bytes())


def said(capfilt: InProcess, *arguments: str) -> Any:
    done = capfilt.run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def holds(found: Any, earlier: Any) -> bool:
    """Whether all that an earlier version said is said still; more may be said today."""
    if isinstance(earlier, dict):
        return all(name in found and holds(found[name], earlier[name]) for name in earlier)
    if isinstance(earlier, list):
        pairs = zip(found, earlier, strict=True)
        return len(found) == len(earlier) and all(holds(*pair) for pair in pairs)
    return bool(found == earlier)


def written_in(page: Node) -> dict[str, Any]:
    """Read a report's counts, and how many samples or texts have each reason and note."""
    rows = [
        [words(cell) for cell in row.children if isinstance(cell, Node)]
        for row in page.one(id="reasons").all("tr")
    ]
    return {
        "counts": {
            name: int(page.one(id=f"n-{name}").attributes["value"] or "") for name in COUNTS
        },
        "reasons": {row[0].split()[0]: int(row[1]) for row in rows if row[1].isdigit()},
    }


def digest_of_set(path: Path) -> str:
    """Digest an exported tar's pictures, texts and records; an empty field is as good as none."""
    digest = hashlib.sha256()
    with tarfile.open(path) as tar:
        for member in tar:
            content = cast("IO[bytes]", tar.extractfile(member)).read()
            if member.name.endswith(".json"):
                record = {name: value for name, value in json.loads(content).items() if value}
                content = json.dumps(record, sort_keys=True).encode()
            digest.update(member.name.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()


@pytest.mark.parametrize("name", ["finished", "unfinished"])
def test_a_run_is_read_as_ever(capfilt: InProcess, expected: Any, name: str) -> None:
    run, capfilt_said = capfilt.home / name, expected[name]
    assert holds(said(capfilt, "stats", name), capfilt_said["stats"])
    moved = capfilt.run("verify", name)  # clean.txt says where a run is
    assert (moved.returncode, moved.stdout.count("expected")) == (
        name == "finished",
        moved.returncode,
    )
    assert capfilt.run("verify", name, "--repair").returncode == 0
    assert holds(said(capfilt, "verify", name), capfilt_said["verify"])
    assert capfilt.run("report", name).returncode == 0
    page = Tree((run / "report" / "index.html").read_bytes()).root
    assert written_in(page) == capfilt_said["report"]


def test_a_finished_run_is_judged_explained_and_exported_as_ever(
    capfilt: InProcess, expected: Any
) -> None:
    earlier = expected["finished"]
    assert holds(said(capfilt, "stats", "finished", "--view=strict"), earlier["stats of strict"])
    for address in ("odd/bell", "odd/no-number"):
        explained = said(capfilt, "explain", "finished", address)
        assert holds(explained["samples"], earlier[f"explain {address}"])
    again = capfilt.run("judge", "finished", "--name=again", "--keep-fraction=web=0.25")
    assert again.returncode == 0
    assert holds(said(capfilt, "stats", "finished", "--view=again"), earlier["stats of again"])
    assert capfilt.run("export", "finished", "--to=exported").returncode == 0
    exported = capfilt.home / "exported"
    digests = {name: digest_of_set(exported / name) for name in earlier["export"]}
    assert digests == earlier["export"] != {}


@pytest.mark.parametrize("name", ["finished", "unfinished"])
def test_clean_does_not_mix_two_outputs(capfilt: InProcess, expected: Any, name: str) -> None:
    assert expected
    recorded = Run.open(str(capfilt.home / name)).identity["output_version"]
    write_input(capfilt.home / "input")
    before = {path: path.read_bytes() for path in capfilt.home.rglob("*") if path.is_file()}
    recipe = ["dtype=fp32", "seed=16"] if name == "finished" else ["dtype=fp32", "write.clean=none"]
    done = capfilt.run(
        *("clean", "--input=input", f"--output={name}", "--engine=local", "--direct"),
        *("--captioner=tiny-captioner", "--filter=tiny-filter"),
        *(f"--set={setting}" for setting in recipe),
    )
    assert done.returncode == 2
    assert "of another version of capfilt, which gives another output" in done.stderr
    assert f"output_version: {recorded} -> {OUTPUT_VERSION}" in done.stderr
    assert "another output folder" in done.stderr
    after = {path: path.read_bytes() for path in capfilt.home.rglob("*") if path.is_file()}
    assert after == before


def test_the_look_bites() -> None:
    assert holds({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]})
    others: list[Any] = [{"a": [{"b": 2}]}, {"a": [{}]}, {"a": []}, {}]
    assert not any(holds(other, {"a": [{"b": 1}]}) for other in others)
