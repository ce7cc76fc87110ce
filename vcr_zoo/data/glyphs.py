"""Letters of many scripts, drawn from the Noto fonts: 64 x 64, white on black, label = script."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .dataset import Dataset, Files, Pictures
from .fetch import Package
from .pictures import BLACK, Item, pack
from .split import position

SIZE = 64  # pixels of an em when drawn, and of the pictures
MOST = 150  # letters of one font
# Families that draw more than one script, or no letters.
MIXED = {"NotoSans", "NotoSerif", "NotoSansDisplay", "NotoSerifDisplay", "NotoMusic"}
MIXED |= {"NotoSansMath", "NotoSansSymbols", "NotoSansSymbols2", "NotoSansSignWriting"}
MIXED |= {"NotoSansDuployan"}
KIND = r" (LETTER|SYLLABLE|CAPITAL|SMALL|HIEROGLYPH|SIGN|CHARACTER|IDEOGRAPH|PHASE).*"


def read(files: Files) -> Pictures:
    fonts = [(key.rsplit("/", 1)[-1], path) for key, path in sorted(files.items())]
    items = (
        item
        for name, path in fonts
        if name.removesuffix("-Regular.ttf") not in MIXED
        for item in letters(name, path)
    )
    return pack(items, SIZE, channels=1, ground=BLACK, at_least=30)


def letters(name: str, path: Path) -> Iterator[Item]:
    """A font's letters of the script it has most letters of; which ones, fixed by hash."""
    from fontTools.ttLib import TTFont

    with TTFont(path, lazy=True) as font:
        scripts = defaultdict(list)
        for code, glyph in sorted(font.getBestCmap().items()):
            name_of = unicodedata.name(chr(code), "")
            if unicodedata.category(chr(code))[0] == "L" and name_of and large_enough(font, glyph):
                scripts[re.sub(KIND, "", name_of)].append(code)
    script, codes = max(scripts.items(), key=lambda item: len(item[1]), default=("", []))
    if len(codes) < 15:
        return
    typeface = ImageFont.truetype(path, SIZE, layout_engine=ImageFont.Layout.BASIC)
    places = position(np.array([f"{code:x}" for code in codes]), "letters")
    for code in sorted(np.array(codes)[np.argsort(places)[:MOST]].tolist()):
        draw = partial(drawn, typeface, chr(code))
        yield Item(f"{name} U+{code:04X}", draw, script.lower(), f"{code:x}")


def large_enough(font, glyph: str) -> bool:
    """At least 4 pixels each way, by the font's own outline, so that no renderer has a say."""
    outline = font["glyf"][glyph]
    if not outline.numberOfContours:
        return False
    width, height = outline.xMax - outline.xMin, outline.yMax - outline.yMin
    return min(width, height) * SIZE >= 4 * font["head"].unitsPerEm


def drawn(typeface, character: str) -> Image.Image:
    """One letter in the middle of a black square, a tenth of it left free on each side."""
    x0, y0, x1, y1 = typeface.getbbox(character)
    width, height = x1 - x0, y1 - y0
    side = int(max(width, height) * 1.25)
    picture = Image.new("L", (side, side))
    corner = ((side - width) // 2 - x0, (side - height) // 2 - y0)
    ImageDraw.Draw(picture).text(corner, character, font=typeface, fill=255)
    return picture


ROW = Dataset(
    name="glyphs",
    shows="letters of many scripts",
    pictures={"train": 5_002, "validation": 1_254, "test": 2_576},
    shape=(SIZE, SIZE, 1),
    levels={"fine": 106},
    licence="OFL-1.1",
    attribution="Noto fonts, Google",
    publishable=True,
    group="Unicode code point",
    read=read,
    packages=(
        Package(
            "debian",
            "fonts-noto-core",
            "usr/share/fonts/truetype/noto",
            ("*-Regular.ttf",),
            megabytes=12,
        ),
    ),
    validation_share=0.2,
    sha256=("0e9af32c452843afb905b79fd1e9163651f25b32006fea585cea8ad0b5af3469",),
)
