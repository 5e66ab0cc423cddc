"""Where the files of `config/` are: in the checkout one works in, else the copies that an installed wheel carries."""

from __future__ import annotations

from pathlib import Path

HERE = Path("config")
CARRIED = Path(__file__).parent / "files"
"""Copies in an installed wheel (`pyproject.toml` puts them there); a checkout, also an editable install, has none."""


def in_checkout() -> bool:
    """Return whether the working directory is a checkout: the workflow and its settings lie here."""
    return Path("Snakefile").is_file() and (HERE / "methods").is_dir()


def config_folder() -> Path:
    """Return the folder with methods, tables and schedules: `config` here, or the installed package's own.

    Without either it is `config`, so that an error names what is expected.
    """
    return HERE if (HERE / "methods").is_dir() or not CARRIED.is_dir() else CARRIED
