"""A push whose connection is cut, or whose process is killed, at any request, in any phase.

Afterwards the branch is entirely in the old or entirely in the new state, and the next push
completes what is left, the tag too, without a second commit.
"""

import signal

import pytest

from vcr_zoo.hub.push import Options, push

from .clients import REPO, TOKEN, contents, made, process
from .loopback import Fault, LoopbackHub

OPTIONS = Options(overwrite=True)
CLIENT = {TOKEN: "org"}


def prepared(hub: LoopbackHub, start: str) -> tuple[dict, int]:
    """A Hub that knows nothing of the repository, or an earlier version: files, commits."""
    if start == "update":
        push(made(1), endpoint=hub.url, token=TOKEN)
        return dict(made(1).files), 2
    return {}, 1


def requests(start: str) -> int:
    """How many a push takes if nothing happens."""
    with LoopbackHub(CLIENT) as hub:
        prepared(hub, start)
        before = len(hub.requests)
        push(made(2), OPTIONS, endpoint=hub.url, token=TOKEN)
        return len(hub.requests) - before


def whole(hub: LoopbackHub, old: dict) -> None:
    """The branch is entirely one or the other, and a tag is on one of the two."""
    if REPO not in hub.repos:
        return
    assert contents(hub.repos[REPO]) in (old, dict(made(2).files))
    for tag in hub.repos[REPO].tags:
        assert contents(hub.repos[REPO], tag) in (old, dict(made(2).files))


def completed(hub: LoopbackHub, commits: int) -> None:
    """The next push brings everything to the new state, in one commit altogether."""
    hub.fault = lambda number, method, path: None
    done = push(made(2), OPTIONS, endpoint=hub.url, token=TOKEN)
    repo = hub.repos[REPO]
    assert contents(repo) == dict(made(2).files)
    assert (
        repo.tags["v1"]
        and contents(repo, "v1")["model.safetensors"] == made(2).files["model.safetensors"]
    )
    assert done.commit == repo.head and len(repo.log) == commits + 1


@pytest.mark.parametrize("start", ["new", "update"])
@pytest.mark.parametrize("phase", ["before", "after", "half"])
def test_cut_for_good_at_any_request(start, phase, waits):
    """From request k on no answer comes, whatever is tried again."""
    for k in range(requests(start)):
        with LoopbackHub(CLIENT) as hub:
            old, commits = prepared(hub, start)
            first = len(hub.requests) + k
            hub.fault = lambda n, *_, first=first: Fault(cut=phase) if n >= first else None
            with pytest.raises(OSError, match=REPO):
                push(made(2), OPTIONS, endpoint=hub.url, token=TOKEN)
            whole(hub, old)
            completed(hub, commits)


@pytest.mark.parametrize("phase", ["before", "after"])
def test_one_cut_is_gone_over(phase, waits):
    """A single lost answer, even that of the commit: the same push goes on, with one commit."""
    for k in range(requests("update")):
        with LoopbackHub(CLIENT) as hub:
            _, commits = prepared(hub, "update")
            first = len(hub.requests) + k
            hub.fault = lambda n, *_, first=first: Fault(cut=phase) if n == first else None
            push(made(2), OPTIONS, endpoint=hub.url, token=TOKEN)
            completed(hub, commits)


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("start", ["new", "update"])
def test_killed_at_any_request(start, phase):
    """SIGKILL while request k is under way: before it is carried out, or before its answer."""
    for k in range(requests(start)):
        with LoopbackHub(CLIENT) as hub:
            old, commits = prepared(hub, start)
            first = len(hub.requests) + k
            children = []

            def fault(n, *_, first=first, children=children):
                if n == first:
                    return Fault(cut=phase, then=lambda: children[0].kill())

            hub.fault = fault
            children.append(process(hub.url, made(2), OPTIONS))
            child = children[0]
            child.join(60)
            assert child.exitcode == -signal.SIGKILL
            whole(hub, old)
            completed(hub, commits)


def test_a_child_that_is_left_alone_succeeds():
    """Else the test above could not fail."""
    with LoopbackHub(CLIENT) as hub:
        child = process(hub.url, made(2), OPTIONS)
        child.join(60)
        assert child.exitcode == 0 and contents(hub.repos[REPO]) == dict(made(2).files)


def test_two_pushes_at_once_leave_one_of_the_two_states(waits):
    """Both compare, both commit: the second is refused (412) or finds nothing left to do."""
    with LoopbackHub(CLIENT) as hub:
        push(made(1), endpoint=hub.url, token=TOKEN)
        children = [process(hub.url, made(v), Options(tag=f"v{v}")) for v in (2, 3)]
        for child in children:
            child.join(60)
        ends = [dict(made(version).files) for version in (2, 3)]
        assert contents(hub.repos[REPO]) in ends
        assert len(hub.repos[REPO].log) in (3, 4)
