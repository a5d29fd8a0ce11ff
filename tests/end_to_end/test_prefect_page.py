"""What a person does on Prefect's page, in Chromium, and what goes by itself: slow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import wait_until
from tests.support.prefect_server import POOL, Prefect, prefect_server
from tests.support.rounds_recipe import write_rounds_recipe
from tests.test_lengths import ROOT

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1700")
TINY = {"captioner": "tiny-captioner", "filter": "tiny-filter", "engine": "local"}
SHOWN_S = 60
SWITCH = "(//*[@role='dialog']//input[@type='checkbox']/ancestor::label)[1]"


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server with all flows in a pool, and a worker."""
    home = tmp_path_factory.mktemp("prefect")
    quick = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3"}
    with prefect_server(home, **quick) as server:
        done = server.capfilt("deploy", "--pool", POOL)
        assert done.returncode == 0, done.stderr
        server.start_worker()
        yield server


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs in three shards."""
    folder = tmp_path_factory.mktemp("web")
    write_toy_world(folder, ToyWorldConfig(samples=12, samples_per_shard=4))
    return folder


class Page:
    """Prefect's page, as a person sees it."""

    def __init__(self, browser: Any, prefect: Prefect, pictures: Path) -> None:
        self.browser, self._prefect, self._pictures = browser, prefect, pictures

    def open(self, path: str) -> None:
        self.browser.get(f"{self._prefect.url.removesuffix('/api')}/{path}")

    def find(self, xpath: str) -> Any:
        """Wait for what can be seen."""
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support import expected_conditions as seen
        from selenium.webdriver.support.ui import WebDriverWait

        waited = WebDriverWait(self.browser, SHOWN_S)
        return waited.until(seen.element_to_be_clickable((By.XPATH, xpath)))

    def fill_in(self, *texts: str) -> None:
        """Fill in the text fields of a form, from the first on; an empty text leaves one alone."""
        wait_until(
            lambda: len(self.browser.find_elements("tag name", "textarea")) >= len(texts), 60
        )
        fields = self.browser.find_elements("tag name", "textarea")
        for field, text in zip(fields, texts, strict=False):
            field.send_keys(text)

    def press(self, text: str) -> None:
        self.find(f"//button[normalize-space(.)='{text}']").click()

    def picture(self, name: str) -> None:
        """Keep a picture, for who wants to look."""
        self.browser.save_screenshot(str(self._pictures / f"{name}.png"))


