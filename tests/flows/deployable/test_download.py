"""The flow of a download."""

from pathlib import Path

import pytest

from flows.deployable.download import download
from tests.support.http_server import in_thread
from tests.support.odd_server import Server


@pytest.mark.usefixtures("prefect")
def test_a_form_fetches_a_list_and_takes_it_up(tmp_path: Path, img2dataset: str) -> None:
    with in_thread(Server()) as server:
        start = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "list.csv").write_text(f"url\n{start}/pictures/a\n{start}/odd/404/b\n")
        asked = {
            "urls": str(tmp_path / "list.csv"),
            "output": str(tmp_path / "web"),
            "allow_private_addresses": True,
            "settings": {"img2dataset": img2dataset, "workers": 1},
        }
        for _ in range(2):
            done = download(**asked, return_state=True)
            assert (done.name, done.message) == ("Completed", "1 of 2 rows fetched")
        assert server.seen["/pictures/a"] == 1
    bad = download(**asked | {"url_column": "link"}, return_state=True)
    assert bad.name == "Failed"
    assert "link" in str(bad.message)
