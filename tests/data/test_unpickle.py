"""The restricted unpickler: what it reads, what it refuses, and that refusing runs nothing."""

import collections
import contextlib
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from corrkd_jax.data import unpickle
from corrkd_jax.errors import InputError
from tests.data import files

ARRAYS = [
    np.arange(6, dtype=np.float64).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.arange(3, dtype=">i4"),
    np.array([True, False]),
    np.array(["añ", "b"]),
    np.array([b"ab", b"c"]),
    np.array(["text", 1, None, np.arange(2)], dtype=object),
    np.zeros((0, 4), np.float16),
    np.array(2.5),
]


def _same(left: np.ndarray, right: np.ndarray) -> None:
    assert type(left) is np.ndarray
    # NumPy itself brings swapped bytes to the machine's order while unpickling.
    assert left.dtype.newbyteorder("=") == right.dtype.newbyteorder("=")
    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.str)
def test_arrays_of_every_protocol(tmp_path: Path, array: np.ndarray, protocol: int):
    value = unpickle.load(files.save(tmp_path / "x.pkl", {"x": [array]}, protocol))["x"][0]
    if array.dtype == object:
        assert list(value[:3]) == list(array[:3])
        _same(value[3], array[3])
    else:
        _same(value, array)


@pytest.mark.parametrize("protocol", range(6))
def test_containers_and_scalars(tmp_path: Path, protocol: int):
    content = collections.OrderedDict(
        a=(1, [2.5, {"é"}], frozenset([3])), b=b"\xff", c=bytearray(b"x"), d=1j, e=None, f=True
    )
    path = files.save(tmp_path / "x.pkl", content, protocol)
    assert unpickle.load(path) == content
    scalar = unpickle.load(files.save(tmp_path / "x.pkl", np.float32(1.5), protocol))
    assert scalar == 1.5
    assert type(scalar) is np.float32
    dtype = np.dtype(">f8")
    assert unpickle.load(files.save(tmp_path / "x.pkl", dtype, protocol)) == dtype


def test_shared_and_recursive_parts_survive(tmp_path: Path):
    array, loop = np.arange(3), []
    loop.append(loop)
    content = unpickle.load(files.save(tmp_path / "x.pkl", [array, (array,), array, loop]))
    _same(content[0], array)
    _same(content[1][0], array)
    assert content[0] is content[2]
    assert content[3][0] is content[3]
    nested: list = []
    for _ in range(60):  # 2^60 paths through 60 lists
        nested = [nested, nested]
    unpickle.load(files.save(tmp_path / "x.pkl", nested))


