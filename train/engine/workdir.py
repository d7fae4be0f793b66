"""A run's folder: config, metrics, events, checkpoints. All writes are whole or not at all."""

import contextlib
import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from corrkd_jax.atomic import write_atomically
from corrkd_jax.errors import InputError
from train.engine import interrupt, parallel
from train.engine.interrupt import unbroken
from train.engine.lock import FolderLock

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

CONFIG, METRICS, CHECKPOINTS, MODEL = "config.json", "metrics.jsonl", "checkpoints", "model"
TIMING = "timing.jsonl"

Config = TypeVar("Config")

_ROOM = 1_000_000
"""Bytes that a save takes beside its arrays."""


def fresh_folder(name: str) -> Path:
    """First of `runs/name`, `runs/name-2`, ... that does not exist."""
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def make_folder(path: Path) -> None:
    """Make a folder and those above it; raises InputError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}") from error


@unbroken()
def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; raises InputError if the disk refuses."""
    write_atomically(path, lambda file: file.write(text.encode()))


def read_config(folder: Path) -> object:
    """The `config.json` of a run, whatever JSON it holds.

    Raises:
        InputError: there is none, or it is not JSON.
    """
    path = folder / CONFIG
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: no {CONFIG}; this is not the folder of a run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error


def restore_config(
    folder: Path,
    program: str,
    kind: type[Config],
    called: str,
    renamed: Mapping[str, str] | None = None,
) -> tuple[str, Config]:
    """Preset and configuration of a run.

    Args:
        folder: of the run.
        program: that must have written it.
        kind: of its configuration.
        called: how its user calls that program, for messages.
        renamed: dotted names of fields in earlier versions -> today's, by which older runs are
            read.

    Raises:
        InputError: the folder is no run, or one of another program or version.
    """
    saved, where = read_config(folder), folder / CONFIG
    if not isinstance(saved, dict) or saved.pop("program", None) != program:
        raise InputError(f"{where}: not a run of {called}")
    if not isinstance(preset := saved.pop("preset", None), str):
        raise InputError(f"{where}: names no preset; it was not written by {called}")
    return preset, config_from(kind, rename_fields(saved, renamed or {}), str(where))


