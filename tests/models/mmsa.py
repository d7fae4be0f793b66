"""Model classes of the MMSA package as oracles, without the package's own dependencies."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = "mmsa_oracle"


def load(name: str) -> ModuleType:
    """A module of MMSA's, such as `models.singleTask.TFN`, or a skip where it is not installed.

    The packages' own `__init__` files import everything that MMSA can do, with all that it
    depends on; empty packages of the same paths stand in for them.
    """
    pytest.importorskip("torch")
    spec = importlib.util.find_spec("MMSA")
    if spec is None or spec.origin is None:
        pytest.skip("MMSA is not installed (pip install --no-deps MMSA==2.2.1)")
    folder = Path(spec.origin).parent
    if "transformers" not in sys.modules and importlib.util.find_spec("transformers") is None:
        bert = "transformers.models.bert.modeling_bert"
        used = {
            "transformers": (
                *("BertModel", "BertConfig", "BertTokenizer", "RobertaModel", "RobertaTokenizer"),
                "BertPreTrainedModel",
            ),
            "transformers.models": (),
            "transformers.models.bert": (),
            bert: ("BertEmbeddings", "BertEncoder", "BertPooler"),
        }
        for module, names in used.items():
            stub = types.ModuleType(module)
            for unused in names:
                setattr(stub, unused, object)
            sys.modules[module] = stub
    parts = name.split(".")
    for depth in range(len(parts)):
        package = ".".join([_ROOT, *parts[:depth]])
        if package not in sys.modules:
            module = types.ModuleType(package)
            module.__path__ = [str(folder.joinpath(*parts[:depth]))]
            sys.modules[package] = module
    # subNets is imported as a whole by the models and needs nothing unusual
    importlib.import_module(f"{_ROOT}.models.subNets") if parts[0] == "models" else None
    return importlib.import_module(f"{_ROOT}.{name}")
