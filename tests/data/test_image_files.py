"""Image sets in folders of files: order of classes, grey files, cuts, and refusals."""

from pathlib import Path

import grain
import numpy as np
import pytest
from PIL import Image

from corrkd_jax.data import images
from corrkd_jax.data.image_files import read_folders
from corrkd_jax.errors import InputError
from tests.data import image_layouts as layouts


def test_tiny_imagenet(tmp_path: Path):
    layouts.tiny_imagenet(tmp_path)
    train = images.read("tiny_imagenet", tmp_path, "train")
    # by the sorted folders, against the order of wnids.txt; the grey file has three channels
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.classes == ("fish", "bird")
    found = train.take(np.array([3, 2]))["images"]
    np.testing.assert_array_equal(found, np.stack([np.full((64, 64, 3), x) for x in (150, 100)]))
    test = images.read("tiny_imagenet", tmp_path / "tiny-imagenet-200", "test")
    assert test.labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(test.images[:][:, 0, 0, 0], [0, 20, 40])


def test_pool_keeps_the_pixels_of_images_of_its_size(tmp_path: Path):
    expected = layouts.pixels(3, 8)
    for name, values in zip(("b.png", "a/z.PNG", "a/y/x.png"), expected, strict=True):
        layouts.image(tmp_path / name, values)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._b.png").write_text("no image either")
    pool = images.read_pool(tmp_path, 8)
    assert pool.labels is None
    assert pool.images.paths == ("a/y/x.png", "a/z.PNG", "b.png")
    np.testing.assert_array_equal(pool.images[:], expected[::-1])
    np.testing.assert_array_equal(pool.take(np.array([1]))["images"], expected[1:2])
    grey = images.read_pool(tmp_path, 8, channels=1).images[np.array([2])]
    assert grey.shape == (1, 8, 8, 1)
    np.testing.assert_allclose(grey[0, ..., 0], expected[0] @ [0.299, 0.587, 0.114], atol=1)


def test_shorter_side_is_scaled_and_the_centre_cut_out(tmp_path: Path):
    values = np.zeros((8, 24, 3), np.uint8)
    values[:, 8:16] = 200  # the central square, to be halved
    layouts.image(tmp_path / "wide.png", values)
    layouts.image(tmp_path / "tall.png", values.swapaxes(0, 1))
    tall, wide = images.read_pool(tmp_path, 4).images[:]
    np.testing.assert_array_equal(wide, tall.swapaxes(0, 1))
    assert (wide[:, 1:3] == 200).all()
    layouts.image(tmp_path / "train" / "c" / "x.png", values)
    whole = Image.fromarray(values).resize((18, 6), Image.Resampling.BILINEAR)
    found = read_folders(tmp_path, "train", size=4, resize=6).images[:]
    np.testing.assert_array_equal(found[0], np.asarray(whole)[1:5, 7:11])


def _imagenet(root: Path) -> list[np.ndarray]:
    values = list(layouts.pixels(4, 4))
    for name, x in zip(("n2/a.png", "n1/b.png"), values, strict=False):
        layouts.image(root / "train" / name, x)
    return values


def test_validation_by_folders_or_by_a_list(tmp_path: Path):
    values = _imagenet(tmp_path)
    for name, x in (("n1/v.png", values[2]), ("n2/a.png", values[3])):
        layouts.image(tmp_path / "val" / name, x)
    found = read_folders(tmp_path, "test", 4, 4)
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found.images[:], values[2:])
    for name, x in (("v_1.png", values[2]), ("v_2.png", values[3])):
        layouts.image(tmp_path / "val" / name, x)
    listed = tmp_path / "LOC_val_solution.csv"
    listed.write_text("ImageId,PredictionString\nv_2,n1 85 1 499 272\nv_1,n2 1 2 3 4 n2 5 6 7 8\n")
    found = read_folders(tmp_path, "test", 4, 4, listed)
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found.images[:], np.stack([values[3], values[2]]))


def test_a_set_on_disk_feeds_grain(tmp_path: Path):
    expected = layouts.pixels(4, 4)
    for i, x in enumerate(expected):
        layouts.image(tmp_path / f"{i}.png", x)
    pool = images.read_pool(tmp_path, 4)
    read = grain.MapDataset.range(2).map(lambda i: pool.take(np.array([3 - i, i]))["images"])
    batches = list(read.to_iter_dataset(grain.ReadOptions(num_threads=2)))
    np.testing.assert_array_equal(np.stack(batches), expected[[[3, 0], [2, 1]]])


def test_hidden_names_are_no_classes_and_no_images(tmp_path: Path):
    values = _imagenet(tmp_path)
    for part in ("train", "val"):
        for name in (".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/x.png", "n1/._b.png"):
            layouts.image(tmp_path / part / name, values[0])
    layouts.image(tmp_path / "train" / "n1" / ".ipynb_checkpoints" / "c.png", values[0])
    for name in ("n1", "n2"):
        layouts.image(tmp_path / "val" / name / "v.png", values[2])
    train, test = read_folders(tmp_path, "train", 4, 4), read_folders(tmp_path, "test", 4, 4)
    assert train.classes == test.classes == ("n1", "n2")
    assert train.images.paths == ("train/n1/b.png", "train/n2/a.png")
    assert train.labels.tolist() == test.labels.tolist() == [0, 1]
    assert train.notes == ("2 skipped, hidden or not .png, .jpg, .jpeg, such as train/n1/._b.png",)
    pool = images.read_pool(tmp_path / "train", 4)
    assert pool.images.paths == ("n1/b.png", "n2/a.png")


