"""`vcr-zoo push` and `reproduce` as they are typed; and the token, which appears nowhere."""

import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from dataclasses import asdict, replace
from functools import partial

import huggingface_hub
import pytest
import timm
import torch
import yaml
from huggingface_hub import HfApi

from vcr_zoo import zoo
from vcr_zoo.card.evidence import CARDS, REPRODUCE, evidence
from vcr_zoo.card.gains import PAIR, START
from vcr_zoo.cli import main
from vcr_zoo.hub import reproduce as again
from vcr_zoo.hub import retrain
from vcr_zoo.hub.publish import publish
from vcr_zoo.hub.push import Options, push
from vcr_zoo.hub.release import (
    WEIGHTS,
    Release,
    checked,
    config_of,
    release,
    repository,
    weight_files,
)
from vcr_zoo.remote import redacted
from vcr_zoo.results import Result, append, paired, read
from vcr_zoo.suite import slow, suite
from vcr_zoo.training.options import as_yaml, parse
from vcr_zoo.training.settle import settle

from .clients import TOKEN, contents, made
from .loopback import Fault

VCR, CONTROL = "test_resnet.vcr_fmnist4", "test_resnet.base_fmnist4"
RECIPE = parse(["--recipe", VCR])


@pytest.fixture
def manifest(tmp_path):
    """A copy of the package's manifest and weights, which a push may write into."""
    folder = shutil.copytree(zoo.WEIGHTS, tmp_path / "weights")
    return folder / "manifest.yaml"


def test_all_are_pushed_and_the_manifest_says_where(hub, manifest, capsys):
    names = [CONTROL, VCR]
    assert publish(names, "org", endpoint=hub.url, token=TOKEN, path=manifest) == 0
    entries = zoo.manifest(manifest)

    for name in names:
        repo = hub.repos[f"org/{name}"]
        assert entries[name].hub == f"org/{name}" and entries[name].revision == repo.head
        assert repo.files("main")[1]["model.safetensors"].sha256 == entries[name].sha256
        entries[name].verify()
    before = manifest.read_bytes()
    assert publish(names, "org", endpoint=hub.url, token=TOKEN, path=manifest) == 0
    assert manifest.read_bytes() == before and "nothing to do" in capsys.readouterr().out
    assert all(len(repo.log) == 2 for repo in hub.repos.values())


