"""What a store writes and reads is whole, whatever a real S3 server's answers go through."""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shards.store import Store
from tests.support.fault_proxy import Fault, by_rates, fault_proxy
from tests.support.object_store import BUCKET, s3_at, s3_server


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with s3_server():
        yield os.environ["AWS_ENDPOINT_URL"]


@pytest.mark.parametrize("fault", list(Fault))
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
