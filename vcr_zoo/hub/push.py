"""A release to the Hub in one commit: the old state or the new one, never anything between."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors

from vcr_zoo.remote import OIDCError, explained

from .release import WEIGHTS, Release

TAG = re.compile(r"(?![0-9a-f]{40}$)[A-Za-z0-9][A-Za-z0-9._-]{0,98}[A-Za-z0-9]|[A-Za-z0-9]")
ATTEMPTS = 5
LONGEST = 120  # seconds that the Hub may ask us to wait
STALE = ("depth.png", "spectrum.png", "transfer.png", ".eval_results/")  # removed if not generated


class Published(NamedTuple):
    """What is on the Hub now."""

    repo: str
    commit: str
    tag: str | None
    committed: bool  # whether this push made a commit
    proposal: str | None = None  # address of a pull request
    tagged: str | None = None  # the commit under the tag: this or another with the same weights


class Options(NamedTuple):
    private: bool = False  # of a repository that is created
    create_pr: bool = False
    tag: str = "v1"
    overwrite: bool = False  # move a tag that holds other weights, and go back to older ones


def push(
    made: Release,
    options: Options = Options(),  # noqa: B008
    *,
    endpoint: str | None = None,
    token: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Published:
    """Publish, or complete what an earlier push has begun; without a change, do nothing.

    The repository is created if it is absent, all files go in one commit on top of the state that
    was compared, their hashes are read back, then the commit is tagged. A connection that fails is
    tried again from the comparison on, so that nothing is done twice.

    Args:
        endpoint, token: huggingface_hub's own if None (HF_ENDPOINT, HF_TOKEN).
        tell: receives a line for what is waited for.

    Raises:
        ValueError: if it would overwrite weights under an existing tag, or publish openly what
            was to be private.
        OSError: if the Hub refuses or cannot be reached, saying why and what to do.
    """
    check_tag(options.tag)
    api = HfApi(endpoint=endpoint, token=token, library_name="vcr_zoo")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return push_once(api, made, options)
        except (errors.HTTPError, OIDCError, RuntimeError) as error:
            seconds = pause(cause(error), attempt)
            if seconds is None or attempt == ATTEMPTS:
                raise explained(cause(error), f"push of {made.repo}") from None
            tell(f"{made.repo}: the Hub could not, trying again in {seconds:.0f} s")
            time.sleep(seconds)
    raise AssertionError("the last attempt returns or raises")


def check_tag(tag: str) -> None:
    """Refuse what is no name for a tag, with a ValueError."""
    if not TAG.fullmatch(tag) or ".." in tag or tag in ("main", "HEAD"):
        raise ValueError(f"{tag!r} is no name for a tag: letters, digits, '.', '_' and '-', as v2")


def cause(error: BaseException) -> BaseException:
    """The HTTP error behind the RuntimeError that the client makes of a failed upload."""
    inner = error
    while inner is not None and not isinstance(inner, errors.HTTPError):
        inner = inner.__cause__
    return inner or error


def pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before trying again, as the Hub asks; None if that would not help."""
    if not isinstance(error, errors.HTTPError):
        return None
    response = (
        getattr(error, "response", None) if isinstance(error, errors.HfHubHTTPError) else None
    )
    if response is None:
        return float(2 ** (attempt - 1))  # no answer at all
    if response.status_code not in (408, 429, 500, 502, 503, 504):
        return None
    asked = response.headers.get("Retry-After", "")
    seconds = float(asked) if asked.isdecimal() else float(2 ** (attempt - 1))
    return seconds if seconds <= LONGEST else None


def push_once(api: HfApi, made: Release, options: Options) -> Published:
    """One attempt, which begins by looking at what is there."""
    info = state(api, made.repo)
    if info is None:
        if options.create_pr:
            raise FileNotFoundError(
                f"{made.repo} is not there to propose a change to: push it first"
            )
        api.create_repo(made.repo, private=options.private, exist_ok=True)
        info = api.repo_info(made.repo, files_metadata=True)
    if options.private and not info.private:
        raise ValueError(f"{made.repo} is public already: --private cannot hide it")
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(made.repo).tags}
    tagged = None if options.create_pr else tag_of(api, made, options, tags)
    if not options.create_pr and not options.overwrite:
        check_branch(api, made, info, tags, options.tag)
    changes = operations(made.files, info)
    if options.create_pr:
        return propose(api, made, info, changes)
    commit = info.sha
    if changes:
        message = f"{made.name}: weights and card"
        sent = api.create_commit(made.repo, changes, commit_message=message, parent_commit=info.sha)
        commit = sent.oid
        if wrong := differing(
            made.files, api.repo_info(made.repo, revision=commit, files_metadata=True)
        ):
            raise OSError(f"{made.repo} does not hold what was sent: {', '.join(wrong)}")
    if tagged and tagged != made.sha256:
        api.delete_tag(made.repo, tag=options.tag)
        tagged = None
    if not tagged:
        api.create_tag(made.repo, tag=options.tag, revision=commit, exist_ok=True)
    there = tags[options.tag] if tagged else commit
    return Published(made.repo, commit, options.tag, bool(changes), tagged=there)


