"""What a file is, and the one line that every reader says of one that is something else."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import images, msa, subjects, words
from corrkd_jax.data.arrays import read_arrays
from corrkd_jax.data.file_kinds import kind_of
from corrkd_jax.data.weights import read_weights
from corrkd_jax.errors import InputError
from tests.data import files

PICKLE = pickle.dumps(files.mmsa_aligned(), 4)
PAGE = b"\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 367000000\n"


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _tar(mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        member = tarfile.TarInfo("mosi.pkl")
        member.size = len(PICKLE)
        archive.addfile(member, io.BytesIO(PICKLE))
    return file.getvalue()


OTHERS = {
    "zip": (_zip({"mosi.pkl": PICKLE}), "a zip archive of mosi.pkl", "unzip x"),
    "empty zip": (_zip({}), "an empty zip archive", "download it again"),
    "gzip": (gzip.compress(PICKLE), r"compressed by gzip \(a pickle inside\)", "gzip -dc x"),
    "bzip2": (bz2.compress(PICKLE), "compressed by bzip2", "bzip2 -dc x"),
    "xz": (lzma.compress(PICKLE), r"compressed by xz \(a pickle inside\)", "xz -dc x"),
    "zlib": (zlib.compress(PICKLE), "compressed by zlib, as joblib does", "if you trust it"),
    "tar": (_tar(), "a tar archive", "tar -xf x"),
    "tar.gz": (_tar("w:gz"), "a tar archive compressed by gzip", "tar -xf x"),
    "tar.xz": (_tar("w:xz"), "a tar archive compressed by xz", "tar -xf x"),
    "page": (PAGE, "a web page", "download it again"),
    "refusal": (b'{"error": "quota exceeded"}', "JSON, such as a server's", "download it again"),
    "xml": (b"<?xml version='1.0'?><Error/>", "XML, such as a server's", "download it again"),
    "pointer": (POINTER, "a pointer of Git LFS", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s4--9f\n", "a pointer of git-annex", "git annex get"),
    "torch": (_zip({"a/data.pkl": b"", "a/version": b"3"}), "a file of torch's", "with torch"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file", r"numpy\.savez"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "a PNG image", "give a file of data"),
    "zeros": (bytes(5000), "nothing but zero bytes", "download it again"),
    "safetensors": (b"\x02" + bytes(7) + b"{}", "a .safetensors", "where weights are read"),
    "workbook": (_zip({"[Content_Types].xml": b""}), "a document of an office", "export it"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_was_given_for_a_pickle(tmp_path: Path, name: str):
    data, said, advice = OTHERS[name]
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^\S*x: is {said}.*, not a pickle; .*{advice}") as error:
        msa.read(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


READERS = {
    "weights": (lambda path: read_weights(path), "teacher.pth", "not a file of weights"),
    "weights in .npz": (lambda path: read_weights(path), "teacher.npz", "not a file of weights"),
    "arrays": (lambda path: read_arrays(path), "audio.npz", "not an .npz"),
    "word vectors": (lambda path: words.read_vectors(path, ["a"]), "glove.txt", "not word vectors"),
    "vocabulary": (lambda path: words.read_pieces(path), "vocab.txt", "not a BERT vocabulary"),
    "lexicon": (lambda path: words.lexicon(path), "words.txt", "not a lexicon"),
    "subjects": (lambda path: subjects.read_table(path), "subjects.csv", "not a table as text"),
    "SVHN": (
        lambda path: images.read("svhn", path.parent, "test"),
        "test_32x32.mat",
        "not a .mat of version 5",
    ),
    "an image": (lambda path: images.read_pool(path.parent, 8).images[:], "a.png", "not an image"),
    "MUStARD": (lambda path: msa.read(path.parent), "sarcasm_data.json", "not JSON"),
    "a split of MISA": (lambda path: msa.read(path.parent), "train.pkl", "not a pickle"),
    "a folder of images": (lambda path: images.read_pool(path, 8), "pool", "not a folder"),
}


@pytest.mark.parametrize("kind", ["page", "pointer", "tar.gz", "zip"])
@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_what_it_was_given(tmp_path: Path, name: str, kind: str):
    read, file, wanted = READERS[name]
    data, said, advice = OTHERS[kind]
    (tmp_path / file).write_bytes(data)
    with pytest.raises(InputError, match=rf"{file}: is {said}.*, {wanted}") as error:
        read(tmp_path / file)
    assert advice.split()[0] in str(error.value)
    assert "\n" not in str(error.value)
    assert "trust" not in str(error.value)


def test_the_archive_of_word_vectors(tmp_path: Path):
    """The Stanford page has GloVe as a zip."""
    path = files.save(tmp_path / "mosi.pkl", files.mag_bert("words"))
    (tmp_path / "glove.6B.zip").write_bytes(_zip({"glove.6B.50d.txt": b"a 1 2\n"}))
    with pytest.raises(
        InputError, match=r"glove\.6B\.zip: is a zip archive of glove\.6B\.50d\.txt"
    ):
        msa.read(path, tmp_path / "glove.6B.zip")


def test_a_pickle_given_as_weights(tmp_path: Path):
    (tmp_path / "teacher.pth").write_bytes(PICKLE)
    with pytest.raises(InputError, match=r"teacher\.pth: is a pickle, not a file of weights"):
        read_weights(tmp_path / "teacher.pth")


def test_content_decides_and_not_the_name(tmp_path: Path):
    with (tmp_path / "weights.pth").open("wb") as file:
        np.savez(file, a=np.arange(3.0))
    assert read_weights(tmp_path / "weights.pth")["a"].tolist() == [0, 1, 2]


def test_words_that_begin_like_a_packed_file(tmp_path: Path):
    for text in ("x^2 is a word\n", "BZhang 1 2\n", "[PAD]\n[UNK]\n", "{ 0.5\n"):
        (tmp_path / "words.txt").write_text(text)
        assert words.lexicon(tmp_path / "words.txt")
    assert kind_of(files.save(tmp_path / "old.pkl", [1.5, "x"], 0)) is None
    (tmp_path / "words.txt").write_text(json.dumps({"a": 1}))
    assert kind_of(tmp_path / "words.txt").key == "json"


def test_joblib_with_its_own_arrays(tmp_path: Path):
    """Raw bytes of arrays follow the opcode that names joblib's class."""
    data = pickle.dumps({"names": ["x" * 100] * 100}, 2)[:-1]
    data += b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + bytes(range(200, 256)) * 9
    (tmp_path / "mosi.pkl").write_bytes(data)
    with pytest.raises(InputError, match=r"mosi\.pkl: is a file of joblib.* convert it once"):
        msa.read(tmp_path / "mosi.pkl")
