"""The catalogue: which data sets there are, where they lie, and how to get them.

A data set that somebody put in place is used after its layout was checked; a checksum
that is not the official one is noted then, but an error after a download. Writes into
data directories only, and overwrites nothing there.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from cnnctl.data import cifar
from cnnctl.data.dataset import Dataset
from cnnctl.data.fetch import OnDownload, RemoteFile, fetch_file, placing, reporting_os_errors
from cnnctl.data.folder import read_folder
from cnnctl.data.idx import read_mnist_folder
from cnnctl.data.npz import read_npz
from cnnctl.data.shapes import CLASSES, MAX_SIDE, MIN_SIDE, SIDE, draw_shapes
from cnnctl.errors import CnnctlError, ConfigError, DataError, describe_alternatives

PathLike = str | os.PathLike[str]
FileState = Literal["official", "differs", "unlisted", "missing"]
"""Its SHA-256 is the official one, is another, or has no official one to be held against; or no file."""

FIELDS = {"path": ("folder", "npz"), "image_size": ("folder", "shapes"), "channels": ("folder",)}
"""Arguments that mean something for some data sets only."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form in which a data set can lie in a data directory.

    Attributes:
        path: of a folder or an archive, below the data directory.
        members: the files in the folder; none for an archive.
    """

    path: str
    members: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path."""
        return Path(self.path).name


@dataclass(frozen=True, slots=True)
class Entry:
    """A data set of the catalogue.

    Attributes:
        classes: the name of class k at position k; empty when the images bring them.
        files: what is downloaded, into a folder of the data set's name: the files of its first form.
        mirrors: the URLs that a file's name is appended to, best first.
        forms: those it can be read in, best first.
        other_sums: SHA-256 of official files that are read but not downloaded.
        image_shape: (C, H, W); None when the images bring it.
    """

    name: str
    description: str
    classes: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    forms: tuple[Form, ...] = ()
    other_sums: dict[str, str] = field(default_factory=dict)
    image_shape: tuple[int, int, int] | None = None

    def check_file(self, path: Path) -> FileState:
        """How a file's SHA-256 compares with the official one."""
        official = {file.name: file.sha256 for file in self.files} | self.other_sums
        if not os.path.exists(path):
            return "missing"
        if path.name not in official:
            return "unlisted"
        with reporting_os_errors(path), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return "official" if digest == official[path.name] else "differs"


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """A data set of the catalogue on disk, or a place where it might be."""

    entry: Entry
    form: Form
    path: Path

    @property
    def files(self) -> list[Path]:
        """All that it is made up of; a file unpacked takes the place of its .gz."""
        return [_find_unpacked(self.path / member) for member in self.form.members] or [self.path]

    @property
    def is_usable(self) -> bool:
        """Whether a download could add nothing; files that it cannot bring are missed when they are read."""
        completable = {file.name for file in self.entry.files}.issuperset(self.form.members)
        return all(map(os.path.exists, self.files)) if completable else os.path.exists(self.path)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each file that is not the official one."""
        differing = [file for file in self.files if self.entry.check_file(file) == "differs"]
        return tuple(f"{file}: its SHA-256 is not the official one" for file in differing)

    def read(self) -> Dataset:
        """All its images. Raises DataError for the first thing in its layout that is wrong."""
        name = self.entry.name
        if name == "cifar10":
            return Dataset(name, *cifar.read_cifar10(self.path), self.notes)
        return Dataset(name, *read_mnist_folder(self.path), self.entry.classes, self.notes)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found out about a data set on disk.

    Attributes:
        path: where it lies, None when it is nowhere.
        files: each file's path and state.
        error: why it cannot be read, None when it can.
    """

    path: Path | None
    files: tuple[tuple[Path, FileState], ...]
    error: str | None


def _define_mnist(
    name: str, description: str, classes: tuple[str, ...], mirrors: tuple[str, ...], *sums: tuple[int, str]
) -> Entry:
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = tuple(RemoteFile(f"{kind}-ubyte.gz", *entry) for kind, entry in zip(kinds, sums, strict=True))
    form = Form(name, tuple(file.name for file in files))
    return Entry(name, description, classes, files, mirrors, (form,), image_shape=(1, 28, 28))


