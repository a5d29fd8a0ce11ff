"""What a store writes and reads is whole, whatever a real S3 server's answers go through.

An answer that is lost leaves the client to try again, against what it wrote itself.
"""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from shards.store import Store, creates_once
from tests.support.fault_proxy import Choose, Fault, FaultProxy, Request, by_rates, fault_proxy
from tests.support.object_store import BUCKET, s3_at, s3_server


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with s3_server():
        yield os.environ["AWS_ENDPOINT_URL"]


# an access that is denied stays so, and is no fault to wait out
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.DENIED])
def test_files_come_through_a_fault_in_five_requests(upstream: str, fault: Fault) -> None:
    contents = {f"data/{number}": b"%d" % number * 5000 for number in range(7)}
    with fault_proxy(upstream, by_rates({fault: 0.2}, seed=3), slow_s=0.1) as proxy:
        with s3_at(proxy.endpoint):
            store = Store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(store.put, contents, contents.values()))
                list(pool.map(lambda name: store.create(f"commits/{name[5:]}", b"x"), contents))
            assert store.read_many(list(contents)) == contents
            assert store.list("commits") == sorted(f"commits/{name[5:]}" for name in contents)
        assert set(proxy.injected) == {fault}


def conditional_writes(fault: Fault, times: int) -> Choose:
    """Strike the first conditional writes of each name."""
    seen: dict[str, int] = {}

    def choose(request: Request) -> Fault | None:
        if not request.conditional:
            return None
        seen[request.path] = seen.get(request.path, 0) + 1
        return fault if seen[request.path] <= times else None

    return choose


@contextmanager
def store_behind(upstream: str, choose: Choose) -> Iterator[tuple[Store, FaultProxy]]:
    with fault_proxy(upstream, choose) as proxy, s3_at(proxy.endpoint):
        yield Store(f"s3://{BUCKET}/{uuid.uuid4().hex}"), proxy


LOST = [Fault.DONE_RESET, Fault.DONE_FAILED]


@pytest.mark.parametrize("fault", LOST)
def test_the_probe_knows_its_own_write_whose_answer_was_lost(upstream: str, fault: Fault) -> None:
    with store_behind(upstream, conditional_writes(fault, 1)) as (store, proxy):
        assert creates_once(store)
        assert proxy.injected[fault] == 1
        assert store.survey() == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "times"), [(Fault.DONE_RESET, 1), (Fault.DONE_FAILED, 1), (Fault.DONE_FAILED, 1000)]
)
def test_a_write_whose_answer_was_lost_is_won(upstream: str, fault: Fault, times: int) -> None:
    with store_behind(upstream, conditional_writes(fault, times)) as (store, proxy):
        assert store.create("commits/a.json", b"ours")
        assert proxy.injected[fault] >= 1
        assert not store.create("commits/a.json", b"theirs")
        assert store.read("commits/a.json") == b"ours"


@pytest.mark.nightly
def test_a_write_that_never_came_through_is_an_error(upstream: str) -> None:
    from botocore.exceptions import ConnectionError

    with store_behind(upstream, conditional_writes(Fault.RESET, 1000)) as (store, _):
        with pytest.raises(ConnectionError):
            store.create("commits/a.json", b"ours")
        assert not store.exists("commits/a.json")
