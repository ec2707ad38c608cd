"""``heptapod probe``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from heptapod.cli.sampling_options import ModelFolder
from heptapod.configs.data import SplitName
from heptapod.configs.sampling import Precision
from heptapod.utils.arguments import parse_function
from heptapod.utils.checks import BatchSize, Count, Gibibytes, Seed, Side, check_at_least
from heptapod.utils.config import from_dict

if TYPE_CHECKING:
    from heptapod.evaluation.probe import Accuracy

TEST_SHARE = 0.2
"""Share of the images to test on, if the data has no test images."""


def probe(arguments: list[str]) -> None:
    """Parses arguments and probes."""
    parse_function(probe_model, "probe", arguments)()


def probe_model(
    model: tyro.conf.Positional[ModelFolder],
    data: str,
    split: SplitName | None = None,
    test_data: str | None = None,
    test_split: SplitName | None = None,
    image_size: Side = 0,
    count: Count | None = None,
    test_count: Count | None = None,
    layers: tuple[str, ...] = (),
    pixels: bool = True,
    random_model: bool = True,
    batch_size: BatchSize = 64,
    memory_gib: Gibibytes = 8.0,
    seed: Seed = 0,
    device: str = "auto",
    precision: Precision = "float32",
    out: str = "probe",
) -> None:
    """Measures what a model has learned about images: how well its hidden states predict classes.

    The model reads every image without its label. The hidden states of each layer of the backbone and the head are
    averaged over the image, and a linear classifier and the 20 nearest neighbors among labeled training images predict
    the class of each test image. Raw pixels and a model of the same shape with random weights are probed for
    comparison. The model must be trained without labels, or with label dropout (objective.label_dropout). Writes
    probe.json and probe.png.

    Args:
        model: Folder of a model, or of the run that trained it.
        data: Labeled images (a folder, parquet file(s), .tar shards or a built-in set), or a cache of their tokens.
        split: The split of the data to learn the classes from, if it has several; train if left out.
        test_data: Images to test on. If left out, the held-out images of the data, or else a random fifth.
        test_split: The split of the test data, or without them of the data, to test on.
        image_size: Pixels per side after resizing the short side and cropping the center; 0 keeps their size.
        count: Number of training images, chosen at random; all if left out.
        test_count: The same for the test images.
        layers: Layers to probe (embedding, backbone.1, ..., backbone.norm, head.1, ..., head.norm); all if left out.
        pixels: Also probe raw pixels.
        random_model: Also probe a model of the same shape with random weights.
        batch_size: Images the model reads at a time.
        memory_gib: Largest size of the images, or of the features, in GiB.
        seed: Keys the choice of images, of those held out to choose the regularization, and the random weights.
        device: auto, cpu, cuda, ...
        precision: Precision of the model: float32, bfloat16, float16, or auto (the fastest).
        out: Folder to write.
    """
    from heptapod.data import DataConfig
    from heptapod.distributed.device import resolve_device
    from heptapod.evaluation.layer_features import check_unlabeled, layer_names
    from heptapod.evaluation.probe_data import load_probe_data
    from heptapod.evaluation.probe_picture import probe_picture
    from heptapod.evaluation.probe_report import check_memory, data_facts, model_facts, selected_layers
    from heptapod.evaluation.probe_report import probe_model as measure_layers
    from heptapod.inference.pipeline import Heptapod
    from heptapod.inference.pretrained import find_pretrained
    from heptapod.training.folder import chosen_on
    from heptapod.utils.files import check_folder, sha256, write_json
    from heptapod.utils.images import save_png

    check_at_least(1, count=count, test_count=test_count, batch_size=batch_size)
    check_at_least(0, seed=seed)
    check_folder(Path(out))
    folder = find_pretrained(Path(model))
    heptapod = Heptapod.from_pretrained(folder, resolve_device(device), precision)
    check_unlabeled(heptapod.model.num_classes, heptapod.label_dropout)
    selected = selected_layers(layer_names(heptapod.model), layers)
    config = from_dict(
        DataConfig,
        {"path": data, "split": split, "validation_path": test_data, "validation_split": test_split}
        | {"image_size": image_size, "validation_fraction": TEST_SHARE, "memory_gib": memory_gib},
        "probe",
    )
    started = time.perf_counter()
    images = load_probe_data(heptapod, config, (count, test_count), seed, pixels)
    check_memory(images, heptapod.model.config.width * len(selected), memory_gib)
    report = measure_layers(heptapod, images, selected, batch_size, seed, random_model)
    sha = sha256(folder / "model.safetensors")
    chosen = chosen_on(folder, data if test_data is None else test_data, images.test.sha256())
    figures = {
        "model": {"path": str(folder), "sha256": sha, "chosen_on": chosen, **model_facts(heptapod)},
        "data": {"path": data, "split": split, "test_path": test_data, "test_split": test_split, **data_facts(images)},
        **report.figures,
        "seconds": time.perf_counter() - started,
    }
    write_json(Path(out) / "probe.json", figures)
    save_png(probe_picture(report.results), Path(out) / "probe.png")
    _print(report.results, figures)
    print(f"{Path(out) / 'probe.json'}, {Path(out) / 'probe.png'}")


def _print(results: dict[str, dict[str, Accuracy]], figures: dict[str, Any]) -> None:
    import rich.table
    from rich.console import Console

    title = f"{figures['data']['test_images']:,} test images recognized, {figures['data']['classes']} classes"
    table = rich.table.Table(title=title)
    random = results.get("random_model", {})
    table.add_column("layer")
    for column in ("linear", "k-NN", *(("random weights: linear", "k-NN") if random else ())):
        table.add_column(column, justify="right")
    show: Callable[[Accuracy], tuple[str, str]] = lambda one: (f"{one.linear:.1%}", f"{one.knn:.1%}")  # noqa: E731
    for layer, accuracy in results["layers"].items():
        table.add_row(layer, *show(accuracy), *(show(random[layer]) if random else ()))
    if "pixels" in results:
        table.add_row("raw pixels", *show(results["pixels"]["pixels"]))
    table.add_row("the most frequent class", f"{figures['most_frequent_class']:.1%}")
    Console().print(table)
    print(f"best layer, by training images held out: {figures['best_layer']}, linear {figures['best_linear']:.1%}")