def _define_cifar10() -> Entry:
    binary = RemoteFile(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )
    forms = (
        Form(binary.name),
        Form("cifar-10-batches-bin", tuple(f"{batch}.bin" for batch in cifar.BATCHES)),
        Form("cifar-10-batches-py", cifar.BATCHES),
        Form("cifar-10-python.tar.gz"),
    )
    return Entry(
        "cifar10",
        "60,000 photographs of animals and vehicles, 32x32 RGB",
        cifar.CLASSES,
        (binary,),
        ("https://www.cs.toronto.edu/~kriz/",),
        tuple(Form(folder + form.path, form.members) for folder, form in product(("cifar10/", ""), forms)),
        {"cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
        (3, 32, 32),
    )


CATALOG = {
    entry.name: entry
    for entry in (
        _define_mnist(
            "mnist",
            "70,000 handwritten digits, 28x28 grey",
            tuple("0123456789"),
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        _define_mnist(
            "fashion-mnist",
            "70,000 pictures of clothes, 28x28 grey",
            (
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",),
            (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        _define_cifar10(),
        Entry("folder", "images of yours: a folder with one subfolder a class"),
        Entry("npz", "arrays of yours: x_train, y_train, x_test and y_test in a .npz file"),
        Entry(
            "shapes",
            "14,000 shapes drawn on the spot, 32x32 RGB; needs no files",
            CLASSES,
            image_shape=(3, SIDE, SIDE),
        ),
    )
}


def load_dataset(
    name: str,
    *,
    data_dir: PathLike | None = None,
    path: PathLike | None = None,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    download: bool = True,
    on_download: OnDownload | None = None,
) -> Dataset:
    """Read a data set of the catalogue into memory, after downloading what is missing.

    Args:
        data_dir: looked into first; see `list_data_dirs`.
        path: the folder of `folder`, the file of `npz`.
        seed: settles the images of `shapes`, and which of a `folder`'s are for testing.
        image_size: the side, or (height, width), that the images of a `folder` are resized to; the
            side of `shapes`.
        channels: 1 to read a `folder` as grey, 3 as RGB.
        on_download: hears a file's name, the bytes of it that have arrived, and all its bytes.

    Raises ConfigError or ShapeError for arguments that don't fit, DataError for data missing or damaged.
    """
    entry = find_entry(name)
    if channels not in {None, 1, 3}:
        raise ConfigError(f"channels: {channels!r} is neither 1 (grey) nor 3 (RGB)")
    if seed < 0:
        raise ConfigError(f"seed: {seed} is below 0")
    for key, value in (("path", path), ("image_size", image_size), ("channels", channels)):
        if value is not None and name not in FIELDS[key]:
            usable = " and ".join(FIELDS[key])
            raise ConfigError(f"{key}: {value} is not usable with data set {name}; it is for {usable}")
    if name == "shapes":
        return draw_shapes(seed, side=_choose_side(image_size))
    if entry.forms:
        stored = find_dataset(name, data_dir)
        if stored is None and not download:
            raise DataError(f"{_describe_absence(entry, data_dir)}, or run cnnctl data fetch {name}")
        return (stored or fetch_dataset(name, data_dir, on_download=on_download)).read()
    if path is None:
        raise ConfigError(f"path: is missing (data set {name} is read from there)")
    if name == "npz":
        return Dataset(name, *read_npz(Path(path)))
    return Dataset(name, *read_folder(Path(path), seed=seed, image_size=image_size, channels=channels))


def _choose_side(image_size: int | tuple[int, int] | None) -> int:
    """Of shapes, which are square: less than 4 pixels show none."""
    height, width = image_size if isinstance(image_size, tuple) else (image_size or SIDE,) * 2
    if height != width or not MIN_SIDE <= height <= MAX_SIDE:
        raise ConfigError(
            f"image_size: {height}x{width} is not usable with shapes; "
            f"give one side of {MIN_SIDE} to {MAX_SIDE}"
        )
    return height


def find_entry(name: str) -> Entry:
    """The catalogue's entry of that name. Raises ConfigError when there is none."""
    if name not in CATALOG:
        raise ConfigError(f"data set: {name!r} is not known; {describe_alternatives(name, CATALOG)}")
    return CATALOG[name]


def find_stored_entry(name: str) -> Entry:
    """The entry of a data set that lies in a data directory. Raises ConfigError for any other."""
    entry = find_entry(name)
    if not entry.forms:
        stored = ", ".join(other.name for other in CATALOG.values() if other.forms)
        raise ConfigError(f"data set: {name} does not lie in a data directory; those that do: {stored}")
    return entry


def list_data_dirs(data_dir: PathLike | None = None) -> list[Path]:
    """The directories where data sets lie and are downloaded to, in the order of search.

    `data_dir`, the environment variable CNNCTL_DATA_DIR, and the user's own data directory.
    """
    from platformdirs import user_data_path

    given = (data_dir, os.environ.get("CNNCTL_DATA_DIR"), user_data_path("cnnctl", appauthor=False))
    return list(dict.fromkeys(Path(directory) for directory in given if directory))


def choose_data_dir(data_dir: PathLike | None = None) -> Path:
    """The first data directory that can be written or made; the first of all if none can."""
    directories = list_data_dirs(data_dir)
    for directory in directories:
        nearest = next(path for path in (directory, *directory.absolute().parents) if os.path.exists(path))
        if os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK):
            return directory
    return directories[0]


def find_dataset(name: str, data_dir: PathLike | None = None) -> StoredDataset | None:
    """The data set on disk, None when it has to be downloaded first.

    After the data directories come the system's shared ones: Debian packages Fashion-MNIST.
    """
    return next((stored for stored in _list_candidates(name, data_dir) if stored.is_usable), None)


def fetch_dataset(
    name: str, data_dir: PathLike | None = None, *, on_download: OnDownload | None = None
) -> StoredDataset:
    """The data set on disk, after downloading the files that are missing.

    Raises ConfigError when it is none that can be downloaded, and DataError when that fails,
    with what to put where by hand.
    """
    entry = find_stored_entry(name)
    stored = find_dataset(name, data_dir)
    if stored:
        return stored
    target = _place_download(entry, data_dir)
    try:
        for file, path in _list_missing(target):
            fetch_file(file, entry.mirrors, path.parent, on_download=on_download)
    except DataError as error:
        raise DataError(f"{_describe_absence(entry, data_dir)}; downloading failed: {error}") from error
    return target


def import_dataset(name: str, source: PathLike, data_dir: PathLike | None = None) -> StoredDataset:
    """Check a data set that lies anywhere, then copy it into a data directory.

    `source` is its folder or archive, or a folder that holds that. Changes nothing that is
    there already. Raises ConfigError or DataError.
    """
    entry, source = find_stored_entry(name), Path(source)
    known = [form for form in entry.forms if len(entry.forms) == 1 or form.name == source.absolute().name]
    candidates = [StoredDataset(entry, form, source) for form in known]
    candidates += [StoredDataset(entry, form, source / form.name) for form in entry.forms]
    found = next((stored for stored in candidates if stored.is_usable), None)
    if not found:
        raise DataError(f"{source}: holds no {name}; {_describe_forms(entry)}")
    found.read()
    target = choose_data_dir(data_dir) / found.form.path
    if os.path.lexists(target):
        raise DataError(f"{target}: is there already; move it away to import another")
    with reporting_os_errors(target), placing(target) as temporary:
        if found.form.members:
            temporary.mkdir()
        for file in found.files:
            shutil.copyfile(file, temporary / file.name if found.form.members else temporary)
    return StoredDataset(entry, found.form, target)


def verify_dataset(name: str, data_dir: PathLike | None = None) -> Verification:
    """Compare the files of a data set with the official sums, and read all of it."""
    entry = find_stored_entry(name)
    partial = (stored for stored in _list_candidates(name, data_dir) if os.path.exists(stored.path))
    stored = find_dataset(name, data_dir) or next(partial, None)
    if not stored:
        return Verification(None, (), _describe_absence(entry, data_dir))
    files = tuple((file, entry.check_file(file)) for file in stored.files)
    try:
        stored.read()
    except CnnctlError as error:
        return Verification(stored.path, files, str(error))
    return Verification(stored.path, files, None)


def _list_candidates(name: str, data_dir: PathLike | None) -> list[StoredDataset]:
    entry = find_stored_entry(name)
    shares = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    directories = (*list_data_dirs(data_dir), *(Path(share, "datasets") for share in shares if share))
    return [
        StoredDataset(entry, form, directory / form.path)
        for directory, form in product(directories, entry.forms)
    ]


def _find_unpacked(path: Path) -> Path:
    unpacked = path.with_name(path.name.removesuffix(".gz"))
    return unpacked if os.path.exists(unpacked) else path


def _place_download(entry: Entry, data_dir: PathLike | None) -> StoredDataset:
    form = entry.forms[0]
    return StoredDataset(entry, form, choose_data_dir(data_dir) / form.path)


def _list_missing(target: StoredDataset) -> list[tuple[RemoteFile, Path]]:
    files = zip(target.entry.files, target.files, strict=True)
    return [(file, path) for file, path in files if not os.path.exists(path)]


def _describe_absence(entry: Entry, data_dir: PathLike | None) -> str:
    missing = _list_missing(_place_download(entry, data_dir))
    files = ", ".join(file.name for file, _ in missing)
    folder = choose_data_dir(data_dir) / entry.name
    searched = ", ".join(map(str, list_data_dirs(data_dir)))
    names = {form.name for form in entry.forms}
    too_deep = [
        f"; {directory} is one folder too deep"
        for directory in list_data_dirs(data_dir)
        if directory.name in names and directory.is_dir()
    ]
    return (
        f"{entry.name}: not found in {searched}{''.join(too_deep)}; "
        f"put {files} from {entry.mirrors[0]} into {folder}"
    )


def _describe_forms(entry: Entry) -> str:
    if len(entry.forms) == 1:
        return f"a folder with {', '.join(entry.forms[0].members)} is wanted"
    return f"{' or '.join(dict.fromkeys(form.name for form in entry.forms))} is wanted"
