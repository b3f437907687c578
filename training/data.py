"""Fetch the icon sets with npm and render the sprites the other steps draw from."""

from __future__ import annotations

import argparse
import logging
import subprocess
from pathlib import Path

from training import sprites
from training.common import DEFAULT_WORK

logger = logging.getLogger(__name__)


def fetch(folder: Path) -> Path:
    """Install the icon packages into `folder` and return where their files lie."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = [f"@iconify-json/{collection}" for collection in sprites.STYLES.values()]
    if not all((folder / "node_modules" / package / "icons.json").exists() for package in packages):
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages], check=True)
    return folder / "node_modules" / "@iconify-json"


def main() -> None:
    """Run `python -m training.data`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and checkpoints")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    count = sprites.build(fetch(options.work / "icons"), options.work / "sprites", workers=options.workers)
    logger.info("%d sprites rendered", count)


if __name__ == "__main__":
    main()
