"""Does the page open in a browser as a person would open it: front visible, no error, nothing asked of the network?"""

import base64
import json
import re
import shutil
import subprocess
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from neuralfuse.report.page import Shown

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --virtual-time-budget=8000 --enable-logging=stderr --v=0""".split()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_in_headless_chromium(tiny, tmp_path):
    log = tmp_path / "net.json"
    profile = [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--dump-dom"]
    command = [str(CHROMIUM), *FLAGS, *profile, (tiny / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr  # every console message of a page is logged under this tag
    drawn = re.findall(r'<div data-front="(\w+)"[^>]*>(.)', done.stdout)
    assert {scope for scope, _ in drawn} == {"weight_sram", "sram", "chip", "system"}
    assert done.stdout.count('class="main-svg"') >= 3  # plotly drew
    assert re.search(r'data-front="sram"[^>]*hidden', done.stdout)  # one scope at a time
    text = log.read_text()
    if not text.rstrip().endswith("}"):  # the browser may be gone before it closes the list
        text = text.rstrip().rstrip(",") + "]}"
    urls = {e.get("params", {}).get("url", "") for e in json.loads(text)["events"] if "params" in e}
    ours = {u for u in urls if u.startswith(("http:", "https:")) and not re.match(r"https?://[^/]*google", u)}
    assert not ours, ours  # the browser's own start-up may look for its maker; the page asks nobody


def test_figures_on_the_page_keep_rare_colours(tmp_path):
    """A patch of a thousandth of the picture, between a thousand shades of others, as in a legend."""
    picture = np.tile(np.linspace(0, 255, 400), (400, 1))[..., None].repeat(3, axis=2)
    picture[..., 2] = np.linspace(0, 255, 400)[:, None]
    picture[10:24, 10:24] = 0, 114, 178
    Image.fromarray(picture.astype("uint8")).save(tmp_path / "a.png")
    shown = Shown("words", tmp_path / "a.png")
    with Image.open(BytesIO(base64.b64decode(shown.uri.partition(",")[2]))) as image:
        assert image.width == shown.width == 212
        assert np.abs(np.array(image.convert("RGB")).astype(int)[9, 9] - (0, 114, 178)).max() < 20


def test_page_needs_nothing_from_outside(tiny):
    """The same without a browser: no element of the page points anywhere but into it."""
    html = (tiny / "report.html").read_text()
    body = re.sub(r"<script [^>]*>.*?</script>", "", html, flags=re.S)
    for attribute in re.findall(r'(?:src|href|action|data)="([^"]*)"', body):
        assert attribute.startswith(("data:", "#")), attribute[:80]
    assert "@import" not in body
    assert "url(" not in body


def test_page_runs_no_script_but_its_own(tiny):
    html = (tiny / "report.html").read_text()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    (nonce,) = re.findall("'nonce-([0-9a-f]{16})'", policy)
    assert html.index("Content-Security-Policy") < html.index("<script")
    scripts = re.findall("<script[^>]*>", html)  # the drawing library is text until ours unpacks it
    assert scripts == ['<script type="text/plain" id="plotly">', f'<script nonce="{nonce}">']
    outside = (tiny / "study.yaml").read_text() + (tiny / "results.csv").read_text()
    assert nonce not in outside
