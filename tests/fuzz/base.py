"""The valid files that the fuzz damages: tiny, made once by the commands themselves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from heptapod.cli import main

SIDE = 8
CLASSES = ("dark", "light")

TRAIN = {"steps": 2, "batch_size": 4, "precision": "float32", "eval_every": 2, "preview_every": 2, "save_every": 1}
RECIPE: dict[str, Any] = {
    "description": "tiny",
    "out": "run",
    "seed": 1,
    "device": "cpu",
    "data": {"path": "images", "validation_fraction": 0.25, "image_size": SIDE, "flip": True},
    "tokenizer": {
        "model": {"kind": "vq", "codebook_size": 8, "code_width": 4, "factor": 2, "width": 8},
        "train": dict(TRAIN),
    },
    "model": {"width": 8, "depth": 1, "num_heads": 1, "head": {"kind": "cross", "depth": 1}},
    "objective": {"token_order": "mixed", "prefixes_per_image": 4, "targets_per_prefix": 2},
    "train": {**TRAIN, "keep_last": 2, "ema_decay": 0.9},
    "sampling": {"steps": 3, "temperature": 0.9},
}
VECTORS = {
    "tokenizer": {**RECIPE["tokenizer"], "model": {"kind": "vae", "latent_channels": 3, "factor": 2, "width": 8}},
    "model": {**RECIPE["model"], "distribution": {"kind": "flow", "mlp_depth": 1, "mlp_width": 8}},
    "sampling": {"steps": 3},
}


def make(root: Path) -> None:
    """Writes every base file into the folder; the working directory has to be that folder."""
    _images(root)
    for name, recipe in {"recipe": RECIPE, "vectors": {**RECIPE, **VECTORS, "out": "vectors_run"}}.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        run("train", f"{name}.yaml")
    # A cache, a record of each kind, a reference and samples to compare with it.
    run("tokenize", "run", "--data", "images", "--out", "cache", "--shard-size", "8", "--flip")
    run("sample", "run", "--count", "2", "--steps", "3", "--out", "sample.png")
    run("sample", "vectors_run", "--count", "2", "--steps", "3", "--out", "vectors.png")
    run("edit", "run", "image.png", "--mask", "mask.png", "--count", "1", "--composite", "--out", "edit.png")
    run("reference", "images.parquet", "--out", "reference.safetensors")


def run(*arguments: str) -> None:
    """Runs a command that has to succeed."""
    code = main(list(arguments))
    if code:
        raise RuntimeError(f"heptapod {' '.join(arguments)} returned {code}")


def png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG of (h, w) or (h, w, c) uint8 pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _images(root: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.arange(24) % 2
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / "images" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(png(image))
    (root / "image.png").write_bytes(png(pixels[0]))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    (root / "mask.png").write_bytes(png(mask))
    rows = [{"bytes": png(image), "path": None} for image in pixels]
    pq.write_table(pa.table({"image": rows, "label": labels}), root / "images.parquet")
    np.savez(root / "samples.npz", pixels)
    with tarfile.open(root / "images.tar", "w") as tar:
        for number, (image, label) in enumerate(zip(pixels[:8], labels, strict=False)):
            for suffix, content in (("png", png(image)), ("json", json.dumps({"label": int(label)}).encode())):
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
