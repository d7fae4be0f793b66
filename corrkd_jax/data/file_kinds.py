"""What a file is by its first bytes, for a reader that was given something else.

A download may be packed, or be the web page that stands before it. Every reader of files asks here
first, so that each such mix-up has one name and one advice.
"""

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from corrkd_jax.errors import InputError, few


class Kind(NamedTuple):
    """What a file is.

    Attributes:
        key: short name, which readers compare.
        name: in words, with its article.
        advice: what to do with the file where another was expected; may hold `{file}`.
    """

    key: str
    name: str
    advice: str


_HEAD = 4096
_AGAIN = "download it again"
_ARRAYS = "open it with its own program and save its arrays with numpy.savez"
_EXPORT = "export it as text or arrays"

TORCH = Kind(
    "torch", "a file of torch's", "open it with torch and save its arrays with numpy.savez"
)
OLD_TORCH = TORCH._replace(key="old torch", name="a file of torch's older form")
NPZ = Kind("npz", "an .npz of NumPy's arrays", "give it where arrays are read")
PICKLE = Kind("pickle", "a pickle", "give it where pickles are read")
SAFETENSORS = Kind("safetensors", "a .safetensors of weights", "give it where weights are read")
MATLAB = Kind("matlab", "a .mat of MATLAB's version 5", _ARRAYS)
TAR = Kind("tar", "a tar archive", "unpack it: tar -xf {file}")
ZIP = Kind("zip", "a zip archive", "unpack it: unzip {file}")
_HDF5 = Kind("hdf5", "an HDF5 file (also .mat of version 7.3, .csd, .h5)", _ARRAYS)
_PAGE = Kind("html", "a web page, as a download leaves that needs a login or a click", _AGAIN)
_MISTAKEN_PICTURE = "give a file of data"

_BEGINNINGS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", OLD_TORCH),
    *((bytes([0x80, protocol]), PICKLE) for protocol in range(2, 6)),
    (b"\x93NUMPY", Kind("npy", "a single array (.npy)", "save arrays by name with numpy.savez")),
    (b"MATLAB 5.0", MATLAB),
    (b"MATLAB 7.3", _HDF5),
    (b"\x89HDF\r\n\x1a\n", _HDF5),
    (
        b"version https://git-lfs",
        Kind("pointer", "a pointer of Git LFS, not the file itself", "fetch it: git lfs pull"),
    ),
    (
        b"/annex/objects/",
        Kind("pointer", "a pointer of git-annex, not the file itself", "fetch it: git annex get"),
    ),
    (b"7z\xbc\xaf\x27\x1c", Kind("7z", "a 7z archive", "unpack it: 7z x {file}")),
    (b"Rar!\x1a\x07", Kind("rar", "a rar archive", "unpack it: unrar x {file}")),
    (b"(\xb5/\xfd", Kind("zstd", "compressed by zstd", "unpack it: zstd -dc {file} > NEW")),
    (b'\x04"M\x18', Kind("lz4", "compressed by lz4", "unpack it: lz4 -dc {file} > NEW")),
    (b"\x89PNG", Kind("picture", "a PNG image", _MISTAKEN_PICTURE)),
    (b"\xff\xd8\xff", Kind("picture", "a JPEG image", _MISTAKEN_PICTURE)),
    (b"GIF8", Kind("picture", "a GIF image", "save it as .png")),
    (b"%PDF", Kind("pdf", "a PDF document", _AGAIN)),
    (b"\xd0\xcf\x11\xe0", Kind("office", "a document of an office program", _EXPORT)),
    (b"PAR1", Kind("parquet", "a Parquet table", _ARRAYS)),
    (b"ARROW1", Kind("arrow", "an Arrow table", _ARRAYS)),
    (b"SQLite format 3", Kind("sqlite", "a database of SQLite", _ARRAYS)),
)

_PACKERS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", lambda head: zlib.decompressobj(31).decompress(head, 1024)),
    *(
        (b"BZh%d1AY&SY" % level, "bzip2", lambda head: bz2.BZ2Decompressor().decompress(head, 1024))
        for level in range(1, 10)
    ),
    (b"\xfd7zXZ\0", "xz", lambda head: lzma.LZMADecompressor().decompress(head, 1024)),
)

_JOBLIB = Kind(
    "zlib",
    "compressed by zlib, as joblib does",
    "if you trust it, convert it once: pickle.dump(joblib.load(IN), open(OUT, 'wb'), 4)",
)


