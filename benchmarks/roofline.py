"""Operations and bytes of a compiled program, and how fast a device does either.

XLA's own cost analysis counts the body of a loop once, however often it turns, and the operations
of a vendor's matrix kernel not at all. So the text of the compiled program is read here: the cost
of a loop is that of its body times the turns that the compiler knows, a fusion reads its operands
and writes its result once, and a slice of an operand costs the slice.
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

_ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_GEMM_BATCH = re.compile(r'"lhs_batch_dimensions":\[([^\]]*)\]')

_PLACES = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "bitcast"))
_FREE = _PLACES | {"after-all", "opt-barrier", "partition-id", "replica-id", "iota"}
_CALLS = frozenset(("call", "async-start", "while", "conditional", "fusion"))
_SLICES = frozenset(("slice", "dynamic-slice", "gather"))
_COPIES = frozenset(("copy", "copy-start", "transpose", "reshape", "broadcast", "reverse"))
_JOINS = frozenset(("concatenate", "pad", "dynamic-update-slice", "sort", "rng-bit-generator"))
_MOVES = _SLICES | _COPIES | _JOINS | {"convert", "bitcast-convert"}


class Cost(NamedTuple):
    """Arithmetic operations, a multiplication and an addition being two, and bytes moved."""

    operations: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.operations + other.operations, self.bytes + other.bytes)

    def times(self, count: int) -> "Cost":
        """The cost of so many turns."""
        return Cost(count * self.operations, count * self.bytes)


class Peak(NamedTuple):
    """What a device was seen to do: operations a second, and bytes a second."""

    operations: float
    bytes: float

    def seconds(self, cost: Cost) -> float:
        """Least time of a program: the roofline."""
        return max(cost.operations / self.operations, cost.bytes / self.bytes)


@dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @cached_property
    def bytes(self) -> float:
        return sum(math.prod(dims) * size for dims, size in _arrays(self.shape))

    @cached_property
    def elements(self) -> int:
        return sum(math.prod(dims) for dims, _ in _arrays(self.shape))


@dataclass
class _Computation:
    instructions: dict[str, _Instruction] = field(default_factory=dict)
    root: str = ""


class Program:
    """A compiled program, read from the text of its module."""

    def __init__(self, text: str):
        """Read a compiled program.

        Args:
            text: `jax.stages.Compiled.as_text()`.
        """
        self._computations, self._entry = _read(text)
        self._costs: dict[str, Cost] = {}

    @property
    def instructions(self) -> int:
        """How many there are, in fusions and out of them."""
        return sum(len(x.instructions) for x in self._computations.values())

    def cost(self) -> Cost:
        """One run; a loop whose turns the compiler does not know counts once."""
        return self._of(self._entry)

    def turn(self, turns: int) -> Cost | None:
        """One turn of the costliest loop of so many turns; None where there is no such loop."""
        bodies = [
            self._of(_called(one, "body")) + self._of(_called(one, "condition"))
            for computation in self._computations.values()
            for one in computation.instructions.values()
            if one.opcode == "while" and _turns(one) == turns
        ]
        return max(bodies, key=lambda cost: cost.bytes, default=None)

    def _of(self, name: str) -> Cost:
        if name not in self._costs:
            computation = self._computations[name]
            self._costs[name] = sum(
                (self._of_one(one, computation) for one in computation.instructions.values()),
                Cost(),
            )
        return self._costs[name]

    def _of_one(self, one: _Instruction, computation: _Computation) -> Cost:
        if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
            return Cost()
        if one.opcode == "while":
            body, condition = self._of(_called(one, "body")), self._of(_called(one, "condition"))
            return (body + condition).times(_turns(one) or 1)
        if one.opcode == "conditional":
            return max((self._of(name) for name in _branches(one)), key=lambda cost: cost.bytes)
        if one.opcode == "fusion":
            inside = self._computations[_called(one, "calls")]
            return Cost(self._operations(inside), _fusion_bytes(inside))
        if one.opcode in _CALLS:
            return sum((self._of(name) for name in _CALLED.findall(one.attributes)), Cost())
        return Cost(_operations(one, computation), _bytes(one, computation))

    def _operations(self, inside: _Computation) -> float:
        total = 0.0
        for one in inside.instructions.values():
            if one.opcode == "fusion":
                total += self._operations(self._computations[_called(one, "calls")])
            else:
                total += _operations(one, inside)
        return total


def _read(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head[2]] = _Computation()
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (start := _LINE.match(line.strip())):
            one = _instruction(start[2], line.strip()[start.end() :])
            current.instructions[one.name] = one
            current.root = one.name if start[1] else current.root
    return computations, entry


def _instruction(name: str, rest: str) -> _Instruction:
    """`SHAPE opcode(OPERANDS), ATTRIBUTES`, each part balanced in its brackets."""
    cut = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:cut], rest[cut:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    operands = re.findall(r"%([\w.\-]+)", rest[opening:closing])
    return _Instruction(name, shape, rest[:opening], tuple(operands), rest[closing + 1 :])


def _closing(text: str, start: int) -> int:
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if not depth:
            return at
    raise ValueError(f"no closing bracket in {text[:80]}")


def _arrays(shape: str) -> list[tuple[list[int], float]]:
    return [
        ([int(x) for x in dims.split(",") if x], _size(kind))
        for kind, dims in _ARRAY.findall(shape)
    ]


def _size(kind: str) -> float:
    if kind == "token":
        return 0
    if kind == "pred":
        return 1
    return int(re.search(r"\d+", kind)[0]) / 8


def _called(one: _Instruction, role: str) -> str:
    return re.search(rf"\b{role}=%?([\w.\-]+)", one.attributes)[1]


def _branches(one: _Instruction) -> list[str]:
    if found := _BRANCHES.search(one.attributes):
        return [name.strip().lstrip("%") for name in found[1].split(",")]
    return _CALLED.findall(one.attributes)


def _turns(one: _Instruction) -> int | None:
    found = _TURNS.search(one.attributes)
    return int(found[1]) if found else None


def _operations(one: _Instruction, computation: _Computation) -> float:
    if one.opcode in _FREE or one.opcode in _CALLS or one.opcode in _MOVES:
        return 0.0
    operands = [computation.instructions[x] for x in one.operands if x in computation.instructions]
    if one.opcode == "dot":
        (dims, _), *_ = _arrays(operands[0].shape)
        contracted = [int(x) for x in _CONTRACTED.search(one.attributes)[1].split(",") if x]
        return 2.0 * one.elements * math.prod(dims[x] for x in contracted)
    if one.opcode == "convolution":
        # each output sums over a window of all input features of the kernel
        kernel = _arrays(operands[1].shape)[0][0]
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)[1]
        return 2.0 * one.elements * math.prod(kernel) / kernel[labels.index("o")]
    if one.opcode == "custom-call":
        return _gemm(one, operands) if _is_gemm(one) else 0.0
    if one.opcode in ("reduce", "reduce-window"):
        return float(sum(x.elements for x in operands[: len(operands) // 2]))
    return float(one.elements)


def _is_gemm(one: _Instruction) -> bool:
    return bool(re.search(r'custom_call_target="[^"]*(gemm|matmul)', one.attributes))


def _gemm(one: _Instruction, operands: list[_Instruction]) -> float:
    """A matrix product by a vendor's kernel: `[b, m, k]` and `[b, k, n]` give `[b, m, n]`."""
    left, right = (_arrays(x.shape)[0][0] for x in operands[:2])
    out = _arrays(one.shape)[0][0]
    found = _GEMM_BATCH.search(one.attributes)
    dims = [int(x.strip('" ')) for x in found[1].split(",") if x.strip()] if found else []
    batch = math.prod(left[x] for x in dims)
    return 2.0 * math.sqrt(math.prod(left) * math.prod(right) * math.prod(out) / batch)


