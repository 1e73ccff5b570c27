"""A survey in headless Chromium, from disk: answered with the keyboard, kept over a reload, downloaded, read back."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import pytest
import report_case
from browser import MISSING, Reader
from survey_case import SMALL, written

from dissect_xr.survey.answers import read_survey

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"SURVEY NOT TESTED IN A BROWSER: no {', no '.join(MISSING)}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_case.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("chromium")
    with browser.chromium(folder, **{"download.default_directory": str(downloads)}) as driver:
        yield driver


class Rater(Reader):
    """Someone without a mouse."""

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def press_with_ctrl(self, key: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()

    def begin(self, page: Path, name: str) -> None:
        """Open the page in a tab that did not answer before, and give a name."""
        from selenium.webdriver.common.keys import Keys

        self.open(page.name)
        self.js("sessionStorage.clear()")
        self.driver.refresh()
        self.press(Keys.TAB)
        assert self.js("return document.activeElement.id") == "name"
        self.js("document.activeElement.value = ''")
        self.press(name, Keys.ENTER)

    def tab_to(self, name: str) -> None:
        from selenium.webdriver.common.keys import Keys

        for _ in range(40):
            if self.js("return document.activeElement.id") == name:
                return
            self.press(Keys.TAB)
        raise AssertionError(f"Tab does not reach {name}")

    def where(self) -> str:
        return self.text("#where")

    def download(self, folder: Path) -> Path:
        """The file that the end's button saves, pressed with Enter."""
        from selenium.webdriver.common.keys import Keys

        before = set(folder.iterdir())
        self.tab_to("download")
        self.press(Keys.ENTER)
        self.until("document.getElementById('downloaded').textContent.startsWith('Downloaded')")
        for _ in range(200):
            new = [path for path in set(folder.iterdir()) - before if path.suffix == ".json"]
            if new:
                return new[0]
            self.js("return new Promise((resolve) => setTimeout(resolve, 50))")
        raise AssertionError("nothing was downloaded")


@pytest.fixture
def rater(chromium: Any, run: Path) -> Iterator[Rater]:
    """A rater with an empty browser; afterwards nothing may have been logged, or asked for from outside the folder."""
    found = Rater(chromium, run / "survey")
    found.take("browser"), found.take("performance")
    found.resize(1000)
    yield found
    assert found.take("browser") == []
    assert found.outside() == []
    found.js("localStorage.clear()")