def test_python2_protocol2(tmp_path: Path):
    high = np.frombuffer(bytes(range(256)), np.uint8)
    content = {
        "train": {
            "id": ["vidéo", b"\xff\xfe"],
            "x": np.array([[1.5, -np.inf], [np.nan, 1e300]]),
            "high": high,
            "ids": np.array([b"ab", b"\xe9"]),
            "score": np.float64(0.25),
            "label": (3, 1.5, None, True),
        }
    }
    data = files.python2_pickle(content)
    assert b"numpy.core.multiarray" in data
    with pytest.raises(UnicodeDecodeError):
        pickle.loads(data)  # Python 3's default reading fails, so the fallback is exercised
    path = tmp_path / "py2.pkl"
    path.write_bytes(data)
    train = unpickle.load(path)["train"]
    assert train["id"][0].encode("latin1").decode("utf8") == "vidéo"
    assert train["id"][1] == "\xff\xfe"
    assert train["score"] == 0.25
    assert train["label"] == (3, 1.5, None, True)
    for key in ("x", "high", "ids"):
        _same(train[key], content["train"][key])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    array=hnp.arrays(
        dtype=st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.byte_string_dtypes()),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
    )
)
def test_python2_arrays_come_back(tmp_path_factory, array: np.ndarray):
    path = tmp_path_factory.getbasetemp() / "py2_property.pkl"
    path.write_bytes(files.python2_pickle([array]))
    _same(unpickle.load(path)[0], array)


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _malicious(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    touch, code = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w')"
    nested = np.array([None], dtype=object)
    nested[0] = _Call(os.system, touch)
    frame = b"\x80\x02"
    return {
        "os.system": (pickle.dumps(_Call(os.system, touch)), f"{os.name}.system"),
        "eval": (pickle.dumps({"train": _Call(eval, code)}), "builtins.eval"),
        "eval of Python 2": (
            frame + _global("__builtin__", "eval") + files._python2((code,)) + b"R.",
            "__builtin__.eval",
        ),
        "inside an array": (pickle.dumps(nested), f"{os.name}.system"),
        "subprocess": (
            pickle.dumps(_Call(subprocess.call, ["touch", str(sentinel)])),
            "subprocess.call",
        ),
        "numpy's own loader": (
            frame + _global("numpy", "load") + files._python2((str(sentinel),)) + b"R.",
            "numpy.load",
        ),
        "a dotted name": (
            pickle.PROTO + b"\x04\x8c\x05numpy\x8c\x0bndarray.dot\x93.",
            "numpy.ndarray.dot",
        ),
        "getattr": (frame + _global("__builtin__", "getattr") + b".", "__builtin__.getattr"),
        "memory map": (frame + _global("numpy", "memmap") + b".", "numpy.memmap"),
    }


@pytest.mark.parametrize("name", sorted(_malicious(Path("x"))))
def test_malicious_pickles_are_refused_and_not_run(tmp_path: Path, name: str):
    sentinel = tmp_path / "sentinel"
    data, refused = _malicious(sentinel)[name]
    path = tmp_path / "bad.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        unpickle.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert refused in message
    assert "\n" not in message
    assert not sentinel.exists()


def test_the_malicious_pickles_would_run(tmp_path: Path):
    # Otherwise an absent sentinel proves nothing.
    sentinel = tmp_path / "sentinel"
    for name in ("os.system", "eval", "eval of Python 2", "inside an array", "subprocess"):
        pickle.loads(_malicious(sentinel)[name][0])
        assert sentinel.exists(), name
        sentinel.unlink()


def test_refusing_imports_nothing(tmp_path: Path):
    (tmp_path / "trap.py").write_text("open('sentinel', 'w')\nname = 1\n")
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x02" + _global("trap", "name") + b".")
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from corrkd_jax.data import unpickle\n"
        "try: unpickle.load('bad.pkl')\n"
        "except ValueError as error: print(error)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "trap.name" in done.stdout
    assert not (tmp_path / "sentinel").exists()


_DTYPE = _global("numpy", "dtype") + files._python2(("O8", 0, 1)) + b"R"
_FLOAT = _global("numpy", "dtype") + files._python2(("f8", 0, 1)) + b"R"
_SWAPPED = (
    _FLOAT.replace(b"U\x02f8", b"U\x02u2")
    + b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
)
_BOOL = _global("numpy", "dtype") + files._python2(("b1", 0, 1)) + b"R"
_TEXT = _global("numpy", "dtype") + files._python2(("U1", 0, 1)) + b"R"
_VOID = _global("numpy", "dtype") + files._python2(("V8", 0, 1)) + b"R"
_FIELDS = b"(J\x03\0\0\0U\x01|N(U\x01xt}U\x01x(" + _DTYPE + b"J\0\0\0\0tsJ\x08\0\0\0K\x01K\0tb"
_EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01btR"
_FORGED = {
    # Each makes NumPy itself read the bytes "AAAAAAAA" as the address of an object.
    "ndarray called": _global("numpy", "ndarray") + b"(K\x01\x85" + _DTYPE + b"C\x08AAAAAAAAtR",
    "ndarray of a named dtype": _global("numpy", "ndarray") + b"(K\x01\x85U\x01OC\x08AAAAAAAAtR",
    "forged fields": _EMPTY + b"(K\x01K\x01\x85" + _VOID + _FIELDS + b"\x89U\x08AAAAAAAAtb",
    "object scalar": b"cnumpy.core.multiarray\nscalar\n(" + _DTYPE + b"U\x08AAAAAAAAtR",
    "object data": _EMPTY + b"(K\x01K\x01\x85" + _DTYPE + b"\x89U\x08AAAAAAAAtb",
    "negative shape": _EMPTY
    + b"(K\x01J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"
    + _DTYPE
    + b"\x89](K\x01K\x02etb",
    "array as a buffer": b"cnumpy.core.numeric\n_frombuffer\n("
    + _EMPTY
    + _FLOAT
    + b"K\0\x85U\x01CtR",
    "short data": _EMPTY + b"(K\x01M\xff\xff\x85" + _DTYPE + b"\x89](K\x01K\x02etb",
    "attribute of a class": b"ccollections\nOrderedDict\nN}U\x08__init__K\x01s\x86b",
}


def loaded_apart(path: Path) -> str:
    """What a process of its own prints of a file, or of its refusal: a failure here is a crash."""
    code = (
        "import sys; from corrkd_jax.data import unpickle; from corrkd_jax.errors import InputError"
        "\ntry: print(repr(unpickle.load(sys.argv[1])))"
        "\nexcept InputError as error: print('refused', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.parametrize("name", sorted(_FORGED))
def test_forged_arrays_are_refused(tmp_path: Path, name: str):
    path = tmp_path / "forged.pkl"
    path.write_bytes(b"\x80\x02" + _FORGED[name] + b".")
    printed = loaded_apart(path)
    assert printed.startswith(f"refused {path}"), printed


_MUCH = 813_041_292
_GREEDY = {
    # a memo of 13 GB, asked for by a file of ten bytes
    "memo": (b"\x80\x02Nr" + struct.pack("<I", _MUCH) + b".", r"place 813,041,292 in the memo"),
    "memo in text": (b"Np813041292\n.", r"place 813,041,292 in the memo"),
    "memo without a number": (b"Np-1\n.", "names no place in the memo"),
    "frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "announces"),
    "bytes of 8": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".", "announces"),
    "text of 8": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".", "announces"),
    "bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "announces"),
    "bytes": (b"\x80\x03B" + struct.pack("<I", _MUCH) + b".", "announces 813,041,292 bytes; 1 are"),
    "text": (b"\x80\x02X" + struct.pack("<I", _MUCH) + b".", "announces"),
    "string": (b"\x80\x02T" + struct.pack("<I", _MUCH) + b".", "announces"),
    "short text": (b"\x80\x04\x8c\xffab.", "announces 255 bytes; 3 are there"),
    "number": (b"\x80\x02\x8b" + struct.pack("<I", 9000) + bytes(9000) + b".", "number of 9,000"),
    "opcode": (b"\x80\x02\xff.", "begins no whole opcode"),
    "bytes by the dozen": (_global("__builtin__", "bytearray") + b"J\0\0\0\x7f\x85R.", "len"),
    "bytes by number": (_global("__builtin__", "bytes") + b"J\0\0\0\x7f\x85R.", "len"),
    "another codec": (
        _global("_codecs", "encode") + b"X\x01\0\0\0aX\x06\0\0\0utf-32\x86R.",
        "bytes in 'utf-32' are not supported",
    ),
    # one string of 100 kB, of which 200 swapped arrays would be copies
    "copies of an array": (
        b"\x80\x02(T\xa0\x86\x01\0"
        + bytes(100_000)
        + b"q\x010"
        + 200 * (_EMPTY + b"(K\x01JP\xc3\0\0\x85" + _SWAPPED + b"\x89h\x01tb")
        + b"l.",
        "more memory than its size explains",
    ),
    "copies of a list": (
        b"\x80\x02(]("
        + b"N" * 50_000
        + b"eq\x010"
        + 200 * (_global("__builtin__", "list") + b"h\x01\x85R")
        + b"l.",
        "more memory than its size explains",
    ),
    "an empty array of many": (
        b"\x80\x02" + _EMPTY + b"(K\x01K\0J\0\0\0\x7f\x86" + _FLOAT + b"\x89U\0tb.",
        "too large for an array without elements",
    ),
    "a boolean of 2": (
        b"\x80\x02" + _EMPTY + b"(K\x01K\x01\x85" + _BOOL + b"\x89U\x01\x02tb.",
        "holds values that are no bool",
    ),
    "a letter beyond Unicode": (
        b"\x80\x02" + _EMPTY + b"(K\x01K\x01\x85" + _TEXT + b"\x89U\x04\xff\xff\xff\x7ftb.",
        "holds values that are no <U1",
    ),
}


