"""Makes the image that containers are made of: from the Dockerfile, or, where no registry can be reached, from the distribution's packages.

The tag is a hash of the recipe: an image is built once on each engine and again only when its recipe changes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sandbox.docker_engine import as_unavailable, has_image
from sandbox.errors import ImageMissing, SandboxUnavailable

if TYPE_CHECKING:
    from docker import APIClient

Method = Literal["auto", "dockerfile", "debootstrap"]
NAME = "rlvr-sandbox"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-numpy", "python3-pytest")
# Of no use to a Python program, and half of the size.
UNNEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "root/.cache",
)
BUILD_SECONDS = 1800.0
Report = Callable[[str], None]


def dockerfile() -> str:
    return (resources.files("sandbox.image") / "Dockerfile").read_text("utf-8")


def default_tag() -> str:
    """The default image's name, with a hash of everything it is made from."""
    recipe = "\n".join([dockerfile(), SUITE, *PACKAGES, *UNNEEDED])
    return f"{NAME}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def ensure_image(client: APIClient, *, report: Report = lambda line: None) -> str:
    """Return the default image's tag; build it where the engine does not have it.

    Raises: ImageMissing: it could not be built; says what to do.
    """
    tag = default_tag()
    if not has_image(client, tag):
        with _one_at_a_time():
            if not has_image(client, tag):
                build_image(client, report=report)
    return tag


def build_image(client: APIClient, *, method: Method = "auto", base: str | None = None, report: Report = lambda line: None) -> str:
    """Build the default image and return its tag. `auto`: from the Dockerfile, else with debootstrap. `base`: the image to start from.

    Raises: ImageMissing: names what failed and the remedy.
    """
    tag, failures = default_tag(), []
    if method in ("auto", "dockerfile"):
        try:
            report(f"building {tag} from the Dockerfile{f' on {base}' if base else ''}")
            _from_dockerfile(client, tag, base, report)
            return tag
        except SandboxUnavailable as error:
            failures.append(f"from the Dockerfile: {error}")
    if method in ("auto", "debootstrap"):
        try:
            report(f"building {tag} from Debian's packages; about a minute")
            _from_packages(client, tag, report)
            return tag
        except SandboxUnavailable as error:
            failures.append(f"from Debian's packages: {error}")
    raise ImageMissing(
        f"the sandbox image {tag} could not be built: {'; '.join(failures)}. "
        "Run `rlvr sandbox build` where the engine can reach a registry, or as root where debootstrap is installed; "
        "or name an image of your own with Python 3.10 or newer (option `image`)"
    )


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one process of this machine build while the others wait for what it makes."""
    with (Path(tempfile.gettempdir()) / f"{NAME}-image.lock").open("w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        except ImportError:  # Not on this system: at worst the image is built twice.
            pass
        yield


def remove_images(client: APIClient) -> list[str]:
    """Remove every image this module made; returns their names."""
    removed = []
    with as_unavailable("removing the images"):
        for repository in (NAME, f"{NAME}-base"):
            for image in client.images(name=repository):
                for tag in image["RepoTags"] or []:
                    client.remove_image(tag, force=True)
                    removed.append(tag)
    return removed


def _from_dockerfile(client: APIClient, tag: str, base: str | None, report: Report) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        text = dockerfile().encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    context.seek(0)
    with as_unavailable("the build"):
        steps = client.build(
            fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True, buildargs={"BASE": base} if base else {}
        )
        _follow(steps, report)


def _follow(steps: Iterable[dict], report: Report) -> None:
    for step in steps:
        if "error" in step:
            raise SandboxUnavailable(step["error"].strip())
        line = step.get("stream", "").strip()
        if line:
            report(line)


def _from_packages(client: APIClient, tag: str, report: Report) -> None:
    if shutil.which("debootstrap", path=_path()) is None:
        raise SandboxUnavailable("debootstrap is not installed (Debian and Ubuntu: apt-get install debootstrap)")
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise SandboxUnavailable("debootstrap needs root")
    # No TemporaryDirectory: it would be removed at exit, in the middle of a build, with /proc mounted in it.
    folder = Path(tempfile.mkdtemp(prefix="rlvr-image-"))
    try:
        root, archive = _bootstrapped(folder), folder / "root.tar"
        report("importing the root file system")
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=_plain)
        with as_unavailable("the import"):
            repository, _, version = tag.partition(":")
            # The base first, then the Dockerfile over it: both ways end in the same image.
            answer = client.import_image_from_file(str(archive), repository=f"{repository}-base", tag=version)
            if '"error"' in answer:
                raise SandboxUnavailable(f"the import failed: {answer.strip()[-300:]}")
            _from_dockerfile(client, tag, f"{repository}-base:{version}", report)
    finally:
        _remove_root(folder)


def _bootstrapped(folder: Path) -> Path:
    """Run debootstrap; returns the root file system it made, without what is of no use."""
    root, log = folder / "root", folder / "log"
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    with log.open("wb") as file:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=BUILD_SECONDS, env={**os.environ, "PATH": _path()}
            )
        except subprocess.TimeoutExpired as error:
            raise SandboxUnavailable(f"debootstrap took more than {BUILD_SECONDS:g} s") from error
    if done.returncode != 0:
        said = log.read_text(errors="replace").strip().splitlines()
        raise SandboxUnavailable(f"debootstrap ended with {done.returncode}: {said[-1] if said else 'it said nothing'}")
    for each in UNNEEDED:
        shutil.rmtree(root / each, ignore_errors=True)
    return root


def _remove_root(folder: Path) -> None:
    """Remove a build's folder; a build that was cut off leaves the host's /proc and /sys mounted in it."""
    for place in Path("/proc/mounts").read_text().splitlines():
        mounted = place.split()[1]
        if mounted.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mounted], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    still = any(place.split()[1].startswith(f"{folder}/") for place in Path("/proc/mounts").read_text().splitlines())
    if not still:
        shutil.rmtree(folder, ignore_errors=True)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave device files out: the engine makes those a container gets."""
    return None if entry.ischr() or entry.isblk() else entry


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
