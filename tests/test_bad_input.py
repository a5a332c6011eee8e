"""Everything a user can get wrong: one clear line on stderr, exit code 2, nothing earlier lost.

The faults are real ones: a damaged file, a folder that the user may not write, a disk that is full.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

import saved
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.io import processes
from unlearnkit.runs.run import erase


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Run a command that must be refused, and return the line that says why; what has ``begun`` told its progress."""

    def run(*words: object, begun: bool = False) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert stopped.value.code == 2, said
        assert said.out == ""
        assert "Traceback" not in said.err
        lines = [line for line in said.err.splitlines() if not line.startswith("note: ")]
        assert begun or len(lines) == 1, said.err
        return lines[-1]

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which no later command may touch."""
    folder = tmp_path_factory.mktemp("earlier") / "run"
    with pytest.raises(SystemExit) as stopped:
        main(["erase", str(saved.folder()), "--concept", "cat", "--method", "uce", "--out", str(folder)])
    assert stopped.value.code == 0
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def let_in(folder: Path) -> None:
    """Others may enter it: pytest keeps its folders to their owner."""
    for path in (folder, *folder.parents):
        if path.stat().st_mode & 0o005 != 0o005:
            path.chmod(0o755)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# the model


@pytest.mark.parametrize("model", ["nowhere", "./nowhere", "/nowhere/model.safetensors", "canvass"])
def test_a_model_that_is_not_there(refused, model: str):
    assert model in refused("erase", model, "--concept", "cat")
    assert not Path("runs").exists(), "a run that never began leaves no folder"


def test_a_folder_that_is_no_model(refused, tmp_path: Path):
    assert "model_index.json" in refused("erase", tmp_path, "--concept", "cat")


@pytest.mark.parametrize("harm", ["cut", "garbage", "empty", "missing"])
@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_corrupt_weights(refused, tmp_path: Path, part: str, harm: str):
    model = shutil.copytree(saved.folder(), tmp_path / "model")
    (file,) = (model / part).glob("*.safetensors")
    if harm == "missing":
        file.unlink()
    else:
        whole = file.read_bytes()
        file.write_bytes(
            {"cut": whole[: len(whole) // 2], "garbage": b"\xff" * len(whole), "empty": b""}[harm]
        )
    assert str(model) in refused("erase", model, "--concept", "cat", "--out", "out")
    assert not Path("out").exists()


def test_a_corrupt_configuration(refused, tmp_path: Path):
    model = shutil.copytree(saved.folder(), tmp_path / "model")
    (model / "model_index.json").write_text("{")
    assert "model_index.json" in refused("generate", model, "--prompt", "cat")


def test_a_corrupt_edit(refused, tmp_path: Path, finished: Path):
    whole = (finished / "edit.safetensors").read_bytes()
    (tmp_path / "edit.safetensors").write_bytes(whole[:100])
    said = refused("generate", saved.folder(), "--prompt", "cat", "--edit", tmp_path / "edit.safetensors")
    assert "damaged" in said
    assert "it does not exist" in refused(
        "generate", saved.folder(), "--prompt", "cat", "--edit", "none.safetensors"
    )


def test_a_model_without_a_name(refused):
    assert "model is missing" in refused("erase", "--concept", "cat")


# the words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--concept", "cat", "--method", "ucee"], "did you mean 'uce'"),
        (["--concept", "cat", "--method", "x"], "use one of duge, rgd, doco, sculpting, esd, uce"),
        (["--concept", "cat", "--set", "stepz=3"], "did you mean 'steps'"),
        (["--concept", "cat", "--set", "steps=-1"], "at least"),
        (["--concept", "cat", "--set", "steps=many"], "a whole number"),
        (["--concept", "cat", "--set", "trains=y"], "xattn-kv, xattn, not-xattn, all, lora or text-encoder"),
        (["--concept", "cat", "--set", "steps"], "KEY=VALUE"),
        (["--concept", "cat", "--set", "steps=1", "--set", "steps=2"], "twice"),
        (["--concept", "cat", "--combine", "restrictd"], "did you mean 'restricted'"),
        (["--concept", "cat", "--mask", "x"], "'mask' got 'x': it takes none, saliency"),
        (["--concept", "cat", "--rule", "l1sp", "--rule", "l3sp"], "l1sp, l2sp or project"),
        (["--concept", "cat", "--method", "uce", "--mask", "dynamic"], "--mask is for methods that train"),
        (["--concept", "cat", "--trains", "all", "--set", "trains=lora"], "differ: give one"),
        (["--concept", "cat", "--combine", "restricted"], "this method gives only erase"),
        (["--concept", "cat", "--mask", "none", "--recipe", "recipe.toml"], "leave them out"),
        (["--concept", "cat", "--seed", "-1"], "seed -1"),
        (["--concept", "cat", "--kind", "things"], "object, style"),
        (["--concept", "cat", "--keep", "Cat"], "both erased and kept"),
        (["--concept", "cat", "--phrase", "kitten", "--keep", "Kitten"], "both erased and kept"),
        (["--concept", "cat", "--instead", "cat"], "replaced by itself"),
        (["--concept", "cat", "--phrase", "kitten", "--instead", "kitten"], "by its own phrase"),
        (
            ["--concept", "cat", "--concept", "dog", "--set", "superclass=dog", "--method", "sculpting"],
            "itself",
        ),
        (["--concept", "zebu", "--method", "sculpting"], "no superclass of 'zebu' is known"),
        (["--concept", "neon", "--kind", "style", "--method", "ca", "--set", "pictures=0"], "at least 1"),
        (["--concept", "cat", "--method", "graddiff", "--set", "retain_pictures=0"], "at least 1"),
        (["--concept", "cat", "--method", "graddiff", "--set", "neighbours=0"], "there is nothing to keep"),
        (
            ["--concept", "cat", "--set", "retain_weight=1", "--set", "neighbours=0"],
            "there is nothing to keep",
        ),
        (["--concept", "cat", "--concept", "car", "--instead", "dog"], "single concept"),
        (["--concept", "cat", "--phrase", ""], "empty phrase"),
        (["--concept", "cat", "--dtype", "float3"], "did you mean 'float32'"),
        (["--concept", "cat", "--device", "warp"], "device 'warp'"),
        (["--concept", ""], "concept is empty"),
        (["--concept", "  "], "concept is empty"),
        ([], "concept is missing"),
        (["--concept", "cat", "--recipe", "recipe.toml"], "leave them out"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("dry", [True, False])
def test_words_that_cannot_be_used(refused, words: list[str], says: str, dry: bool):
    assert says in refused("erase", saved.folder(), *words, "--out", "out", *(["--dry-run"] if dry else []))
    assert not Path("out").exists()


def test_a_recipe_that_cannot_be_used(refused, tmp_path: Path):
    assert "does not exist" in refused("erase", "--recipe", "none.toml")
    for words in (["--method", "uce"], ["--seed", "1"], ["--kind", "style"]):
        assert "leave them out" in refused("erase", "--recipe", "none.toml", *words)
    (tmp_path / "recipe.toml").write_text('model = "canvas"\nmethod = "esd"\n[[erase]]\nname = ""')
    assert "empty" in refused("erase", "--recipe", "recipe.toml")
    (tmp_path / "recipe.toml").write_text('model = "Canvas"\nmethod = "esd"\n[[erase]]\nname = "cat"')
    assert "did you mean 'canvas'" in refused("erase", "--recipe", "recipe.toml")
    for settings, says in (("stepz = 3", "did you mean 'steps'"), (f"steps = {2**62}", "at most 1,000,000")):
        text = f'model = "nowhere"\nmethod = "esd"\n[[erase]]\nname = "cat"\n[settings]\n{settings}'
        (tmp_path / "recipe.toml").write_text(text)
        assert says in refused("erase", "--recipe", "recipe.toml"), "before the model is looked for"


@pytest.mark.parametrize("word", ["nan", "inf", "1e400", "-1", "1001"])
def test_guidance_is_a_number_that_can_be_computed_with(refused, word: str):
    assert "--guidance" in refused("generate", saved.folder(), "--prompt", "cat", "--guidance", word)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--prompt", ""], "prompt is empty"),
        (["--prompt", "c\udcffat"], "not valid Unicode"),
        (["--prompt", "cat", "--negative", "\udcff"], "not valid Unicode"),
        (["--prompt", "cat", "--steps", "5000"], "steps 5000"),
        (["--prompt", "cat", "--seed", "-1"], "seed -1"),
    ],
    ids=" ".join,
)
def test_drawings_that_cannot_be_made(refused, words: list[str], says: str):
    assert says in refused("generate", saved.folder(), *words)
    assert not list(Path.cwd().rglob("*.png"))


def test_unknown_names(refused):
    assert "did you mean 'uce'" in refused("methods", "uec")


@pytest.mark.parametrize(
    "words", [["eraze"], ["erase", "--concpt", "cat"], ["generate"], ["erase", "--seed", "x"]]
)
def test_usage_errors_exit_with_2_as_well(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""


def test_python_callers_get_the_same_line():
    with pytest.raises(InputError, match="did you mean 'steps'"):
        erase(saved.folder(), "cat", stepz=3)
    with pytest.raises(InputError, match="concept is empty"):
        erase(saved.folder(), "")
    with pytest.raises(InputError, match="erases nothing"):
        erase(saved.folder(), [])


@pytest.mark.parametrize(
    ("method", "says"), [("duge", "there is nothing to keep"), ("ca", "no anchor for the object 'cat'")]
)
def test_a_model_that_knows_no_other_word(refused, tmp_path: Path, method: str, says: str):
    model = shutil.copytree(saved.folder(), tmp_path / "model")
    (model / "unlearnkit.toml").write_text('[vocabulary]\nobjects = ["cat"]\nstyles = []')
    assert says in refused(
        "erase", model, "--concept", "cat", "--method", method, "--out", "out", "--dry-run"
    )
    assert says in refused("erase", model, "--concept", "cat", "--method", method, "--out", "run")


# the folder


def test_an_existing_run_is_not_overwritten(refused, finished: Path):
    before = contents(finished)
    model = saved.folder()
    again = ["erase", model, "--concept", "cat", "--method", "uce", "--out", finished]
    assert "finished run" in refused(*again)
    assert "finished run" in refused(*again, "--dry-run")
    other = ["erase", model, "--concept", "dog", "--method", "uce", "--out", finished, "--resume"]
    assert "another recipe (name was" in refused(*other)
    assert "ridge was 0.5, now 2.0" in refused(*again, "--set", "ridge=2", "--resume")
    assert contents(finished) == before


def test_a_folder_with_other_things_is_left_alone(refused, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for more in ([], ["--resume"]):
        said = refused("erase", saved.folder(), "--concept", "cat", "--out", "out", *more)
        assert "has no run" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_file_in_the_way(refused, tmp_path: Path):
    (tmp_path / "file").write_text("here first")
    for out in ("file", "file/run"):
        assert "is a file" in refused("erase", saved.folder(), "--concept", "cat", "--out", out)
        assert "file" in refused("generate", saved.folder(), "--prompt", "cat", "--out", out)
    assert (tmp_path / "file").read_text() == "here first"


def test_pictures_are_not_overwritten(refused, tmp_path: Path):
    (tmp_path / "cat-0.png").write_text("my cat")
    assert "exists already" in refused(
        "generate", saved.folder(), "--prompt", "cat", "--count", 2, "--out", "."
    )
    assert (tmp_path / "cat-0.png").read_text() == "my cat"
    assert not (tmp_path / "cat-1.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that is in use")
def test_a_working_folder_that_was_removed(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the working folder cannot be used" in refused("methods")


def test_a_folder_without_permission(refused, tmp_path: Path):
    """As an ordinary user, for whom alone permissions hold."""
    (tmp_path / "locked").mkdir(mode=0o555)
    model = saved.folder()
    refused("erase", model, "--concept", "cat", "--set", "steps=-1")  # imports what another user may not read
    ourselves = os.geteuid()
    if ourselves == 0:
        let_in(tmp_path)
        model.parent.chmod(0o755)
        os.seteuid(65534)
    try:
        said = refused("erase", model, "--concept", "cat", "--out", tmp_path / "locked" / "run")
    finally:
        os.seteuid(ourselves)
    assert "no permission" in said and "locked" in said


def test_a_model_without_permission(refused):
    """As an ordinary user, who may not look into the folder that it lies in."""
    model = saved.folder()
    refused("erase", model, "--concept", "cat", "--set", "steps=-1")  # imports what another user may not read
    ourselves = os.geteuid()
    model.parent.chmod(0o700 if ourselves == 0 else 0o000)
    try:
        if ourselves == 0:
            os.seteuid(65534)
        said = refused("erase", model, "--concept", "cat")
    finally:
        os.seteuid(ourselves)
        model.parent.chmod(0o755)
    assert "no permission to read the model" in said


# the disk


@pytest.mark.parametrize("size", [100, 1000, 10_000, 100_000])
def test_a_full_disk(refused, tmp_path: Path, finished: Path, size: int):
    """Recipe, log, edit or pipeline, whichever is the first that does not fit; the run goes on when there is room."""
    before = contents(finished)
    words = ["erase", saved.folder(), "--concept", "cat", "--set", "steps=2", "--set", "start_steps=2"]
    with files_no_larger_than(size):
        said = refused(*words, "--out", "out", "--resume", begun=True)
    assert "out" in said
    assert "free" in said or "room" in said
    assert ("--resume continues the run" in said) <= Path("out/recipe.toml").exists()
    for left in Path("out").rglob("*"):
        assert left.is_dir() or not left.name.endswith((".part", ".tmp")), left
    assert contents(finished) == before
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in (*words, "--out", "out", "--resume")])
    assert stopped.value.code == 0
    assert (tmp_path / "out" / "run.json").exists()


def test_a_disk_without_room_is_noticed_before_work_begins(refused, tmp_path: Path):
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs the right to mount a small disk")
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path / "disk")]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        assert "disk" in refused("erase", saved.folder(), "--concept", "cat", "--out", "disk/run")
        assert not list((tmp_path / "disk").iterdir())
        (tmp_path / "disk" / "fill").write_bytes(b"." * (128 * 1024 - 4096))
        words = ["--prompt", "cat", "--count", 9, "--out", "disk/pictures"]
        said = refused("generate", saved.folder(), *words, begun=True)
        assert "full" in said
    finally:
        subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def full_gpu(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB.")


def full_cpu(*_: Any, **__: Any) -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("full", [full_gpu, full_cpu])
def test_too_little_memory(full: Callable[..., None], refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UNet2DConditionModel, "forward", full)
    said = refused("erase", saved.folder(), "--concept", "cat", "--out", "run", begun=True)
    assert (
        "too little memory: use --dtype bfloat16, or set a smaller batch, checkpointing=true or trains=lora"
        in said
    )
    assert "allocate" in said


def test_resuming_needs_a_run(refused) -> None:
    assert refused("erase", "--resume") == "which run is to be resumed? name its folder with --out"
    assert "'nowhere' has no run to resume" in refused("erase", "--resume", "--out", "nowhere")


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK"])
def test_an_environment_of_several_processes_that_is_none_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, "abc")
    with pytest.raises(InputError, match=f"^the environment variable {name} is 'abc': start with accelerate"):
        processes.index()
