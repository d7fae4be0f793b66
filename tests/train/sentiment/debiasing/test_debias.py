"""Base models with and without de-biasing: planted effects, every model, bad input."""

import csv
import json
import pickle
import shutil

import jax
import jax.export
import numpy as np
import pytest

from configs.debias import DebiasConfig, presets
from corrkd_jax.data import msa as files
from corrkd_jax.data import planted_bias, planted_subjects
from corrkd_jax.data.subjects import all_subject_names
from corrkd_jax.errors import InputError
from tests.data import files as data_files
from train import evaluate, export
from train.engine import cli
from train.engine.workdir import Workdir
from train.sentiment import program as msa
from train.sentiment.debiasing import program as debias
from train.sentiment.debiasing.arms import OWN
from train.sentiment.debiasing.counterfactual import BOTH, CONTEXT, LABEL, VANILLA
from train.sentiment.debiasing.models import MODELS

# a whole run of every base model
pytestmark = pytest.mark.seconds(100)


def run(folder, *options):
    """Figures of a run of the program."""
    msa.main([*options, "--workdir", str(folder), "--devices", "1"])
    assert (folder / "report.md").exists()
    assert (folder / "figures" / "accuracy.png").stat().st_size > 10_000
    return json.loads((folder / "results.json").read_text())


def gain(figures, row, base, split, task="main"):
    """Mean paired difference of accuracy in points."""
    accuracy = [np.asarray(figures[task][r][split]["accuracy"]) for r in (row, base)]
    assert accuracy[0].shape == (5,)
    return 100 * (accuracy[0] - accuracy[1]).mean()


def test_planted_label_and_context_bias(tmp_path):
    """Section 9's margins, five seeds, the loss where the test leans as training, the control."""
    figures = run(tmp_path / "run", "--model", "pooled", "--debias", "mcis")
    assert gain(figures, BOTH, VANILLA, "test") >= 8
    assert gain(figures, BOTH, VANILLA, "test_reversed") >= 25
    assert gain(figures, BOTH, CONTEXT, "test") >= -1
    assert gain(figures, BOTH, VANILLA, "test_iid") < 0
    assert -1.5 <= gain(figures, BOTH, VANILLA, "test", "control-no-bias") <= 3.5
    context = np.asarray(figures["main"][BOTH]["coefficients"])[:, 1]
    assert 0.5 <= context.mean() <= 1.3
    biased = "MCIS, searched on biased validation"
    assert gain(figures, biased, VANILLA, "test") < gain(figures, BOTH, VANILLA, "test") / 2


def test_planted_subjects(tmp_path):
    """The adjustment helps new subjects, the letter does not, the control shows nothing."""
    figures = run(tmp_path / "run", "--model", "pooled", "--debias", "suci")
    assert gain(figures, OWN, "Pooled", "test") >= 2
    assert gain(figures, OWN, "Pooled", "test_reversed") >= 10
    assert gain(figures, OWN, "Pooled", "test_seen") < 0
    for split in ("test", "test_reversed"):
        assert gain(figures, "SuCI, dot", "Pooled", split) <= 1.5
    control = gain(figures, OWN, "Pooled", "test", "control-no-confounder")
    assert -2 <= control <= 2


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """24 / 12 / 12 samples of four words, with scores, several videos, no video in two splits."""
    content = {}
    for number, (name, n) in enumerate((("train", 24), ("valid", 12), ("test", 12))):
        split = planted_bias.generate(number, planted_bias.BIASED, n, number)
        for modality in ("text", "audio", "vision"):
            split[modality] = split[modality][:, :4, :6]
        split["raw_text"] = [" ".join(t.split(" ")[:4]) for t in split["raw_text"]]
        split["id"] = [f"{name}{i // 4}$_${i}" for i in range(n)]
        split["regression_labels"] = np.linspace(-2, 2, n).astype(np.float32)
        content[name] = split
    path = tmp_path_factory.mktemp("small") / "small.pkl"
    path.write_bytes(pickle.dumps(content))
    return path, content


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_trains(small_file, tmp_path, model):
    """Regression; MCIS or SuCI in turn; finite figures, which an evaluation of scores has."""
    method = "suci" if model in ("mult", "self_mm") else "mcis"
    figures = run(
        tmp_path / "run",
        *("mosi", "--data.path", str(small_file[0]), "--model", model, "--debias", method),
        *("--small", "--optimizer.epochs", "2", "--optimizer.batch-size", "8"),
    )["main"]
    for row in figures.values():
        assert np.isfinite(row["test"]["sentiment"]["mae"]).all()
        assert 0 <= row["test"]["accuracy"][0] <= 1
    rows = {"mcis": {VANILLA, LABEL, CONTEXT, BOTH}, "suci": {"SuCI, dot", OWN}}
    assert rows[method] <= set(figures)


