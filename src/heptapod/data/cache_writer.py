"""Writes a latent cache in the layout of :mod:`heptapod.data.cache`; several processes can share its shards."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from heptapod.data.cache import (
    CacheConfig,
    CacheDescription,
    CacheIndex,
    Shard,
    ShardEntry,
    open_cache,
    read_description,
    read_shard,
    shard_path,
)
from heptapod.data.decoding import to_crops, to_rgb
from heptapod.data.images import check_size, decode_each
from heptapod.data.sources import Source
from heptapod.distributed import process_group
from heptapod.distributed.coordination import SharedProgress, publish, wait_for_value
from heptapod.tokenizers import ContinuousTokenizer, Tokenizer, save_tokenizer, tokenizer_hash
from heptapod.tokenizers.encode import encode_pixels
from heptapod.utils.config import to_dict
from heptapod.utils.files import LOCK, TEMPORARY, locked, remove_temporary, sha256, write_json, write_tensors
from heptapod.utils.logging import Progress
from heptapod.utils.messages import shown

logger = logging.getLogger(__name__)


class CacheWriter:
    """Tokenizes a source into a folder; resumes an interrupted run.

    Args:
        folder: folder of the cache.
        source: the images.
        tokenizer: encodes them.
        config: settings of the cache.

    Raises:
        ValueError: if the folder contains a cache with another tokenizer, source or settings, or other files, or if the
            latents of the tokenizer have not been measured.
    """

    def __init__(self, folder: Path, source: Source, tokenizer: Tokenizer, config: CacheConfig) -> None:
        if isinstance(tokenizer, ContinuousTokenizer) and not bool(tokenizer.measured):
            raise ValueError("tokenizer: its latent statistics have not been measured; see heptapod import-tokenizer")
        self.folder = folder
        self.source = source
        self._held_out = source.is_held_out().astype(np.uint8)
        self.tokenizer = tokenizer.eval()
        self.config = config
        self.description = CacheDescription(
            settings=config,
            tokenizer_sha256=tokenizer_hash(tokenizer),
            source_sha256=source.sha256(),
            source_images=len(source.names),
            class_names=source.class_names,
            split=source.split,
        )
        self._size: tuple[int, int] | None = None  # of the images, set by the first one
        self._check_folder()

    @property
    def num_shards(self) -> int:
        """Shards of the complete cache."""
        return -(-len(self.source.names) // self.config.shard_size)

    def run(self) -> CacheIndex | None:
        """Writes the absent shards, shared by the processes of torchrun.

        Returns:
            The index on rank 0, None on the other ranks.

        Raises:
            ValueError: if no image is readable, or image sizes differ or do not fit the tokenizer.
            OSError: if the disk is full; finished shards stay.
        """
        if not process_group.is_main_process():
            self._write_share(wait_for_value("absent shards"))
            return None
        absent = [number for number in range(self.num_shards) if not shard_path(self.folder, number).is_file()]
        if not absent and (index := self._complete_index()):
            publish("absent shards", [])
            return index
        with locked(self.folder):
            if not (self.folder / "cache.json").is_file():
                save_tokenizer(self.tokenizer, self.folder / "tokenizer")
                write_json(self.folder / "cache.json", to_dict(self.description))
            remove_temporary(self.folder / "shards")
            publish("absent shards", absent)  # from here on several processes write, each its own shards
            self._write_share(absent)
            index = self._index()
            remove_temporary(self.folder)
            write_json(self.folder / "index.json", to_dict(index))
        return index

    def _complete_index(self) -> CacheIndex | None:
        """The index of a complete cache; None where it is absent or damaged, and made again from the shards."""
        try:
            return open_cache(self.folder).index
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning(f"{error}; the index is made again from the shards")
            return None

    def _read_shard(self, number: int) -> Shard:
        return read_shard(shard_path(self.folder, number), self.description)

    def _write_share(self, absent: list[int]) -> None:
        """Writes this rank's absent shards; rank 0 then waits for the others."""
        mine = absent[process_group.rank() :: process_group.world_size()]
        total = len(self.source.names)
        done = total - sum(len(self._rows(number)) for number in absent)
        self._size = self._known_size()
        processes = f" in {process_group.world_size()} processes" if process_group.is_distributed() else ""
        with Progress(f"tokenizing {total:,} images{processes}", total, done=done) as progress:
            if done:
                logger.info(f"tokenizing: resuming after {done:,} images")
            count = SharedProgress("images tokenized", progress)
            rows = np.concatenate([self._rows(number) for number in mine] or [np.arange(0)])
            decoded = decode_each(self.source, rows, self._transform())
            for number in mine:
                self._write_shard(number, decoded, count)
            count.finish()

    def _check_folder(self) -> None:
        file = self.folder / "cache.json"
        if not file.is_file():
            names = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
            # A run that was killed before it wrote cache.json leaves only these.
            if any(name != "tokenizer" and not name.startswith((TEMPORARY, LOCK)) for name in names):
                raise ValueError(f"out: {self.folder} exists and is not a cache; choose another --out")
            return
        before, now = to_dict(read_description(self.folder)), to_dict(self.description)
        before |= before.pop("settings")
        now |= now.pop("settings")
        changed = [key for key in now if before[key] != now[key]]
        if changed:
            key = changed[0]
            raise ValueError(
                f"out: {self.folder} holds a cache with {key} = {shown(before[key], 20)}, now {shown(now[key], 20)} is "
                "given; choose another --out, or remove the folder"
            )

    def _rows(self, number: int) -> np.ndarray:
        size = self.config.shard_size
        return np.arange(number * size, min((number + 1) * size, len(self.source.names)))

    def _transform(self) -> Callable[[Image.Image], np.ndarray]:
        size = self.config.image_size
        if self.config.crops > 1:
            return lambda image: to_crops(image, size, self.config.crop_scale)
        return lambda image: to_rgb(image, size)[None]

    def _write_shard(self, number: int, decoded: Iterator[tuple[int, np.ndarray | str]], count: SharedProgress) -> None:
        """Encodes the images of a shard, which are the next ones of the stream."""
        rows: list[int] = []
        unreadable: list[str] = []
        parts: list[Tensor] = []
        batch: list[np.ndarray] = []
        for _ in self._rows(number):
            row, pixels = next(decoded)
            count.advance(1)
            if isinstance(pixels, str):
                unreadable.append(f"{self.source.names[row]}: {pixels}")
                continue
            self._size = self._size or (pixels.shape[-2], pixels.shape[-1])
            check_size(self.source.names[row], pixels.shape[-2:], self._size)
            rows.append(row)
            batch.append(pixels)
            if len(batch) == self.config.batch_size:
                parts.append(self._encode(batch))
                batch = []
        if batch:
            parts.append(self._encode(batch))
        if unreadable:
            logger.warning(f"shard {number}: {len(unreadable)} image(s) cannot be read: {unreadable[0]}")
        self._save_shard(number, rows, torch.cat(parts) if parts else None, unreadable)

    @torch.inference_mode()
    def _encode(self, batch: list[np.ndarray]) -> Tensor:
        """Images (crops, 3, h, w) each -> tokens (m, views, N) or (m, views, N, C)."""
        images = torch.from_numpy(np.stack(batch))  # (m, crops, 3, h, w)
        self.tokenizer.grid(*images.shape[-2:])  # raises if the size does not fit
        views, flips = [], (False, True) if self.config.flip else (False,)
        with torch.autocast(self.tokenizer.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            for crop in range(self.config.crops):
                views += [encode_pixels(self.tokenizer, images[:, crop], flip=flip) for flip in flips]
        dtype = stored_dtype(self.tokenizer.vocabulary_size, self.config.dtype)
        tokens = torch.stack(views, 1).to("cpu", dtype)
        if dtype.is_floating_point and not bool(tokens.isfinite().all()):
            raise ValueError(f"tokenizer: its latents of these images are not finite in {self.config.dtype}")
        return tokens

    def _save_shard(self, number: int, rows: list[int], tokens: Tensor | None, unreadable: list[str]) -> None:
        tensors = {
            "labels": torch.tensor([self.source.labels[row] for row in rows], dtype=torch.int64),
            "rows": torch.tensor(rows, dtype=torch.int64),
            "held_out": torch.from_numpy(self._held_out[rows]),
        }
        if tokens is not None:
            tensors["tokens"] = tokens
        names = [self.source.names[row] for row in rows]
        size = self._size if rows else None
        metadata = {"names": json.dumps(names), "unreadable": json.dumps(unreadable), "size": json.dumps(size)}
        write_tensors(shard_path(self.folder, number), tensors, metadata)

    def _known_size(self) -> tuple[int, int] | None:
        """Height and width of the images in existing shards."""
        for number in range(self.num_shards):
            if shard_path(self.folder, number).is_file() and (size := self._read_shard(number).size):
                return size
        return None

    def _index(self) -> CacheIndex:
        """The index of the complete cache."""
        shards, unreadable, total = [], [], 0
        per_class = [0] * len(self.source.class_names)
        size: tuple[int, int] | None = None
        for number in range(self.num_shards):
            path = shard_path(self.folder, number)
            shard = self._read_shard(number)
            if shard.size is not None:
                size = size or shard.size
                check_size(shard.names[0], shard.size, size)  # each process has checked only its own images
            unreadable += shard.unreadable
            total += len(shard)
            for label in shard.tensors["labels"].tolist():
                if label >= 0:
                    per_class[label] += 1
            shards.append(ShardEntry(len(shard), path.stat().st_size, sha256(path)))
        if size is None:
            raise ValueError(
                f"data: none of {len(self.source.names)} image(s) can be read; the first is {unreadable[0]}"
            )
        return CacheIndex(
            images=total,
            missing=len(unreadable),
            views=self.config.num_views,
            image_height=size[0],
            image_width=size[1],
            grid=self.tokenizer.grid(*size),
            images_per_class=per_class,
            shards=shards,
            unreadable=unreadable,
        )


def stored_dtype(vocabulary_size: int, continuous: str) -> torch.dtype:
    """The smallest dtype for the tokens."""
    if not vocabulary_size:
        return torch.float16 if continuous == "float16" else torch.float32
    return torch.int16 if vocabulary_size <= 2**15 else torch.int32
