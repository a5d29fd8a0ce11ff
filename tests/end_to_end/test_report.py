"""The report in a real browser, made from input that would like to run in it."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.driving import InProcess, Models

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1280,900",
)
CAPTIONS = (
    "<script>document.title='owned'</script>",
    '"><img src="https://example.com/x.png" onerror="document.title=1">',
    "</style><style>body{display:none}</style>",
    "<svg onload=alert(1)><iframe src=https://example.com></iframe>",
    "{{ 7*7 }} </bdi></li></ul></main>",
    "عربي \u202egnp.exe\u202c 👩\u200d👧",
)
SECTIONS = ["samples", "scores", "reasons", "gallery", "shards", "recipe"]
HANDLERS = """
return [...document.querySelectorAll('*')].filter(
  element => [...element.attributes].some(given => given.name.startsWith('on'))).length
"""
LOADED = """
return performance.getEntriesByType('resource')
  .map(entry => entry.name).filter(name => !name.startsWith('data:'))
"""
# The worst contrast of any text with what is painted behind it, by the formula of WCAG 2.
CONTRAST = """
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = element => {
  const found = numbers(getComputedStyle(element).backgroundColor);
  return found[3] === 0 ? behind(element.parentElement) : found;
};
const worst = [99, ''];
for (const element of document.querySelectorAll('body *')) {
  if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
  const style = getComputedStyle(element);
  const inChart = element instanceof SVGElement;
  const front = light(numbers(inChart ? style.fill : style.color));
  const back = light(behind(inChart ? element.ownerSVGElement.parentElement : element));
  const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  if (ratio < worst[0]) [worst[0], worst[1]] = [ratio, element.outerHTML.slice(0, 200)];
}
return worst;
"""


def picture(n: int) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").rotate(15 * n).convert("RGB").resize((120, 80)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def page(flags: Any, toy_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run over captions and keys that are hostile."""
    home = tmp_path_factory.mktemp("report")
    web, run = home / "web", home / "run"
    web.mkdir()
    with tarfile.open(web / "a b.tar", "w") as tar:
        for n, caption in enumerate([*CAPTIONS, "a broken picture"]):
            image = b"broken" if n == len(CAPTIONS) else picture(n)
            meta = json.dumps({"url": f"javascript:{caption}"}).encode()
            for kind, data in (("png", image), ("txt", caption.encode()), ("json", meta)):
                member = tarfile.TarInfo(f"{n}'\"><u onclick=x>.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    capfilt = InProcess(home, lambda: ("", ""))
    assert capfilt.run(*flags(toy_models, web, run), "--engine=local", "--direct").returncode == 0
    assert capfilt.run("report", run).returncode == 0
    return run / "report" / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium, without a network."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver: make browser")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.mark.slow
def test_the_page_in_a_browser(page: Path, browser: Any) -> None:
    browser.get(page.as_uri())
    ask = browser.execute_script
    assert browser.title == "capfilt report: run"
    assert [
        s.get_attribute("id") for s in browser.find_elements("css selector", "main section")
    ] == SECTIONS
    assert ask("return document.scripts.length") == 0
    assert ask(HANDLERS) == 0
    assert ask("return document.querySelectorAll('iframe, object, u, form').length") == 0
    assert ask("return document.styleSheets.length") == 1
    assert ask(LOADED) == []
    pictures = ask(
        "return Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert pictures == [120] * len(CAPTIONS)
    shown = {node.text for node in browser.find_elements("css selector", "bdi.text")}
    assert {caption.replace("\u202e", "").replace("\u202c", "") for caption in CAPTIONS} <= shown
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_any_width_and_can_be_read(
    page: Path, browser: Any, width: int, scheme: str
) -> None:
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    worst = browser.execute_script(CONTRAST)
    assert worst[0] >= 4.5, worst


def test_the_command_needs_no_torch(page: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from flows.cli import app; "
        "sys.argv = ['capfilt', 'report', sys.argv[1], '--explain', '0']; "
        "app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    run = page.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_another_place_and_a_run_without_its_input(
    page: Path, capfilt: InProcess, tmp_path: Path
) -> None:
    run = page.parent.parent
    (run.parent / "web").rename(run.parent / "moved")
    made = capfilt.run("report", run, "--output", "here.html", "--gallery=3", "--json")
    (run.parent / "moved").rename(run.parent / "web")
    assert made.returncode == 0, made.stderr
    there = tmp_path / "here.html"
    assert "the input shard is gone" in there.read_text(encoding="utf-8")
    assert json.loads(made.stdout) == {"report": str(there), "size_bytes": there.stat().st_size}