def test_phrases_by_keyboard_with_a_reload_come_back_as_answers(rater: Rater, run: Path, downloads: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    key, page = written(run)
    rater.begin(page, "Ann  Lee")
    for n, one in enumerate(key.questions[:7]):
        assert rater.where() == f"Question {n + 1} of 12 · {n} answer{'' if n == 1 else 's'}"
        assert rater.text("#question") == f"Does {one.phrase} describe most of the bright patches?"
        rater.until("[...document.querySelectorAll('#pictures img')].every((one) => one.complete && one.naturalWidth)")
        rater.press("n" if one.origin == "decoy" else "Y")
    rater.driver.refresh()
    assert rater.where() == "Question 8 of 12 · 7 answers"
    rater.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert rater.text("#state") == f"You said {'no' if key.questions[5].origin == 'decoy' else 'yes'}"
    rater.press("n", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "y")  # 6 is no now, 7 as it was, 8 is skipped, 9 is yes
    rater.press("Y")
    rater.press_with_ctrl("y")  # the browser's, no answer
    rater.press("n", "n")
    assert rater.text("#summary") == "Ann Lee, you have answered 11 of 12 questions."
    assert rater.texts("#open button") == ["8"]
    file = rater.download(downloads)
    assert file.name == f"answers-{key.fingerprint[:12]}-Ann-Lee.json"
    found = read_survey(run, file)
    assert found["rater"].values.tolist() == ["Ann Lee"]
    wanted: list[float | None] = [float(one.origin != "decoy") for one in key.questions[:7]]
    wanted[5] = 0.0
    given = [None if value != value else value for value in found["yes"].values[:, 0].tolist()]
    assert given == [*wanted, None, 1.0, 1.0, 0.0, 0.0]
    rater.js("document.querySelector('#open button').focus()")
    rater.press(Keys.ENTER, "y")
    assert rater.where() == "Question 9 of 12 · 12 answers"


def test_a_held_key_answers_once_and_single_keys_can_be_switched_off(rater: Rater, run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _, page = written(run)
    rater.begin(page, "Ann")
    for repeat in (False, True, True):
        event = {"type": "keyDown", "key": "y", "code": "KeyY", "text": "y", "autoRepeat": repeat}
        rater.driver.execute_cdp_cmd("Input.dispatchKeyEvent", event)
    assert rater.where() == "Question 2 of 12 · 1 answer"
    rater.open(page.name)
    rater.js("sessionStorage.clear()")
    rater.driver.refresh()
    rater.tab_to("keys")
    rater.press(" ")
    rater.js("document.getElementById('begin').requestSubmit()")
    rater.press("y", Keys.ARROW_RIGHT)
    assert rater.where() == "Question 2 of 12 · 1 answer"
    rater.tab_to("no")
    rater.press(Keys.ENTER)
    assert rater.where() == "Question 3 of 12 · 2 answers"


def test_several_people_share_a_browser_and_a_name_is_needed(rater: Rater, run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _, page = written(run)
    rater.open(page.name)
    rater.press(Keys.TAB, "  ", Keys.ENTER)
    assert rater.text("#name-hint").startswith("Give a name first")
    rater.press("Ann", Keys.ENTER, "y", "y")
    rater.begin(page, "Ben")
    assert rater.where() == "Question 1 of 12 · 0 answers"
    rater.press("n")
    rater.begin(page, "ann")
    assert rater.where() == "Question 3 of 12 · 2 answers"
    rater.open(page.name)
    rater.js("sessionStorage.clear()")
    rater.driver.refresh()
    kept = "Kept in this browser: Ann, 2 of 12 questions; Ben, 1 of 12 questions. Give the same name to go on."
    assert rater.text("#name-hint") == kept


def test_descriptions_by_keyboard_come_back_as_answers(rater: Rater, run: Path, downloads: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _, page = written(run, replace(SMALL, ask="description", units=2))
    rater.begin(page, "李")
    rater.press("0", Keys.ENTER)  # nothing in common
    rater.tab_to("description")
    rater.press("a <b> wheel 3", Keys.TAB, "4")
    assert rater.text("#state") == "Answered"
    rater.tab_to("next")
    rater.press(Keys.ENTER)
    rater.tab_to("description")
    rater.press("half", Keys.ENTER)  # no kind: not an answer
    rater.press("6")  # no words: not an answer
    assert rater.text("#state") == "Say it in words, too"
    rater.driver.refresh()
    assert rater.where() == "Question 4 of 4 · 2 answers"
    assert rater.js("return document.querySelector('input[name=kind]:checked').value") == "simple elements or colors"
    rater.press(Keys.ENTER)
    assert rater.texts("#open button") == ["3", "4"]
    found = read_survey(run, rater.download(downloads))
    assert found["kind"].values[:, 0].tolist() == ["nothing in common", "object part", "", ""]
    assert found["description"].values[:, 0].tolist() == ["", "a <b> wheel 3", "", ""]
    assert found["rater"].values.tolist() == ["李"]


@pytest.mark.parametrize("width", [1000, 400])
@pytest.mark.parametrize("ask", ["phrase", "description"])
def test_no_serious_violation_and_no_sideways_scrolling(rater: Rater, run: Path, ask: str, width: int) -> None:
    key, page = written(run, replace(SMALL, ask=ask, units=12, decoys=0))
    rater.resize(width)
    rater.open(page.name)
    for screen in ("start", "ask", "end"):
        assert rater.violations() == []
        assert rater.js("return document.documentElement.scrollWidth") <= width
        if screen == "start":
            rater.begin(page, "A very long name " * 4)
        elif screen == "ask":
            if ask == "phrase":  # names are shown as they are
                nasty = next(n for n, one in enumerate(key.questions) if one.phrase == report_case.SCRIPT)
                for _ in range(nasty):
                    rater.press("y")
                assert report_case.SCRIPT in rater.text("#question")
                assert rater.js("return document.documentElement.scrollWidth") <= width
            rater.js("document.getElementById('finish').click()")


def test_a_browser_that_keeps_nothing_says_so(rater: Rater, run: Path, downloads: Path) -> None:
    """Where storage is closed to the page, or holds something else, it asks all the same."""
    key, page = written(run)
    rater.open(page.name)
    rater.js(f"localStorage.setItem('dissect_xr survey answers 1 {key.fingerprint}', '{{\"sheets\": 3}}')")
    rater.begin(page, "Ann")
    assert rater.where() == "Question 1 of 12 · 0 answers"
    rater.js("Storage.prototype.setItem = () => { throw new Error('full'); }")
    rater.press("y", "n")
    assert "does not keep your answers" in rater.text("#failure")
    assert not rater.js("return document.getElementById('failure').hidden")
    rater.js("document.getElementById('finish').click()")
    assert len(json.loads(rater.download(downloads).read_text())["answers"]) == 2
