"""A person with headless Chromium: opens pages from disk, types, looks, and notices what is fetched.

Knows: selenium, axe-core.
Does not know: what the pages are.
"""

import importlib.resources
import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
MISSING = [
    *([] if CHROMIUM and DRIVER else ["Chromium and its driver (apt-get install chromium chromium-driver)"]),
    *(name for name in ("selenium", "axe_core_python") if importlib.util.find_spec(name) is None),
]
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then((found) => done(found.violations.map((one) =>
  [one.impact, one.id, one.help, one.nodes.slice(0, 3).map((node) => node.html)])));
"""


@contextmanager
def chromium(folder: Path, **preferences: Any) -> Iterator[Any]:
    """The driver of a browser that keeps its profile in `folder`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={folder}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Reader:
    """What a person does with the pages."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def open(self, page: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(f"{self.folder.as_uri()}/{page}")

    def resize(self, width: int) -> None:
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.all(selector)[0].get_property("textContent"))

    def number(self, name: str) -> int:
        return int(self.text(f"#n-{name}"))

    def choose(self, name: str, value: str) -> None:
        """Set a field as a person does."""
        self.js(
            "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
            "field.dispatchEvent(new Event('input', {bubbles: true}));"
            "field.dispatchEvent(new Event('change', {bubbles: true}));",
            name,
            value,
        )

    def until(self, code: str) -> None:
        """Wait until it is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 10, poll_frequency=0.02).until(lambda _: self.js(f"return {code}"))

    def cards(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('.card')].map((card) => card.dataset.unit)")

    def texts(self, selector: str) -> list[str]:
        code = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
        return self.js(code, selector)

    def take(self, kind: str) -> list[Any]:
        return self.driver.get_log(kind)

    def outside(self) -> list[str]:
        """Requests for anything that does not lie in the report's folder."""
        events = [json.loads(entry["message"])["message"] for entry in self.take("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert urls
        return [url for url in urls if not url.startswith((f"{self.folder.as_uri()}/", "data:", "about:blank"))]

    def violations(self) -> list[Any]:
        """What axe-core finds that keeps people out."""
        self.js((importlib.resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(AXE)
        return [violation for violation in found if violation[0] in ("serious", "critical")]
