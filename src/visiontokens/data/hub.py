"""Files of a model or data set on the hub: which there are, with size and checksum, and where each is.

`HF_ENDPOINT` names another hub, `HF_TOKEN` opens gated repositories, `HF_HUB_OFFLINE=1` forbids to ask.
"""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from visiontokens.data.download import BUSY, DownloadError, Transport, pause, retry_after
from visiontokens.data.registry import Entry


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; small files have no published SHA-256."""

    path: str
    bytes: int
    sha256: str
    url: str


def headers() -> dict[str, str]:
    """Return what the hub wants to see of the user."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def newest_commit(entry: Entry, transport: Transport) -> str:
    """Return the commit that the repository's branch `main` is at.

    Raises:
        DownloadError: the hub does not answer or refuses.
    """
    kind, repo = _repository(entry)
    url = f"{_endpoint()}/api/{kind}/{repo}/revision/main"
    answer, _ = _ask(url, transport, dict)
    return str(answer["sha"])


def list_files(entry: Entry, revision: str, transport: Transport) -> list[HubFile]:
    """Return the repository's files at commit `revision` that an entry names, in the order of the hub.

    Raises:
        DownloadError: the hub does not answer or refuses, a pattern of the entry matches nothing, or the hub has
            another size or checksum than the registry.
    """
    kind, repo = _repository(entry)
    page = f"{_endpoint()}/api/{kind}/{repo}/tree/{quote(revision, safe='')}?recursive=true"
    rows: list[dict[str, Any]] = []
    while page:
        found, page = _ask(page, transport, list)
        rows += found
    files = {row["path"]: row for row in rows if row["type"] == "file"}
    chosen = [path for path in files if any(fnmatch.fnmatchcase(path, pattern) for pattern in entry.files)]
    for pattern in entry.files:
        if not fnmatch.filter(chosen, pattern):
            raise DownloadError(f"{entry.source}@{revision}: no file matches {pattern!r}")
    base = f"{_endpoint()}/{'datasets/' if kind == 'datasets' else ''}{repo}/resolve/{quote(revision, safe='')}"
    return [_file(entry, files[path], f"{base}/{quote(path)}") for path in chosen]


def _file(entry: Entry, row: dict[str, Any], url: str) -> HubFile:
    stored = row.get("lfs") or {}
    size, sha256 = int(stored.get("size", row["size"])), str(stored.get("oid", ""))
    if entry.is_single:
        for what, wanted, found in (("bytes", entry.bytes, size), ("SHA-256", entry.sha256, sha256)):
            if wanted and found and wanted != found:
                raise DownloadError(f"{url}: the hub has a file of {what} {found}, expected {wanted}")
        sha256 = sha256 or entry.sha256
    return HubFile(row["path"], size, sha256, url)


def _repository(entry: Entry) -> tuple[str, str]:
    assert entry.hub is not None
    return entry.hub


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _ask(url: str, transport: Transport, expected: type[Any]) -> tuple[Any, str]:
    """Return the hub's answer to a query and the address of its next page, asking again while it is busy."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise DownloadError(f"{url}: not asked, because HF_HUB_OFFLINE is set")
    reason, wait = "", None
    for attempt in range(transport.attempts):
        if attempt:
            transport.sleep(pause(attempt, wait))
        try:
            answer = requests.get(url, headers=headers(), timeout=transport.timeout)
        except requests.RequestException as err:
            reason, wait = str(err), None
            continue
        if answer.status_code == 200:
            return _content(url, answer, expected), answer.links.get("next", {}).get("url", "")
        reason, wait = f"the hub answered {answer.status_code} {answer.reason}", retry_after(answer)
        if answer.status_code not in BUSY:
            hint = " (gated? accept its terms and set HF_TOKEN)" if answer.status_code in (401, 403) else ""
            raise DownloadError(f"{url}: {reason}{hint}")
    raise DownloadError(f"{url}: given up after {transport.attempts} attempts: {reason}")


def _content(url: str, answer: requests.Response, expected: type[Any]) -> Any:
    try:
        content = answer.json()
    except ValueError:
        content = answer.text
    if not isinstance(content, expected):
        raise DownloadError(f"{url}: expected a JSON {expected.__name__}, found {answer.text[:60]!r}: not the hub?")
    return content
