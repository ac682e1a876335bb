"""The largest demo that this machine does in the time there is, by the program's own plan from measured rates."""
from __future__ import annotations

import json
import pathlib
import subprocess
import tempfile

import children
from demo_parts import settings
from demo_parts.stages import PROGRAM, ROOT, Stop

SECONDS = 600  # that a demo may take where nobody names a size
BESIDE = 1.3  # of the planned training: validation, evaluation, starting the program


def seconds_of(recipe: dict, folder: pathlib.Path, options: list[str]) -> float:
    """What the program plans for a recipe's training on this machine."""
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe))
    command = [PROGRAM, *options, "plan", str(path), "--gpu", "cpu", "--json", "-"]
    done = children.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Stop(f"this failed (exit {done.returncode}; is the program older than this script? scripts/build makes it anew): "
                   + " ".join(command), done.returncode)
    return json.loads(done.stdout)["run_seconds"]


def demo_seconds(size: settings.Size, options: list[str]) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "init").mkdir()
        config = json.loads((ROOT / "recipes/demo/config.json").read_text())
        (folder / "init/config.json").write_text(json.dumps({**config, **size.model}))
        recipes = [settings.base_recipe(size, name, seed=1)]
        for variant in settings.VARIANTS:
            recipe = settings.extension_recipe(size, name, 1, variant)
            recipe["model"] = {"init": f"{name}/init"}  # the base is not there yet; its shape is what counts
            recipes.append(recipe)
        return BESIDE * sum(seconds_of(recipe, folder, options) for recipe in recipes)


def choose(options: list[str]) -> str:
    """The name of a size; says which and why."""
    if pathlib.Path("/proc/driver/nvidia/version").exists():  # the recipes run there, and only CPUs are measured
        name = settings.AUTOMATIC[0]
        print(f"Size: {name} ({settings.SIZES[name].summary}), as there is a GPU; --size takes another one", flush=True)
        return name
    for name in settings.AUTOMATIC:
        seconds = demo_seconds(settings.SIZES[name], options)
        if seconds <= SECONDS or name == settings.AUTOMATIC[-1]:
            print(f"Size: {name} ({settings.SIZES[name].summary}), about {max(1, round(seconds / 60))} minutes on this "
                  "machine; --size takes another one", flush=True)
            return name
        print(f"Size: {name} would take about {round(seconds / 60)} minutes on this machine", flush=True)
    raise AssertionError
