"""Contents of a cache: decoded images, and statistics of its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from heptapod.data.cache import Cache, open_cache
from heptapod.tokenizers import load_tokenizer
from heptapod.tokenizers.codebook import perplexity_of
from heptapod.tokenizers.encode import decode_pixels
from heptapod.utils.images import image_grid
from heptapod.utils.logging import Progress

ROWS = 8
COLUMNS = 8


@torch.inference_mode()
def contact_sheet(folder: Path) -> Image.Image:
    """Decoded images of a cache: eight of each of up to eight classes, or 64 evenly spaced ones without classes.

    Raises:
        FileNotFoundError, ValueError: if the cache is missing, incomplete or damaged.
    """
    cache = open_cache(folder)
    tokenizer = load_tokenizer(folder / "tokenizer")
    rows, names = _choose_rows(cache)
    tokens = cache.tokens.items(torch.tensor(rows), [(0, 0, row) for row in rows])
    pictures = torch.cat([decode_pixels(tokenizer, part, cache.tokens.grid) for part in tokens.split(8)])
    return image_grid(pictures, COLUMNS, names)


def _choose_rows(cache: Cache) -> tuple[list[int], list[str] | None]:
    """Indices of the images in the sheet, and the names of its rows."""
    labels = cache.tokens.labels
    present = labels[labels >= 0].unique().tolist()
    if not present:
        count = min(len(labels), ROWS * COLUMNS)
        return [i * len(labels) // count for i in range(count)], None
    classes = [present[i * len(present) // min(ROWS, len(present))] for i in range(min(ROWS, len(present)))]
    chosen = []
    for label in classes:
        of_class = torch.nonzero(labels == label).flatten().tolist()
        chosen += (of_class * COLUMNS)[:COLUMNS]
    return chosen, [cache.tokens.class_names[label] for label in classes]


def token_statistics(cache: Cache) -> dict[str, Any]:
    """Over all images and views: used codes and their perplexity, or mean and standard deviation of latents."""
    shards = cache.tokens.shards
    with Progress("reading shards", len(shards), "shards") as progress:
        if cache.tokens.grid.is_discrete:
            counts = torch.zeros(cache.tokens.grid.vocabulary_size, dtype=torch.float64)
            for shard in shards:
                codes = shard.flatten().long()
                if bool(((codes < 0) | (codes >= len(counts))).any()):
                    raise ValueError(
                        f"{cache.folder}: damaged, its tokens are no codes of 0 to {len(counts) - 1:,} (heptapod info "
                        f"{cache.folder} --verify names the file)"
                    )
                counts += torch.bincount(codes, minlength=len(counts))
                progress.advance(1)
            return {"codes_used": int((counts > 0).sum()), "perplexity": float(perplexity_of(counts))}
        count, total, square = 0, 0.0, 0.0
        for shard in shards:
            values = shard.double()
            count += values.numel()
            total += float(values.sum())
            square += float(values.square().sum())
            progress.advance(1)
        return {"mean": total / count, "std": max(square / count - (total / count) ** 2, 0.0) ** 0.5}
