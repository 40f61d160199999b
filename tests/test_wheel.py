"""What is delivered: the wheel has everything that is no code, too, and an exchange installed from it serves its page."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.wellhead.process import ROOT, ServerProcess

PACKAGES = ("engine", "gateway", "settlement", "wellhead")
MARK = "/* of the installed wheel */"
KINDS = {  # what an installation cannot do without, beside its code
    "the page": "gateway/web/index.html",
    "the chart library": "gateway/web/vendor/uPlot.esm.js",
    "its licence": "gateway/web/vendor/LICENSES",
    "the dashboard": "wellhead/grafana.json",
    "the catalogue": "engine/catalogue.toml",
    "the vault": "settlement/contracts/Vault.json",
    "the demo's prices": "wellhead/demo/data/gpu_prices.csv",
}


def files(directory: Path) -> set[str]:
    """Everything in the packages of a source tree, but what Python leaves there."""
    found = [path for name in PACKAGES for path in (directory / name).rglob("*")]
    return {str(path.relative_to(directory)) for path in found if path.is_file() and "__pycache__" not in path.parts}


def pip(*arguments: str | Path) -> None:
    """Without the network."""
    command = [sys.executable, "-m", "pip", "-q", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: a build leaves things in its tree."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools, which builds the wheel, is not installed")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip("wheel", source, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out)
    (built,) = out.glob("wellhead-*.whl")
    return built


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "wellhead = wellhead.cli:main" in archive.read(points).decode()
    assert {kind for kind, name in KINDS.items() if name not in names} == set()
    assert files(ROOT) - names == set()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)


async def test_an_exchange_from_the_wheel_serves_its_page(wheel: Path, tmp_path: Path) -> None:
    """The engine runs uncompiled here: it would be compiled anew for the place where it is installed."""
    home = tmp_path / "installed"
    pip("install", wheel, "--no-deps", "--no-index", "--no-compile", "--target", home)
    with (home / "gateway/web/style.css").open("a", encoding="utf-8") as sheet:
        sheet.write(MARK)
    options = ("--market", "L4-EUC", "--hours", "1")
    async with ServerProcess(
        tmp_path / "data", *options, home=home, PYTHONPATH=str(home), NUMBA_DISABLE_JIT="1"
    ) as server:
        address = server.url.replace("ws", "http", 1)

        def get(path: str) -> bytes:
            with urlopen(f"{address}{path}", timeout=30) as answer:
                body: bytes = answer.read()
                return body

        index = get("/").decode()
        asked = {"/", *re.findall(r'(?:src|href)="(/[^"#]+)"', index)}
        asked |= {f"/{path.relative_to(ROOT / 'gateway/web')}" for path in (ROOT / "gateway/web").rglob("*.js")}
        assert len(asked) > 20
        for path in asked:
            file = home / "gateway/web" / (path.lstrip("/") or "index.html")
            assert get(path) == file.read_bytes(), path
        assert get("/style.css").decode().endswith(MARK)
        assert await server.interrupt() == 0
