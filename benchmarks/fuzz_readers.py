"""Readers of files for `benchmarks.fuzz`: whole files for each, and what a result must be."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.dfkd import DfkdConfig
from corrkd_jax.data import images, msa, subjects, unpickle, variables, words
from corrkd_jax.data.arrays import read_arrays
from corrkd_jax.data.dataset import Dataset
from corrkd_jax.data.image_files import read_folders
from corrkd_jax.data.image_set import ImageSet
from corrkd_jax.data.weights import read_weights, write_weights
from tests.data import files, image_layouts
from train.engine.workdir import restore_config


class Reader(NamedTuple):
    """A reader of one layout.

    Attributes:
        write: writes whole files into an empty folder and returns those that are to be damaged.
        read: reads what lies in the folder, of which it is given the first file written.
        check: says what is wrong with a result that was read without a complaint; "" for nothing.
    """

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    check: Callable[[Any], str]


def check_dataset(data: Dataset) -> str:
    """What contradicts the promises of `msa.read`, of which features in a map are excepted."""
    for name, split in data.splits.items():
        n = len(split.ids)
        if len(set(split.ids)) < n:
            return f"{name}: ids are not unique"
        for modality, array in split.features.items():
            valid = split.valid[modality]
            if array.dtype != np.float32 or array.ndim != 3 or len(array) != n:
                return f"{name}: {modality}: {array.dtype} {array.shape}"
            if not isinstance(array, np.memmap) and not np.isfinite(array).all():
                return f"{name}: {modality}: is not finite"
            if valid.shape != array.shape[:2] or not valid.any(axis=1).all():
                return f"{name}: {modality}: a row without a frame"
        for labels in (split.scores, split.classes):
            if labels is not None and (len(labels) != n or not np.isfinite(labels).all()):
                return f"{name}: labels {labels}"
        if split.scores is None and split.classes is None:
            return f"{name}: no labels"
    return ""


def check_images(data: ImageSet) -> str:
    """What contradicts the promises of a reader of images."""
    pixels = data.images[:]
    if pixels.dtype != np.uint8 or pixels.shape != data.images.shape or not len(pixels):
        return f"images: {pixels.dtype} {pixels.shape}"
    if data.labels is None:
        return ""
    inside = (data.labels >= 0) & (data.labels < len(data.classes))
    return "" if data.labels.shape == (len(data),) and inside.all() else f"labels: {data.labels}"


def check_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Arrays that are none of plain numbers or strings."""
    bad = [
        k for k, x in arrays.items() if type(x) is not np.ndarray or x.dtype.kind not in "biufcSU"
    ]
    return f"{bad[0]}: is no plain array" if bad else ""


def check_weights(weights: dict[str, np.ndarray]) -> str:
    """Weights that are none."""
    bad = [name for name, x in weights.items() if x.dtype.kind not in "biuf"]
    return f"{bad[0]}: is no array of numbers" if bad or not weights else ""


def check_nothing(result: object) -> str:
    """A result that promises nothing beyond having been read."""
    return ""


def _table(table: dict[str, str]) -> str:
    return "" if all(k and x for k, x in table.items()) else "an empty name"


def _vectors(vectors: words.WordVectors) -> str:
    shapes = vectors.matrix.ndim == 2 and max(vectors.index.values()) < len(vectors.matrix)
    return "" if shapes else f"vectors {vectors.matrix.shape}"


def _one(name: str, write: Callable[[Path], Any]) -> Callable[[Path], list[Path]]:
    def written(folder: Path) -> list[Path]:
        write(folder / name)
        return [folder / name]

    return written


def _pickle(content: Callable[[], Any], protocol: int = 4) -> Callable[[Path], list[Path]]:
    return _one("data.pkl", lambda path: files.save(path, content(), protocol))


def _all(write: Callable[[Path], Any]) -> Callable[[Path], list[Path]]:
    """Every file that something writes into the folder."""

    def written(folder: Path) -> list[Path]:
        write(folder)
        return sorted(path for path in folder.rglob("*") if path.is_file())

    return written


def _clue(folder: Path) -> None:
    files.clue(folder)
    np.savez(folder / "embedding.npz", embedding=np.ones((len(files.WORDS), 5)))


def _own_npz(folder: Path) -> list[Path]:
    source = files.save(folder / "data.pkl", files.mmsa_aligned())
    msa.write_npz(msa.read(source), folder / "data.npz")
    return [folder / "data.npz"]


_WEIGHTS = {
    "conv1.weight": np.ones((4, 3, 3, 3), np.float32),
    "bn1.running_var": np.ones(4, np.float32),
    "bn1.num_batches_tracked": np.int64(7),
    "fc.bias": np.zeros(3, np.float16),
}