def _bytes(one: _Instruction, computation: _Computation) -> float:
    operands = [computation.instructions[x] for x in one.operands if x in computation.instructions]
    if one.opcode in _SLICES:
        return 2 * one.bytes
    if one.opcode == "dynamic-update-slice":
        return 2 * operands[1].bytes
    written = one.bytes
    if _is_gemm(one):
        dims, size = _arrays(one.shape)[0]  # what follows is room to work in
        written = math.prod(dims) * size
    return written + sum(x.bytes for x in operands)


def _fusion_bytes(inside: _Computation) -> float:
    """What a fusion reads of each operand, and what it writes."""
    users: dict[str, list[_Instruction]] = {}
    for one in inside.instructions.values():
        for operand in one.operands:
            users.setdefault(operand, []).append(one)
    total = 0.0
    for one in inside.instructions.values():
        if one.opcode == "parameter":
            total += min(
                one.bytes, sum(_read_by(one.name, user) for user in users.get(one.name, []))
            )
    return total + _written(inside.instructions[inside.root], inside)


def _read_by(name: str, user: _Instruction) -> float:
    if user.opcode in _SLICES and user.operands[0] == name:
        return user.bytes
    if user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        return 0.0  # in place: what is not replaced is not touched
    return math.inf


def _written(root: _Instruction, inside: _Computation) -> float:
    if root.opcode == "tuple":
        return sum(_written(inside.instructions[name], inside) for name in root.operands)
    if root.opcode == "bitcast" and root.operands[0] in inside.instructions:
        return _written(inside.instructions[root.operands[0]], inside)
    if root.opcode == "dynamic-update-slice":
        return inside.instructions[root.operands[1]].bytes
    return root.bytes


def measure_peak(dtype: Any, side: int, megabytes: int, rounds: int = 5) -> Peak:
    """Operations a second of a large matrix product and bytes a second of a large copy.

    Args:
        dtype: of the product's factors.
        side: of its square factors.
        megabytes: of the array that is copied.
        rounds: times that either is done; the fastest counts.
    """
    import jax
    import jax.numpy as jnp

    factors = [jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2)]
    array = jnp.zeros(megabytes * 250_000, jnp.float32)
    product = jax.jit(lambda a, b: a @ b)
    # an addition, for a plain copy may be done without touching the memory
    copy = jax.jit(lambda x: x + 1)
    return Peak(
        2 * side**3 / _fastest(lambda: product(*factors), rounds),
        2 * array.nbytes / _fastest(lambda: copy(array), rounds),
    )


def _fastest(call: Callable[[], Any], rounds: int) -> float:
    import jax

    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)
