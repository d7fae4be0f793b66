"""What a program loads before it is asked to do anything."""

import json
import subprocess
import sys

LATE = ("imageio_ffmpeg", "tensorboardX", "matplotlib", "torch", "grain", "sklearn")
"""Needed by some commands only, slow to load, or not there on a machine that only measures."""

MODULES = (
    "train.command",
    "train.sentiment.program",
    "train.sentiment.convert",
    "train.sentiment.debiasing.program",
    "train.images.convert",
    "train.control.program",
    "train.control.film.render",
    "train.control.ppo",
    "train.control.robots",
    "train.datafree.program",
    "train.sentiment.corrkd",
    "train.sentiment.debiasing.counterfactual",
    "train.sentiment.debiasing.models",
    "benchmarks.accelerator",
    "benchmarks.roofline",
    "benchmarks.msa",
    "benchmarks.quadruped",
    "benchmarks.dfkd",
    "benchmarks.debias",
    "benchmarks.kills",
)

PROBE = """
import importlib, json, sys
modules, late = json.loads(sys.argv[1])
loaded = {}
for name in modules:
    importlib.import_module(name)
    loaded[name] = [package for package in late if package in sys.modules]
    for package in loaded[name]:
        sys.modules.pop(package)  # so that only the module that loads it is named
print(json.dumps(loaded))
"""


def test_doors_and_benchmarks_load_no_extra():
    words = [sys.executable, "-c", PROBE, json.dumps([MODULES, LATE])]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    loaded = json.loads(said.splitlines()[-1])
    assert loaded == {name: [] for name in MODULES}
