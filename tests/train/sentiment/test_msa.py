"""`train.msa` from files to report, and the programs that use what it leaves."""

import csv
import json
import os
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from configs.msa import PRESETS
from corrkd_jax.data import masks
from corrkd_jax.errors import InputError
from tests.train.sentiment import tiny
from train import convert, evaluate, export
from train.engine.stage import looped, vectorized
from train.sentiment import corrkd, results
from train.sentiment import program as msa
from train.sentiment.inputs import load

# the run that all look at, and two more
pytestmark = pytest.mark.seconds(120)

ARMS = ("Teacher, zero-filled", "MRM + CE", "CorrKD")


@pytest.fixture(scope="module")
def evaluated(tiny_run, tmp_path_factory):
    """The run evaluated on its own file."""
    out = tmp_path_factory.mktemp("evaluation")
    evaluate.main([str(tiny_run.folder), "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def predictions(evaluated):
    with open(evaluated / "predictions.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "deep"
    export.main([str(tiny_run.folder), str(out)])
    return out


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def metrics_of(run):
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_the_folder_of_a_run(tiny_run):
    folder = tiny_run.folder
    for name in (
        "config.json",
        "metrics.jsonl",
        "timing.jsonl",
        "results.json",
        "report.md",
        "figures/missing_frames.png",
        "figures/training.png",
        "model",
        "checkpoints",
        "tensorboard",
    ):
        assert (folder / name).exists(), name
    config = read_json(folder / "config.json")
    assert (config["program"], config["preset"]) == ("msa", "mosi")
    assert config["optimizer"]["epochs"] == tiny.EPOCHS
    assert config["network"]["layers"] == 1
    rows = metrics_of(tiny_run)
    assert len(rows) == tiny.TEACHER_EPOCHS + 2 * tiny.EPOCHS
    assert {row["stage"] for row in rows} == {"teacher", "student"}


def test_what_was_cleaned_is_said_in_one_line_a_modality(tiny_run):
    lines = [line for line in tiny_run.output.splitlines() if "not finite" in line]
    # both files have the same test split
    teacher = [line for line in lines if f"the teacher's {tiny_run.files[1].name}: " in line]
    student = [line for line in lines if line not in teacher]
    for own in (student, teacher):
        for line, modality in zip(sorted(own), ("audio", "vision"), strict=True):
            assert str(tiny_run.files[0]) in line
            assert modality in line
    assert all(np.isfinite(row["train_total"]).all() for row in metrics_of(tiny_run))


def test_the_report_has_the_table(tiny_run):
    text = (tiny_run.folder / "report.md").read_text(encoding="utf-8")
    head = "| sentiment | l | a | v | la | lv | av | Avg | lav |"
    assert head in text
    values = read_json(tiny_run.folder / "results.json")
    for name in ARMS:
        f1 = values["rows"][name]["f1"]["sentiment"]
        cells = " | ".join(f"{100 * f1[c][0]:.2f}" for c in results.COLUMNS)
        assert f"| {name} | {cells} |" in text
    for number, floor in enumerate(values["constant_f1"][0]):
        cells = " | ".join([f"{100 * floor:.1f}"] * 8)
        assert f"| *always class {number}* | {cells} |" in text
    assert "| frames missing | 0.0 | 0.1 | 0.2 |" in text
    assert "paper: CorrKD" in text
    assert "not finite" in text
    assert head in tiny_run.output


def test_results_are_those_of_scikit_learn(tiny_run, predictions):
    values = read_json(tiny_run.folder / "results.json")
    assert len(predictions) == len(ARMS) * 7 * 40
    assert values["n"] == 40
    for name in ARMS:
        f1 = values["rows"][name]["f1"]["sentiment"]
        cells = {}
        for subset in masks.SUBSET_NAMES:
            rows = [r for r in predictions if (r["model"], r["subset"]) == (name, subset)]
            true = [int(r["true_class"]) for r in rows if r["counts"] == "1"]
            said = [int(r["predicted_class"]) for r in rows if r["counts"] == "1"]
            assert len(true) == 40
            cells[subset] = f1_score(true, said, average="weighted", zero_division=0)
            assert f1[subset] == pytest.approx([cells[subset]], abs=1e-6)
        incomplete = [cells[s] for s in masks.SUBSET_NAMES if s != "lav"]
        assert f1["Avg"] == pytest.approx([np.mean(incomplete)], abs=1e-6)
        accuracy = values["rows"][name]["accuracy_lav"]
        assert np.ravel(accuracy) == pytest.approx([accuracy_score(true, said)], abs=1e-6)
    floors = [
        f1_score(true, [k] * len(true), average="weighted", zero_division=0) for k in range(4)
    ]
    assert values["constant_f1"][0] == pytest.approx(floors, abs=1e-6)


def test_floors_of_the_legacy_order(tiny_run, tmp_path, capsys):
    """Truth and prediction swapped in scikit-learn's own F1, in the table and below it."""
    evaluate.main([str(tiny_run.folder), "--out", str(tmp_path), "--legacy-f1-order"])
    shown = capsys.readouterr().out.split("Legacy F1")[1]
    with open(tmp_path / "predictions.csv", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["model"], r["subset"]) == ("CorrKD", "lav")]
    true = [int(r["true_class"]) for r in rows]
    for k in range(4):
        floor = f1_score([k] * len(true), true, average="weighted", zero_division=0)
        assert f"*always class {k}* | {100 * floor:.1f} |" in shown
    said = [int(r["predicted_class"]) for r in rows]
    swapped = f1_score(said, true, average="weighted", zero_division=0)
    line = next(x for x in shown.splitlines() if x.startswith("| CorrKD |"))
    assert line.endswith(f"| {100 * swapped:.2f} |")


def emotions(path):
    """MulT's IEMOCAP layout, of every row one emotion, at three lengths."""
    random = np.random.default_rng(0)
    content = {}
    for split, n in (("train", 32), ("valid", 16), ("test", 20)):
        fields = {
            name: random.normal(size=(n, time, size)).astype(np.float32)
            for name, time, size in (("text", 4, 6), ("audio", 5, 3), ("vision", 6, 4))
        }
        of_row = np.arange(n)[:, None] % 4 == np.arange(4)
        content[split] = {**fields, "labels": np.eye(2)[of_row.astype(int)]}
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("mode", "heads"),
    [("classes", ("neutral", "happy", "sad", "angry")), ("single", ("emotion",))],
)
def test_emotions_from_file_to_table(tmp_path, mode, heads):
    """Four binary problems, or one of four classes; unaligned lengths."""
    path, out = tmp_path / "iemocap_data.pkl", tmp_path / "run"
    emotions(path)
    options = {"data__labels": mode, "network__layers": 0}
    options |= {"optimizer__epochs": 1, "optimizer__teacher_epochs": 1}
    argv = tiny.arguments((path, ""), out, **options)
    msa.main(["iemocap", *argv[1:]])
    evaluate.main([str(out)])
    report = (out / "report.md").read_text()
    floors = read_json(out / "results.json")["constant_f1"]
    assert np.shape(floors) == ((4, 2) if mode == "classes" else (1, 4))
    for head in heads:
        assert f"| {head} | l | a | v | la | lv | av | Avg | lav |" in report
    with open(out / "predictions.csv", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["model"], r["subset"]) == ("CorrKD", "lav")]
    assert len(rows) == 20 * len(heads)
    truth = [int(r["true_class"]) for r in rows if r["task"] == heads[-1]]
    assert truth == [i % 4 if mode == "single" else int(i % 4 == 3) for i in range(20)]