def rename_fields(values: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """A configuration of an earlier version, as read, under today's names.

    Args:
        values: as read; left as it is.
        renamed: dotted names then -> today's.
    """

    def group(dotted: str) -> tuple[dict[str, Any], str]:
        *groups, name = dotted.split(".")
        inner = result
        for each in groups:
            inner = inner.setdefault(each, {})
            if not isinstance(inner, dict):
                return {}, name
        return inner, name

    result = copy.deepcopy(values)
    for old, new in renamed.items():
        if old.partition(".")[0] not in values:
            continue
        then, name = group(old)
        if name in then:
            value = then.pop(name)
            now, name = group(new)
            now.setdefault(name, value)
    # a group whose fields have all gone elsewhere
    for old in {name.partition(".")[0] for name in renamed if "." in name}:
        if result.get(old) == {}:
            del result[old]
    return result


def config_from(kind: Any, values: object, where: str) -> Any:
    """The configuration that a `config.json` holds.

    Args:
        kind: its dataclass, whose fields may be dataclasses.
        values: as read.
        where: file, for messages.

    Raises:
        InputError: the values are no fields of this version.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where} is {values!r}, not a group of fields")
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{where}: {unknown[0]} is no field of this version")
    filled = {}
    for name, value in values.items():
        inner = known[name].type
        if is_dataclass(inner):
            value = config_from(inner, value, f"{where}: {name}")
        elif isinstance(value, list):
            value = tuple(value)
        filled[name] = value
    return kind(**filled)


def first_difference(saved: Any, given: Any, where: str = "") -> str | None:
    """Dotted name and both values of the first field in which two configs differ, or None."""
    if isinstance(saved, dict) and isinstance(given, dict):
        for key in [*saved, *(k for k in given if k not in saved)]:
            inner = first_difference(saved.get(key), given.get(key), f"{where}.{key}".lstrip("."))
            if inner:
                return inner
        return None
    return None if saved == given else f"{where} is {saved!r} there, {given!r} here"


class Workdir:
    """Writes a run, alone in its folder. On processes other than the first it does nothing."""

    def __init__(self, folder: Path, config: dict[str, Any], resume: bool):
        """Lock a folder that can take a run; nothing else is written before `claim`.

        Args:
            folder: made if it does not exist, and removed by `close` if nothing is written to it.
            config: JSON-like; written to `config.json`.
            resume: continue the run that is there, if its config is the same.

        Raises:
            InputError: another process writes there, the folder holds a run and `resume` is off,
                or a run of another config, or it cannot be written.
        """
        self.folder = folder
        self._events: SummaryWriter | None = None
        self._manager: ocp.CheckpointManager | None = None
        self._untouched = False
        self._lock: FolderLock | None = None
        self._config = json.loads(json.dumps(config))
        parallel.decided(lambda: self._enter(resume))

    def _enter(self, resume: bool) -> str:
        """Lock the folder; raises InputError if it cannot take the run."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"--workdir {self.folder}: is a file")
        self._lock = FolderLock(self.folder)
        try:
            self._require_room(resume)
        except InputError:
            self._lock.release()
            raise
        return ""

    def _require_room(self, resume: bool) -> None:
        if not (self.folder / CONFIG).exists():
            return
        if not resume:
            raise InputError(
                f"{self.folder}: holds a run already; continue it with --resume, or choose "
                "another --workdir"
            )
        difference = first_difference(read_config(self.folder), self._config)
        if difference:
            raise InputError(f"{self.folder / CONFIG}: {difference}; --resume needs the same run")

    def claim(self) -> None:
        """Make the folder and write the config.

        Raises:
            InputError: the disk refuses.
        """
        if not parallel.is_main():
            return
        self._untouched = not (self.folder / CONFIG).exists()
        try:
            (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        self.write(CONFIG, json.dumps(self._config, indent=2) + "\n")
        interrupt.run_begins(self.folder)

    @unbroken()
    def write(self, name: str, text: str) -> None:
        """Write a text file into the folder, whole or not at all."""
        if parallel.is_main():
            write_text(self.folder / name, text)

    @unbroken()
    def log(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to `metrics.jsonl` and their means over seeds to TensorBoard.

        A row has `stage`, `epoch`, optionally `arm`, and metrics as lists over the seeds.
        """
        if not parallel.is_main() or not rows:
            return
        self._untouched = False
        try:
            self._append(METRICS, rows)
            if self._events is None:
                # brings torch along where it is installed, which takes seconds
                from tensorboardX import SummaryWriter

                self._events = SummaryWriter(str(self.folder / "tensorboard"))
            for row in rows:
                group = "/".join(str(row[k]) for k in ("stage", "arm") if k in row)
                for name, values in row.items():
                    if isinstance(values, list):
                        self._events.add_scalar(
                            f"{group}/{name}", float(np.mean(values)), row["epoch"]
                        )
            self._events.flush()
        except OSError as error:
            raise _cannot_write(self.folder / METRICS, error) from error

    @unbroken()
    def log_time(self, call: dict[str, Any]) -> None:
        """Append what one call to the devices took to `timing.jsonl`.

        A file of its own, since metrics of the same run are the same bit for bit.
        """
        if not parallel.is_main():
            return
        try:
            self._append(TIMING, [call])
        except OSError as error:
            raise _cannot_write(self.folder / TIMING, error) from error

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    @unbroken()
    def forget_after(self, epoch: int) -> None:
        """Drop metrics and times of global epochs from `epoch` on: they are about to be redone."""
        if not parallel.is_main():
            return
        for path in (self.folder / METRICS, self.folder / TIMING):
            if not path.exists():
                continue
            before = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break  # a kill cut the last line short
                if row["global_epoch"] < epoch:
                    before.append(line + "\n")
            write_text(path, "".join(before))

    @unbroken()
    def save(self, epoch: int, tree: Any, note: dict[str, Any]) -> None:
        """Checkpoint a tree of canonical arrays after `epoch` global epochs; keeps the last two.

        Orbax writes to a temporary folder and renames it, so a kill leaves the older ones whole.

        Raises:
            InputError: the disk is full, or refuses.
        """
        if not parallel.is_main():
            return
        self._untouched = False
        _check_space(self.folder, tree)
        try:
            self._checkpoints().save(
                epoch,
                args=ocp.args.Composite(
                    tracks=ocp.args.StandardSave(_flatten(tree)), note=ocp.args.JsonSave(note)
                ),
            )
        except Exception as error:  # Orbax and TensorStore raise many kinds
            _remove_partial(self.folder / CHECKPOINTS)
            raise _cannot_write(self.folder / CHECKPOINTS, error) from error

    def latest(self) -> int | None:
        """Global epochs done at the newest checkpoint, or None."""
        if not (self.folder / CHECKPOINTS).exists():
            return None
        return self._checkpoints().latest_step()

    def restore(self, epoch: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """The tree and the note of a checkpoint.

        Args:
            epoch: as `latest` gave it.
            like: tree of arrays with the structure, shapes and types to expect.

        Raises:
            InputError: the checkpoint is damaged or belongs to another configuration.
        """
        where = self.folder / CHECKPOINTS / str(epoch)
        try:
            restored = self._checkpoints().restore(
                epoch,
                args=ocp.args.Composite(
                    tracks=ocp.args.StandardRestore(), note=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:
            raise InputError(f"{where}: cannot be read: {_first_line(error)}") from error
        return _unflatten(restored["tracks"], like, where), restored["note"]

    @unbroken()
    def save_model(self, tree: Any) -> None:
        """Write what `train.evaluate` and `train.export` need: the selected parameters."""
        if not parallel.is_main():
            return
        self._untouched = False
        _check_space(self.folder, tree)
        path = (self.folder / MODEL).absolute()
        fresh, old = path.with_name(f".{MODEL}.new"), path.with_name(f".{MODEL}.old")
        _remove_partial(self.folder)
        try:
            # not over the older model: Orbax removes what it overwrites before it writes
            with ocp.StandardCheckpointer(
                multiprocessing_options=_this_process_only()
            ) as checkpointer:
                checkpointer.save(fresh, _flatten(tree), force=True)
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
            fresh.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        except Exception as error:
            _remove_partial(self.folder)
            raise _cannot_write(path, error) from error

    def close(self) -> None:
        """Finish what is being written; give up the claim if nothing ever was.

        So a run that bad input stopped does not stand in the way of the next one.
        """
        if self._events is not None:
            self._events.close()
        if self._manager is not None:
            self._manager.close()
        if self._untouched and parallel.is_main():
            (self.folder / CONFIG).unlink(missing_ok=True)
            interrupt.run_ends(self.folder)
            with contextlib.suppress(OSError):
                (self.folder / "figures").rmdir()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _checkpoints(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=False,  # Orbax leaves it to us where one process acts alone
                enable_async_checkpointing=False,
                multiprocessing_options=_this_process_only(),
            )
            path = (self.folder / CHECKPOINTS).absolute()
            path.mkdir(parents=True, exist_ok=True)
            if parallel.is_main():
                _remove_partial(path)
            self._manager = ocp.CheckpointManager(path, options=options)
        return self._manager


def load_model(folder: Path, like: Any) -> Any:
    """The tree that `Workdir.save_model` wrote.

    Raises:
        InputError: there is none yet, or it belongs to another configuration.
    """
    path = (folder / MODEL).absolute()
    if not path.is_dir():
        raise InputError(f"{folder}: no trained model; finish the run first (--resume)")
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=_this_process_only()) as checkpointer:
            flat = checkpointer.restore(path)
    except Exception as error:
        raise InputError(f"{path}: cannot be read: {_first_line(error)}") from error
    return _unflatten(flat, like, path)


def _this_process_only() -> ocp.options.MultiprocessingOptions:
    return ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )


def _check_space(folder: Path, tree: Any) -> None:
    """Refuse to begin a save for which the disk has no room.

    Orbax answers a disk that fills up with hundreds of lines of tracebacks.
    """
    needed = sum(x.nbytes for x in _flatten(tree).values()) + _ROOM
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: no space left: a save takes {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are "
            "free; what was saved before is intact"
        )


def _remove_partial(folder: Path) -> None:
    """Remove what a save that failed, or was killed, left unfinished."""
    for path in folder.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(path, ignore_errors=True)


def _flatten(tree: Any) -> dict[str, np.ndarray]:
    """Arrays by path; empty ones, which Orbax refuses, are left out."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves if np.size(leaf)}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _unflatten(flat: dict[str, Any], like: Any, where: Path) -> Any:
    wanted = _flatten(like)
    for name, leaf in wanted.items():
        if name not in flat:
            raise InputError(f"{where}: lacks {name}; it was written by another configuration")
        array = np.asarray(flat[name])
        if array.shape != leaf.shape:
            raise InputError(
                f"{where}: {name} has shape {array.shape}, this configuration needs {leaf.shape}"
            )
    extra = sorted(set(flat) - set(wanted))
    if extra:
        raise InputError(f"{where}: holds {extra[0]}, which this configuration does not have")

    def restored(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return np.asarray(flat[_name(path)]).astype(leaf.dtype) if leaf.size else leaf

    return jax.tree.map_with_path(restored, like)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cannot_write(path: Path, error: BaseException) -> InputError:
    reason = getattr(error, "strerror", None) or _first_line(error)
    return InputError(f"{path}: cannot be written: {reason}; what was saved before is intact")
