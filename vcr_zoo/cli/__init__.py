"""vcr-zoo <command>: arguments, one call into the package, and what came back.

Each command is an `add_` function, which names its arguments, and a `run_` function, which imports
what it needs: help is quick.
"""

import argparse
import sys
from difflib import get_close_matches

from vcr_zoo import __version__

from . import bench, data, learn, look, publish, transfer

COMMANDS = [
    learn.add_demo,
    learn.add_pair,
    learn.add_search,
    data.add_data,
    learn.add_train,
    learn.add_eval,
    learn.add_predict,
    transfer.add_transfer,
    transfer.add_rank,
    transfer.add_concat,
    transfer.add_finetune,
    transfer.add_depth,
    look.add_inspect,
    look.add_starvation,
    bench.add_bench,
    publish.add_package,
    publish.add_card,
    publish.add_push,
    publish.add_pull,
    publish.add_export,
    publish.add_space,
    publish.add_reproduce,
]  # in the order that help lists them


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked, 2 if the request was wrong."""
    what = "Pretrain timm models with VCR, measure how they transfer, fine-tune and publish them."
    parser = argparse.ArgumentParser(prog="vcr-zoo", description=what)
    parser.add_argument("--version", action="version", version=f"vcr_zoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in COMMANDS:
        add(commands)
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "passes_rest", False):
        commands.choices[args.command].error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        check_own(rest, list(commands.choices[args.command]._option_string_actions))
        return args.run(args) or 0
    except KeyboardInterrupt as stopped:
        print(f"vcr-zoo {args.command}: {str(stopped) or 'stopped'}", file=sys.stderr)
        return 130
    except (LookupError, ValueError, OSError, ImportError, RuntimeError, ArithmeticError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"vcr-zoo {args.command}: {message}", file=sys.stderr)
        return 2


def check_own(rest: list[str], own: list[str]) -> None:
    """Refuse a misspelt option of the command itself among those that it passes on to training."""
    given = {word.split("=")[0] for word in rest if word.startswith("--")}
    near = {word: get_close_matches(word, own, n=1, cutoff=0.8) for word in given}
    if not any(near.values()):
        return
    from vcr_zoo.training.options import parser

    known = parser()._option_string_actions
    for word, matches in near.items():
        if matches and word not in known:
            raise ValueError(f"unknown option {word}. Closest: {matches[0]}.")
