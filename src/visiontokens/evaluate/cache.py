"""Answers that earlier runs gave to the same prompt and image, kept on disk.

One folder for each thing that answers (weights, method, decoding, code: `respond.identity_of`), in it journals of
answers by the hash of prompt and image. Processes at work at the same time write a journal each. An entry is read only
if its checksum holds, and looked up only under the hash of everything it depends on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from visiontokens.evaluate.journal import Journal, JournalBusyError, read_journal
from visiontokens.provenance import sha256_file, sha256_json, write_json

log = logging.getLogger(__name__)


def question_key(image: Path | None, ids: Sequence[int], frames: int = 0, longest: int | None = None) -> str:
    """Return the hash of a question: the image's (or video's) bytes, token ids, frames of a video, longest answer.

    Raises:
        FileNotFoundError: the image is missing.
    """
    seen = None if image is None else _image_hash(image)
    return hashlib.sha256(json.dumps([seen, list(ids), frames, longest]).encode()).hexdigest()


@lru_cache(maxsize=64)
def _image_hash(image: Path) -> str:
    """Return an image's hash; the questions about one image follow each other."""
    return sha256_file(image)


class ResponseCache:
    """A context manager that holds the answers of one identity, and a journal for new ones.

    `hits` and `asked` count the questions since it was opened.

    Args:
        folder: of all caches.
        identity: what the answers depend on besides prompt and image, as plain values.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = Path(folder) / sha256_json(identity)[:32], dict(identity)
        self.hits = self.asked = 0
        self._known: dict[str, dict[str, Any]] = {}
        self._journal: Journal | None = None

    def __enter__(self) -> Self:
        """Read all journals and open the first one that no other process has open."""
        write_json(self.folder / "identity.json", self.identity)  # for people
        self._journal = self._free_journal()
        self._journal.entries()  # closes a torn end
        for path in sorted(self.folder.glob("answers-*.jsonl")):
            self._known |= {entry["key"]: entry["answer"] for entry in read_journal(path)}
        return self

    def _free_journal(self) -> Journal:
        """Open and return the first journal that no other process has open."""
        for number in count():
            with suppress(JournalBusyError):
                return Journal(self.folder / f"answers-{number}.jsonl").__enter__()
        raise AssertionError("numbers end")

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer stored under a key."""
        found = self._known.get(key)
        self.asked += 1
        self.hits += found is not None
        return found

    def put(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Store answers by key, on disk when this returns."""
        if self._journal is None:
            raise RuntimeError(f"{self.folder}: the cache is not open")
        if answers:
            self._journal.append({"key": key, "answer": answer} for key, answer in answers.items())
            self._known |= {key: dict(answer) for key, answer in answers.items()}

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()
        if self.asked:
            log.info("response cache: %d of %d answers found in %s", self.hits, self.asked, self.folder)