@pytest.mark.parametrize(("model", "method"), [("tfn", "mcis"), ("pooled", "suci")])
def test_finished_run_comes_back_without_its_training_data(small_file, tmp_path, model, method):
    """Evaluation gives the report's table on a file whose training split is another, and the
    exported function gives the evaluation's outputs."""
    folder, words = tmp_path / "run", small_file[1]["test"]["raw_text"]
    (tmp_path / "lexicon.txt").write_text(
        "\n".join(sorted({w for t in words for w in t.split()})[::2])
    )
    given = ("--model", model, "--debias", method, "--small", "--optimizer.epochs", "2")
    # several seeds compile longer: one of the two is enough to tell them apart
    seeds = {"mcis": 1, "suci": 2}[method]
    given += ("--seeds", str(seeds))
    if method == "mcis":
        given += ("--mcis.lexicon", str(tmp_path / "lexicon.txt"))
    figures = run(folder, "mosi", "--data.path", str(small_file[0]), *given)["main"]

    content = {name: dict(split) for name, split in small_file[1].items()}
    for modality in ("text", "audio", "vision"):
        content["train"][modality] = 7 - 3 * content["train"][modality]
    content["train"]["id"] = [f"other$_${i}" for i in range(24)]
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps(content))
    evaluate.main([str(folder), "--data.path", str(other), "--out", str(tmp_path / "found")])
    found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    for page in (folder / "report.md", tmp_path / "found" / "evaluation.md"):
        # what is said of the file
        assert "* labels: classification_labels are not in the order of" in page.read_text()
    assert found.keys() == figures.keys()
    for row, own in figures.items():
        for name, value in own["test"]["sentiment"].items():
            np.testing.assert_allclose(found[row]["test"]["sentiment"][name], value, rtol=1e-4)

    row = BOTH if method == "mcis" else OWN
    lines = list(csv.DictReader((tmp_path / "found" / "predictions.csv").open()))
    last = str(1110 + seeds)
    expected = [
        float(line["o0"]) for line in lines if line["model"] == row and line["seed"] == last
    ]
    export.main([str(folder), str(tmp_path / "out"), "--seed", last])
    called = jax.export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes()))
    raw = files.read(other).test
    arguments = [dict(raw.features), dict(raw.valid)]
    if method == "mcis":
        known = set((tmp_path / "lexicon.txt").read_text().split())
        arguments.append(np.array([[w in known for w in t.split()] for t in words]))
    np.testing.assert_allclose(called.call(*arguments)[:, 0], expected, rtol=1e-3, atol=1e-4)
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["method"] == row
    with pytest.raises(InputError, match="the run has"):
        export.main([str(folder), str(tmp_path / "out"), "--arm", "no such"])


def test_interrupted_run_continues_bit_for_bit(small_file, tmp_path, monkeypatch):
    """A run that lost what came after its first epochs ends with the same figures."""
    given = ("mosi", "--data.path", str(small_file[0]), "--model", "pooled", "--debias", "suci")
    given += (
        "--small",
        "--optimizer.epochs",
        "3",
        "--optimizer.batch-size",
        "8",
        "--save-every",
        "0",
    )
    whole = run(tmp_path / "run", *given)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["1", "3"]
    shutil.rmtree(checkpoints / "3")
    for name in ("results.json", "report.md"):
        (tmp_path / "run" / name).unlink()
    saved = []
    save = Workdir.save

    def noted(workdir, epoch, *more):
        saved.append(epoch)
        save(workdir, epoch, *more)

    monkeypatch.setattr(Workdir, "save", noted)
    assert run(tmp_path / "run", *given, "--resume") == whole
    # one from the start would end alike, and save its first epoch again
    assert min(saved) > 1


def test_coefficients_do_not_see_the_test_split(small_file, tmp_path):
    """Other rows under other labels in test leave every coefficient as it was."""
    path, content = small_file
    other = {name: dict(split) for name, split in content.items()}
    for name in ("regression_labels", "classification_labels"):
        other["test"][name] = other["test"][name][::-1]
    for modality in ("text", "audio", "vision"):
        other["test"][modality] = -other["test"][modality]
    changed = tmp_path / "changed.pkl"
    changed.write_bytes(pickle.dumps(other))
    words = {w for split in content.values() for t in split["raw_text"] for w in t.split()}
    (tmp_path / "lexicon.txt").write_text("\n".join(sorted(words)[::2]))
    given = ("--model", "pooled", "--debias", "mcis", "--small", "--optimizer.epochs", "2")
    given += ("--mcis.lexicon", str(tmp_path / "lexicon.txt"), "--mcis.objective", "neg_mae")
    found = [
        run(tmp_path / name, "mosi", "--data.path", str(file), *given)["main"]
        for name, file in (("one", path), ("two", changed))
    ]
    for row in (LABEL, CONTEXT, BOTH):
        own, others = (figures[row]["coefficients"] for figures in found)
        assert np.any(own)
        assert own == others
    assert found[0][BOTH]["test"] != found[1][BOTH]["test"]