def test_predictions_are_labelled(predictions, tiny_files):
    test = pickle.loads(tiny_files[0].read_bytes())["test"]
    rows = [r for r in predictions if (r["model"], r["subset"]) == ("CorrKD", "lav")]
    assert [r["id"] for r in rows] == test["id"]
    assert [int(r["true_class"]) for r in rows] == list(test["classification_labels"])
    for row in predictions:
        p = [float(row[f"p{k}"]) for k in range(4)]
        assert sum(p) == pytest.approx(1, abs=3e-6)
        assert int(row["predicted_class"]) == np.argmax(p)
        assert row["seed"] == "1111"
        assert row["true_score"] == row["predicted_score"] == ""


def test_evaluation_gives_the_run_s_own_numbers(tiny_run, evaluated):
    assert read_json(evaluated / "evaluation.json") == read_json(tiny_run.folder / "results.json")
    page = (evaluated / "evaluation.md").read_text(encoding="utf-8")
    assert "| sentiment | l | a |" in page
    assert "* audio: 4 values not finite" in page


def test_conversion_and_the_valid_split(tiny_run, tmp_path):
    """The same rows from `.npz`; on `valid` the kept epochs score what training saw."""
    target = tmp_path / "small.npz"
    convert.main([str(tiny_run.files[0]), str(target)])
    config = PRESETS["planted"].data
    loaded = [
        load(type(config)(path=str(path), labels="classes"), jnp.float32)
        for path in (tiny_run.files[0], target)
    ]
    for name in ("train", "valid", "test"):
        a, b = (inputs.sets[name].take() for inputs in loaded)
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)

    options = ["--data.path", str(target), "--split", "valid", "--out", str(tmp_path)]
    evaluate.main([str(tiny_run.folder), *options])
    values = read_json(tmp_path / "evaluation.json")
    assert values["n"] == 32
    assert "split valid, 32 rows" in (tmp_path / "evaluation.md").read_text()
    metrics = metrics_of(tiny_run)
    best = max(r["valid_f1_lav"][0] for r in metrics if r["stage"] == "teacher")
    teacher = values["rows"][ARMS[0]]["f1"]["sentiment"]
    assert teacher["lav"] == pytest.approx([best], abs=1e-6)
    for arm in ARMS[1:]:
        f1 = values["rows"][arm]["f1"]["sentiment"]
        scores = [r["valid_score"][0] for r in metrics if r.get("arm") == arm]
        mean = np.mean([f1[s][0] for s in masks.SUBSET_NAMES])
        assert mean == pytest.approx(max(scores), abs=1e-6)


