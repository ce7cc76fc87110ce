"""The real client pushes over HTTP to a loopback Hub: what arrives, and what is refused."""

import pytest
from huggingface_hub import HfApi, close_session

from vcr_zoo.hub.push import Options, push

from .clients import HEAD, REPO, TOKEN, contents, made
from .loopback import Fault


@pytest.fixture
def send(hub):
    def send(release=None, token=TOKEN, **options):
        return push(release or made(), Options(**options), endpoint=hub.url, token=token)

    return send


def test_a_first_push_creates_the_repository_in_one_commit_and_tags_it(hub, send):
    done = send()
    repo = hub.repos[REPO]

    assert contents(repo) == dict(made().files) and len(repo.log) == 2
    assert repo.tags == {"v1": repo.head} and done.commit == repo.head and done.committed
    assert not repo.private


def test_weights_are_kept_as_large_files(hub, send):
    send()
    _, tree = hub.repos[REPO].files("main")

    assert tree["model.safetensors"].lfs and not tree["README.md"].lfs


def test_a_second_push_makes_no_commit(hub, send):
    first = send()
    second = send()

    assert (second.commit, second.committed) == (first.commit, False)
    assert len(hub.repos[REPO].log) == 2
    assert not [path for method, path in hub.requests if "/commit/" in path][1:]


def test_a_changed_card_is_one_commit_and_the_tag_stays_with_the_same_weights(hub, send):
    first = send()
    done = send(made(**{"README.md": f"{HEAD}corrected\n".encode()}))
    repo = hub.repos[REPO]

    assert len(repo.log) == 3 and repo.head == done.commit != first.commit
    assert repo.tags == {"v1": first.commit}


def test_other_weights_under_an_existing_tag_are_refused_unless_told(hub, send):
    first = send()
    with pytest.raises(
        ValueError, match=r"other weights under the tag v1.*another --tag, or --overwrite"
    ):
        send(made(2))
    assert contents(hub.repos[REPO]) == dict(made().files)

    second = send(made(2), tag="v2")
    assert hub.repos[REPO].tags == {"v1": first.commit, "v2": second.commit}
    third = send(made(3), overwrite=True)
    assert hub.repos[REPO].tags == {"v1": third.commit, "v2": second.commit}
    assert contents(hub.repos[REPO]) == dict(made(3).files)


def test_pictures_that_are_no_longer_generated_go_and_others_files_stay(hub, send):
    send()
    hub.put(REPO, {"NOTES.md": b"somebody's", "transfer.png": b"old"})
    send()

    assert set(contents(hub.repos[REPO])) == {*made().files, "NOTES.md"}


def test_a_private_repository_is_created_private_and_a_public_one_is_not_filled(hub, send):
    send(private=True)
    assert hub.repos[REPO].private and send(private=True).committed is False

    hub.repos[REPO].private = False
    with pytest.raises(ValueError, match="is public already"):
        send(made(2), private=True, tag="v2")
    assert contents(hub.repos[REPO]) == dict(made().files)


def test_a_pull_request_changes_nothing_and_is_made_once(hub, send):
    with pytest.raises(FileNotFoundError, match="push it first"):
        send(create_pr=True)
    send()
    proposed = send(made(2), create_pr=True)
    again = send(made(2), create_pr=True)
    repo = hub.repos[REPO]

    assert contents(repo) == dict(made().files) and list(repo.pulls) == [1]
    assert contents(repo, "refs/pr/1") == dict(made(2).files)
    assert proposed.proposal.endswith("/discussions/1") and not again.committed
    assert send(made(3), create_pr=True).committed and list(repo.pulls) == [1, 2]


