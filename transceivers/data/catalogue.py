"""The data sets by name: where each comes from, its licence, and which pictures of a package are photographs."""

from __future__ import annotations

import dataclasses
from pathlib import PurePosixPath

CUT_OUTS = "usr/share/tuxpaint/stamps"
AUTHORS = "see its authors' page"
CARTOONS = {"cartoon", "toys", "plastic"}  # folders
CLIP_ART = {  # single drawings, parts and creatures of another class among the photographs, found by eye
    "hedgehog", "echidna", "lobster", "shrimp", "Brown_slug", "Woodlouse", "sedan_police", "7spoke256",
    "wheel_tractor", "highlighter", "mug", "glass",
}  # fmt: skip
CLASSES = {
    "bird": ("animals/birds",),
    "mammal": ("animals/mammals", "animals/marsupials"),
    "fish": ("animals/fish",),
    "insect": ("animals/insects",),
    "fruit": ("food/fruit",),
    "vegetable": ("food/vegetables",),
    "flower": ("plants/flowers",),
    "vehicle": ("vehicles", "military/vehicles"),
    "instrument": ("hobbies/music",),
    "household": ("household",),
}


@dataclasses.dataclass(frozen=True)
class Package:
    """Photographs in a Debian package. files: paths inside it; empty for the cut-outs, chosen by their folder."""

    name: str
    licence: str
    files: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set. packages: what `fetch` brings; folder: where a user's copy lies inside the cache; test_only: of
    fetched ones, that it has no other split.
    """

    name: str
    what: str
    licence: str
    packages: tuple[Package, ...] = ()
    folder: str = ""
    test_only: bool = False


_LOMIRI = (
    "aitzgorri_by_Aitzol_Berasategi", "analogpattern_by_Peter_Nerlich", "Bridge_by_Sander_Klootwijk",
    "Dragonfly_by_Bolly", "free_by_Peter_Nerlich", "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich",
    "life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi", "Picture_0B_by_freespace",
    "Picture_1A_by_freespace", "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi", "Wine_by_Jakkub_Mede",
)  # fmt: skip
_MATE = (
    "Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "LadyBird", "RainDrops", "Storm", "TwoWings",
    "Wood", "YellowFlower",
)  # fmt: skip
_PLASMA = (
    "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite",
    "OneStandsOut", "Path", "summer_1am",
)  # fmt: skip
_OPENCV = (
    "alphamat/input_images/plant", "data/aero1", "data/aloeL", "data/apple", "data/baboon", "data/board",
    "data/building", "data/butterfly", "data/fruits", "data/home", "data/leuvenA", "data/messi5", "data/orange",
    "data/squirrel_cls", "text/scenetext01", "text/scenetext02", "text/scenetext03", "text/scenetext04",
    "text/scenetext05", "text/scenetext06",
)  # fmt: skip
_EXAMPLES = "usr/share/doc/opencv-doc/examples"

PHOTOS = DataSet(
    "photos",
    "photographs among the desktop backgrounds of Debian",
    "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0, GPL-2+ (by picture)",
    (
        Package(
            "lomiri-wallpapers-16.04",
            "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0",
            tuple(f"usr/share/backgrounds/{name}.jpg" for name in _LOMIRI),
        ),
        Package("mate-backgrounds", "GPL-2+", tuple(f"usr/share/backgrounds/mate/nature/{name}.jpg" for name in _MATE)),
        Package(
            "plasma-workspace-wallpapers",
            "GPL-2+",
            tuple(f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg" for name in _PLASMA),
        ),
    ),
)
STAMPS = DataSet(
    "stamps",
    "photographic cut-outs with an alpha channel, ten classes",
    "GPL-2",
    (Package("tuxpaint-stamps-default", "GPL-2"),),
)
SAMPLES = DataSet(
    "samples",
    "photographs among the examples of OpenCV, a test set only",
    "mixed, see the package",
    (Package("opencv-doc", "mixed, see the package", tuple(f"{_EXAMPLES}/{name}.jpg" for name in _OPENCV)),),
    test_only=True,
)
SETS = {
    item.name: item
    for item in (
        PHOTOS,
        STAMPS,
        SAMPLES,
        DataSet("cifar10", "CIFAR-10, the python version", AUTHORS, folder="cifar-10-batches-py"),
        DataSet("stl10", "STL-10, the binary version", AUTHORS, folder="stl10_binary"),
        DataSet("cub200", "CUB-200-2011", AUTHORS, folder="CUB_200_2011"),
        DataSet("kodak", "Kodak, 24 photographs", AUTHORS, folder="kodak"),
    )
}


def stamp_class(path: str) -> str | None:
    """The class of a picture of the stamps package, by its path inside the package; None if it is left out."""
    inside = PurePosixPath(path)
    if not inside.is_relative_to(CUT_OUTS) or inside.suffix != ".png":
        return None
    inside = inside.relative_to(CUT_OUTS)
    if CARTOONS & set(inside.parts) or inside.stem in CLIP_ART or inside.stem.endswith("_mirror"):
        return None
    for name, folders in CLASSES.items():
        if any(inside.is_relative_to(folder) for folder in folders):
            return name
    return None
