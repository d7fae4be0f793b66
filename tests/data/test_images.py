"""Image sets in files of arrays: exact values, and one line for what cannot be used."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from corrkd_jax.data import images
from corrkd_jax.data.image_batches import read_svhn
from corrkd_jax.data.image_set import check_labels
from corrkd_jax.errors import InputError
from tests.data import image_layouts as layouts

SIDE = 4


@pytest.mark.parametrize("as_bytes", [True, False])
def test_cifar10(tmp_path: Path, as_bytes: bool):
    expected = layouts.pixels(12, SIDE)
    labels = layouts.cifar10(tmp_path, expected, as_bytes)
    train = images.read("cifar10", tmp_path, "train")
    np.testing.assert_array_equal(train.take()["images"], expected[:10])
    np.testing.assert_array_equal(train.labels, labels[:10])
    assert train.labels.dtype == np.int32
    assert train.classes == tuple(f"class {i}" for i in range(10))
    # the folder itself will do
    test = images.read("cifar10", tmp_path / "cifar-10-batches-py", "test")
    np.testing.assert_array_equal(test.images[:], expected[10:])
    np.testing.assert_array_equal(test.labels, labels[10:])
    assert len(test) == 2


def test_rows_on_demand(tmp_path: Path):
    expected = layouts.pixels(12, SIDE)
    labels = layouts.cifar10(tmp_path, expected)
    train = images.read("cifar10", tmp_path, "train")
    rows = np.array([7, 0, 7])
    batch = train.take(rows)
    np.testing.assert_array_equal(batch["images"], expected[rows])
    assert batch["labels"].tolist() == [labels[7], labels[0], labels[7]]
    assert batch["row"].tolist() == [1, 1, 1]
    assert train.images.shape == (10, SIDE, SIDE, 3)
    assert train.nbytes == 10 * SIDE * SIDE * 3


def test_cifar100(tmp_path: Path):
    expected = layouts.pixels(5, SIDE)
    labels = layouts.cifar100(tmp_path, expected)
    found = images.read("cifar100", tmp_path, "test")
    np.testing.assert_array_equal(found.take()["images"], expected)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.classes[99] == "class 99"


def test_small_imagenet_in_the_order_of_its_numbers(tmp_path: Path):
    expected = layouts.pixels(11, SIDE)
    labels = layouts.small_imagenet(tmp_path, expected)
    train = images.read("imagenet32", tmp_path, "train")
    np.testing.assert_array_equal(train.images[:], expected)  # batch 10 comes after batch 9
    np.testing.assert_array_equal(train.labels, np.array(labels) - 1)
    assert len(images.read("imagenet32", tmp_path, "test")) == 1


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet32"])
def test_batches_are_a_pool(tmp_path: Path, name: str):
    """The training part, without labels; the folder that an archive unpacks to, or its parent."""
    expected = layouts.pixels(12, SIDE)
    write = {"cifar10": layouts.cifar10, "cifar100": layouts.cifar100}
    write.get(name, layouts.small_imagenet)(tmp_path, expected)
    inner = [path for path in tmp_path.iterdir() if path.is_dir()]
    for folder in (tmp_path, *inner):
        pool = images.read_pool(folder, SIDE)
        assert (pool.labels, pool.classes) == (None, ())
        there = 10 if name == "cifar10" else 12
        np.testing.assert_array_equal(pool.images[:], expected[:there])
    np.testing.assert_array_equal(pool.take(np.array([3]))["labels"], [-1])


def test_refused_pools_of_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    layouts.cifar10(tmp_path, layouts.pixels(12, SIDE))
    for size, channels in ((8, 3), (SIDE, 1)):
        with pytest.raises(InputError, match=r"train: images are \(4, 4, 3\), not .* not scaled"):
            images.read_pool(tmp_path, size, channels)
    layouts.cifar100(tmp_path, layouts.pixels(2, SIDE))
    with pytest.raises(InputError, match=r"batches of cifar10 and cifar100; name one's own folder"):
        images.read_pool(tmp_path, SIDE)
    images.read_pool(tmp_path / "cifar-100-python", SIDE)
    monkeypatch.chdir(tmp_path)
    train = tmp_path / "cifar-100-python" / "train"
    train.write_bytes(pickle.dumps({b"data": _Runs(), b"fine_labels": []}, 2))
    with pytest.raises(InputError, match=r"train: refused: the pickle asks for posix\.mkdir"):
        images.read_pool(tmp_path / "cifar-100-python", SIDE)
    assert not (tmp_path / "run").exists()


def test_svhn_ten_is_the_digit_zero(tmp_path: Path):
    expected = layouts.pixels(4, SIDE)
    layouts.svhn(tmp_path / "test_32x32.mat", expected, [10, 1, 9, 3])
    found = images.read("svhn", tmp_path, "test")
    np.testing.assert_array_equal(found.images, expected)
    assert found.labels.tolist() == [0, 1, 9, 3]
    layouts.svhn(tmp_path / "extra_32x32.mat", expected[:1], [5])
    assert read_svhn(tmp_path, "extra").labels.tolist() == [5]


def test_digits():
    train, test = images.read("digits", "", "train"), images.read("digits", "", "test")
    assert (len(train), len(test)) == (1198, 599)
    everything = np.concatenate([train.images, test.images]).reshape(-1, 64)
    original = datasets.load_digits().data
    # no digit occurs twice among 1,797, so equal sets are a partition
    assert len(np.unique(original, axis=0)) == len(original)
    assert {x.tobytes() for x in everything} == {x.tobytes() for x in original.astype(np.uint8)}
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(2 * np.bincount(test.labels) - np.bincount(train.labels)).max() <= 2
    assert train.white == everything.max() == 16
    again = images.read("digits", "", "train", seed=1)
    assert not np.array_equal(again.images, train.images)


def test_patches():
    pool = images.read_patches()
    assert pool.images.shape == (8480, 8, 8, 1)
    assert pool.labels is None
    assert (pool.take(slice(3))["labels"] == -1).all()
    photograph = datasets.load_sample_image("china.jpg")[:8, 8:16]
    expected = photograph @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(pool.images[1, ..., 0], expected, atol=0.5)


def test_normalizations_fit_their_sets():
    assert set(images.NORMALIZATIONS) >= set(images.NAMES)
    # one value a channel, and white in [0, 1] comes out above black
    for mean, std in images.NORMALIZATIONS.values():
        assert len(mean) == len(std)
        assert all(0 <= m < 1 and 0 < s <= 1 for m, s in zip(mean, std, strict=True))


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("run",)


def test_malicious_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    layouts.cifar10(tmp_path, layouts.pixels(12, SIDE))
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({b"data": _Runs(), b"labels": []}, 2))
    with pytest.raises(InputError, match=r"test_batch: refused: the pickle asks for posix.mkdir"):
        images.read("cifar10", tmp_path, "test")
    assert not (tmp_path / "run").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "run").exists()  # it would have


def _change(**changes):
    """A batch of CIFAR-10 with other fields; None takes one away."""

    def change(path: Path) -> None:
        content = pickle.loads(path.read_bytes())
        for name, value in changes.items():
            content[name.encode()] = value
            if value is None:
                del content[name.encode()]
        path.write_bytes(pickle.dumps(content, 2))

    return change


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, r"test_batch: not a whole pickle file .* truncated"),
        (Path.unlink, r"test_batch: no such file"),
        (_change(labels=[3]), r"test_batch: labels: 1 labels for 2 images; the file is not whole"),
        (_change(labels=[3, 10]), r"labels: 1 labels out of range, such as 10 of image 1; .* 0 to"),
        (_change(labels=[-1, 0]), r"labels: 1 labels out of range, such as -1 of image 0"),
        (_change(labels=["a", "b"]), r"test_batch: labels: is no list of numbers"),
        (_change(labels=None, fine_labels=[1, 2]), r"no key 'labels' \(found: .*fine_labels"),
        (_change(data=None), r"test_batch: no key 'data'"),
        (_change(data=np.zeros((2, 48))), r"test_batch: data: must be uint8"),
        (_change(data=np.zeros((2, 50), np.uint8)), r"data: shape \(2, 50\); a row must hold"),
        (_change(data=np.zeros((0, 48), np.uint8)), r"data: shape \(0, 48\)"),
        (lambda path: path.write_bytes(pickle.dumps([1], 2)), r"test_batch: holds no dictionary"),
    ],
)
def test_refused_batches(tmp_path: Path, spoil, message: str):
    layouts.cifar10(tmp_path, layouts.pixels(12, SIDE))
    spoil(tmp_path / "cifar-10-batches-py" / "test_batch")
    with pytest.raises(InputError, match=message) as caught:
        images.read("cifar10", tmp_path, "test")
    assert "\n" not in str(caught.value)


def test_batches_of_different_sizes(tmp_path: Path):
    layouts.small_imagenet(tmp_path, layouts.pixels(2, SIDE))
    other = {"data": layouts.planes(layouts.pixels(1, 8)), "labels": [1]}
    layouts.save(tmp_path / "train_data_batch_2", other)
    with pytest.raises(InputError, match=r"train: data: files of images of different sizes"):
        images.read("imagenet32", tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", r"no batches\.meta of CIFAR-10's python version; the folder is empty"),
        ("imagenet32", r"no train_data_batch_1 of the python version; the folder is empty"),
        ("svhn", r"no train_32x32\.mat of SVHN"),
        ("cifar", r"cifar: no such set of images; there are digits, cifar10"),
    ],
)
def test_empty_folder(tmp_path: Path, name: str, message: str):
    with pytest.raises(InputError, match=message):
        images.read(name, tmp_path, "train")
    with pytest.raises(InputError, match=r"no such"):
        images.read(name, tmp_path / "nowhere", "train")


def _folder(*names: str):
    def lay(root: Path) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x")

    return lay


@pytest.mark.parametrize(
    ("name", "lay", "message"),
    [
        (
            "cifar10",
            _folder("cifar-10-python.tar.gz"),
            "the archive there: tar -xf cifar-10",
        ),
        ("cifar100", _folder("cifar-100-python.tar.gz"), "there: tar -xf cifar-100-python.tar.gz"),
        ("tiny_imagenet", _folder("tiny-imagenet-200.zip"), "there: unzip tiny-imagenet-200.zip"),
        ("imagenet32", _folder("Imagenet32_train.zip"), "there: unzip Imagenet32_train.zip"),
        ("imagenet", _folder("ILSVRC2012_img_train.tar"), "no folder train; unpack the archive"),
        ("svhn", _folder("train.tar.gz"), "no train_32x32.mat of SVHN's format 2 .* tar -xf train"),
        ("cifar10", _folder("cifar-10-batches-bin/data_batch_1.bin"), "CIFAR-10's binary version"),
        (
            "cifar10",
            _folder("data_batch_1.bin", "batches.meta.txt"),
            "binary version; download",
        ),
        ("cifar10", _folder("cifar-10-batches-mat/batches.meta.mat"), "CIFAR-10's MATLAB version"),
        ("cifar100", _folder("cifar-100-binary/train.bin"), "CIFAR-100's binary version"),
        ("cifar10", lambda root: layouts.cifar100(root, layouts.pixels(2, SIDE)), "set cifar100$"),
        ("cifar100", lambda root: layouts.cifar10(root, layouts.pixels(12, SIDE)), "set cifar10$"),
        ("cifar10", _folder("cifar-10-batches-py/data_batch_1"), "there are data_batch_1; docs"),
        ("cifar10", _folder(*(f"a{i}" for i in range(500))), "a10.* and 492 more; docs/data.md"),
    ],
)
def test_what_lies_there_instead(tmp_path: Path, name: str, lay, message: str):
    lay(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        images.read(name, tmp_path, "train")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_folder_of_the_other_set(tmp_path: Path, name: str):
    """Its inner folder, which has files of the same names or none."""
    layouts.cifar10(tmp_path, layouts.pixels(12, SIDE))
    layouts.cifar100(tmp_path, layouts.pixels(2, SIDE))
    inner = {"cifar10": "cifar-100-python", "cifar100": "cifar-10-batches-py"}[name]
    other = {"cifar10": "cifar100", "cifar100": "cifar10"}[name]
    with pytest.raises(InputError, match=rf"{inner}: no .*name the set {other}"):
        images.read(name, tmp_path / inner, "test")


def test_the_archive_itself(tmp_path: Path):
    import tarfile

    layouts.cifar10(tmp_path, layouts.pixels(12, SIDE))
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    with pytest.raises(InputError, match="is a tar archive compressed by gzip, not a folder"):
        images.read("cifar10", tmp_path / "cifar-10-python.tar.gz", "test")
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    with pytest.raises(InputError, match="test_batch: is a file; name the folder of the data set"):
        images.read("cifar10", batch, "test")
    batch.write_bytes((tmp_path / "cifar-10-python.tar.gz").read_bytes())
    with pytest.raises(InputError, match="test_batch: is a tar archive compressed by gzip"):
        images.read("cifar10", tmp_path, "test")


def test_refused_svhn(tmp_path: Path):
    from scipy import io

    path = tmp_path / "train_32x32.mat"
    layouts.svhn(path, layouts.pixels(2, SIDE), [0, 1])
    with pytest.raises(InputError, match=r"y: 1 labels out of range, such as 0 .* 1 to 10"):
        images.read("svhn", tmp_path, "train")
    io.savemat(path, {"X": np.zeros((SIDE, SIDE, 3, 2)), "y": [1, 2]})
    with pytest.raises(InputError, match=r"X: is float64 .*must be uint8"):
        images.read("svhn", tmp_path, "train")
    io.savemat(path, {"X": np.zeros(3)})
    with pytest.raises(InputError, match=r"train_32x32\.mat: y: no such variable"):
        images.read("svhn", tmp_path, "train")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"not a whole \.mat file"):
        images.read("svhn", tmp_path, "train")


def test_labels_are_whole_numbers():
    assert check_labels([[1.0], [2.0]], 2, 3, "file: y").tolist() == [1, 2]
    with pytest.raises(InputError, match=r"file: y: 1 labels out of range, such as 0\.5"):
        check_labels([0.5, 1], 2, 3, "file: y")
    with pytest.raises(InputError, match=r"file: y: is no list of numbers"):
        check_labels([[1], [2, 3]], 2, 3, "file: y")
    with pytest.raises(ValueError, match="split must be"):
        images.read("digits", "", "valid")