def loaded_by(path, *options):
    """Data and number of strata of a command line."""
    argv = ("mosi", "--data.path", str(path), "--debias", "suci", *options)
    return debias.load(cli.parse(argv, "x", "x", presets("suci"))[1])


class TestSubjectSplits:
    """Splits by subject that the command line asks for."""

    def test_leave_out(self, small_file):
        loaded, strata = loaded_by(small_file[0], "--data.leave-out", "train1, valid0,test2")
        names = all_subject_names(loaded.dataset)
        assert set(names["test"]) == {"train1", "valid0", "test2"}
        # nine subjects of as many rows are left, dealt into five folds
        assert len(set(names["valid"])) == 1
        assert strata == len(set(names["train"])) == 8
        assert not set(names["train"]) & set(names["valid"])
        said = "test 12 rows of 3 (test2, train1, valid0)"
        assert any(said in note for note in loaded.dataset.notes)
        chosen = ("--data.leave-out", "train1", "--data.validate-on", "train0,test0")
        loaded, strata = loaded_by(small_file[0], *chosen)
        names = all_subject_names(loaded.dataset)
        assert (set(names["test"]), set(names["valid"])) == ({"train1"}, {"train0", "test0"})
        assert strata == 9

    def test_folds(self, small_file):
        tested = []
        for fold in ("1", "2", "3", "4"):
            loaded, _ = loaded_by(small_file[0], "--data.folds", "4", "--data.fold", fold)
            names = {name: set(of) for name, of in all_subject_names(loaded.dataset).items()}
            assert not names["test"] & names["valid"]
            assert not names["train"] & (names["test"] | names["valid"])
            tested.append(names["test"])
        assert len(set.union(*tested)) == sum(map(len, tested)) == 12

    def test_clusters_are_those_of_training(self, small_file, tmp_path):
        content = {name: dict(split) for name, split in small_file[1].items()}
        content["test"]["audio"] = content["test"]["audio"] + 50
        other = tmp_path / "other.pkl"
        other.write_bytes(pickle.dumps(content))
        found = [
            loaded_by(path, "--data.clusters", "3", "--data.no-scale")[0].sets["train"].take()
            for path in (small_file[0], other)
        ]
        assert len(set(found[0]["subject"])) == 3
        np.testing.assert_array_equal(found[0]["subject"], found[1]["subject"])

    def test_mustard_and_ur_funny(self, tmp_path):
        """The readers' own splits, and MUStARD by speaker whatever the show."""
        folder = data_files.mustard(tmp_path / "mustard")
        classes = ("--data.labels", "classes")
        loaded, strata = loaded_by(folder, *classes)
        names = all_subject_names(loaded.dataset)
        assert (len(names["test"]), strata) == (6, 3)
        with pytest.raises(InputError, match="is in both train and test"):
            loaded_by(folder, *classes, "--data.fold", "2")
        loaded, _ = loaded_by(folder, *classes, "--data.leave-out", "BBT-SHELDON")
        assert set(all_subject_names(loaded.dataset)["test"]) == {"BBT-SHELDON"}
        fun = data_files.folder_of(tmp_path / "fun", data_files.ur_funny())
        clusters = ("--data.clusters", "2")
        punchlines, _ = loaded_by(fun, *classes, *clusters)
        whole, _ = loaded_by(fun, *classes, *clusters, "--data.context")
        lengths = [x.dataset.test.valid["text"].sum() for x in (punchlines, whole)]
        assert lengths[1] > lengths[0]

    def test_evaluation_of_another_file_takes_its_own_splits(self, small_file, tmp_path):
        given = ("--model", "pooled", "--debias", "suci", "--optimizer.epochs", "1", "--small")
        run(
            tmp_path / "run",
            *("mosi", "--data.path", str(small_file[0]), *given, "--data.leave-out", "train0"),
        )
        found = tmp_path / "found"
        other = shutil.copy(small_file[0], tmp_path / "other.pkl")
        for path, rows in (("", 4), (str(other), 12)):
            path = ["--data.path", path] if path else []
            evaluate.main([str(tmp_path / "run"), *path, "--out", str(found)])
            ids = {line["id"] for line in csv.DictReader((found / "predictions.csv").open())}
            assert len(ids) == rows


def refused(tmp_path, *options):
    with pytest.raises(InputError) as error:
        msa.main([*options, "--workdir", str(tmp_path / "run"), "--devices", "1"])
    message = str(error.value)
    assert "\n" not in message
    assert not (tmp_path / "run" / "config.json").exists()
    return message


