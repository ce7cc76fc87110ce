"""vcr-zoo data: the sets known by name."""

import sys

from .options import OWN, data_name


def add_data(commands) -> None:
    parser = commands.add_parser(
        "data",
        help="list the data sets known by name, fetch them, look at them",
        epilog="example: vcr-zoo data get fmnist silhouettes",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    action = actions.add_parser("list", help="what there is, whose it is and where it comes from")
    action.set_defaults(run=run_data_list)
    action = actions.add_parser(
        "get",
        help="fetch and build sets into the cache ($VCR_ZOO_CACHE or ~/.cache/vcr_zoo)",
        epilog="example: vcr-zoo data get fmnist mnist silhouettes glyphs digits8",
    )
    action.add_argument("names", nargs="+", type=data_name, metavar="NAME")
    action.add_argument("--folder", help="a folder that holds the files or packages already")
    action.set_defaults(run=run_data_get)
    action = actions.add_parser(
        "show",
        help="write a labelled contact sheet",
        epilog="example: vcr-zoo data show fmnist --level coarse --output sheet.png",
    )
    action.add_argument("name", type=data_name, metavar="NAME", help=f"a data set, {OWN}")
    action.add_argument("--split", default="train", help="train or validation (default: train)")
    action.add_argument("--level", default="fine", help="fine or coarse (default: fine)")
    action.add_argument("--each", type=int, default=10, help="pictures of a class (default: 10)")
    action.add_argument("--output", help="PNG file (default: NAME.png)")
    action.set_defaults(run=run_data_show)


def run_data_list(args) -> None:
    from vcr_zoo.data import listing

    print(listing())


def run_data_get(args) -> int:
    from vcr_zoo.data import get

    failed = 0
    for name in args.names:
        try:
            print(get(name, args.folder))
        except (LookupError, ValueError, OSError, ImportError) as error:
            message = error.args[0] if isinstance(error, KeyError) else error
            print(f"vcr-zoo data get: {message}", file=sys.stderr)
            failed = 2
    return failed


def run_data_show(args) -> None:
    from pathlib import Path

    from vcr_zoo.data import load
    from vcr_zoo.data.sheet import sheet

    images = load(args.name, args.split, args.level)
    path = Path(args.output or f"{args.name.replace('/', '-')}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(images, args.each).save(path)
    print(f"{images}\n{path}")