@pytest.fixture
def page(prefect: Prefect, tmp_path: Path) -> Iterator[Page]:
    """Debian's Chromium; pictures lie where CAPFILT_PICTURES says."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver: make browser")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    pictures = Path(os.environ.get("CAPFILT_PICTURES", tmp_path))
    yield Page(browser, prefect, pictures)
    browser.quit()


def test_a_cleaning_is_launched_from_the_page(
    prefect: Prefect, page: Page, web: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = (f"--pool={POOL}", "--name=page", "--param=engine=local")
    assert prefect.capfilt("deploy", "clean", *flags).returncode == 0
    page.open(f"deployments/deployment/{prefect.deployment('clean/page')['id']}/run")
    page.press("Submit")
    page.find("//*[contains(., \"'input' is a required property\")]")
    page.picture("form-refused")
    page.press("Add item")
    page.find("(//textarea)[5]")
    page.fill_in(str(web), str(out), "", "tiny-captioner", "tiny-filter")
    page.picture("form-filled")
    page.press("Submit")
    wait_until(lambda: any(Path(out).glob("snapshots/*")), 120)
    runs = prefect.post("flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1).json()
    done = prefect.wait(runs[0]["id"], "Completed")
    assert done["parameters"]["output"] == str(out)
    page.open(f"runs/flow-run/{done['id']}")
    page.find(f"//*[contains(., '{done['state']['message']}')]")
    time.sleep(3)
    page.picture("run-done")
    page.open(f"runs/flow-run/{done['id']}?tab=Artifacts")
    time.sleep(3)
    page.picture("run-artifacts")


def test_a_person_approves_on_the_page(prefect: Prefect, page: Page, tmp_path: Path) -> None:
    out = tmp_path / "rounds"
    recipe = write_rounds_recipe(tmp_path)
    run = prefect.launch("bootstrap/capfilt", output=str(out), recipe=str(recipe), approve=True)
    prefect.wait(run, "Paused", timeout_s=200)
    for answer in ({}, {"approve": "x", "reason": "ok"}, {"approve": True, "reason": ""}):
        refused = prefect.post(f"flow_runs/{run}/resume", run_input=answer)
        assert refused.json()["status"] == "REJECT"
    page.open(f"runs/flow-run/{run}")
    page.press("Resume")
    page.find(
        "//*[contains(., 'Round 1 is done, and ') and contains(., 'May the next one begin?')]"
    )
    time.sleep(1)
    page.picture("approval")
    page.find(SWITCH).click()
    page.find("(//*[@role='dialog']//textarea)[1]").send_keys("the captions read well")
    page.picture("approval-filled")
    page.find("//*[@role='dialog']//button[normalize-space(.)='Submit']").click()
    done = prefect.wait(run, "Completed", timeout_s=200)
    assert done["state"]["message"].startswith("2 rounds")
    answer = json.loads((out / "round-1/approved.json").read_text())
    assert (answer["approve"], answer["by"]) == (True, "Prefect")
    assert answer["reason"] == "the captions read well"


@pytest.mark.parametrize("yes", [True, False])
def test_a_person_approves_on_the_terminal(prefect: Prefect, tmp_path: Path, yes: bool) -> None:
    out = tmp_path / "rounds"
    recipe = write_rounds_recipe(tmp_path)
    run = prefect.launch("bootstrap/capfilt", output=str(out), recipe=str(recipe), approve=True)
    prefect.wait(run, "Paused", timeout_s=200)
    flags = () if yes else ("--no",)
    assert prefect.capfilt("approve", out, "--reason=seen", *flags).returncode == 0
    done = prefect.wait(run, "Completed", timeout_s=200)
    assert done["state"]["message"].startswith("2 rounds" if yes else "1 round,")
    assert (out / "round-2").exists() == yes


def test_a_schedule_fires(prefect: Prefect, web: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "nightly.yaml"
    recipe.write_text(
        json.dumps(
            {
                "input": {"urls": [str(web)]},
                "output": str(tmp_path / "runs" / "{time}"),
                "caption": {"model": "tiny-captioner"},
                "score": {"model": "tiny-filter"},
                "engine": {"kind": "local"},
            }
        )
    )
    flags = ("--every=20", f"--pool={POOL}", "--name=nightly", "--tag=nightly")
    done = prefect.capfilt("deploy", "clean", recipe, *flags)
    assert done.returncode == 0, done.stderr
    made = prefect.deployment("clean/nightly")
    assert {"capfilt", "nightly"} <= set(made["tags"])
    wait_until(lambda: any((tmp_path / "runs").glob("*/snapshots/*")), 120)
    (out, *_) = (tmp_path / "runs").iterdir()
    time.strptime(out.name, "%Y-%m-%dT%H%M%S")
    for schedule in made["schedules"]:
        prefect.post(f"deployments/{made['id']}/pause_deployment", schedule=schedule["id"])


def test_a_run_whose_worker_was_stopped_is_called_crashed(prefect: Prefect, tmp_path: Path) -> None:
    many = tmp_path / "many"
    write_toy_world(many, ToyWorldConfig(samples=6000, samples_per_shard=50))
    out = tmp_path / "run"
    asked = {"input": [str(many)], "output": str(out), **TINY}
    run = prefect.launch("clean/capfilt", **asked)
    wait_until(lambda: len(list(out.glob("commits/*.json"))) >= 3)
    worker = prefect.workers.pop()
    os.kill(worker.pid, signal.SIGTERM)  # it kills its run without a word
    worker.wait(30)
    try:
        crashed = prefect.wait(run, "Crashed", timeout_s=240)
    finally:
        prefect.start_worker()
    assert "no heartbeat" in crashed["state"]["message"]
    prefect.wait(prefect.launch("clean/capfilt", **asked), "Completed", timeout_s=240)
    assert len(list(out.glob("commits/*.json"))) == 120


def test_a_cancel_ends_rays_actors_too(tmp_path: Path, loopback_only: list[str]) -> None:
    many, home = tmp_path / "many", tmp_path / "home"
    write_toy_world(many, ToyWorldConfig(samples=3000, samples_per_shard=50))
    command = [*loopback_only, sys.executable, "-m", "tests.support.cancelled_on_ray", home, many]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["gone_s"] < 30
    assert found["released"] >= 1
    assert found["committed"] < found["committed_in_the_end"] == 60