def test_files_that_are_skipped_are_counted(tmp_path: Path):
    for name in ("a.png", "b/c.png"):
        layouts.image(tmp_path / name, layouts.pixels(1, 4)[0])
    for name in ("b/d.webp", "b/e.tiff", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    pool = images.read_pool(tmp_path, 4)
    assert pool.images.paths == ("a.png", "b/c.png")
    assert pool.notes == ("3 skipped, hidden or not .png, .jpg, .jpeg, such as b/d.webp",)
    layouts.tiny_imagenet(tmp_path / "tiny")  # whose lists of boxes belong to it
    assert images.read("tiny_imagenet", tmp_path / "tiny", "train").notes == ()


@pytest.mark.parametrize(
    ("rename", "split", "message"),
    [
        (("train", "trian"), "train", r"no folder train; there are trian, val; docs/data\.md"),
        (("val", "validate"), "test", r"no folder val or test; there are train, validate"),
        (("val/n1", "val/n01"), "test", r"val/n01: no such class in .*train"),
        (("val/n1", "val2"), "test", r"val/n1: no such folder"),
    ],
)
def test_a_misspelt_folder_is_named_with_what_is_there(tmp_path: Path, rename, split, message):
    values = _imagenet(tmp_path)
    for name in ("n1", "n2"):
        layouts.image(tmp_path / "val" / name / "v.png", values[2])
    (tmp_path / rename[0]).rename(tmp_path / rename[1])
    with pytest.raises(InputError, match=message):
        images.read("imagenet", tmp_path, split)


def test_a_set_of_ones_own_has_a_size_of_its_own(tmp_path: Path):
    layouts.image(tmp_path / "train" / "cat" / "a.png", layouts.pixels(1, 90)[0])
    layouts.image(tmp_path / "test" / "cat" / "a.png", layouts.pixels(1, 64)[0])
    assert images.read("folders", tmp_path, "train").images.shape == (1, 64, 64, 3)
    kept = images.read("folders", tmp_path, "test").images[:]
    np.testing.assert_array_equal(kept, layouts.pixels(1, 64))
    small = images.read("folders", tmp_path, "train", size=32)
    assert small.images[:].shape == (1, 32, 32, 3)
    assert small.images.resize == 37
    assert images.read("imagenet", tmp_path, "train", size=96).images.shape[1] == 96
    assert images.read("imagenet", tmp_path, "train").images.resize == 256
    with pytest.raises(InputError, match=r"size 64: cifar10 has its own; only imagenet, folders"):
        images.read("cifar10", tmp_path, "train", size=64)


def test_an_image_that_is_all_edge(tmp_path: Path):
    """Its shorter side scaled to 224 pixels would make the longer one 14 million."""
    layouts.image(tmp_path / "a.png", np.zeros((1, 65, 3), np.uint8))
    with pytest.raises(InputError, match=r"a\.png: 65 x 1 pixels are too narrow"):
        images.read_pool(tmp_path, 224).images[:]


def test_refused_files(tmp_path: Path):
    with pytest.raises(InputError, match=r"no image \(\.png, \.jpg, \.jpeg\)"):
        images.read_pool(tmp_path, 4)
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    with pytest.raises(InputError, match=r"x\.png: pixels of mode I;16; save it with 8 bits"):
        images.read_pool(tmp_path, 4).images[:]
    whole = layouts.image(tmp_path / "y.jpg", layouts.pixels(1, 32)[0]).read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"x\.png: not a whole image .*truncated") as caught:
        images.read_pool(tmp_path, 32).images[:]
    assert "\n" not in str(caught.value)
    pool = images.read_pool(tmp_path, 32)
    path.unlink()
    with pytest.raises(InputError, match=r"x\.png: no such file; the set is not whole"):
        pool.take(np.array([0]))


def test_refused_trees(tmp_path: Path):
    with pytest.raises(InputError, match=r"no folder train; the folder is empty"):
        images.read("imagenet", tmp_path, "train")
    folder = layouts.tiny_imagenet(tmp_path)
    path = folder / "val" / "val_annotations.txt"
    path.write_text(path.read_text() + "val_3.JPEG\tn09\t0\t0\t9\t9\n")
    with pytest.raises(InputError, match=r"val_annotations\.txt: line 4: .* got 'val_3.JPEG n09'"):
        images.read("tiny_imagenet", tmp_path, "test")
    path.unlink()
    with pytest.raises(InputError, match=r"val_annotations\.txt: no such file"):
        images.read("tiny_imagenet", tmp_path, "test")
    _imagenet(tmp_path / "other")
    layouts.image(tmp_path / "other" / "val" / "n3" / "v.png", layouts.pixels(1, 4)[0])
    with pytest.raises(InputError, match=r"n3: no such class in .*train"):
        images.read("imagenet", tmp_path / "other", "test")
    listed = tmp_path / "list.txt"
    listed.write_text("absent.JPEG n1\n")
    with pytest.raises(InputError, match=r"list\.txt: absent\.JPEG: no such file in .*val"):
        images.read("imagenet", tmp_path / "other", "test", labels=listed)
    listed.write_text("490\n361\n")  # ILSVRC's own numbers
    with pytest.raises(InputError, match=r"list\.txt: line 1: must be a file and a class"):
        images.read("imagenet", tmp_path / "other", "test", labels=listed)