def _torch(old: bool) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        import argparse

        import torch

        state = {f"module.{name}": torch.tensor(x) for name, x in _WEIGHTS.items()}
        content = {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
        torch.save(content, path, _use_new_zipfile_serialization=not old)

    return write


def _teacher(path: Path) -> None:
    import jax
    import jax.numpy as jnp

    from corrkd_jax.models.backbones import named
    from train.images import pretrained

    tree = named.build("mlp4", 3, 8).network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    model = pretrained.Pretrained("mlp4", 3, 8, 1, jax.tree.map(np.asarray, tree))
    pretrained.save(path, model)


def _read_teacher(path: Path) -> Any:
    from train.images import pretrained

    return pretrained.load(path)


def _check_teacher(model: Any) -> str:
    import jax

    whole = all(np.isfinite(x).all() for x in jax.tree.leaves(model.variables))
    return "" if whole else "weights are not finite"


def _images(name: str, root: Callable[[Path], Path] = lambda path: path.parent.parent):
    return lambda path: images.read(name, root(path), "test")


def _own_folders(folder: Path) -> None:
    for i, name in enumerate(("train/a/x.png", "train/b/y.jpg", "val/v1.png", "val/v2.jpg")):
        image_layouts.image(folder / name, image_layouts.pixels(1, 8, i)[0])
    (folder / "list.csv").write_text("ImageId,PredictionString\nv1,b 1 2 3 4\nv2,a 1 2 3 4\n")


def _read_own_folders(path: Path) -> ImageSet:
    return read_folders(path.parent, "test", 8, 8, path.parent / "list.csv")


def _python2(path: Path) -> None:
    path.write_bytes(files.python2_pickle(files.mult_emotion()))


_GLOVE = "a 1 2\ngood 3 4\nfilm 5 6\nzebra 7 8\n"
_SUBJECTS = "video_id,subject_id\nv1,anna\nv2,bert\n"

READERS: dict[str, Reader] = {
    "pickle": Reader(
        _pickle(lambda: [{"a": np.arange(6.0), "b": ["x", b"y", 1.5, 2**70, None]}, {3}], 5),
        unpickle.load,
        check_nothing,
    ),
    "mmsa": Reader(_pickle(files.mmsa_aligned), msa.read, check_dataset),
    "mmsa unaligned": Reader(_pickle(files.mmsa_unaligned, 2), msa.read, check_dataset),
    "mult": Reader(_one("data.pkl", _python2), msa.read, check_dataset),
    "mag-bert": Reader(_pickle(files.mag_bert, 0), msa.read, check_dataset),
    "clue": Reader(
        _all(_clue),
        lambda path: msa.read(path.parent, path.parent / "embedding.npz"),
        check_dataset,
    ),
    "ur-funny": Reader(
        _all(lambda folder: files.folder_of(folder, files.ur_funny())),
        lambda path: msa.read(path.parent),
        check_dataset,
    ),
    "mustard": Reader(_all(files.mustard), lambda path: msa.read(path.parent), check_dataset),
    "npz": Reader(_own_npz, msa.read, check_dataset),
    "arrays": Reader(
        _one("a.npz", lambda path: np.savez_compressed(path, a=np.arange(9.0), b=["x", "yz"])),
        read_arrays,
        check_arrays,
    ),
    "weights npz": Reader(
        _one("w.npz", lambda path: write_weights(path, _WEIGHTS)), read_weights, check_weights
    ),
    "weights safetensors": Reader(
        _one("w.safetensors", lambda path: write_weights(path, _WEIGHTS)),
        read_weights,
        check_weights,
    ),
    "weights torch": Reader(_one("w.pth", _torch(False)), read_weights, check_weights),
    "weights old torch": Reader(_one("w.pth", _torch(True)), read_weights, check_weights),
    "variables": Reader(
        _one(
            "v.npz",
            lambda path: variables.write_variables(path, {"params": _WEIGHTS}, {"network": "x"}),
        ),
        variables.read_variables,
        check_nothing,
    ),
    "teacher": Reader(_one("t.npz", _teacher), _read_teacher, _check_teacher),
    "cifar10": Reader(
        _all(lambda folder: image_layouts.cifar10(folder, image_layouts.pixels(12, 4))),
        _images("cifar10"),
        check_images,
    ),
    "cifar100": Reader(
        _all(lambda folder: image_layouts.cifar100(folder, image_layouts.pixels(5, 4))),
        _images("cifar100"),
        check_images,
    ),
    "imagenet32": Reader(
        _all(lambda folder: image_layouts.small_imagenet(folder, image_layouts.pixels(2, 4))),
        lambda path: images.read("imagenet32", path.parent, "train"),
        check_images,
    ),
    "svhn": Reader(
        _one(
            "test_32x32.mat",
            lambda path: image_layouts.svhn(path, image_layouts.pixels(3, 4), [10, 1, 2]),
        ),
        _images("svhn", lambda path: path.parent),
        check_images,
    ),
    "tiny_imagenet": Reader(
        lambda folder: [
            image_layouts.tiny_imagenet(folder) / "val" / "val_annotations.txt",
            folder / "tiny-imagenet-200" / "words.txt",
            *sorted((folder / "tiny-imagenet-200" / "val" / "images").iterdir()),
        ],
        _images("tiny_imagenet", lambda path: path.parents[2]),
        check_images,
    ),
    "folders": Reader(_all(_own_folders), _read_own_folders, check_images),
    "word vectors": Reader(
        _one("glove.txt", lambda path: path.write_text(_GLOVE)),
        lambda path: words.read_vectors(path, ("a", "good", "film")),
        _vectors,
    ),
    "vocabulary": Reader(
        _one("vocab.txt", lambda path: path.write_text("[PAD]\n[UNK]\na\n##b\n")),
        words.read_pieces,
        check_nothing,
    ),
    "subjects": Reader(
        _one("subjects.csv", lambda path: path.write_text(_SUBJECTS)), subjects.read_table, _table
    ),
    "config": Reader(
        _one(
            "config.json",
            lambda path: path.write_text(
                json.dumps({"program": "dfkd", "preset": "digits", **asdict(DfkdConfig())})
            ),
        ),
        lambda path: restore_config(path.parent, "dfkd", DfkdConfig, "train.dfkd"),
        check_nothing,
    ),
}
"""Every reader of files from elsewhere, by the name that `--reader` takes."""