def test_export_gives_the_predictions(exported, predictions, tiny_files):
    model = jax.export.deserialize(bytearray((exported / "model.stablehlo").read_bytes()))
    test = pickle.loads(tiny_files[0].read_bytes())["test"]
    features = {m: test[m] for m in ("text", "audio", "vision")}
    assert not np.isfinite(features["audio"]).all()
    present = {m: np.ones(x.shape[:2], bool) for m, x in features.items()}
    for subset, rows in (("lav", 40), ("l", 40), ("av", 3)):
        kept = {m: present[m] & (m[0] in subset.replace("l", "t")) for m in features}
        kept = jax.tree.map(lambda x, rows=rows: x[:rows], kept)
        found = model.call(*jax.tree.map(lambda x, rows=rows: x[:rows], (features, present)), kept)
        wanted = [
            [float(r[f"p{k}"]) for k in range(4)]
            for r in predictions
            if (r["model"], r["subset"]) == ("CorrKD", subset)
        ][:rows]
        assert found.shape == (rows, 1, 4)
        np.testing.assert_allclose(found[:, 0], wanted, atol=3e-6)


def test_export_says_what_it_is(exported):
    metadata = read_json(exported / "metadata.json")
    assert metadata["method"] == "CorrKD"
    assert metadata["seed"] == 1111
    assert metadata["inputs"]["features"] == {
        "text": ["batch", 4, 12],
        "audio": ["batch", 4, 6],
        "vision": ["batch", 4, 8],
    }
    assert metadata["inputs"]["kept"]["audio"] == ["batch", 4]
    assert metadata["output"] == {"shape": ["batch", 1, 4], "is": "probabilities"}
    assert metadata["platforms"] == ["cpu", "cuda", "tpu"]
    assert metadata["network"]["features"] == 8
    assert "np.zeros((batch, 4, 12), np.float32)" in (exported / "README.md").read_text()


def test_export_readme_runs(exported, monkeypatch):
    """The program in the README, as it stands."""
    code = (exported / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(exported)
    names = {}
    exec(code, names)
    assert names["probabilities"].shape == (4, 1, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--arm", "GCNet"), "--arm GCNet: the run has teacher; MRM + CE; CorrKD"),
        (("--seed", "7"), "--seed 7: the run has seeds 1111 to 1111"),
        (("--seed", "1112"), "--seed 1112: the run has seeds 1111 to 1111"),
    ],
)
def test_export_refuses_what_the_run_does_not_have(tiny_run, tmp_path, options, words):
    refused(export.main, [tiny_run.folder, tmp_path / "out", *options], words)
    assert not (tmp_path / "out").exists()