def kind_of(path: str | Path) -> Kind | None:
    """What a file is, as far as its first bytes say.

    Args:
        path: the file.

    Returns:
        The kind; None for bytes that tell nothing, such as text or a pickle of protocol 0 or 1.

    Raises:
        InputError: there is no such file, it is a folder, is empty, or cannot be read.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the file inside it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error
    if not head:
        raise InputError(f"{path}: the file is empty; copy or download it again")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path, head)
    return _by_head(head, size)


def check_kind(path: str | Path, wanted: str, *readable: str) -> str:
    """Refuse a file that is known to be something else than a reader takes.

    Args:
        path: the file.
        wanted: what the reader takes, in words with the article, for the message.
        readable: keys of the kinds that the reader takes.

    Returns:
        Key of the kind; empty where the bytes tell nothing, which is left to the reader.

    Raises:
        InputError: the file is of another kind, is missing, empty or cannot be read.
    """
    return _require(kind_of(path), path, wanted, readable)


def check_text(path: str | Path, wanted: str) -> None:
    """Refuse a file that is known to be no text; text may begin with a bracket, as JSON does.

    Args:
        path: the file; whoever reads it says that it is missing, empty or cannot be read.
        wanted: what the reader takes, in words with the article, for the message.

    Raises:
        InputError: the file is of another kind.
    """
    try:
        kind = kind_of(path)
    except InputError:
        return
    _require(kind, path, wanted, ("json",))


def _require(kind: Kind | None, path: str | Path, wanted: str, readable: Sequence[str]) -> str:
    """Key of a file's kind, which must be one of `readable`; empty if none is known."""
    if kind is None:
        return ""
    if kind.key not in readable:
        advice = kind.advice.format(file=Path(path).name)
        raise InputError(f"{path}: is {kind.name}, not {wanted}; {advice}")
    return kind.key


def zip_members(path: str | Path) -> list[str] | None:
    """Names of the members of a zip archive.

    Args:
        path: the file.

    Returns:
        The names; None for a file that is no whole archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:
        return None  # damaged archives make zipfile raise nearly any exception


def _by_head(head: bytes, size: int) -> Kind | None:
    """Kind of what begins with some bytes, of `size` bytes in all."""
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    for beginning, packer, unpack in _PACKERS:
        if head.startswith(beginning):
            return _packed(packer, unpack, head)
    if _is_zlib(head):
        return _JOBLIB
    if head[257:262] == b"ustar":
        return TAR
    if not head.strip(b"\0"):
        return Kind("zeros", "nothing but zero bytes, as a broken download leaves", _AGAIN)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= max(size, 2**27):
        return SAFETENSORS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<script", b"<!doctype")):
        return _PAGE
    if text.startswith(b"<?xml"):
        return Kind("xml", "XML, such as a server's refusal", _AGAIN)
    if text.startswith((b"{", b"[")):
        return Kind("json", "JSON, such as a server's refusal", f"check it, or {_AGAIN}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Kind("utf-16", "text in UTF-16", "save it as UTF-8")
    return None


def _is_zlib(head: bytes) -> bool:
    if head[:2] not in (b"x\x01", b"x^", b"x\x9c", b"x\xda"):
        return False
    try:
        zlib.decompressobj().decompress(head, 1024)
    except zlib.error:
        return False  # a word may begin like this
    return True


def _packed(packer: str, unpack: Callable[[bytes], bytes], head: bytes) -> Kind:
    """Kind of what a packer wrote, with what is inside as far as it can be told."""
    try:
        start = unpack(head)
    except Exception:
        start = b""  # the archive is damaged, and unpacking will say so
    inside = _by_head(start, len(start)) if start and start[:2] != head[:2] else None
    if inside is not None and inside.key == "tar":
        return Kind(packer, f"a tar archive compressed by {packer}", TAR.advice)
    name = f"compressed by {packer}" + (f" ({inside.name} inside)" if inside else "")
    return Kind(packer, name, f"unpack it: {packer} -dc {{file}} > NEW")


def _zip_kind(path: Path, head: bytes) -> Kind:
    """Kind of a zip archive by its members, or by the first one where it is damaged."""
    found = zip_members(path)
    members = found or []
    if found is None:
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        members = [first.decode("latin1")] if head.startswith(b"PK\x03\x04") else []
    if any(f"/{name}".endswith("/data.pkl") for name in members):
        if any("/code/" in f"/{name}" for name in members):
            return TORCH._replace(key="torchscript", name="a program of TorchScript's")
        return TORCH
    if any(name.endswith(".npy") for name in members):
        return NPZ
    if any(name in ("[Content_Types].xml", "mimetype") for name in members):
        return Kind("office", "a document of an office program", _EXPORT)
    if found is None:
        return ZIP._replace(name="a damaged zip archive", advice=_AGAIN)
    if not members:
        return ZIP._replace(name="an empty zip archive", advice=_AGAIN)
    return ZIP._replace(name=f"a zip archive of {few(members, 3)}")
