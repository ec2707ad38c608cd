"""Data: image and token sets, and the order in which training reads them."""

from heptapod.configs.data import DataConfig
from heptapod.data.images import ImageSet, load_images
from heptapod.data.loader import Batch, ItemSet, batch_at
from heptapod.data.tokens import TokenSet, encode_images

__all__ = [
    "Batch",
    "DataConfig",
    "ImageSet",
    "ItemSet",
    "TokenSet",
    "batch_at",
    "encode_images",
    "load_images",
]
