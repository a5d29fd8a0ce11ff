"""What a cluster's operator meets: a machine that is unfit, credentials, jobs, metrics."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import flows
import pipeline
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.run.attempt import Ending, read_attempts
from shards.run.run import Run
from shards.store import Store
from tests.support.autoscaling import ADDRESS, autoscaling_cluster
from tests.support.cluster import ray_machines
from tests.support.driving import CAPFILT, Command, Models, committed, wait_until
from tests.support.fault_proxy import Fault, Request, fault_proxy
from tests.support.model_hub import giving
from tests.support.object_store import s3_at, s3_server

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(500)]

ON_CPU = ("--direct", "--json", "--set=engine.device=cpu")
FORWARDED = "AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY,AWS_ENDPOINT_URL,AWS_DEFAULT_REGION"
FORWARD = f"--set=engine.forward_env=[{FORWARDED}]"
SHARDS = 6
SECRET = "ashen-otter-7461"
Flags = Callable[[Models, Path, Path], list[str]]


@pytest.fixture(scope="module")
def few_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two toy pictures each."""
    folder = tmp_path_factory.mktemp("few")
    write_toy_world(folder, ToyWorldConfig(samples=2 * SHARDS, samples_per_shard=2))
    return folder


def joined(text: str) -> str:
    """Undo the breaking of lines."""
    return " ".join(text.split())


def another_capfilt(tmp_path: Path) -> dict[Path, Path | None]:
    """Cover the code with that of another day."""
    theirs, ours = tmp_path / "pipeline", Path(pipeline.__path__[0])
    shutil.copytree(ours, theirs)
    (theirs / "__init__.py").write_text("# another day\n")
    return {ours: theirs}


@pytest.mark.parametrize(
    ("covers", "why", "mend"),
    [
        (
            lambda tmp_path: {tmp_path / "runs": None},
            "the run folder",
            "Put the run on a disk that all machines share",
        ),
        (another_capfilt, "capfilt 0", "Install the same capfilt on every machine"),
        (
            lambda _: {Path(flows.__path__[0]): None},
            "3 workers in a row could not start",
            "No module named 'flows'; install the same capfilt on every machine",
        ),
    ],
    ids=["without the run folder", "with another capfilt", "without capfilt"],
)
def test_a_machine_that_is_unfit_is_left_out_by_name(
    covers: Callable[[Path], dict[Path, Path | None]],
    why: str,
    mend: str,
    loopback_only: list[str],
    flags: Flags,
    toy_models: Models,
    few_shards: Path,
    tmp_path: Path,
) -> None:
    hidden = tmp_path / "runs"
    hidden.mkdir()
    with ray_machines(loopback_only, tmp_path, "0/0") as machines:
        command = Command(machines.prefix, tmp_path)
        run = [*flags(toy_models, few_shards, hidden / "run"), *ON_CPU]
        run += [f"--address={machines.address}"]
        machines.add(2, covers=covers(tmp_path))
        lost = command.run(*run)
        assert lost.returncode == 1, lost.stderr
        assert "no machine is left that a worker can start on: " in joined(lost.stderr)
        assert f"node {machines.nodes[1][:8]}): {why}" in joined(lost.stderr)
        assert mend in joined(lost.stderr)
        assert "Traceback" not in lost.stderr

        machines.add(2)
        done = command.run(*run)
        assert done.returncode == 0, done.stderr
        assert f"node {machines.nodes[1][:8]}) is left out: {why}" in joined(done.stderr)
        assert machines.users(json.loads(done.stdout)["workers"]) == [0, 0, 1]


def test_credentials_reach_workers_by_forward_env_alone(
    loopback_only: list[str],
    flags: Flags,
    toy_models: Models,
    few_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        ray_machines(loopback_only, tmp_path, "2/0") as machines,  # before there are any
        machines.inside(),
        s3_server() as bucket,
    ):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        Store(f"{bucket}/web").put("00000.tar", (few_shards / "00000.tar").read_bytes())
        command = Command([], tmp_path)
        run = [*flags(toy_models, Path("IN"), Path("OUT")), *ON_CPU]
        run = [flag for flag in run if not flag.startswith(("--input", "--output"))]
        run += [f"--input={bucket}/web", f"--output={bucket}/run"]
        run += [f"--address={machines.address}"]

        lost = command.run(*run)
        assert lost.returncode == 1, lost.stderr
        assert "no machine is left that a worker can start on" in joined(lost.stderr)
        assert "with credentials by forward_env" in joined(lost.stderr)
        assert "Traceback" not in lost.stderr

        done = command.run(*run, FORWARD)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["workers"][0]["samples"] == 2
        told = lost.stdout + lost.stderr + done.stdout + done.stderr
        kept = [path.read_bytes() for path in Path(machines.session).rglob("*") if path.is_file()]
        files = Store(f"{bucket}/run")
        kept += [files.read(name) for name in files.list()]
        assert SECRET not in told
        assert len(kept) > 10
        assert not any(SECRET.encode() in data for data in kept)