def test_evaluation_masks_depend_on_the_sample_alone():
    """A forward that shows its input shows the masks: other model, order and block, same masks."""
    random = np.random.default_rng(0)
    n, frames = 11, 6
    rows = {
        "inputs": {m: np.ones((n, frames, 1), np.float32) for m in ("text", "audio", "vision")},
        "valid": {m: np.ones((n, frames), bool) for m in ("text", "audio", "vision")},
        "ids": random.integers(0, 2**32, (n, 2), dtype=np.uint32),
        "row": np.ones(n, np.float32),
    }

    def forward(params, inputs, valid):
        seen = jnp.concatenate([inputs[m][:, :, 0] for m in sorted(inputs)], axis=1)
        return params * seen[:, None, :]

    key = jax.random.key(corrkd.VALIDATION_KEY)
    one = jnp.ones(2) * jnp.array([1.0, 3.0])
    subsets, curve = results.predict(forward, one, rows, vectorized, 1, key, block=4)
    assert subsets.shape == (2, 7, n, 1, 3 * frames)
    assert curve.shape == (2, 11, n, 1, 3 * frames)
    np.testing.assert_array_equal(subsets[1], 3 * subsets[0])
    np.testing.assert_array_equal(curve[1], 3 * curve[0])
    assert curve[0, 0].all()
    assert not curve[0, -1].any()
    assert (np.diff(curve[0].sum(axis=(-1, -2)), axis=0) <= 0).all()
    order = random.permutation(n)
    shuffled = jax.tree.map(lambda x: x[order], rows)
    other = results.predict(forward, one, shuffled, looped, 1, key, block=256)
    np.testing.assert_array_equal(other[0], subsets[:, :, order])
    np.testing.assert_array_equal(other[1], curve[:, :, order])
    text = subsets[0, masks.SUBSET_NAMES.index("l"), :, 0].reshape(n, 3, frames)
    np.testing.assert_array_equal(text.any(axis=(0, 2)), [False, True, False])


def refused(main, argv, *words):
    """`main` stops with one line that holds all `words`."""
    with pytest.raises(InputError) as caught:
        main([str(word) for word in argv])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


