"""The files that ``heptapod sample`` and ``heptapod edit`` write: a picture, its record, one file per image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from heptapod.utils.files import check_folder
from heptapod.utils.images import save_png, to_pil


@dataclass(frozen=True)
class OutputFiles:
    """Where images are written."""

    picture: Path
    """The .png file of all images."""
    folder: Path | None
    """Folder for one file per image; None for the picture only."""

    @property
    def record(self) -> Path:
        """The JSON file next to the picture."""
        return self.picture.with_suffix(".json")

    def image(self, number: int) -> Path:
        """The file of one image in the folder."""
        return (self.folder or Path()) / f"{number:05d}.png"

    def save_each(self, images: Iterable[tuple[int, Tensor]]) -> None:
        """Writes numbered images (3, h, w) uint8 to one file each, if there is a folder for them."""
        if self.folder is not None:
            for number, image in images:
                save_png(to_pil(image), self.image(number))

    def includes(self, path: Path, count: int = 10**5) -> bool:
        """Whether a path is the picture, or the file of one of ``count`` images."""
        if path.resolve() == self.picture.resolve():
            return True
        is_number = self.folder is not None and path.stem.isdecimal() and int(path.stem) < count
        return is_number and path.resolve() == self.image(int(path.stem)).resolve()


def output_files(out: str, default_name: str) -> OutputFiles:
    """The files of ``--out``: a .png file, or a folder for a picture and one file per image.

    Raises:
        ValueError: for another suffix.
    """
    target = Path(out)
    check_folder(target.parent if target.suffix else target)
    if target.suffix == ".png":
        return OutputFiles(target, None)
    if target.suffix:
        raise ValueError(f"out: {out} given, pictures are written as .png")
    return OutputFiles(target / default_name, target)
