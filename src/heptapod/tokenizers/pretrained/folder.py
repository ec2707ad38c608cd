"""The weights in a folder of the diffusers library, however they are named, split or stored."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pydantic
from torch import Tensor

from heptapod.tokenizers.pretrained.base import read_published
from heptapod.utils.files import read_json

logger = logging.getLogger(__name__)

STEM = "diffusion_pytorch_model"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\b")


def read_folder(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """The tensors of a folder, and the file that names them all.

    That is ``diffusion_pytorch_model.safetensors``, or its ``.bin``, or the ``index.json`` of several shards, or a
    variant of one of these (``diffusion_pytorch_model.fp16.safetensors``); which one is logged if it is not the first.

    Raises:
        FileNotFoundError: if there is none, or a shard is missing.
        ValueError: if there are several variants to choose from, or a file is damaged.
    """
    default = folder / f"{STEM}.safetensors"
    found = [path for path in sorted(folder.glob(f"{STEM}*")) if _is_start(path)] if folder.is_dir() else []
    if not found:
        raise FileNotFoundError(f"{default}: no such file, nor a .bin, an index of shards or a variant of one of them")
    variants = {_variant(path) for path in found}
    if "" not in variants and len(variants) > 1:
        raise ValueError(f"{folder}: holds the variants {', '.join(sorted(variants))}; leave only one of them there")
    path = min(found, key=lambda path: (_variant(path), ".bin" in path.name, path.suffix == ".json"))
    if path != default:
        logger.info(f"{path}: read, as there is no {default.name}")
    return (_read_shards(path) if path.suffix == ".json" else read_published(path)), path


def _is_start(path: Path) -> bool:
    """Whether a file holds all tensors, or is an index of shards."""
    is_index = path.suffix == ".json" and "index" in path.name.split(".")
    return path.is_file() and (is_index or (path.suffix in (".safetensors", ".bin") and not _SHARD.search(path.name)))


def _variant(path: Path) -> str:
    """The word for the variant in a name, fp16 or ema say; empty for the default."""
    return ".".join(part for part in path.name.split(".")[1:] if part not in ("safetensors", "bin", "index", "json"))


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        places = pydantic.TypeAdapter(dict[str, str]).validate_python(read_json(index).get("weight_map"))
    except pydantic.ValidationError:
        raise ValueError(f"{index}: weight_map: must name the file of every tensor") from None
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not _SHARD.search(name):
            raise ValueError(f"{index}: weight_map: {name!r:.80} given, must be the name of a shard in the same folder")
        tensors |= read_published(index.parent / name)
    return tensors