def test_models_of_the_hub_are_fetched_once_a_machine(
    loopback_only: list[str],
    flags: Flags,
    toy_models: Models,
    few_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    names = Models(Path("me/captioner"), Path("me/filter"))
    with (
        ray_machines(loopback_only, tmp_path, "0/0") as machines,
        machines.inside(),
        giving() as hub,
    ):
        for name, folder in (("captioner", toy_models.captioner), ("filter", toy_models.filter)):
            hub.repos[f"me/{name}"] = {p.name: p.read_bytes() for p in folder.iterdir()}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(cache))
        machines.add(4, covers={cache: None})  # a machine with a cache of its own
        done = Command([], tmp_path).run(
            *flags(names, few_shards, tmp_path / "run"),
            *(*ON_CPU, "--set=engine.actors=2", f"--address={machines.address}"),
            "--set=engine.forward_env=[HF_ENDPOINT,HF_HOME]",
        )
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["workers"]) == 2
        assert hub.fetched["model.safetensors"] == 2 * 2  # two models, the driver and the machine
        assert set(hub.fetched.values()) == {4}


@pytest.mark.parametrize("denied_methods", [("PUT", "POST"), ("PUT", "POST", "GET", "HEAD")])
def test_access_denied_in_mid_run_leaves_shards_pending(
    denied_methods: tuple[str, ...],
    loopback_only: list[str],
    flags: Flags,
    toy_models: Models,
    few_shards: Path,
    tmp_path: Path,
) -> None:
    denied = threading.Event()

    def choose(request: Request) -> Fault | None:
        return Fault.DENIED if denied.is_set() and request.method in denied_methods else None

    with (
        ray_machines(loopback_only, tmp_path, "2/0") as machines,
        machines.inside(),
        s3_server() as bucket,
        fault_proxy(os.environ["AWS_ENDPOINT_URL"], choose) as proxy,
        s3_at(proxy.endpoint),
    ):
        run = [*flags(toy_models, few_shards, Path("OUT")), *ON_CPU, FORWARD]
        run = [flag for flag in run if not flag.startswith("--output")]
        run += [f"--output={bucket}/run", f"--address={machines.address}"]
        command, commits = Command([], tmp_path), Store(f"{bucket}/run/commits")
        process = command.start(*run)
        wait_until(lambda: process.poll() is not None or len(commits.list()) > 0)
        denied.set()
        ended = command.wait(process)
        assert ended.returncode == 1, ended.stderr
        assert "Traceback" not in ended.stderr
        denied.clear()
        done = command.run(*run)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["shards"]["committed"] == SHARDS


def test_a_submitted_job_joins_stops_and_goes_on(
    loopback_only: list[str], flags: Flags, toy_models: Models, few_shards: Path, tmp_path: Path
) -> None:
    ray = [str(Path(sys.executable).with_name("ray")), "job"]
    web = ["--address", "http://127.0.0.1:8265"]
    head = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": 8265}

    def job(what: str, *arguments: str) -> str:
        ended = subprocess.run(
            [*ray, what, *web, *arguments], capture_output=True, text=True, timeout=200
        )
        return joined(ended.stdout + ended.stderr)

    with ray_machines(loopback_only, tmp_path, "2/0", **head) as machines, machines.inside():
        clean = [CAPFILT, *flags(toy_models, few_shards, tmp_path / "run"), *ON_CPU]
        relative = [CAPFILT, *flags(toy_models, few_shards, Path("run")), *ON_CPU]
        refused = job("submit", "--submission-id", "relative", "--", *relative)
        assert "output run is relative, and a submitted Ray job works in a copy" in refused
        assert "exit code 2" in refused

        job("submit", "--no-wait", "--submission-id", "stopped", "--", *clean)
        wait_until(lambda: bool(committed(tmp_path / "run")))
        job("stop", "stopped")
        assert "was stopped" in job("status", "stopped")
        run = Run.open(str(tmp_path / "run"))
        left = {shard.shard for shard in run.inputs} - committed(tmp_path / "run")
        endings = {attempt.ending for name in left for attempt in read_attempts(run, name)}
        assert endings == {Ending.RELEASED}

        went_on = job("submit", "--submission-id", "again", "--", *clean)
        assert f"joining the Ray cluster at {machines.address} (RAY_ADDRESS)" in went_on
        assert "succeeded" in went_on
        assert len(committed(tmp_path / "run")) == SHARDS


