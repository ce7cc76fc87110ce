"""`vcr-zoo push`: releases made, shown or pushed one by one, and written into the manifest."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vcr_zoo import zoo

from .push import Options, Published, check_tag, push
from .release import Release, release


def publish(
    names: Sequence[str],
    org: str,
    options: Options = Options(),  # noqa: B008
    *,
    dry_run: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    path: Path = zoo.MANIFEST,
    **run,
) -> int:
    """Push every name; one that fails does not stop the others. 0 if none failed, else 2.

    Args:
        dry_run: print files, sizes, hashes and cards instead.
        path: the manifest, into which commit and sha256 of what is on the Hub are written.
        run: of `release`, for weights that are not in the package.
    """
    check_tag(options.tag)
    failed, again, names = 0, False, list(dict.fromkeys(names))
    for name in tqdm(names, unit="network", disable=dry_run or len(names) == 1):
        try:
            made = release(name, org, path=path, **run)
            if dry_run:
                print(shown(made))
                continue
            done = push(made, options, endpoint=endpoint, token=token, tell=tqdm.write)
            tqdm.write(summary(done))
            if done.proposal is None:
                record(made, done, path)
        except (LookupError, ValueError, OSError) as error:
            tqdm.write(f"vcr-zoo push: {name}: {error}", file=sys.stderr)
            failed += 1
            again |= isinstance(error, OSError)
    if not dry_run:
        what = "proposed" if options.create_pr else "on the Hub"
        print(f"{len(names) - failed} of {len(names)} are {what}", end="")
        print("; the rest: give the same command again" if again else "")
    return 2 if failed else 0


def shown(made: Release) -> str:
    """What --dry-run prints."""
    card = made.files["README.md"].decode()
    return f"{made.repo}\n{made.listing()}\n\nREADME.md:\n\n{card}"


def summary(done: Published) -> str:
    what = "one commit" if done.committed else "nothing to do"
    if done.proposal:
        return f"{done.repo}: {what}, proposed at {done.proposal}"
    if done.tag is None:
        return f"{done.repo}: nothing to propose, it is so already"
    if done.tagged != done.commit:
        stays = f"{done.tag} stays at {done.tagged}, the same weights"
        return f"{done.repo}: {what}, {done.commit}; {stays}"
    return f"{done.repo}: {what}, {done.commit} tagged {done.tag}"


def record(made: Release, done: Published, path: Path) -> None:
    """The manifest's entry of what is on the Hub, for the maintainer to commit."""
    before = dict(made.fields)
    fields = {**before, "hub": done.repo, "revision": done.commit, "sha256": made.sha256}
    if fields != before:
        zoo.record(made.name, fields, path)
        earlier = before.get("hub", done.repo)
        instead = "" if earlier == done.repo else f", instead of {earlier}"
        tqdm.write(f"{path.name} says so{instead}: commit it, and `vcr-zoo card --all`")