class TestBadInput:
    def write(self, tmp_path, content, **changes):
        path = tmp_path / "file.pkl"
        changed = {name: {**split, **changes.get(name, {})} for name, split in content.items()}
        path.write_bytes(pickle.dumps(changed))
        return str(path)

    def test_no_words(self, tmp_path, small_file):
        content = {
            name: {k: v for k, v in split.items() if k != "raw_text"}
            for name, split in small_file[1].items()
        }
        path = self.write(tmp_path, content)
        message = refused(
            tmp_path, "mosi", "--data.path", path, "--model", "pooled", "--debias", "mcis"
        )
        assert path in message
        assert "words" in message

    def test_no_subject(self, tmp_path, small_file):
        ids = [f"a{i}" for i in range(24)]
        path = self.write(tmp_path, small_file[1], train={"id": ids})
        message = refused(tmp_path, "mosi", "--data.path", path, "--debias", "suci")
        assert "a0" in message

    def test_one_subject(self, tmp_path, small_file):
        ids = [f"only$_${i}" for i in range(24)]
        path = self.write(tmp_path, small_file[1], train={"id": ids})
        message = refused(tmp_path, "mosi", "--data.path", path, "--debias", "suci")
        assert "only" in message

    def test_subject_on_both_sides(self, tmp_path, small_file):
        ids = [f"train0$_$x{i}" for i in range(12)]
        path = self.write(tmp_path, small_file[1], test={"id": ids})
        message = refused(tmp_path, "mosi", "--data.path", path, "--debias", "suci")
        assert "train0" in message
        assert "test" in message

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            (["--mcis.step", "0.3"], "--mcis.reach"),
            (["--first-seed", "3000000000"], "--first-seed 3000000000"),
            (["--network", "depth=3"], "depth"),
            (["--network", "width=wide"], "width"),
            (["--seeds", "0"], "--seeds"),
            (["--data.leave-out", "subj00"], "--data.leave-out"),
            (["--data.context"], "--data.context"),
            (["--data.fold", "1"], "--data.fold 1"),
            (["--data.fold", "-1"], "--data.fold -1"),
        ],
    )
    def test_options(self, tmp_path, options, word):
        assert word in refused(tmp_path, "--model", "mult", "--debias", "mcis", *options)

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            (["--data.leave-out", "nobody"], "no subject nobody"),
            (["--data.leave-out", "train0", "--data.validate-on", "train0"], "subject train0"),
            (["--data.validate-on", "train0"], "--data.validate-on"),
            (["--data.folds", "3"], "--data.fold 0"),
            (["--data.folds", "3", "--data.fold", "4"], "--data.fold 4"),
            (["--data.folds", "2", "--data.fold", "1"], "--data.folds 2"),
            (["--data.folds", "13", "--data.fold", "1"], "13 folds of 12 subjects"),
            (["--data.folds", "3", "--data.leave-out", "train0"], "give one"),
            (["--data.fold", "1"], "fold is for the layout mustard"),
            (["--data.context"], "context is for the layout ur-funny"),
        ],
    )
    def test_splits_that_cannot_be(self, tmp_path, small_file, options, word):
        given = ("mosi", "--data.path", str(small_file[0]), "--model", "pooled", *options)
        assert word in refused(tmp_path, *given)

    def test_frames_that_are_not_aligned(self, tmp_path, small_file):
        audio = small_file[1]["test"]["audio"][:, :3]
        train, valid = (
            {"audio": small_file[1][name]["audio"][:, :3]} for name in ("train", "valid")
        )
        path = self.write(tmp_path, small_file[1], train=train, valid=valid, test={"audio": audio})
        message = refused(tmp_path, "mosi", "--data.path", path, "--model", "mag")
        assert "train: audio has 3 frames, text 4" in message

    def test_search_by_scores_without_any(self, tmp_path, small_file):
        given = ("mosi", "--data.path", str(small_file[0]), "--data.labels", "classes")
        given += ("--model", "pooled", "--debias", "mcis", "--mcis.objective", "neg_mae")
        assert "--mcis.objective neg_mae: needs scores" in refused(tmp_path, *given)

    def test_word_list_that_is_not_there(self, tmp_path, small_file):
        message = refused(
            tmp_path,
            *("mosi", "--data.path", str(small_file[0]), "--debias", "mcis"),
            *("--mcis.lexicon", str(tmp_path / "none.txt")),
        )
        assert "none.txt" in message


def test_planted_tasks_have_their_controls():
    assert set(debias.planted_tasks(DebiasConfig(debias="suci"))) == {"", "control-no-confounder"}
    tasks = debias.planted_tasks(DebiasConfig(debias="mcis", ablate=True))
    assert set(tasks) == {"", "label-bias-only", "control-no-bias"}
    assert planted_subjects.SUBJECTS == 24