def test_metrics_are_served_and_the_commit_says_what_did_it(
    loopback_only: list[str],
    flags: Flags,
    toy_models: Models,
    few_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ray's workers report every 10 s; on a quick machine this run is over by then
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "200")
    head = {"metrics_export_port": 8123}
    with ray_machines(loopback_only, tmp_path, "2/0", **head) as machines, machines.inside():
        command = Command([], tmp_path)
        process = command.start(
            *flags(toy_models, few_shards, tmp_path / "run"),
            *(*ON_CPU, f"--address={machines.address}"),
        )
        seen: dict[str, float] = {}

        def scrape() -> bool:
            for target in targets(Path(machines.session)):
                seen.update(read_metrics(f"http://{target}/metrics", "ray_capfilt_samples_total"))
            return process.poll() is not None

        wait_until(scrape)
        assert "127.0.0.1:8123" in targets(Path(machines.session))
        done = command.wait(process)
        assert done.returncode == 0, done.stderr
    (row,) = seen
    assert 'device="cpu"' in row
    assert re.search('worker="[0-9a-f]{16}"', row)
    assert 0 < seen[row] <= 2 * SHARDS
    (worker,) = json.loads(done.stdout)["workers"]
    assert (worker["device"], worker["samples"]) == ("cpu", 2 * SHARDS)
    assert worker["samples_per_s"] > 0
    commit = json.loads((tmp_path / "run" / "commits" / "00000.json").read_text())
    assert commit["environment"].keys() >= {"host", "device", "images_per_s"}
    assert commit["environment"]["images_per_s"] > 0
    (log,) = (tmp_path / "run" / "logs").iterdir()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (ready,) = [line for line in lines if line["event"] == "worker_ready"]
    assert f'worker="{ready["worker"]}"' in row
    ended = [line for line in lines if line["event"] == "shard_done"]
    assert {line["worker"] for line in ended} == {ready["worker"]}
    assert len(ended) == SHARDS


def test_an_autoscaler_is_asked_for_a_gpu_and_then_for_none(
    loopback_only: list[str],
    flags: Flags,
    toy_models: Models,
    few_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # `ray start` would take a token it finds
    with autoscaling_cluster(loopback_only, tmp_path, CPU=2, GPU=1):
        command = Command([], tmp_path)
        done = command.run(
            *flags(toy_models, few_shards, tmp_path / "run"),
            *(*ON_CPU, "--set=engine.gpus_per_actor=1", f"--address={ADDRESS}"),
        )
        assert done.returncode == 0, done.stderr
        assert "has joined" in joined(done.stderr)  # it comes before there is need to say more
        workers = json.loads(done.stdout)["workers"]
        assert 1 <= len(workers) <= 2
        wait_until(lambda: gpu_machines() == 0)


def gpu_machines() -> int:
    """Count the living machines with a GPU, asked in a process that has no other cluster."""
    asks = (
        f"import ray; ray.init({ADDRESS!r}, log_to_driver=False); "
        "print(sum(n['Alive'] and 'GPU' in n['Resources'] for n in ray.nodes()))"
    )
    ended = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    return int(ended.stdout.split()[-1])


def targets(session: Path) -> list[str]:
    """Read where Prometheus is told to look, by the file that the head writes for it."""
    listed = session / "prom_metrics_service_discovery.json"
    if not listed.exists():
        return []
    return [target for group in json.loads(listed.read_text()) for target in group["targets"]]


def read_metrics(url: str, name: str) -> dict[str, float]:
    """Read the rows of a metric from an endpoint; none where it does not answer yet."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - on loopback
            text = answer.read().decode()
    except OSError:
        return {}
    rows = (line.rpartition(" ") for line in text.splitlines() if line.startswith(name + "{"))
    return {row: float(number) for row, _, number in rows}
