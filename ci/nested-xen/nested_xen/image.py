"""A release's root file system and boot files, built once per recipe and kept in the cache.

On disk: `images/<release>-<hash>/` with root.qcow2 (ext4, no partition table), xen (the hypervisor,
unpacked), vmlinuz, initrd.img. The hash covers every file of the recipe folder, the options of the programs
that build it, the release and the lab's public ssh key. A folder that exists is whole: it is renamed into
place last and never written again.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nested_xen import process, progress
from nested_xen.errors import LabError
from nested_xen.paths import RECIPE, cache, locked

DISK_SIZE = "6G"
BUILD_TIMEOUT_S = 1800
KEPT_IMAGES = 2  # this one, and the one that a running lab may still stand on
MIRROR = "http://deb.debian.org/debian"
BOOTSTRAP_OPTIONS = (
    "--variant=important",
    "--mode=root",
    *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")),
    "--dpkgopt=force-unsafe-io",
    '--aptopt=Acquire::Languages "none"',
)
FILE_SYSTEM_OPTIONS = ("-q", "-L", "root")
DISK_OPTIONS = ("-O", "qcow2")


class Release(StrEnum):
    """Debian releases a lab host can run."""

    BOOKWORM = "bookworm"
    TRIXIE = "trixie"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its folder, named by the hash of its recipe."""

    release: Release
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root.qcow2"


def ssh_key() -> Path:
    """The lab's private key, made once per cache; only this lab's hosts accept it."""
    key = cache() / "ssh" / "id_ed25519"
    with locked(cache() / "ssh" / "lock"):
        if not key.exists():
            process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hostagent-lab", "-f", key])
    return key


def ensure(release: Release) -> Image:
    """The image of a release, built now if its recipe has none yet (about a minute, needs root and a Debian
    mirror).
    """
    image = Image(release, cache() / "images" / f"{release}-{_digest(release)}")
    with locked(cache() / "images" / f"{release}.lock", held_to=f"build the {release} image"):
        if not image.folder.exists():
            with progress.step(f"building the {release} image"):
                _build(image)
            _drop_older(image)
    return image


def _digest(release: Release) -> str:
    options = (*BOOTSTRAP_OPTIONS, *FILE_SYSTEM_OPTIONS, *DISK_OPTIONS)
    seen = hashlib.sha256(f"{release} {DISK_SIZE} {MIRROR} {options}".encode())
    for path in sorted(RECIPE.rglob("*")):
        if path.is_file():
            seen.update(
                f"{path.relative_to(RECIPE)} {os.access(path, os.X_OK)}\n".encode() + path.read_bytes()
            )
    seen.update(ssh_key().with_suffix(".pub").read_bytes())
    return seen.hexdigest()[:16]


def packages() -> list[str]:
    """The Debian packages of the recipe."""
    lines = (RECIPE / "packages").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _build(image: Image) -> None:
    process.require("mmdebstrap", "mmdebstrap")
    building = f"{image.release}-building-"
    for interrupted in image.folder.parent.glob(f"{building}*"):
        shutil.rmtree(interrupted, ignore_errors=True)
    # a name of its own: nothing that an interrupted build may have left running writes here
    work = Path(tempfile.mkdtemp(prefix=building, dir=image.folder.parent))
    tree = work / "tree"
    recipe, key = shlex.quote(str(RECIPE)), shlex.quote(f"{ssh_key()}.pub")
    process.run(
        [
            *("mmdebstrap", *BOOTSTRAP_OPTIONS, f"--include={','.join(packages())}"),
            f'--customize-hook={recipe}/customize "$1" {recipe} {key}',
            *(image.release, tree, MIRROR),
        ],
        timeout_s=BUILD_TIMEOUT_S,
        log=cache() / "images" / f"{image.release}.log",
        contained=True,
    )
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd.img", "initrd.img-*")):
        shutil.copyfile(_only(tree / "boot", pattern), work / name)
    (work / "xen").write_bytes(gzip.decompress(_only(tree / "boot", "xen-*-amd64.gz").read_bytes()))
    raw = work / "root.raw"
    process.run(["/usr/sbin/mkfs.ext4", *FILE_SYSTEM_OPTIONS, "-d", tree, raw, DISK_SIZE], timeout_s=300)
    process.run(["qemu-img", "convert", *DISK_OPTIONS, raw, work / "root.qcow2"], timeout_s=300)
    raw.unlink()
    shutil.rmtree(tree)
    work.chmod(0o755)
    work.rename(image.folder)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise LabError(f"the image has {len(found)} files {pattern} in /boot, not one")
    return found[0]


def _drop_older(image: Image) -> None:
    """Remove images of the same release but for this and the one before it."""
    others = [path for path in image.folder.parent.glob(f"{image.release}-*") if path.is_dir()]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for other in others[KEPT_IMAGES:]:
        shutil.rmtree(other, ignore_errors=True)
