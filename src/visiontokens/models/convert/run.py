"""`visiontokens convert`: from any layout to any other, streamed, checked, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from visiontokens.compress.base import MethodSpec
from visiontokens.models.build import PROCESSOR_FILE, TOKENIZER_FILES, CheckpointError
from visiontokens.models.convert.files import Checkpoint
from visiontokens.models.convert.names import FORMATS, OFFICIAL, detect, from_model
from visiontokens.models.convert.plan import EMBED, HEAD
from visiontokens.models.convert.read import Source, read_hub, read_official_layout
from visiontokens.models.convert.settings import to_official_settings
from visiontokens.models.convert.shards import SHARD, Output, copied, with_rows, write_shards
from visiontokens.models.processors import COMBINED_FILE, TEMPLATE_FILE, build_processor
from visiontokens.provenance import atomic_write, stamp, write_json

CARRIED = (
    *TOKENIZER_FILES,
    "added_tokens.json",
    PROCESSOR_FILE,
    COMBINED_FILE,
    TEMPLATE_FILE,
    "generation_config.json",
)
"""Small files that go with the weights; other files of a source (code among them) are not copied."""
PROJECTORS = ("model.multi_modal_projector.", "compressor.")


@dataclass(frozen=True)
class Conversion:
    """What `convert` did."""

    source_format: str
    target_format: str
    method: MethodSpec
    tensors: int
    bytes: int
    files: tuple[str, ...]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    layout: str = "auto",
    target: str = "ours",
    tower: str | Path | None = None,
    llm: str | Path | None = None,
    tokenizer: str | Path | None = None,
    shard_bytes: int = SHARD,
) -> Conversion:
    """Convert the checkpoint at `source` into the folder `out`.

    Values are copied bit for bit, a piece at a time. Only the embedding and the output layer may change their number
    of rows: LLaVA's vocabulary has no image token, and transformers needs a row for it; on the way back the added rows
    are cut off again.

    Args:
        source: folder or file.
        out: a folder that does not exist yet.
        layout: of the source; `auto` tells it by the names of the tensors.
        target: `ours` (the hub's layout with the compressor's tensors beside it), `llava-hf`, `llava`, `stf` or
            `stf-projector`.
        tower: CLIP folder, for sources that do not hold the tower.
        llm: LLaMA folder, for a projector without a language model.
        tokenizer: folder of the tokenizer, if it is not with the source or `llm`.
        shard_bytes: size of an output file.

    Raises:
        FileNotFoundError: a file that is needed is not there.
        CheckpointError: the source is not whole, or the target has no place for it; the message names tensors with
            file, found and expected shapes.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise CheckpointError(f"{out}: exists already; give a folder that does not")
    checkpoint = Checkpoint.open(source)
    found = _layout(checkpoint, layout)
    folders = (None if path is None else Path(path) for path in (tower, llm, tokenizer))
    read = read_official_layout if found in OFFICIAL else read_hub
    given = read(checkpoint, found, *folders)
    _fits(given, target, source)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        done = _write(given, target, scratch, shard_bytes)
        record = {"source": str(source), "from": found, "to": target, **done.__dict__, "stamp": stamp()}
        write_json(scratch / "conversion.json", record | {"method": given.method.to_config()})
        scratch.chmod(0o755)
        scratch.rename(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return done


def _layout(checkpoint: Checkpoint, wanted: str) -> str:
    """Return the source's layout, which must be the one that was asked for.

    Raises:
        CheckpointError: no known layout, or another one.
    """
    if wanted not in ("auto", *FORMATS):
        raise CheckpointError(f"format: found {wanted!r}, expected auto, {', '.join(FORMATS)}")
    found = detect(checkpoint.tensors)
    if found is None:
        some = ", ".join(sorted(checkpoint.tensors)[:4])
        raise CheckpointError(f"{checkpoint.path}: no LLaVA checkpoint; it holds {some} ...")
    hub = {"llava-hf", "ours"}
    if wanted not in ("auto", found) and not {wanted, found} <= hub:
        raise CheckpointError(f"{checkpoint.path}: found layout {found!r}, expected {wanted!r}")
    return found if wanted == "auto" else wanted


def _fits(given: Source, target: str, source: Path) -> None:
    """Raise `CheckpointError` when the target layout cannot hold the method."""
    places = {"llava": {"none"}, "llava-hf": {"none"}, "stf": {"stf_mbtf"}, "stf-projector": {"stf_mbtf"}}
    if target not in FORMATS:
        raise CheckpointError(f"target format: found {target!r}, expected {', '.join(FORMATS)}")
    allowed = places.get(target)
    if allowed is not None and given.method.name not in allowed:
        raise CheckpointError(
            f"{source}: layout {target!r} holds method {' or '.join(allowed)}, found {given.method.name!r}"
        )


def _write(given: Source, target: str, folder: Path, shard_bytes: int) -> Conversion:
    """Write weights, settings and processor files."""
    outputs = list(_outputs(given, target))
    if target == "stf-projector":
        files = [_write_projector(folder, outputs)]
    else:
        files = write_shards(folder, outputs, shard_bytes)
        for origin in given.carried:
            _carry(origin, folder)
        _write_settings(given, target, folder)
    size = sum(output.size for output in outputs)
    return Conversion(given.layout, target, given.method, len(outputs), size, tuple(files))


def _outputs(given: Source, target: str) -> Iterable[Output]:
    for weight, stored in given.tensors.items():
        if target == "stf-projector" and not weight.startswith(PROJECTORS):
            continue
        if target in OFFICIAL and not given.keep_tower and weight.startswith("model.vision_tower."):
            continue
        name = from_model(weight, target)
        if name is None:
            raise CheckpointError(f"{stored.path}: {stored.name}: layout {target!r} has no place for it")
        rows = given.rows_in(target)
        yield with_rows(name, stored, rows) if weight in {EMBED, HEAD} else copied(name, stored)


def _write_projector(folder: Path, outputs: list[Output]) -> str:
    """Write `mm_projector.bin`, the one file that LLaVA's code reads a projector from."""
    tensors = {}
    for output in outputs:
        raw = bytearray(b"".join(output.pieces()))
        tensors[output.name] = torch.frombuffer(raw, dtype=output.dtype).view(output.shape)
    with atomic_write(folder / "mm_projector.bin", "wb") as handle:
        torch.save(tensors, handle)
    return "mm_projector.bin"


def _write_settings(given: Source, target: str, folder: Path) -> None:
    if target in OFFICIAL:
        write_json(folder / "config.json", to_official_settings(given.config, given.rows_in(target)))
        return
    config = given.config
    text: Any = config.text_config
    text.vocab_size = given.rows_in(target)
    config.architectures = ["LlavaForConditionalGeneration" if given.method.name == "none" else "LlavaWithCompressor"]
    if given.layout in OFFICIAL:
        config.official = {"vocab_size": given.rows, "tower": given.keep_tower}
    config.save_pretrained(folder)
    if given.tokenizer is None or (folder / COMBINED_FILE).is_file():
        return
    images = given.images
    build_processor(images, given.tokenizer, config).save_pretrained(folder)
    if not (folder / PROCESSOR_FILE).is_file():
        write_json(folder / PROCESSOR_FILE, images | {"image_processor_type": "CLIPImageProcessor"})


def _carry(origin: Path, folder: Path) -> None:
    for name in CARRIED:
        if (origin / name).is_file() and not (folder / name).exists():
            with atomic_write(folder / name, "wb") as handle:
                handle.write((origin / name).read_bytes())
