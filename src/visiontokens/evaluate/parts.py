"""Answers on their way to a prediction file: one growing journal per process, joined when no answer is missing.

Every process of a run answers its share of the batches and appends them to a part beside the final file. Whichever
process finds all questions answered joins the parts, so none waits for another: the processes of one `torchrun` and
the tasks of a job array are the same to it. A part begins with what its answers were made by; answers made by anything
else are never read.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.journal import Journal, read_journal
from visiontokens.evaluate.predictions import PredictionError, write_predictions

log = logging.getLogger(__name__)

SUFFIX = ".partial"
CACHED = "cached"
"""In an entry of a part: the answer came from the response cache."""


@dataclass(frozen=True)
class Share:
    """The batches that one of `count` processes answers: those whose number is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def chosen(cls, text: str | None = None) -> Self:
        """Return the share written as `index/count` (from 0), else that of this process below `torchrun`.

        Raises:
            ValueError: not of that form, no such share, or both were given.
        """
        several = int(os.environ.get("WORLD_SIZE", "1"))
        if text is None:
            return cls(int(os.environ.get("RANK", "0")), several)
        if several > 1:
            raise ValueError(f"--shard {text}: found {several} processes of torchrun, which shares out by itself")
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"--shard: found {text!r}, expected INDEX/COUNT with an index from 0 to COUNT - 1")
        return cls(int(index), int(count))

    def __contains__(self, number: int) -> bool:
        return number % self.count == self.index


class Parts:
    """The answers to one benchmark so far; a context manager that holds this process's part open.

    Args:
        path: the final prediction file.
        identity: what the answers are made by (weights, method, prompts, decoding, code); plain values.
        share: this process's.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], share: Share | None = None) -> None:
        self.path, self.share = Path(path), share or Share()
        self.identity = json.loads(json.dumps(identity))  # as it is read back
        self.done: dict[str, dict[str, Any]] = {}
        self._elsewhere: dict[str, dict[str, Any]] = {}
        self._journal = Journal(self.part(self.share.index))

    def part(self, index: int) -> Path:
        """Return the file of one process."""
        count = self.share.count
        middle = f".{index}-of-{count}" if count > 1 else ""
        return self.path.with_name(f"{self.path.name}{middle}{SUFFIX}")

    def __enter__(self) -> Self:
        """Open this process's part and read what an earlier run has left.

        A part that was made by anything else is emptied: where it is that of a workflow's job, that job runs because
        its answers are to be made again.

        Raises:
            JournalBusyError: another process has this part open.
        """
        self._journal.__enter__()
        head, *entries = self._journal.entries() or [{}]
        if head.get("identity") == self.identity:
            self.done = _by_id(entries)
        else:
            if head or entries:
                log.warning("%s: made by something else (%s); starting over", self._journal.path, self._differs(head))
            self._journal.clear()
            self._journal.append([{"identity": self.identity}])
        own = {self.part(index) for index in range(self.share.count)}
        for path in sorted(set(self._leftovers()) - own):
            self._elsewhere |= _by_id(self._read(path) or [])
        return self

    def _differs(self, head: Mapping[str, Any]) -> str:
        """Say in which keys the identity of a part differs from this run's."""
        found = head.get("identity")
        if not isinstance(found, dict):
            return "its first line says nothing"
        keys = sorted(key for key in {*found, *self.identity} if found.get(key) != self.identity.get(key))
        return ", ".join(f"{key}: found {found.get(key)!r}, expected {self.identity.get(key)!r}" for key in keys)

    def _leftovers(self) -> Iterable[Path]:
        """Return the parts beside the final file, also those of another number of processes."""
        return self.path.parent.glob(f"{self.path.name}*{SUFFIX}")

    def _read(self, path: Path) -> list[dict[str, Any]] | None:
        """Return the answers in a part; None where it was made by something else."""
        head, *entries = list(read_journal(path)) or [{}]
        return entries if head.get("identity") == self.identity else None

    def has(self, ids: Sequence[str]) -> bool:
        """Tell whether all of these questions are answered.

        Answers that an earlier run of another number of processes has left are taken over here.
        """
        found = [self._elsewhere[key] for key in ids if key not in self.done and key in self._elsewhere]
        if not all(key in self.done or key in self._elsewhere for key in ids):
            return False
        self.write(found)
        return True

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add the answers of one batch and bring them to disk; an id already done is ignored."""
        new = {str(record["question_id"]): dict(record) for record in records}
        new = {key: record for key, record in new.items() if key not in self.done}
        if new:
            self._journal.append(new.values())
            self.done |= new

    def join(self, examples: Sequence[Example]) -> int | None:
        """Write the final file, in the order of `examples`, if all of them are answered; the parts stay.

        Returns:
            How many answers came from the cache; None where other processes have answers to come, or one of them
            has joined the parts and removed them.

        Raises:
            PredictionError: a part holds a foreign id, two parts the same one, or a single process lacks answers.
        """
        found: dict[str, dict[str, Any]] = {}
        known = {example.question_id for example in examples}
        for path in map(self.part, range(self.share.count)):
            try:
                entries = self._read(path)
            except FileNotFoundError:
                return None
            for key, record in _by_id(entries or []).items():
                if key not in known:
                    raise PredictionError(f"{path}: question id {key!r} is foreign, expected one of {len(known)}")
                if key in found:
                    raise PredictionError(f"{path}: question id {key!r} is answered again, expected in one part only")
                found[key] = record
        missing = [key for key in known if key not in found]
        if missing and self.share.count > 1:
            return None
        if missing:
            first = next(e.question_id for e in examples if e.question_id not in found)
            raise PredictionError(
                f"{self.part(0)}: {len(missing)} of {len(examples)} questions have no answer, "
                f"the first is question id {first!r}"
            )
        hits = sum(bool(record.pop(CACHED, False)) for record in found.values())
        write_predictions(self.path, (found[example.question_id] for example in examples))
        return hits

    def remove(self) -> None:
        """Remove all parts."""
        self._journal.close()
        for path in self._leftovers():
            path.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close this process's part; it stays for a later run."""
        self._journal.close()


def _by_id(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return entries by question id; of two answers the first counts."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        found.setdefault(str(entry["question_id"]), dict(entry))
    return found
