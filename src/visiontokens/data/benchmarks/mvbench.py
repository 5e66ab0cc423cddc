"""MVBench: twenty temporal tasks on videos, 200 multiple-choice questions each (Li et al., 2024).

Files: `json/<task>.json` (a list of `video`, `question`, `candidates`, `answer`, and for five tasks `start`, `end`) and
`video/<folder of the task>/<video>`. Two protocols ask in different words. That of LLaVA-STF (`stf`, the default) reads
the whole video. That of the authors' notebook (`official`) reads the part between start and end and begins the answer
with "Best option:("; both stand in the examples' `meta`, for a runner that can do so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, read_object, require


class Task(NamedTuple):
    """Where a task's videos lie below `video/`, and whether its questions are about a part of the video."""

    folder: str
    bounded: bool = False


TASKS = {
    "Action Sequence": Task("star/Charades_v1_480", True),
    "Action Prediction": Task("star/Charades_v1_480", True),
    "Action Antonym": Task("ssv2_video"),
    "Fine-grained Action": Task("Moments_in_Time_Raw/videos"),
    "Unexpected Action": Task("FunQA_test/test"),
    "Object Existence": Task("clevrer/video_validation"),
    "Object Interaction": Task("star/Charades_v1_480", True),
    "Object Shuffle": Task("perception/videos"),
    "Moving Direction": Task("clevrer/video_validation"),
    "Action Localization": Task("sta/sta_video", True),
    "Scene Transition": Task("scene_qa/video"),
    "Action Count": Task("perception/videos"),
    "Moving Count": Task("clevrer/video_validation"),
    "Moving Attribute": Task("clevrer/video_validation"),
    "State Change": Task("perception/videos"),
    "Fine-grained Pose": Task("nturgbd"),
    "Character Order": Task("perception/videos"),
    "Egocentric Navigation": Task("vlnqa"),
    "Episodic Reasoning": Task("tvqa/frames_fps3_hq", True),
    "Counterfactual Inference": Task("clevrer/video_validation"),
}
"""The tasks in the official order. Episodic Reasoning has folders of frames (3 per second) for videos."""
PROTOCOLS = ("stf", "official")


def load(root: Path, protocol: str = "stf") -> list[Example]:
    """Read every task of MVBench found below `root`; ids are `<task>/<place in its file>`.

    Raises:
        FileNotFoundError: no task's file is there.
        BenchmarkError: an unknown protocol, a record without a key, or an answer that is not among the candidates.
    """
    if protocol not in PROTOCOLS:
        raise BenchmarkError(f"mvbench: found protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    files = {task: root / "json" / f"{file_stem(task)}.json" for task in TASKS}
    found = {task: path for task, path in files.items() if path.is_file()}
    if not found:
        raise FileNotFoundError(f"{root / 'json'}: none of MVBench's files ({files['Action Sequence'].name}, ...)")
    return [
        _example(record, task, number, protocol, f"{path}: record {number}")
        for task, path in found.items()
        for number, record in enumerate(read_object(path))
    ]


def file_stem(task: str) -> str:
    """Return the name of a task's file: "Fine-grained Action" is in `fine_grained_action.json`."""
    return task.lower().replace(" ", "_").replace("-", "_")


def _example(record: Mapping[str, Any], task: str, number: int, protocol: str, where: str) -> Example:
    bounds = ("start", "end") if TASKS[task].bounded else ()
    require(record, ("video", "question", "candidates", "answer", *bounds), where)
    options = tuple(str(option) for option in record["candidates"])
    if record["answer"] not in options:
        raise BenchmarkError(f"{where}: answer {record['answer']!r} is not among the candidates {list(options)}")
    place = len(options) - 1 - options[::-1].index(record["answer"])  # the last of equal ones, as in the notebook
    ask = prompts.mvbench_official if protocol == "official" else prompts.mvbench_stf
    meta: dict[str, Any] = {
        "answer": ascii_uppercase[place],
        "options": options,
        "task": task,
        "video": str(record["video"]),
        "question": prompts.mvbench_question(str(record["question"]), options),
    }
    if protocol == "official":
        meta |= {"answer_prefix": prompts.MVBENCH_ANSWER_PREFIX, **{key: record[key] for key in bounds}}
    video = f"{TASKS[task].folder}/{record['video']}"
    return Example(f"{file_stem(task)}/{number}", video, ask(str(record["question"]), options), video, meta)
