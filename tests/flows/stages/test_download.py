"""A download in its stages: parts by several workers, and what is counted from the commits."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from flows.engines.download_worker import PartResult
from flows.lock import FolderInUse
from flows.stages import download as stages
from flows.stages.download import DownloadJob
from flows.stages.download_request import DownloadRequest, request_of
from tests.support.http_server import in_thread
from tests.support.odd_server import Server
from tests.support.tars import read_members


class Heard:
    """Listens to a download."""

    def __init__(self) -> None:
        self.results: list[PartResult] = []

    def begin(self, job: DownloadJob) -> None:
        self.rows = job.rows

    def under_way(self, reasons: Mapping[str, int]) -> None:
        pass

    def ended(self, result: PartResult) -> None:
        self.results.append(result)


def request(tmp_path: Path, port: int, **more: object) -> DownloadRequest:
    names = [f"pictures/{n}" for n in range(40)] + ["odd/404/a", "odd/noai/b"]
    rows = [{"url": f"http://127.0.0.1:{port}/{name}", "text": name} for name in names]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = {"urls": str(tmp_path / "list.jsonl"), "output": str(tmp_path / "out")}
    return request_of(asked | {"allow_private_addresses": True} | more)


def run(asked: DownloadRequest) -> tuple[stages.DownloadResult, Heard]:
    heard = Heard()
    with stages.alone_in(asked.output):
        job = stages.prepare(asked)
        return stages.finish(job, stages.do_parts(job, heard)), heard


def test_two_workers_do_all_parts_and_the_counts_are_those_of_the_commits(
    tmp_path: Path, img2dataset: str
) -> None:
    with in_thread(Server()) as server:
        asked = request(tmp_path, server.server_port, part_size=14, workers=2,
                        img2dataset=img2dataset)  # fmt: skip
        result, heard = run(asked)
        assert set(server.seen.values()) == {1}
        assert result.exit_code == 0
        statistics = result.statistics
        assert (statistics["rows"], statistics["ok"], statistics["pending"]) == (42, 40, 0)
        assert statistics["failed_by_reason"] == {"http_error": 1, "opted_out": 1}
        assert statistics["parts"] == {"total": 3, "done": 3, "pending": 0}
        assert heard.rows == 42
        tars = sorted((tmp_path / "out").glob("*.tar"))
        assert [tar.name for tar in tars] == statistics["tars"]
        texts = [data for tar in tars for name, data in read_members(tar) if name.endswith("txt")]
        assert sorted(texts) == sorted(f"pictures/{n}".encode() for n in range(40))
        again, heard = run(asked)
        assert (again.statistics, heard.rows, heard.results) == (statistics, 0, [])
        assert set(server.seen.values()) == {1}


def test_after_an_outage_no_more_is_begun_and_the_same_command_goes_on(
    tmp_path: Path, img2dataset: str
) -> None:
    with in_thread(Server(down_after=1)) as server:
        server.down_after = -1  # from the first on
        asked = request(tmp_path, server.server_port, part_size=14, workers=1,
                        img2dataset=img2dataset)  # fmt: skip
        result, heard = run(asked)
        assert len(heard.results) == 1
        assert result.exit_code == 1
        assert "outage" in result.left
        assert result.statistics["pending"] == 42
        server.down_after = 0
        assert run(asked)[0].statistics["ok"] == 40


def test_a_folder_has_one_download_at_a_time(tmp_path: Path) -> None:
    with stages.alone_in(str(tmp_path)), pytest.raises(FolderInUse), stages.alone_in(str(tmp_path)):
        pass
