from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results

SETTINGS = [
    r"an accuracy of 90% has a standard error of 1\.3 points",  # counted from 500 images
    r"cosine / 0\.07",
    r"--objective\.label-dropout 0\.1",
]


def figures() -> Iterator[str]:
    found = results("probe_digits")
    best, layers = found["best_layer"], found["layers"]
    yield f"|best layer, {best}|{layers[best]['linear']:.1%}|{layers[best]['knn']:.1%}|"
    backbone = layers["backbone.4"]
    yield f"|last layer of the backbone|{backbone['linear']:.1%}|{backbone['knn']:.1%}|"
    random = max(found["random_model"].values(), key=lambda layer: layer["linear_selection"])
    yield f"|the same network with random weights, its best layer|{random['linear']:.1%}|{random['knn']:.1%}|"
    pixels = found["pixels"]["pixels"]
    yield f"|raw pixels|{pixels['linear']:.1%}|{pixels['knn']:.1%}|"
    error = (layers[best]["linear"] * (1 - layers[best]["linear"]) / found["data"]["test_images"]) ** 0.5
    yield f"The standard error of an accuracy is {error * 100:.1f} points."
