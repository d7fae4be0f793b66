"""Fake image sets in the published layouts, small enough for tests."""

import pickle
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(n: int, side: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Random images `[n, side, side, channels]` uint8."""
    random = np.random.default_rng(seed)
    return random.integers(256, size=(n, side, side, channels), dtype=np.uint8)


def planes(images: np.ndarray) -> np.ndarray:
    """Rows as CIFAR has them: red, green, blue."""
    return np.stack([np.concatenate([x[..., c].ravel() for c in range(3)]) for x in images])


def save(path: Path, content: dict, as_bytes: bool = True) -> None:
    """A pickle with the keys of one that Python 2 wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {key.encode() if as_bytes else key: x for key, x in content.items()}
    path.write_bytes(pickle.dumps(content, 2))


def cifar10(root: Path, images: np.ndarray, as_bytes: bool = True) -> list[int]:
    """Two images a batch, the last two for testing; returns the labels, of which 9 is one."""
    folder = root / "cifar-10-batches-py"
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    labels = [(9 - i) % 10 for i in range(len(images))]
    assert len(images) == 2 * len(names)
    for i, name in enumerate(names):
        rows = slice(2 * i, 2 * i + 2)
        content = {"data": planes(images[rows]), "labels": labels[rows], "batch_label": b"batch"}
        save(folder / name, content, as_bytes)
    names = [f"class {i}".encode() if as_bytes else f"class {i}" for i in range(10)]
    save(folder / "batches.meta", {"label_names": names, "num_vis": 3072}, as_bytes)
    return labels


def cifar100(root: Path, images: np.ndarray) -> list[int]:
    """The same images for training and for testing."""
    folder = root / "cifar-100-python"
    labels = [99 - i for i in range(len(images))]
    for name in ("train", "test"):
        coarse = [x // 5 for x in labels]
        content = {"data": planes(images), "fine_labels": labels, "coarse_labels": coarse}
        save(folder / name, content)
    names = [f"class {i}".encode() for i in range(100)]
    save(folder / "meta", {"fine_label_names": names, "coarse_label_names": names[:20]})
    return labels


def small_imagenet(root: Path, images: np.ndarray) -> list[int]:
    """One image a batch, ten and more of them; labels from 1, as in the files."""
    labels = [1000 - i for i in range(len(images))]
    for i, label in enumerate(labels):
        content = {"data": planes(images[i : i + 1]), "labels": [label], "mean": np.zeros(3)}
        save(root / f"train_data_batch_{i + 1}", content, as_bytes=False)
    save(root / "val_data", {"data": planes(images[:1]), "labels": labels[:1]}, as_bytes=False)
    return labels


def svhn(path: Path, images: np.ndarray, labels: list[int]) -> None:
    """Samples on the last axis, labels from 1 to 10."""
    from scipy import io

    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"X": np.moveaxis(images, 0, -1), "y": np.asarray(labels, np.uint8)[:, None]}
    io.savemat(path, content)


def image(path: Path, values: np.ndarray) -> Path:
    """A file of one image, by its ending; a grey one for one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(path)
    return path


def tiny_imagenet(root: Path) -> Path:
    """Two classes of two images in flat colours, which survive JPEG; one training file is grey.

    `wnids.txt` lists the classes against their order.
    """
    folder = root / "tiny-imagenet-200"
    ids = ("n01", "n02")
    for label, name in enumerate(ids):
        for i in range(2):
            grey = (label, i) == (1, 0)
            values = np.full((64, 64, 1 if grey else 3), 100 * label + 50 * i, np.uint8)
            image(folder / "train" / name / "images" / f"{name}_{i}.JPEG", values)
        (folder / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t9\t9\n")
    lines = []
    for i, name in enumerate(("n02", "n01", "n02")):
        image(folder / "val" / "images" / f"val_{i}.JPEG", np.full((64, 64, 3), 20 * i, np.uint8))
        lines.append(f"val_{i}.JPEG\t{name}\t0\t0\t9\t9\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("n02\nn01\n")
    (folder / "words.txt").write_text("n01\tfish, cold fish\nn02\tbird\nn03\tother\n")
    return folder
