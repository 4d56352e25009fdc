"""The bed's images: built by buildah from ordinary Dockerfiles, kept in the cache by what went into them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .errors import BedError, BuildFailed
from .layout import REPOSITORY, SOURCE, Layout
from .toolchain import Toolchain

HOST_FILES = ("/etc/pip.conf", "/etc/ssl/certs")
"""Mounted while an image is built, so that a machine's own registry settings apply and stay out of the image."""

KEPT_ARCHIVES = 3
"""Of an image, at least: checkouts of one machine share the cache."""
KEPT_LAYERS = 200
"""In the builder's store: some gigabytes. The next builds are slower once those that no image has are gone."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made."""

    dockerfile: Path
    files: Callable[[Toolchain, Layout, Callable[[str], None]], dict[str, Path]] | None = None
    """What the build context holds (name -> file); None: the repository, less what .dockerignore leaves out."""
    base: str | None = None
    """The image that build argument BASE names."""
    target: str | None = None
    """The stage of the Dockerfile; its last one without."""
    copied: tuple[str, ...] = ()
    """Files and folders of the repository that the target copies: what decides whether it is built anew."""


def tag(name: str) -> str:
    """The full name of the bed's image `name`, as pods write it."""
    return f"chatflow.test/{name}:bed"


def _tool(family: str, program: str) -> Callable[[Toolchain, Layout, Callable[[str], None]], dict[str, Path]]:
    return lambda tools, _layout, _say: {program: tools.folder(family) / program}


def _ours(target: str, lock: str, *folders: str) -> Recipe:
    """An image of the product; crds is in each."""
    installed = ("pyproject.toml", "README.md", "LICENSE", "runtime/install.sh", "locks/build.txt", f"locks/{lock}.txt")
    copied = (*installed, "crds", *folders)
    return Recipe(REPOSITORY / "runtime/Dockerfile", base="base", target=target, copied=copied)


RECIPES = {
    "pause": Recipe(SOURCE / "images/pause/Dockerfile", _tool("pause", "pause")),
    "coredns": Recipe(SOURCE / "images/coredns/Dockerfile", _tool("coredns", "coredns")),
    "busybox": Recipe(
        SOURCE / "images/busybox/Dockerfile",
        lambda _tools, layout, _say: {"busybox": packages.unpack(layout, "busybox-static") / "bin/busybox"},
    ),
    "base": Recipe(
        SOURCE / "images/base/Dockerfile", lambda _tools, layout, say: {"rootfs.tar": packages.base_system(layout, say)}
    ),
    "redis": Recipe(SOURCE / "images/redis/Dockerfile", lambda _tools, _layout, _say: {}, base="base"),
    "runtime": _ours("gateway", "runtime", "model_servers", "runtime"),
    "builder": _ours("builder", "builder", "model_servers", "runtime"),
    "operator": _ours("operator", "operator", "operator"),
    "intent": _ours("intent", "serving", "model_servers"),
    "warm-up": _ours("warm-up", "warmup", "model_servers"),
}


class Images:
    """Builds images and says where their archives are."""

    def __init__(self, layout: Layout, tools: Toolchain, say: Callable[[str], None]) -> None:
        self._layout, self._tools, self._say = layout, tools, say

    def archive(self, name: str) -> Path:
        """The docker archive of image `name`, built first if the cache has none."""
        recipe = RECIPES.get(name)
        if recipe is None:
            raise BedError(f"no image {name!r}; there are {', '.join(sorted(RECIPES))}")
        base = None if recipe.base is None else self.archive(recipe.base)
        files = None if recipe.files is None else recipe.files(self._tools, self._layout, self._say)
        target = self._layout.cache / "images" / f"{name}-{_key(recipe, files, base)}.tar"
        if not target.exists():
            self._build(name, recipe, files, target)
        target.touch()
        return target

    def _prune(self, name: str) -> None:
        """Remove archives that have not been used of late, and layers that no image has any more."""
        archives = [file for file in (self._layout.cache / "images").glob(f"{name}-*.tar") if _is_of(file, name)]
        for old in sorted(archives, key=lambda file: file.stat().st_mtime, reverse=True)[KEPT_ARCHIVES:]:
            old.unlink(missing_ok=True)
        if len(self._buildah("images", "--all", "--quiet").split()) > KEPT_LAYERS:
            self._buildah("rmi", "--prune", "--force")

    def _build(self, name: str, recipe: Recipe, files: dict[str, Path] | None, target: Path) -> None:
        self._say(f"building image {name} (once, then cached) ...")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            context = REPOSITORY if files is None else Path(folder) / "context"
            for file, source in (files or {}).items():
                context.mkdir(exist_ok=True)
                shutil.copy2(source, context / file)
            context.mkdir(exist_ok=True)
            base = [] if recipe.base is None else [f"--build-arg=BASE={tag(recipe.base)}"]
            stage = [] if recipe.target is None else [f"--target={recipe.target}"]
            mounts = [f"--volume={path}:{path}:ro" for path in HOST_FILES if Path(path).exists()]
            self._buildah(
                "build", "--isolation=chroot", "--network=host", "--layers", "--pull-never", *base, *stage, *mounts,
                f"--file={recipe.dockerfile}", f"--tag={tag(name)}", str(context),
            )  # fmt: skip
            made = Path(folder) / "image.tar"
            self._buildah("push", tag(name), f"docker-archive:{made}:{tag(name)}")
            made.rename(target)
        self._prune(name)

    def _buildah(self, *arguments: str) -> str:
        """Its output."""
        storage = self._layout.cache / "buildah"
        options = ["--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "overlay"]
        ran = subprocess.run(["buildah", *options, *arguments], capture_output=True, text=True)
        if ran.returncode:
            said = (ran.stdout + ran.stderr)[-3000:]
            raise BuildFailed(f"`buildah {' '.join(arguments)}` ended with {ran.returncode}:\n{said}")
        return ran.stdout


def _is_of(archive: Path, name: str) -> bool:
    """Whether an archive is of the image itself, and not of one whose name goes on after a hyphen."""
    return archive.stem.rpartition("-")[0] == name


def _key(recipe: Recipe, files: dict[str, Path] | None, base: Path | None) -> str:
    digest = hashlib.sha256(recipe.dockerfile.read_bytes())
    if base is not None:
        digest.update(base.name.encode())
    if files is None:
        digest.update(f"{recipe.target}\0".encode())
        _add_repository(digest, recipe.copied)
    else:
        for name, file in sorted(files.items()):
            # A cached file's path holds the key of what it was built from.
            digest.update(f"{name}\0{file}\0{file.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def _add_repository(digest: hashlib._Hash, copied: tuple[str, ...]) -> None:
    """What a target copies: tracked and new files, less those that .dockerignore leaves out."""
    for part in copied:
        root = REPOSITORY / part
        for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
            relative = file.relative_to(REPOSITORY)
            if file.is_file() and not any(
                piece == "__pycache__" or piece.startswith("tests_") for piece in relative.parts
            ):
                digest.update(f"{relative}\0".encode() + file.read_bytes())
