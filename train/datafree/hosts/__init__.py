"""Data-free methods, one file each: where a student's images come from."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from configs.dfkd import DfkdConfig
from corrkd_jax.errors import InputError
from corrkd_jax.models.generators import DeepGenerator, Generator, TransposedGenerator
from train.datafree.hosts import cmi, deepinv, dfnd, fast, mosaic, online
from train.datafree.hosts.host import Host
from train.datafree.hosts.networks import Networks


def build(config: DfkdConfig, networks: Networks, steps: int, places: int) -> Host:
    """The host of a configuration.

    Args:
        config: of the run.
        networks: whose answers it asks for.
        steps: of the engine in the whole run.
        places: for images, of hosts that keep them.
    """
    makers: dict[str, Callable[[], Host]] = {
        "deepinv": partial(deepinv.host, config, networks),
        "fast": partial(fast.host, config, networks),
        "cmi": partial(cmi.host, config, networks),
        "dafl": partial(online.host, config, networks),
        "zskt": partial(online.host, config, networks),
        "dfq": partial(online.host, config, networks),
        "dfad": partial(online.host, config, networks, by_logits=True),
        "mosaic": partial(mosaic.host, config, networks, steps),
        "dfnd": partial(dfnd.host, config, places),
    }
    return makers[config.host]()


def build_generator(
    config: DfkdConfig, side: int, channels: int, axis_name: str | None, dtype: Any
) -> tuple[nn.Module | None, tuple[int, ...]]:
    """The host's generator for images of a size, and the shape of its latents.

    Raises:
        InputError: no generator makes images of this size.
    """
    settings = config.synthesis
    shared = {"channels": channels, "axis_name": axis_name, "dtype": dtype}
    if not config.method.has_generator:
        return None, ()
    if settings.tanh and side >= 64:
        raise InputError(
            f"--synthesis.tanh: the generator of images of {side} pixels ends in a sigmoid; add "
            "--synthesis.no-tanh"
        )
    if side >= 128 and side % 16 == 0:
        return DeepGenerator(**shared), (side // 16, side // 16, settings.latent)
    if side >= 64 and side % 16 == 0:
        return TransposedGenerator(side, **shared), (settings.latent,)
    if side % 4 == 0:
        form = {"normalized": settings.tanh, "bias": settings.tanh, "epsilon": settings.epsilon}
        return Generator(side, widths=settings.widths, **form, **shared), (settings.latent,)
    raise InputError(f"--host {config.host}: makes images of sides of 4, 8, 12, ..., not {side}")