def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(hub, send):
    """Between our comparison and our commit, another commit lands: 412, and nothing of ours."""
    send()

    def fault(number, method, path):
        if "/commit/" in path and "THEIRS" not in contents(hub.repos[REPO]):
            hub.put(REPO, {"THEIRS": b"theirs"})

    hub.fault = fault
    with pytest.raises(OSError, match="changed meanwhile: do it again"):
        send(made(2), tag="v2")
    assert contents(hub.repos[REPO]) == {**made().files, "THEIRS": b"theirs"}
    send(made(2), tag="v2")
    assert contents(hub.repos[REPO]) == {**made(2).files, "THEIRS": b"theirs"}


def test_what_arrives_otherwise_than_sent_is_told(hub, send):
    def fault(number, method, path):
        if "blobs" in path and REPO in hub.repos and len(hub.repos[REPO].log) > 1:
            commit, tree = hub.repos[REPO].files("main")
            hub.repos[REPO].trees[commit] = {k: v for k, v in tree.items() if k != "config.json"}

    hub.fault = fault
    with pytest.raises(OSError, match=r"does not hold what was sent: config\.json"):
        send()
    assert hub.repos[REPO].tags == {}


@pytest.mark.parametrize(
    "status, headers, waited",
    [(429, {"Retry-After": "7"}, 7.0), (429, {}, 1.0), (503, {"Retry-After": "3"}, 3.0)],
)
def test_a_hub_that_asks_to_wait_is_waited_for(hub, send, waits, status, headers, waited):
    """Each kind of request once: the push goes on after the time that the Hub asked for."""
    seen = set()

    def fault(number, method, path):
        kind = (method, path.split("?")[0])
        if "/commit/" in path and kind not in seen:
            seen.add(kind)
            return Fault(status, headers)

    hub.fault = fault
    assert send().committed
    assert waited in waits and contents(hub.repos[REPO]) == dict(made().files)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_hub_that_stays_down_is_given_up_with_a_line(hub, send, waits, status):
    hub.fault = lambda number, method, path: Fault(status)

    with pytest.raises(OSError, match=rf"push of {REPO}: .*{status}"):
        send()
    assert 0 < sum(waits) < 600


def test_a_hub_that_asks_for_hours_is_not_waited_for(hub, send, waits):
    def fault(number, method, path):
        return Fault(429, {"Retry-After": "7200"}) if "/commit/" in path else None

    hub.fault = fault
    with pytest.raises(ConnectionError, match="asks to wait"):
        send()
    assert 7200 not in waits


def test_a_slow_hub_is_waited_for(hub, send):
    hub.fault = lambda number, method, path: Fault(delay=0.05)

    assert send().committed


@pytest.mark.parametrize(
    "token, words", [(None, "HF_TOKEN"), ("hf_stranger0000", "right"), ("hf_wrong0", "HF_TOKEN")]
)
def test_who_may_not_write_is_told_what_to_do(hub, send, token, words):
    """Anonymous, somebody else, a token that is none: 401, 403, 401."""
    with pytest.raises(OSError, match=words):
        send(token=token if token else False)
    assert REPO not in hub.repos
    hub.create(REPO, "org")
    with pytest.raises(OSError, match=words):
        send(token=token if token else False)
    assert contents(hub.repos[REPO]) == {}


def test_a_repository_made_by_somebody_else_at_the_same_moment_is_used(hub, send):
    """409 on creation: it is there, so it is filled."""

    def fault(number, method, path):
        if path == "/api/repos/create" and REPO not in hub.repos:
            hub.create(REPO, "org")

    hub.fault = fault
    assert send().committed


def test_a_token_in_the_environment_reaches_the_client(hub, monkeypatch):
    """HF_TOKEN is read at call time."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert push(made(), endpoint=hub.url).committed
    assert HfApi(endpoint=hub.url).whoami()["name"] == "org"


def test_a_proxy_is_gone_through(hub, monkeypatch):
    """The Hub of this test can be reached through HTTP_PROXY alone: no such host exists."""
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    monkeypatch.setenv("http_proxy", hub.url)
    close_session()
    try:
        assert push(made(), endpoint="http://hub.invalid", token=TOKEN).committed
    finally:
        close_session()
    assert hub.requests[0][1].startswith("http://hub.invalid/")
