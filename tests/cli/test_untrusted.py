"""Files of others: paths stay inside, images are measured before they are decoded, names are shown as they are."""

import os
import shutil
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import psutil
import pytest
import runs
import yaml

from dissect_xr.cli.recipe import read_raw
from dissect_xr.cli.summary import describe_store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import open_pool
from dissect_xr.probe import pixels
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.broden import read_broden

NASTY = ("<script>alert(1)</script>", "[red]sky[/red]", "[/]", "a&b\"'", "[link=file:///etc/passwd]x[/link]")


@pytest.fixture
def folder(tmp_path):
    """A few digits in the Broden layout."""
    write_digits(tmp_path / "probe", images=4, size=64)
    return tmp_path / "probe"


def first_image(folder: Path, name: str) -> None:
    """Let the first row of the index name this image."""
    lines = (folder / "index.csv").read_text().splitlines()
    lines[1] = ",".join([name, *lines[1].split(",")[1:]])
    (folder / "index.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["up", "up inside", "absolute", "link to a file", "link to a folder", "null", "loop"])
def test_paths_of_the_index_stay_inside_the_probe(folder, tmp_path, kind):
    secret = tmp_path / "secret.png"
    images = folder / "images"
    shutil.copy(next(images.rglob("*.jpg"), None) or next(images.rglob("*.png")), secret)
    name = {
        "up": "../../secret.png",
        "up inside": "digits/../../../secret.png",
        "absolute": str(secret),
        "link to a file": "link.png",
        "link to a folder": "links/secret.png",
        "null": "a\x00b.png",
        "loop": "loop/a.png",
    }[kind]
    (images / "link.png").symlink_to(secret)
    (images / "links").symlink_to(tmp_path)
    (images / "loop").symlink_to(images / "loop")
    first_image(folder, name)
    with pytest.raises(DissectError, match=r"lies outside|is no path|found no file|damaged or truncated"):
        write_probe(read_broden(folder), str(tmp_path / "probe.zarr"), show=False)


def huge_png(width: int, height: int) -> bytes:
    """A PNG that declares its size, with no pixels behind it: decoding it would be another error."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8_001, 8_000), (30_000, 30_000), (65_535, 65_535)])
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, size):
    pytest.importorskip("torch")
    from dissect_xr.activations.images import read_image

    path = tmp_path / "bomb.png"
    path.write_bytes(huge_png(*size))
    before = psutil.Process().memory_info().rss
    with pytest.raises(DissectError, match=r"more than|larger than|DecompressionBomb"), pixels.open_image(path):
        pass
    with pytest.raises(DissectError, match=r"more than|larger than|DecompressionBomb"):
        read_image(path, (8, 8))
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_as_they_are(folder, tmp_path, name, capsys):
    text = (folder / "label.csv").read_text().splitlines()
    number, _, *rest = text[1].split(",")
    text[1] = ",".join([number, '"' + name.replace('"', '""') + '"', *rest])
    (folder / "label.csv").write_text("\n".join(text) + "\n")
    url = str(tmp_path / "probe.zarr")
    write_probe(read_broden(folder), url, show=False)
    list(describe_store(url))
    assert runs.call("info", url) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert "".join(name.split())[:12] in shown


def test_yaml_builds_no_objects(tmp_path):
    marker = tmp_path / "executed"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"probe: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(DissectError, match="not readable as YAML"):
        read_raw(recipe)
    with pytest.raises(DissectError, match="not readable as YAML"):
        read_raw(_plain(tmp_path), [f"probe=!!python/object/apply:os.system ['touch {marker}']"])
    assert not marker.exists()


def _plain(folder: Path) -> Path:
    path = folder / "plain.yaml"
    path.write_text(yaml.safe_dump({"layers": "all"}))
    return path


def test_pickled_weights_are_not_executed(tmp_path):
    torch = pytest.importorskip("torch")
    from dissect_xr.activations.checkpoints.weights import read_weights

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"state_dict": Malicious()}, tmp_path / "weights.pt")
    with pytest.raises(DissectError, match="nothing in it was executed"):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "executed").exists()


def listening(process: psutil.Process) -> set[str]:
    """Addresses that a process and its children listen on."""
    found = set()
    for one in [process, *process.children(recursive=True)]:
        for connection in one.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip)
    return found


PAGES = (
    "status", "workers", "tasks", "graph", "health", "metrics", "info/main/workers.html", "info/call-stacks/x.html",
    "json/counts.json", "json/identity.json", "proxy/80/127.0.0.1/", "statics/css/base.css",
)  # fmt: skip
"""What Dask's HTTP servers have, with the dashboard and without."""


def test_nothing_listens_on_other_interfaces_and_no_dashboard():
    with open_pool(workers=1) as pool:
        assert listening(psutil.Process()) <= {"127.0.0.1", "::1"}
        assert listening(psutil.Process()), "expected a scheduler that listens on loopback"
        info = pool.client.scheduler_info()
        for part in (info, *info["workers"].values()):
            port = part["services"]["dashboard"]
            for page in PAGES:
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}")