class Touch:
    """A pickle that runs a command where it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def without(split, key):
    def change(content):
        del content[split][key]

    return change


def with_value(split, key, of):
    def change(content):
        content[split][key] = of(content[split][key])

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("train", "vision"), ("train", "no key 'vision'")),
        (without("valid", "classification_labels"), ("valid", "classification_labels")),
        (lambda content: content.pop("test"), ("no split 'test'",)),
        (with_value("train", "audio", lambda x: x[:-1]), ("train", "audio", "63 rows")),
        (with_value("train", "text", lambda x: x[:, :0]), ("train", "text", "T = 0")),
        (with_value("test", "audio", lambda x: x[:, :, :-1]), ("test", "audio", "5 features")),
        (
            with_value("train", "classification_labels", np.ones_like),
            ("train", "all labels"),
        ),
        (with_value("test", "classification_labels", lambda x: x + 3), ("test", "class 6")),
    ],
    ids=["modality", "labels", "split", "rows", "frames", "features", "one-class", "new-class"],
)
def test_bad_content_is_one_line(tiny_files, tmp_path, change, words):
    content = pickle.loads(tiny_files[0].read_bytes())
    change(content)
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(content))
    argv = tiny.arguments((path, tiny_files[1]), tmp_path / "run")
    refused(msa.main, argv, str(path), *words)
    assert not (tmp_path / "run").exists(), "the folder is free for the next attempt"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "bad.pkl"),
        (b"PK\x03\x04 not a zip", "bad.pkl"),
        (b"hello", "bad.pkl"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({"train": 1, "valid": 2, "test": 3}), "train, valid, test are"),
    ],
    ids=["empty", "half-zip", "text", "list", "numbers"],
)
def test_other_files_are_one_line(tiny_files, tmp_path, content, words):
    path = tmp_path / "bad.pkl"
    path.write_bytes(content)
    refused(msa.main, tiny.arguments((path, tiny_files[1]), tmp_path / "run"), str(path), words)


def test_missing_file_and_teacher_file_of_other_sizes(tiny_files, tmp_path):
    nowhere = tmp_path / "nowhere.pkl"
    refused(msa.main, tiny.arguments((nowhere, tiny_files[1]), tmp_path / "run"), str(nowhere))
    refused(msa.main, tiny.arguments((tiny_files[0], nowhere), tmp_path / "run"), str(nowhere))
    other = wider(tiny_files, tmp_path)
    argv = tiny.arguments((tiny_files[0], other), tmp_path / "run")
    refused(msa.main, argv, str(other), "vision has 9 features", "8")


def wider(tiny_files, folder):
    content = pickle.loads(tiny_files[1].read_bytes())
    for split in content.values():
        split["vision"] = np.concatenate([split["vision"], split["vision"][..., :1]], axis=2)
    path = folder / "wider.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def relabelled(tiny_files, folder, split, label):
    """The teacher's file with a class in one split that the run does not know."""
    content = pickle.loads(tiny_files[1].read_bytes())
    content[split]["classification_labels"][0] = label
    path = folder / "relabelled.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def test_classes_that_a_network_cannot_give(tiny_run, tiny_files, tmp_path):
    words = "test: class 6 occurs, but the network tells classes 0 to 3 apart"
    other = relabelled(tiny_files, tmp_path, "test", 6)
    refused(evaluate.main, [tiny_run.folder, "--data.path", other], str(other), words)
    other = relabelled(tiny_files, tmp_path, "train", 5)
    argv = tiny.arguments((tiny_files[0], other), tmp_path / "run")
    refused(msa.main, argv, str(other), "train: class 5 occurs")


@pytest.mark.parametrize("main", [evaluate.main, export.main], ids=["evaluate", "export"])
def test_results_cannot_go_into_a_file(tiny_run, tmp_path, main):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file"
    where = ["--out", out] if main is evaluate.main else [out]
    refused(main, [tiny_run.folder, *where], str(out), "cannot be made")


def test_malicious_pickle_is_not_executed(tiny_files, tmp_path):
    path, flag = tmp_path / "bad.pkl", tmp_path / "executed"
    path.write_bytes(pickle.dumps({"train": Touch(flag), "valid": {}, "test": {}}))
    refused(msa.main, tiny.arguments((path, tiny_files[1]), tmp_path / "run"), str(path), "system")
    assert not flag.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network__heads": 3}, ("--network.heads 3", "--network.features 8")),
        ({"network__heads": 0}, ("--network.heads 0", "positive")),
        ({"network__layers": -1}, ("--network.layers -1", "negative")),
        ({"seeds": 0}, ("--seeds 0", "positive")),
        ({"optimizer__epochs": 0}, ("--optimizer.epochs 0", "positive")),
        ({"optimizer__batch_size": -4}, ("--optimizer.batch-size -4", "positive")),
        ({"optimizer__learning_rate": "nan"}, ("--optimizer.learning-rate nan", "positive")),
        ({"optimizer__validate_every": 0}, ("--optimizer.validate-every 0", "positive")),
        ({"optimizer__teacher_epochs": -1}, ("--optimizer.teacher-epochs -1", "negative")),
        ({"network__relu_dropout": 1.0}, ("--network.relu-dropout 1.0", "below 1")),
        ({"network__head_dropout": -0.1}, ("--network.head-dropout -0.1", "at least 0")),
        ({"losses__statistics_hidden": 0}, ("--losses.statistics-hidden 0", "positive")),
        ({"losses__kd_temperature": 0}, ("--losses.kd-temperature 0", "positive")),
        ({"losses__dkd_temperature": -1}, ("--losses.dkd-temperature -1", "positive")),
        ({"first_seed": 3_000_000_000}, ("--first-seed 3000000000", "2147483647")),
        ({"data__planted_seed": -1}, ("--data.planted-seed -1", "negative")),
        ({"coordinator": "foo"}, ("--coordinator foo", "host:port")),
        ({"sweep": "nonsense"}, ("--sweep nonsense", "FIELD=V1,V2", "margin")),
        ({"sweep": "kl=1"}, ("--sweep kl=1", "margin")),
        ({"sweep": "margin=1,x"}, ("--sweep margin=1,x",)),
        ({"devices": 99}, ("--devices 99: there are 8",)),
        ({"devices": -1}, ("--devices -1",)),
        ({"devices": 3}, ("--optimizer.batch-size 16", "3 devices")),
        ({"devices": 2, "split": "seeds"}, ("--seeds 1", "2 devices")),
        ({"data__clip": 0}, ("clip",)),
        ({"data__labels": "seven", "data__path": "nowhere.pkl"}, ("nowhere.pkl",)),
        ({"data__word_vectors": "glove.txt"}, ("word_vectors",)),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_bad_options_are_one_line(tiny_files, tmp_path, changes, words):
    refused(msa.main, tiny.arguments(tiny_files, tmp_path / "run", **changes), *words)
    assert not (tmp_path / "run").exists()


