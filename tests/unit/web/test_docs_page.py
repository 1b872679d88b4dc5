"""The files of the page at /docs equal those of the pinned package."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import pytest

from ecomcharge.web.docs_page import ASSETS, Asset


@pytest.mark.parametrize(
    "asset", [asset for asset in ASSETS if asset.folder.endswith("swagger-ui")], ids=lambda asset: asset.name
)
def test_files_of_swagger_ui_equal_those_of_the_pinned_package(asset: Asset) -> None:
    package = Path(sys.prefix, "npm", "node_modules", "swagger-ui-dist")
    if not package.is_dir():
        pytest.skip("no packages of npm in .venv/npm to compare with: `make test` installs them")
    served = resources.files("ecomcharge.web").joinpath(asset.folder, asset.name)
    assert served.read_bytes() == (package / asset.name).read_bytes(), "run `make swagger-ui`"
