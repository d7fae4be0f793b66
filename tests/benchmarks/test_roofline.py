"""Costs read from the text of a program, against XLA's own analysis and against arithmetic."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks.roofline import Cost, Peak, Program, measure_peak

WEIGHTS, ROWS = jnp.ones((10, 64, 64)), jnp.ones((32, 64))
PRODUCT = 2 * 32 * 64 * 64


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def layers(weights, rows, unroll=1):
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), rows, weights, unroll=unroll)[0]


FUNCTIONS = {
    "product": (lambda x, w: x @ w, ROWS, WEIGHTS[0]),
    "batched product": (lambda x, w: x @ w, ROWS[None].repeat(10, 0), WEIGHTS),
    "sum of squares": (lambda x: jnp.sum(jax.nn.relu(x) ** 2), ROWS),
    "gradient": (jax.grad(lambda x, w: jnp.sum(jax.nn.softmax(x @ w) ** 2)), ROWS, WEIGHTS[0]),
    "slice": (lambda x: 2 * x[3:5], ROWS),
    "replaced row": (lambda x: x.at[3].set(0), ROWS),
    "convolution": (
        lambda x, k: lax.conv_general_dilated(
            x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        jnp.ones((4, 16, 16, 8)),
        jnp.ones((3, 3, 8, 16)),
    ),
    "unrolled loop": (lambda w, x: layers(w, x, unroll=True), WEIGHTS, ROWS),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_loops_it_is_what_xla_says(name):
    program = compiled(*FUNCTIONS[name])
    found, right = Program(program.as_text()).cost(), program.cost_analysis()
    # XLA counts a hyperbolic tangent elsewhere
    right_operations = right.get("flops", 0) + right.get("transcendentals", 0)
    assert found.operations == pytest.approx(right_operations, rel=5e-3)
    assert found.bytes == pytest.approx(right["bytes accessed"], rel=5e-3)


def test_a_loop_costs_its_turns():
    """XLA's own analysis has one of the ten."""
    looped = compiled(layers, WEIGHTS, ROWS)
    found = Program(looped.as_text()).cost()
    assert found.operations == pytest.approx(10 * PRODUCT, rel=0.02)
    assert looped.cost_analysis()["flops"] < 0.2 * found.operations


def test_turn_of_a_loop_is_found_by_its_count():
    """Among nested ones, with all that is in it."""

    def epochs(weights, rows):
        return lax.fori_loop(0, 7, lambda _, x: layers(weights, x), rows)

    program = Program(compiled(epochs, WEIGHTS, ROWS).as_text())
    assert program.turn(7).operations == pytest.approx(10 * PRODUCT, rel=0.02)
    assert program.turn(10).operations == pytest.approx(PRODUCT, rel=0.02)
    assert program.turn(10).bytes < program.turn(7).bytes / 9
    assert program.turn(5) is None


def test_a_choice_costs_its_dearer_branch():
    def either(flag, x, w):
        return lax.cond(flag, lambda: x @ w, lambda: x)

    program = Program(compiled(either, True, ROWS, WEIGHTS[0]).as_text())
    assert program.cost().operations == pytest.approx(PRODUCT, rel=0.02)


GEMM = """HloModule jit_product

ENTRY %main.3 (x: bf16[4,32,64], y: bf16[4,64,16]) -> bf16[4,32,16] {
  %x = bf16[4,32,64]{2,1,0} parameter(0), metadata={op_name="x"}
  %y = bf16[4,64,16]{2,1,0} parameter(1), metadata={op_name="y"}
  %custom-call.1 = (bf16[4,32,16]{2,1,0}, s8[33554432]{0}) custom-call(%x, %y), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],\
"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]}}}
  ROOT %get-tuple-element = bf16[4,32,16]{2,1,0} get-tuple-element(%custom-call.1), index=0
}
"""


def test_product_by_a_vendors_kernel():
    """Which XLA counts as no operations; its room to work in is not what it moves."""
    found = Program(GEMM).cost()
    assert found == Cost(2 * 4 * 32 * 64 * 16, 2 * 4 * (32 * 64 + 64 * 16 + 32 * 16))


def test_least_time_is_of_what_takes_longer():
    peak = Peak(operations=100.0, bytes=10.0)
    assert peak.seconds(Cost(200, 10)) == 2
    assert peak.seconds(Cost(200, 50)) == 5


def test_peak_is_measured():
    peak = measure_peak(jnp.float32, 64, 1, rounds=2)
    assert peak.operations > 1e6
    assert peak.bytes > 1e6
