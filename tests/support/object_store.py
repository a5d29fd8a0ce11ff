"""A real S3 server on loopback, in a process of its own: moto's.

`object_store.py FOLDER COMMAND…` runs a command beside one that holds a folder.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER = Path(sys.executable).with_name("moto_server")
BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3, point this process and its children to it, and give the URL of a bucket."""
    pytest.importorskip("s3fs", reason="needs s3fs, for S3")
    if not SERVER.exists():
        pytest.skip("needs moto[server], an S3 server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(SERVER), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            if not answers(server, port):
                pytest.skip(f"moto_server did not start on 127.0.0.1:{port}")
            with s3_at(f"http://127.0.0.1:{port}"):
                make_bucket()
                yield f"s3://{BUCKET}"
        finally:
            server.kill()


@contextmanager
def s3_at(endpoint: str) -> Iterator[None]:
    """Send all S3 requests of this process and its children to one server."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("NO_PROXY", "127.0.0.1")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


def make_bucket() -> None:
    """Make the bucket that tests write to."""
    import fsspec

    fsspec.filesystem("s3").mkdir(BUCKET)


def put_folder(folder: Path, bucket: str) -> None:
    """Put a folder's files into a bucket, below the folder's name."""
    import fsspec

    fsspec.filesystem("s3").put(f"{folder}/", f"{bucket}/{folder.name}/", recursive=True)


def answers(server: "subprocess.Popen[bytes]", port: int, timeout_s: float = 30) -> bool:
    """Wait until a server takes connections; False if it ends, or takes too long."""
    deadline = time.monotonic() + timeout_s
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


if __name__ == "__main__":
    with s3_server() as url:
        put_folder(Path(sys.argv[1]), url)
        code = subprocess.run(sys.argv[2:], check=False).returncode
    sys.exit(code)
