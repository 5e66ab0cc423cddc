"""Files of a model or data set on the hub: which there are, with size and checksum, and where each is.

`HF_ENDPOINT` names another hub, `HF_TOKEN` opens gated repositories.
"""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from visiontokens.data.download import BUSY, DownloadError, Transport
from visiontokens.data.registry import Entry


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; small files have no published SHA-256."""

    path: str
    bytes: int
    sha256: str
    url: str


def endpoint() -> str:
    """Return the hub's address."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def headers() -> dict[str, str]:
    """Return what the hub wants to see of the user."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def list_files(entry: Entry, transport: Transport) -> list[HubFile]:
    """Return the repository's files that an entry names, in the order of the hub.

    Raises:
        DownloadError: the hub does not answer or refuses, or a pattern of the entry matches nothing.
    """
    assert entry.hub is not None
    kind, repo = entry.hub
    page: str | None = f"{endpoint()}/api/{kind}/{repo}/tree/{quote(entry.revision, safe='')}?recursive=true"
    rows: list[dict[str, Any]] = []
    while page:
        answer = _ask(page, transport)
        rows += answer.json()
        page = answer.links.get("next", {}).get("url")
    files = {row["path"]: row for row in rows if row["type"] == "file"}
    chosen = [path for path in files if any(fnmatch.fnmatchcase(path, pattern) for pattern in entry.files)]
    for pattern in entry.files:
        if not fnmatch.filter(chosen, pattern):
            raise DownloadError(f"{entry.source}@{entry.revision}: no file matches {pattern!r}")
    base = f"{endpoint()}/{'datasets/' if kind == 'datasets' else ''}{repo}/resolve/{quote(entry.revision, safe='')}"
    return [_file(files[path], f"{base}/{quote(path)}") for path in chosen]


def _file(row: dict[str, Any], url: str) -> HubFile:
    stored = row.get("lfs") or {}
    return HubFile(row["path"], int(stored.get("size", row["size"])), str(stored.get("oid", "")), url)


def _ask(url: str, transport: Transport) -> requests.Response:
    """Return the hub's answer to a query, asking again while it is busy."""
    reason = ""
    for attempt in range(transport.attempts):
        try:
            answer = requests.get(url, headers=headers(), timeout=transport.timeout)
        except requests.RequestException as err:
            reason = str(err)
        else:
            if answer.status_code == 200:
                return answer
            reason = f"the hub answered {answer.status_code} {answer.reason}"
            if answer.status_code not in BUSY:
                hint = " (gated? accept its terms and set HF_TOKEN)" if answer.status_code in (401, 403) else ""
                raise DownloadError(f"{url}: {reason}{hint}")
        transport.sleep(2.0**attempt)
    raise DownloadError(f"{url}: given up after {transport.attempts} attempts: {reason}")
