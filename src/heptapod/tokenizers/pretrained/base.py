"""What adapters of published tokenizers have in common: reading their files, and a fixed codebook.

Shape legend: B batch, c channels, M vectors, N cells, V codes.
"""

from __future__ import annotations

import argparse
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heptapod.grid import GridSpec
from heptapod.tokenizers.base import Tokenizer
from heptapod.tokenizers.codebook import nearest_or_none
from heptapod.utils.files import read_tensors


class PretrainedTokenizer(Tokenizer):
    """A published tokenizer, with weights in the files of its authors.

    Attributes:
        config: the settings it was built from.
    """

    config: Any

    @abstractmethod
    def load_published(self, path: Path) -> None:
        """Loads the weights from the published file or folder; every tensor must fit.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: naming the file and the tensors that do not fit.
        """


class QuantizedTokenizer(PretrainedTokenizer):
    """A pretrained tokenizer whose cells are the nearest codes of a fixed codebook."""

    @abstractmethod
    def codebook(self) -> Tensor:
        """The vectors of the codes (V, c)."""

    @abstractmethod
    def encode_vectors(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) in [-1, 1] -> vectors (B, c, h / factor, w / factor) before quantization."""

    @abstractmethod
    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Vectors of codes (B, c, h / factor, w / factor) -> images (B, 3, h, w), about in [-1, 1]."""

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Tokenizer.encode`; -1 where the encoder's output is not finite."""
        vectors = self.encode_vectors(images).float().flatten(2).transpose(1, 2)  # (B, N, c)
        return nearest_or_none(vectors.flatten(0, 1), self.codebook()).view(vectors.shape[:2])

    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """See :meth:`Tokenizer.decode`."""
        vectors = self.codebook()[tokens].transpose(1, 2).contiguous()  # (B, c, N)
        return self.decode_vectors(vectors.unflatten(2, (grid.height, grid.width))).float().clamp(-1, 1)


def read_published(path: Path) -> dict[str, Tensor]:
    """Reads a published state dict: ``.safetensors``, or a torch file of nothing but tensors and plain containers.

    Torch files may hold it under "model" or "state_dict". They are read with ``weights_only=True``, which runs no
    code from the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # settings of a training script, plain values
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: damaged, or no checkpoint of plain tensors ({reason})") from None
    if isinstance(content, dict):
        content = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: no state dict there, nor under 'model' or 'state_dict'")
    return {str(name): tensor for name, tensor in content.items()}
