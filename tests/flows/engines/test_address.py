"""Which Ray is joined, and where a submitted job may write."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.engines import address
from flows.engines.address import check_output, check_reachable, join_address, resolve_kind
from shards.errors import UsageError


def test_the_recipe_decides_then_the_environment_then_this_machine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert join_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert join_address("head:6379") == "head:6379"
    assert caplog.text == ""
    assert join_address(None) == "10.0.0.1:6379"
    assert join_address(None) == "10.0.0.1:6379"
    assert caplog.messages == ["joining the Ray cluster at 10.0.0.1:6379 (RAY_ADDRESS)"]


def test_a_submitted_job_writes_nothing_into_its_copy_of_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_output("runs/first")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    check_output("/shared/runs/first")
    check_output("s3://bucket/runs/first")
    with pytest.raises(UsageError, match=r"runs/first is relative.*Give an absolute path"):
        check_output("runs/first")


def test_auto_is_ray_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert resolve_kind("auto", None) == "ray"
    assert resolve_kind("local", None) == "local"
    assert resolve_kind("local", "head:6379") == "local"  # as it was asked for
    assert caplog.messages == []


def test_auto_is_this_process_without_ray_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    monkeypatch.setattr(address, "_said", set())
    assert [resolve_kind("auto", None) for _ in range(3)] == ["local"] * 3
    (message,) = caplog.messages
    assert message.startswith("Ray is not installed: working in this process")
    assert message.endswith("(pip install 'capfilt[ray]')")
    assert len(message) < 80
    assert resolve_kind("ray", None) == "ray"


@pytest.mark.parametrize(
    ("named", "joined", "several"),
    [("head:6379", "", False), (None, "head:6379", False), (None, "", True)],
)
def test_what_needs_ray_is_not_done_without(
    monkeypatch: pytest.MonkeyPatch, named: str | None, joined: str, several: bool
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ADDRESS", joined)
    assert resolve_kind("auto", named, several) == "ray"


def test_a_file_in_the_place_of_an_output_is_named(tmp_path: Path) -> None:
    check_output(str(tmp_path / "new"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"output {tmp_path}/file is a file, expected a folder"):
        check_output(str(tmp_path / "file"))


def test_an_address_where_nothing_listens_is_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*refused"):
        check_reachable("127.0.0.1:9")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", r"no answer in 0\.2 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else"),
        (b"\x00\x00", r"no answer in 0\.2 s"),
    ],
)
def test_a_stranger_who_listens_is_no_cluster(
    said: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        given = f"127.0.0.1:{stranger.getsockname()[1]}"
        held = []

        def answer() -> None:
            held.append(stranger.accept()[0])
            held[0].sendall(said)

        talking = threading.Thread(target=answer)
        talking.start()
        with pytest.raises(UsageError, match=f"answers at {given} .*{why}"):
            check_reachable(given)
        talking.join()
        held[0].close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("foo", r"'foo' is no address .*expected HOST:PORT"),
        ("ray://127.0.0.1:10001", "is for Ray's client"),
    ],
)
def test_what_is_no_address_of_a_head_is_bad_usage(given: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_reachable(given)


@pytest.mark.parametrize("given", ["a..b:6379", f"{'a' * 64}.org:6379"])
def test_what_no_machine_can_be_called_is_bad_usage(given: str) -> None:
    with pytest.raises(UsageError, match="no Ray cluster answers at"):
        check_reachable(given)


@pytest.mark.parametrize(
    ("pieces", "tls"),
    [((b"\0\0\0\4", b"\0\0\0\0\0"), ""), ((b"\x15\3\1",), "1"), ((b"\x15\3\1",), "True")],
)
def test_a_head_may_answer_in_pieces_or_by_tls(
    pieces: tuple[bytes, ...], tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", tls)
    with socket.create_server(("127.0.0.1", 0)) as head:

        def answer() -> None:
            connection = head.accept()[0]
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.1)
            connection.close()

        talking = threading.Thread(target=answer)
        talking.start()
        check_reachable(f"127.0.0.1:{head.getsockname()[1]}")
        talking.join()