def state(api: HfApi, repo: str):
    """What is in the repository, or None if there is none that this token may see."""
    try:
        return api.repo_info(repo, files_metadata=True)
    except errors.GatedRepoError:
        raise
    except errors.RepositoryNotFoundError:
        return None


def weights_of(info) -> str | None:
    """sha256 of the weights in a state of a repository; None if it has none."""
    return next((f.lfs.sha256 for f in info.siblings if f.rfilename == WEIGHTS and f.lfs), None)


def check_branch(api: HfApi, made: Release, info, tags: Mapping[str, str], tag: str) -> None:
    """Let other weights on the branch give way only to a new tag, and where a tag keeps them.

    Raises:
        ValueError: otherwise.
    """
    there = weights_of(info)
    if there in (None, made.sha256):
        return
    kept = (api.repo_info(made.repo, revision=c, files_metadata=True) for c in tags.values())
    if tag in tags or not any(weights_of(state) == there for state in kept):
        raise ValueError(
            f"{made.repo} holds other weights (sha256 {there[:12]}..., ours {made.sha256[:12]}...)"
            f"{' than the tag ' + tag if tag in tags else ', under no tag'}: choose a new --tag "
            "for newer ones, or --overwrite"
        )


def tag_of(api: HfApi, made: Release, options: Options, tags: Mapping[str, str]) -> str | None:
    """sha256 of the weights under the tag; None if there is no such tag.

    Raises:
        ValueError: if they are others than ours, and may not be overwritten.
    """
    if options.tag not in tags:
        return None
    info = api.repo_info(made.repo, revision=tags[options.tag], files_metadata=True)
    there = weights_of(info) or "none"
    if there != made.sha256 and not options.overwrite:
        raise ValueError(
            f"{made.repo} has other weights under the tag {options.tag} (sha256 {there[:12]}..., "
            f"ours {made.sha256[:12]}...): choose another --tag, or --overwrite"
        )
    return there


def operations(files: Mapping[str, bytes], info) -> list:
    """What must be done to a repository so that it holds our files."""
    names = {file.rfilename for file in info.siblings}
    stale = {name for name in names if name.startswith(STALE)} - set(files)
    adds = [CommitOperationAdd(path, files[path]) for path in differing(files, info)]
    return [*adds, *(CommitOperationDelete(path) for path in sorted(stale))]


def differing(files: Mapping[str, bytes], info) -> list[str]:
    """Our files that a repository lacks or has otherwise, by git's or the large files' hash."""
    there = {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id for f in info.siblings}
    return sorted(path for path, content in files.items() if there.get(path) not in hashes(content))


def hashes(content: bytes) -> tuple[str, str]:
    """sha256, which large files are known by, and git's object id, for all others."""
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha256(content).hexdigest(), hashlib.sha1(blob).hexdigest()


def propose(api: HfApi, made: Release, info, changes: list) -> Published:
    """A pull request, unless an open one holds the same already."""
    title = f"{made.name}: weights and card"
    if not changes:
        return Published(made.repo, info.sha, None, False)
    asked = {"discussion_type": "pull_request", "discussion_status": "open"}
    for one in api.get_repo_discussions(made.repo, **asked):
        if one.title == title:
            there = api.repo_info(made.repo, revision=f"refs/pr/{one.num}", files_metadata=True)
            if not differing(made.files, there):
                return Published(made.repo, there.sha, None, False, one.url)
    sent = api.create_commit(
        made.repo, changes, commit_message=title, parent_commit=info.sha, create_pr=True
    )
    return Published(made.repo, sent.oid, None, True, sent.pr_url)