@pytest.mark.parametrize("name", sorted(_GREEDY))
def test_what_a_file_may_ask_for(tmp_path: Path, name: str):
    """Refused, and in no more memory than a few times the file."""
    data, said = _GREEDY[name]
    path = tmp_path / "greedy.pkl"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"greedy\.pkl: not a whole pickle file .*{said}"):
            unpickle.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23


def test_tuples_in_tuples_do_not_end_the_process(tmp_path: Path):
    """As a key they are hashed, which recurses in C: 200,000 overflow the usual stack."""
    path = tmp_path / "deep.pkl"
    path.write_bytes(b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.")
    assert "RecursionError" in loaded_apart(path)


def test_scan_passes_what_pickle_writes(tmp_path: Path):
    """Numbers, texts and memos of every length, of every protocol, and 300 of them."""
    content = [2**k for k in range(0, 300, 7)] + [-(2**70), 1.5, True, None, "é" * 300, b"x" * 300]
    content += [["a" * k, (k, {k: "b" * k})] for k in range(300)] + [{"s"}, frozenset("f")]
    for protocol in range(6):
        assert unpickle.load(files.save(tmp_path / "x.pkl", content, protocol)) == content


def test_structured_arrays_are_refused(tmp_path: Path):
    path = files.save(tmp_path / "x.pkl", np.zeros(2, [("a", "f4")]))
    with pytest.raises(InputError, match="not supported"):
        unpickle.load(path)


def test_missing_folder_empty(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.pkl: no such file"):
        unpickle.load(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="is a folder"):
        unpickle.load(tmp_path)
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(InputError, match=r"empty\.pkl: the file is empty"):
        unpickle.load(tmp_path / "empty.pkl")


_WHOLE = pickle.dumps({"train": {"x": np.arange(50.0), "id": ["a", "b"]}}, 4)


@settings(max_examples=25, deadline=None)
@given(end=st.integers(1, len(_WHOLE) - 1))
def test_truncated(tmp_path_factory, end: int):
    path = tmp_path_factory.getbasetemp() / "truncated.pkl"
    path.write_bytes(_WHOLE[:end])
    with pytest.raises(InputError, match=r"truncated\.pkl: not a whole pickle"):
        unpickle.load(path)


@settings(max_examples=25, deadline=None)
@given(data=st.one_of(st.binary(min_size=1, max_size=200), st.text(min_size=1).map(str.encode)))
def test_other_bytes_raise_nothing_else(tmp_path_factory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "noise.pkl"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        unpickle.load(path)


@pytest.mark.parametrize("data", [b"id,text\n1,a\n", b"\x80\x63.", b"\x80"])
def test_not_a_pickle(tmp_path: Path, data: bytes):
    path = tmp_path / "other.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"other\.pkl: not a whole pickle"):
        unpickle.load(path)
