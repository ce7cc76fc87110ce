"""A contact sheet: a few pictures of every class, to look at before trusting a data set."""

from PIL import Image, ImageDraw, ImageFont

from .images import Images

CELL = 48  # pixels of a picture's side
NAME = 220  # pixels for a class's name
TALL = 25  # classes one above the other, before the next column begins


def sheet(images: Images, each: int = 10) -> Image.Image:
    """The first pictures of each class in a row behind its name and number, in columns.

    Raises:
        ValueError: for no pictures of each.
    """
    if each < 1:
        raise ValueError(f"{each} pictures of each class: show at least 1")
    count = len(images.classes)
    rows, columns = min(count, TALL), -(-count // TALL)
    width = NAME + each * CELL
    canvas = Image.new("RGB", (columns * width, rows * CELL), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for label, name in enumerate(images.classes):
        left, top = label // TALL * width, label % TALL * CELL
        members = (images.y == label).nonzero()[0]
        draw.text((left + 4, top + 6), shortened(name, 32), "black", font)
        draw.text((left + 4, top + 24), f"{len(members)}", "gray", font)
        for place, index in enumerate(members[:each]):
            picture = fitted(images.picture(int(index)).convert("RGB"))
            canvas.paste(picture, (left + NAME + place * CELL, top))
    return canvas


def fitted(picture: Image.Image) -> Image.Image:
    """In a cell, pixels left square and sharp where the picture is smaller than it."""
    smaller = max(picture.size) < CELL
    how = Image.Resampling.NEAREST if smaller else Image.Resampling.LANCZOS
    return picture.resize((CELL - 2, CELL - 2), how)


def shortened(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