def test_unknown_arm_and_preset(tiny_files, tmp_path):
    argv = tiny.arguments(tiny_files, tmp_path / "run")
    refused(msa.main, [*argv, "GCNet"], "--arms 'GCNet'", "'MRM + CE', 'MRM + CE + KL'")
    refused(msa.main, ["moci", *argv[1:]], "moci: no such preset", *PRESETS)


def test_folder_that_holds_a_run(tiny_run, tmp_path):
    refused(msa.main, tiny.arguments(tiny_run.files, tiny_run.folder), "holds a run already")
    argv = tiny.arguments(tiny_run.files, tiny_run.folder, seeds=2)
    refused(msa.main, [*argv, "--resume"], "seeds is 1 there, 2 here")


def test_evaluation_refuses_other_sizes(tiny_run, tmp_path):
    other = wider(tiny_run.files, tmp_path)
    refused(
        evaluate.main,
        [tiny_run.folder, "--data.path", other],
        str(other),
        "vision has 9 features",
        "8",
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, ("no config.json",)),
        ("{", ("config.json", "JSON")),
        ("[]", ("config.json", "was written by no program", "msa")),
        ('{"program": "caer"}', ("config.json", "was written by no program", "'caer'")),
        ('{"program": "msa"}', ("config.json", "preset")),
        ('{"program": "msa", "preset": "mosi", "colour": 1}', ("config.json", "colour is no")),
        (
            '{"program": "msa", "preset": "mosi", "data": {"colour": 1}}',
            ("config.json", "data", "colour is no"),
        ),
        ('{"program": "msa", "preset": "mosi", "data": 3}', ("config.json", "data")),
        ('{"program": "debias"}', ("config.json", "--debias")),
        ('{"program": "dfkd", "preset": "digits", "colour": 1}', ("config.json", "colour is no")),
    ],
)
@pytest.mark.parametrize("main", [evaluate.main, export.main], ids=["evaluate", "export"])
def test_folders_that_are_no_run(tmp_path, main, config, words):
    folder = tmp_path / "run"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    out = [tmp_path / "out"] if main is export.main else []
    refused(main, [folder, *out], str(folder), *words)


def test_run_that_is_not_finished(tiny_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(tiny_run.folder / "config.json", folder)
    refused(evaluate.main, [folder], str(folder), "--resume")


def test_programs_without_their_names():
    refused(evaluate.main, [], "which run?")
    refused(export.main, ["runs/mosi"], "where to?")
    refused(convert.main, ["file.pkl"], "where to?")
    refused(convert.main, ["file.pkl", "file.pkl"], ".npz")


def test_the_command_line(tmp_path):
    """Exit status and what the user sees, from outside."""
    bad = tiny.start("train.msa", "mosi", "--data.path", "nowhere.pkl", "--workdir", tmp_path / "r")
    guide = tiny.start("train.msa", "--help")
    output, errors = bad.communicate()
    assert bad.returncode == 2
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("error: nowhere.pkl:")
    output, errors = guide.communicate()
    assert guide.returncode == 0, errors
    for word in (*PRESETS, "--data.path", "--losses.margin", "--optimizer.epochs", "--resume"):
        assert word in output
    assert "Distance beyond which a negative pair" in output