def test_what_is_published_is_all_that_a_reader_needs(hub, manifest):
    publish([VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest)
    files = contents(hub.repos[f"org/{VCR}"])

    assert set(files) >= {"README.md", "config.json", "model.safetensors", "recipe.yaml"}
    assert set(files) >= {"results.jsonl", "spectrum.png", "transfer.png"}
    assert not [path for path in files if path.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert f'"hf-hub:org/{VCR}"' in files["README.md"].decode()
    assert yaml.safe_load(files["recipe.yaml"])["vcr_beta"] == RECIPE.vcr_beta
    assert not re.search(rb"/(work|root|home|tmp)/", b"".join(files.values()))


@pytest.fixture
def runs(tmp_path):
    """Folders as training leaves them, of the packaged pair in full precision."""
    folders = {}
    for name in (CONTROL, VCR):
        folders[name] = tmp_path / "runs" / name
        folders[name].mkdir(parents=True)
        weights = timm.create_model(name, pretrained=True).state_dict()
        for file, content in weight_files(weights, config_of(zoo.manifest()[name])).items():
            (folders[name] / file).write_bytes(content)
        args = parse(["--recipe", name])
        args.distributed = False
        settle(args, torch.device("cpu"))
        (folders[name] / "args.yaml").write_text(as_yaml(args))
    return folders


def of_runs(runs):
    """The packaged weights' results, as if they had been measured on the runs'."""
    contents = {name: (run / WEIGHTS).read_bytes() for name, run in runs.items()}
    sha = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return [
        replace(r, weights=sha[r.model])
        if r.model in sha and r.command.startswith(REPRODUCE)
        else r
        for r in read(CARDS / "results.jsonl")
    ]


def test_a_pair_of_runs_goes_to_the_hub_without_the_package(hub, manifest, runs):
    """Neither has an entry before; afterwards both have, and a card that names the other."""
    manifest.write_text("{}")
    more = dict(runs=runs, license="mit", control=CONTROL, results=of_runs(runs))
    assert publish([CONTROL, VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest, **more) == 0

    entries = zoo.manifest(manifest)
    assert entries[VCR].control == CONTROL and entries[CONTROL].control is None
    for name, run in runs.items():
        files = contents(hub.repos[f"org/{name}"])
        assert files[WEIGHTS] == (run / WEIGHTS).read_bytes()
        assert entries[name].file is None and entries[name].hub == f"org/{name}"
        assert json.loads(files["config.json"]) == config_of(entries[name])
        assert VCR in files["README.md"].decode() and CONTROL in files["README.md"].decode()


def test_a_run_of_another_recipe_is_refused(manifest, runs):
    args = runs[VCR] / "args.yaml"
    args.write_text(args.read_text().replace(f"epochs: {RECIPE.epochs}", "epochs: 1"))
    with pytest.raises(ValueError, match=f"epochs is 1, not {RECIPE.epochs}"):
        release(VCR, "org", runs=runs, license="mit", control=CONTROL, path=manifest)


def test_older_weights_do_not_come_back_untold(hub, manifest, runs, capsys):
    """The branch holds those of tag v2; a push of v1's again is refused until told otherwise."""
    push = partial(publish, [VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest)
    one = {VCR: runs[VCR]}
    newer = dict(runs=one, license="mit", control=CONTROL, results=of_runs(one))
    before = manifest.read_bytes()
    assert push() == 0
    assert push(Options(tag="v2"), **newer) == 0
    manifest.write_bytes(before)
    head = hub.repos[f"org/{VCR}"].head
    assert push() == 2 and "holds other weights" in capsys.readouterr().err
    assert hub.repos[f"org/{VCR}"].head == head
    assert push(Options(overwrite=True)) == 0 and hub.repos[f"org/{VCR}"].head != head


@pytest.mark.parametrize("tag", ["bad tag", "a..b", "main", "0" * 40, "-v1", "v1.", ""])
def test_a_tag_that_git_would_not_take_is_refused_before_anything_is_sent(hub, manifest, tag):
    settings = {"endpoint": hub.url, "token": TOKEN, "path": manifest}
    for dry_run in (True, False):
        with pytest.raises(ValueError, match="no name for a tag"):
            publish([VCR], "org", Options(tag=tag), dry_run=dry_run, **settings)
    assert hub.requests == []


def test_a_card_alone_leaves_the_tag_where_it_is(hub, manifest, capsys):
    publish([VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest)
    tagged = hub.repos[f"org/{VCR}"].head
    hub.put(f"org/{VCR}", {"README.md": b"---\nlicense: mit\n---\nold"})
    publish([VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest)
    assert f"v1 stays at {tagged}, the same weights" in capsys.readouterr().out


def test_one_that_fails_does_not_stop_the_others(hub, manifest, capsys):
    hub.fault = lambda n, method, path: Fault(403) if CONTROL in path else None
    assert publish([CONTROL, VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest) == 2

    out = capsys.readouterr()
    assert f"push: {CONTROL}: " in out.err and "1 of 2" in out.out
    assert "give the same command again" in out.out and list(hub.repos) == [f"org/{VCR}"]


def test_a_dry_run_shows_files_sizes_hashes_and_the_card_and_sends_nothing(hub, capsys):
    assert main(["push", VCR, "--org", "some-org", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    entry = zoo.manifest()[VCR]

    assert re.search(rf"{entry.file.stat().st_size:,}  {entry.sha256}  model.safetensors", shown)
    assert f"# Model card for {VCR}" in shown and f"hf-hub:some-org/{VCR}" in shown
    assert hub.requests == []


def test_a_pull_request_leaves_the_manifest_alone(hub, manifest):
    publish([VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest)
    commit = zoo.manifest(manifest)[VCR].revision
    hub.put(f"org/{VCR}", {"README.md": b"---\nlicense: mit\n---\nold"})
    publish([VCR], "org", Options(create_pr=True), endpoint=hub.url, token=TOKEN, path=manifest)

    assert zoo.manifest(manifest)[VCR].revision == commit and hub.repos[f"org/{VCR}"].pulls


def test_a_pull_request_has_no_tag(capsys):
    words = ["push", VCR, "--org", "some-org", "--create-pr"]
    for more in (["--tag", "v2"], ["--overwrite"]):
        assert main([*words, *more]) == 2
        assert "--create-pr proposes and tags nothing" in capsys.readouterr().err


def test_the_workflow_publishes_every_set_of_weights():
    jobs = yaml.safe_load((CARDS.parent / "docs" / "publish.yml").read_text())["jobs"]
    matrix = jobs["publish"]["strategy"]["matrix"]["name"]
    assert matrix == "${{ fromJSON(needs.names.outputs.names) }}"
    (step,) = (step for step in jobs["names"]["steps"] if step.get("id") == "names")
    command = shlex.split(step["run"].partition(">>")[0])
    told = subprocess.run([sys.executable, *command[1:]], capture_output=True, cwd=CARDS.parent)
    assert json.loads(told.stdout.decode().removeprefix("names=")) == list(zoo.manifest())


@pytest.mark.parametrize("org", ["", "..", "a/b", "-x", "a b", "org--x", "https://x"])
def test_what_is_no_organization_is_refused(org):
    with pytest.raises(ValueError, match="is no repository's name"):
        repository(org, VCR)


def test_weights_without_a_card_are_not_published(manifest):
    entries = zoo.manifest(manifest)
    entries["test_resnet.vcr_new"] = replace(entries[VCR], name="test_resnet.vcr_new")
    with pytest.raises(LookupError, match="no recipe"):
        release("test_resnet.vcr_new", "org", entries=entries)
    with pytest.raises(ValueError, match="no results"):
        release(VCR, "org", results=[])


def test_files_that_hold_a_token_or_leave_the_repository_are_refused(monkeypatch):
    good = made()
    for files, words in (
        ({"README.md": b"use hf_abcdefghijklmnopqrstuvwxyz0123"}, "looks like a token"),
        ({"../x": b""}, "outside of the repository"),
        ({"/x": b""}, "outside of the repository"),
    ):
        with pytest.raises(ValueError, match=words):
            checked(replace(good, files={**good.files, **files}))
    monkeypatch.setenv("HF_TOKEN", "an-unusual-token")
    with pytest.raises(ValueError, match="looks like a token"):
        checked(replace(good, files={**good.files, "results.jsonl": b"x an-unusual-token y"}))
    assert isinstance(checked(good), Release)


def test_messages_are_cleared_of_tokens_and_signatures(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "an-unusual-token")
    message = "no\nan-unusual-token hf_abcdefghij https://x.y/z?X-Signature=abc&t=1 'end'"

    assert redacted(message) == "no *** *** https://x.y/z?... 'end'"


def test_the_token_appears_in_no_output_log_or_error(hub, caplog, capsys, waits):
    """Every refusal at every request in turn, with the client's own log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    faults = [Fault(status) for status in (401, 403, 404, 409, 412, 429, 500)]
    errors = []
    for fault in [*faults, Fault(cut="before"), Fault(cut="half")]:
        for k in range(12):
            hub.repos.clear()
            first = len(hub.requests) + k
            hub.fault = lambda n, *_, first=first, fault=fault: fault if n >= first else None
            try:
                push(made(), endpoint=hub.url, token=TOKEN)
            except (OSError, ValueError):
                errors.append(traceback.format_exc())
    shown = capsys.readouterr()

    assert len(errors) > 60
    logs = [record.getMessage() for record in caplog.records]
    assert not any(TOKEN in text for text in (*errors, *logs, shown.out, shown.err))
    assert not any("secret-of-the-url" in text for text in (*errors, shown.out, shown.err))


def test_a_workflow_without_its_identity_is_told_so(hub, monkeypatch):
    """HF_OIDC_RESOURCE asks for a Trusted Publisher's token; this is no CI that could give one."""
    monkeypatch.setenv("HF_OIDC_RESOURCE", "org/x")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    assert checked(made()) and redacted("plain") == "plain"
    with pytest.raises(OSError, match=r"push of .*: no token from this CI"):
        push(made(), endpoint=hub.url)


def test_a_workflow_gets_its_token_without_a_stored_one(hub, monkeypatch):
    """An identity of the CI's is exchanged for a token of one repository, which then serves."""
    auth = huggingface_hub.utils._auth
    monkeypatch.setattr(auth, "_OIDC_TOKEN_CACHE", None)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_OIDC_RESOURCE", "org/test_resnet.vcr_made")
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", "identity-of-the-workflow")
    hub.identities["identity-of-the-workflow"] = TOKEN

    assert push(made(), endpoint=hub.url).committed
    monkeypatch.setattr(auth, "_OIDC_TOKEN_CACHE", None)
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", "identity-of-another")
    with pytest.raises(OSError, match=r"refused|could not"):
        push(made(2), endpoint=hub.url)


def test_the_token_is_not_in_what_a_process_prints(hub, tmp_path):
    """A real process whose push is refused: nothing on its outputs, no traceback."""
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HOME": str(tmp_path), "HF_DEBUG": "1"}
    command = [sys.executable, "-m", "vcr_zoo.cli", "push", VCR, "--org", "stranger"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)

    assert done.returncode == 2 and "the Hub refused (403)" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr.split("vcr-zoo push:")[1]
    assert HfApi(endpoint=hub.url, token=TOKEN).whoami()["name"] == "org"


# Reproduce


def stated(**fields) -> Result:
    base = dict(model=VCR, data="fmnist", protocol="eval", metric="top1", value=0.9)
    return Result(**{**base, "fingerprint": "f", "command": f"vcr-zoo reproduce {VCR}", **fields})


def compare(value: float, **fields):
    found = [stated(value=value, **fields)]
    (one,) = again.compared([stated()], lambda job: found)
    return one


def test_a_number_within_tolerance_agrees_and_one_beyond_does_not():
    assert compare(0.9 + 0.9 * again.POINT).agrees
    assert not compare(0.9 + 1.1 * again.POINT).agrees
    assert not compare(0.9, fingerprint="other").agrees
    assert "DIFFERS: other data" in again.line(compare(0.9, fingerprint="other"))


def test_data_that_cannot_be_had_is_not_an_agreement():
    def nothing(job):
        raise OSError("no route")

    (one,) = again.compared([stated()], nothing)
    assert not one.agrees and "not measured: no route" in again.line(one)


def test_a_reason_is_told_once():
    """All numbers of a data set lack for the same one, whatever stands between them."""

    def nothing(job):
        raise OSError("no route" if job.data == "mnist" else "no disk")

    lines, kinds = [], ("eval", "collapse")
    rows = [stated(data=data, protocol=p) for p in kinds for data in ("mnist", "fmnist")]
    again.told(again.compared(rows, nothing), lines.append)

    reasons = [line.partition("not measured: ")[2] for line in lines[1:-1]]
    assert reasons[:2] == ["no route", "no disk"]
    assert reasons[2:] == ["as eval top1 on mnist", "as eval top1 on fmnist"]


def test_only_known_protocols_and_data_are_run():
    """Stated numbers may come from a repository of somebody else."""
    rows = [stated(), stated(protocol="os.system"), stated(data="folder//etc"), stated(data="../x")]

    assert again.stated_jobs(rows) == [again.Job("eval", "fmnist")]


def test_quick_leaves_out_what_reads_many_pictures():
    kinds = suite(parse(["--recipe", VCR]))

    assert [job for job in kinds if slow(job)] == [
        again.Job("probe", "mnist"),
        again.Job("probe", "fmnist"),
    ]
    assert again.Job("probe", "silhouettes") in kinds


def test_every_stated_number_of_a_card_is_measured_by_reproduce():
    """What is stated of the published weights and what is run again are the same list."""
    rows = [r for r in read(CARDS / "results.jsonl") if r.model == VCR]
    rows = [r for r in rows if r.command.startswith(again.REPRODUCE) and r.protocol != "train"]

    assert set(again.stated_jobs(rows)) == set(suite(parse(["--recipe", VCR])))


@pytest.fixture
def stated_file(tmp_path, monkeypatch):
    """One stated number on a stand-in for the measurement, so that verdicts can be seen."""

    def state(value, found):
        monkeypatch.setattr(again, "CARDS", tmp_path)
        monkeypatch.setattr(again, "measured", lambda *_, **__: [stated(value=found)])
        append(tmp_path / "results.jsonl", stated(value=value))

    return state


@pytest.mark.parametrize("found, code, word", [(0.9, 0, "agrees"), (0.8, 1, "DIFFERS")])
def test_the_command_tells_and_its_status_says(stated_file, capsys, found, code, word):
    stated_file(0.9, found)

    assert main(["reproduce", VCR, "--quick"]) == code
    shown = capsys.readouterr().out
    assert word in shown and zoo.manifest()[VCR].sha256 in shown


def ran(gap, seeds=range(5), metrics=("probe", "eval"), start=None):
    """A pair whose gains are `gap` more by seed, with a spread of one to five hundredths; of what
    both began with the probe's accuracy, if it is given."""
    began = [
        stated(
            model=CONTROL + START,
            protocol="probe",
            value=start,
            weights="began",
            command=f"vcr-zoo pair {VCR} --against {CONTROL} --seeds 0",
        )
    ]
    return (began if start else []) + [
        stated(
            model=model,
            protocol=protocol,
            value=0.5 + (gap + 0.01 * seed) * (model == VCR),
            seed=seed,
            weights=f"{model} {seed}",
            command=f"vcr-zoo pair {VCR} --against {CONTROL} --seeds {seed}",
        )
        for model in (VCR, CONTROL)
        for seed in seeds
        for protocol in metrics
    ]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--retrain", "--jobs", "0"], "--jobs 0: networks that --retrain compares"),
        (["--jobs", "2"], "--jobs 2: networks that --retrain compares"),
        (["--record", "--run", "nowhere"], "nowhere is no folder of a run"),
        (["--record", "--quick"], "all that a card states: leave --quick out"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(
    stated_file, capsys, options, words
):
    stated_file(0.9, 0.9)
    assert main(["reproduce", VCR, *options]) == 2
    said = capsys.readouterr()
    assert words in said.err and "agrees" not in said.out


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Pairs "trained" at once, with other gains than were stated; what was asked of them."""
    monkeypatch.chdir(tmp_path)
    asked = []

    def trains(gap=0.0, failed=0, **made):
        def pair(*names, seeds, folder, **more):
            asked.append((names, seeds, more["jobs"], folder.exists()))
            for one in ran(gap, **made):
                append(folder / "results.jsonl", one)
            for name in names:
                (folder / f"{name}-seed0").mkdir(parents=True, exist_ok=True)
                shutil.copy(WEIGHTS_OF[name], folder / f"{name}-seed0" / "model.safetensors")
            return failed

        monkeypatch.setattr(retrain, "pair", pair)
        return asked

    return trains


WEIGHTS_OF = {name: zoo.manifest()[name].verify() for name in (VCR, CONTROL)}
BOOK = [r for r in read(CARDS / "results.jsonl") if not r.command.startswith(PAIR)]


def retrained(told, name=VCR, book=()):
    found = evidence(name, results=[*BOOK, *(book or ran(0.0))])
    how = {"quick": False, "jobs": 2, "tell": told.append}
    return retrain.pair_again(found, WEIGHTS_OF[VCR], **how)


@pytest.mark.parametrize("gap, status", [(0.0, 0), (0.03, 0), (0.2, 1)])
def test_a_pair_is_trained_again_for_its_intervals(pairs, gap, status):
    """With the seeds of the card, every time anew; intervals that do not touch confirm nothing."""
    asked, told = pairs(gap, metrics=["probe"]), []

    assert [retrained(told), retrained(told)] == [status, status]
    assert asked == [((VCR, CONTROL), [0, 1, 2, 3, 4], 2, False)] * 2
    probe = next(line for line in told if line.startswith("linear probe, fmnist"))
    assert str(paired(gap + 0.01 * s for s in range(5)).scaled(100)) in probe
    assert probe.endswith("DO NOT OVERLAP" if status else "  overlap")
    assert any(line.endswith("not measured") for line in told)
    assert f"{1 - status} of 1 overlap" in told
    assert "the recipe's weights are the published ones to the bit" in told


@pytest.mark.parametrize(
    "gap, start, status",
    [(0.0, 0.4, 0), (0.0, 0.1, 1), (0.2, 0.6, 1), (0.0, None, 2), (0.2, None, 1)],
)
def test_what_a_pair_continued_from_is_compared_too(pairs, gap, start, status):
    """One disagreement is told by the status, and so is what could not be compared."""
    told = []
    pairs(gap, metrics=["probe"], start=start)

    assert retrained(told, book=ran(0.0, metrics=["probe"], start=0.4)) == status
    assert any(line.strip().startswith("VCR less the start") for line in told)
    if start == 0.4:
        shown = str(paired(0.1 + 0.01 * s for s in range(5)).scaled(100))
        assert sum(f"{shown}  overlap" in line for line in told) == 1


def test_weights_of_another_run_are_not_the_published_ones(pairs):
    told = []
    pairs()
    retrained(told, name=CONTROL)  # its run, held against the VCR network's file
    assert "the recipe's weights are not the published ones to the bit" in told


def test_what_could_not_be_trained_is_no_agreement_and_goes_on(pairs, tmp_path):
    """Nor is what has one seed, which has no interval, or nothing at all."""
    told = []
    pairs(failed=1)
    assert retrained(told) == 2 and (retrain.RUNS / VCR / "results.jsonl").exists()
    pairs(0.2, failed=1)
    assert retrained(told) == 1
    pairs(metrics=[])
    shutil.rmtree(retrain.RUNS)
    assert retrained(told) == 2 and "0 of 0 overlap" in told
    pairs()
    assert retrained(told, book=ran(0.0, seeds=[0])) == 2
    assert any(line.endswith("one seed has no interval") for line in told)


@pytest.mark.parametrize(
    "found, pair, status", [(0.9, 0, 0), (0.9, 1, 1), (0.9, 2, 2), (0.8, 2, 1), (0.8, 0, 1)]
)
def test_the_pair_and_the_file_are_both_asked(stated_file, monkeypatch, found, pair, status):
    asked = []
    stated_file(0.9, found)
    monkeypatch.setattr(again, "evidence", lambda name, results: name)
    monkeypatch.setattr(again, "pair_again", lambda *a, **more: asked.append((a, more)) or pair)

    assert main(["reproduce", VCR, "--quick", "--retrain", "--jobs", "2"]) == status
    (((name, file), how),) = asked
    assert (name, file) == (VCR, WEIGHTS_OF[VCR]) and how["jobs"] == 2 and how["quick"]


def test_what_quick_leaves_out_is_told(monkeypatch):
    monkeypatch.setattr(again, "slow", lambda job: job.protocol == "probe")
    told = []
    again.tell_left_out([again.Job("probe", "mnist"), again.Job("eval", "fmnist")], told.append)
    again.tell_left_out([again.Job("eval", "fmnist")], told.append)

    assert told == ["left out by --quick: probe on mnist"]


def test_damaged_weights_are_not_measured(monkeypatch, manifest, capsys):
    manifest.with_name(f"{VCR}.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(again, "manifest", lambda: zoo.manifest(manifest))

    assert main(["reproduce", VCR]) == 2
    assert "not what was published" in capsys.readouterr().err


def test_a_repository_is_checked_with_its_card(hub, manifest, monkeypatch, capsys):
    """The card is what people read: it may state nothing but what is measured again."""
    publish([VCR], "org", endpoint=hub.url, token=TOKEN, path=manifest)
    known = [r for r in read(CARDS / "results.jsonl") if r.model == VCR]
    measured = [r for r in known if r.command.startswith(REPRODUCE)]

    def found(job, *_):
        return [r for r in measured if (r.protocol, r.data) == job[:2]]

    monkeypatch.setattr(again, "of_published", found)
    for name in ("pull", "download"):
        monkeypatch.setattr(again, name, partial(getattr(again, name), endpoint=hub.url))
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    count = len([r for r in measured if r.protocol != "train"])
    assert main(["reproduce", f"org/{VCR}"]) == 0
    assert f"{count} of {count} agree" in capsys.readouterr().out
    for option in ("--record", "--retrain"):
        assert main(["reproduce", f"org/{VCR}", option]) == 2
        assert f"{option} takes a name of this zoo" in capsys.readouterr().err
    card = contents(hub.repos[f"org/{VCR}"])["README.md"].decode()
    stated = next(r for r in measured if r.protocol == "eval").value
    for changed, words in (
        (card.replace(f"value: {stated:g}", "value: 0.999"), "the card claims 0.999"),
        ("---\nlicense: mit\n---\n", "states no numbers"),
        ("---\nlicense: [mit\n---\n", "the head of its card is no YAML"),
    ):
        hub.put(f"org/{VCR}", {"README.md": changed.encode()})
        assert main(["reproduce", f"org/{VCR}"]) == 2 and words in capsys.readouterr().err
    odd = asdict(replace(measured[0], settings={"level": ["fine"]}))
    hub.put(f"org/{VCR}", {"README.md": card.encode(), "results.jsonl": json.dumps(odd).encode()})
    assert main(["reproduce", f"org/{VCR}"]) == 2
    assert "levels of labels that are no words" in capsys.readouterr().err


@pytest.mark.network
def test_the_committed_numbers_are_found_again(capsys):
    """With real data, which may have to be fetched."""
    assert main(["reproduce", VCR, "--quick"]) == 0, capsys.readouterr().out
