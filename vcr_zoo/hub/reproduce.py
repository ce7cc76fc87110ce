"""A card's numbers measured again: stated beside found."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import ModelCard

from vcr_zoo.card.book import add
from vcr_zoo.card.evidence import CARDS, REPRODUCE, entry_called, evidence
from vcr_zoo.card.words import PART, POINT, measure
from vcr_zoo.data import DATASETS, is_named
from vcr_zoo.remote import download
from vcr_zoo.results import Result, hardware, read, versions
from vcr_zoo.suite import OURS, Job, measured, slow, suite
from vcr_zoo.training import parse
from vcr_zoo.training.settle import check_recipe
from vcr_zoo.transfer import matrix
from vcr_zoo.zoo import Entry, canonical, manifest, tensors

from .pull import commit_of, pull
from .retrain import pair_again, trained_again, worse


class Comparison(NamedTuple):
    """A stated number beside the one that was found; `problem` says why there is none."""

    stated: Result
    found: Result | None
    tolerance: float
    problem: str = ""

    @property
    def agrees(self) -> bool:
        return (
            self.found is not None
            and self.found.fingerprint == self.stated.fingerprint
            and abs(self.found.value - self.stated.value) <= self.tolerance
        )


def of_published(
    job: Job, name: str, model: str, weights: str, cache: Path | None = None
) -> list[Result]:
    """The results of one evaluation of published weights.

    Args:
        name: of the weights, in the results.
        model: what `load_model` takes.
        weights: sha256 of their file.

    Raises:
        OSError: if the data cannot be had.
    """
    known = {**versions(), "hardware": hardware()}
    fields = {"model": name, "weights": weights, "network": "", "versions": known}
    fields["command"] = f"{REPRODUCE}{name}"
    return [replace(result, **fields) for result in measured(job, model, cache=cache)]


def tolerance(stated: Result) -> float:
    """By how much the number may differ on another machine; a time, by anything."""
    if stated.metric == "seconds":
        return float("inf")
    known = measure(stated.protocol, stated.metric, stated.data)
    return POINT if known.unit == " %" else PART * abs(stated.value)


def stated_jobs(stated: Iterable[Result], trusted: bool = False) -> list[Job]:
    """The evaluations behind stated numbers; what is not known here is not run, nor, unless they
    are `trusted`, what would read folders of this machine."""
    known = {*matrix.PROTOCOLS, *OURS}
    found = {
        Job(r.protocol, r.data, r.settings.get("level", "fine")): None
        for r in stated
        if r.protocol in known and (is_named(r.data) if trusted else r.data in DATASETS)
    }
    return list(found)


def compared(
    stated: Iterable[Result],
    run: Callable[[Job], list[Result]],
    quick: bool = False,
    trusted: bool = False,
) -> Iterator[Comparison]:
    """Every stated number beside the one found now, evaluation by evaluation."""
    stated = list(stated)
    for job in stated_jobs(stated, trusted):
        if quick and slow(job):
            continue
        try:
            found, problem = {r.metric: r for r in run(job)}, ""
        except OSError as error:
            found, problem = {}, " ".join(str(error).split())
        for result in stated:
            if (result.protocol, result.data) == job[:2]:
                yield Comparison(result, found.get(result.metric), tolerance(result), problem)


def named(result: Result) -> str:
    return f"{result.protocol} {result.metric} on {result.data}"


def line(one: Comparison) -> str:
    """A row of the table of stated and found."""
    r = one.stated
    start = f"{named(r):40}{r.value:12.5g}"
    if one.found is None:
        why = one.problem or "this version measures no such thing"
        return f"{start}{'':12}  not measured: {why}"
    verdict = "agrees" if one.agrees else "DIFFERS"
    if one.found.fingerprint != r.fingerprint:
        verdict = "DIFFERS: other data than what was stated"
    return f"{start}{one.found.value:12.5g}{one.tolerance:12.3g}  {verdict}"


def reproduce(
    name: str,
    *,
    quick: bool = False,
    retrain: bool = False,
    record: bool = False,
    run: Path | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    tell: Callable[[str], None] = print,
) -> int:
    """Measure a card's numbers again: 0 if all agree, 1 if one differs, 2 if one cannot be had.

    Args:
        quick: without the probes of the largest sets.
        retrain: train the pair anew with every seed of the card, for its intervals; with `record`
            run the recipe, for its time and accuracy.
        jobs: networks of the pair at a time.
        record: write what is found into `model_cards/results.jsonl` instead of comparing.
        run: folder of a finished run whose weights are to be published under that name, to be
            recorded before there is an entry.
        cache: folder of features.
        tell: receives the lines of the table.

    Raises:
        LookupError: for a name without weights.
        ValueError: if the weights are not those that were published, or for options that do not
            go together.
    """
    if jobs < 1 or (jobs > 1 and (record or not retrain)):
        raise ValueError(f"--jobs {jobs}: networks that --retrain compares at a time, 1 or more")
    if record and quick:
        raise ValueError("--record enters all that a card states: leave --quick out")
    if run is not None:
        if not record or retrain:
            raise ValueError("--run measures a run for its card: give --record, without --retrain")
        if not (run / "args.yaml").exists():
            raise FileNotFoundError(f"{run} is no folder of a run: it has no args.yaml")
        check_recipe(run, name)
        file = run / "model.safetensors"
        sha256, model = hashlib.sha256(canonical(tensors(file))).hexdigest(), f"local-dir:{run}"
    elif "/" in name:
        if record or retrain:
            raise ValueError(
                f"--{'record' if record else 'retrain'} takes a name of this zoo; {name} is a "
                "repository, whose numbers can be measured again and compared"
            )
        return of_repository(name, quick=quick, cache=cache, tell=tell)
    else:
        entry = entry_called(name, manifest())
        file, sha256, model = entry.verify(), entry.sha256, name
        tell(f"{name}: sha256 {sha256}, as published")

    def again(job: Job) -> list[Result]:
        return of_published(job, name, model, sha256, cache)

    if record:
        found = [r for job in suite(parse(["--recipe", name])) for r in again(job)]
        found += trained_again(name, sha256) if retrain else []
        tell(f"{add(found)} results entered; now: vcr-zoo card --all")
        return 0
    book = card_results(entry)
    stated = stated_results(book, name)
    pair = evidence(name, results=book) if retrain else None  # or an error before all the work
    comparisons = told(compared(stated, again, quick, trusted=True), tell)
    tell_left_out(stated_jobs(stated, trusted=True) if quick else [], tell)
    if retrain:
        trained = pair_again(pair, file, quick=quick, jobs=jobs, tell=tell)
        return worse(verdict(comparisons), trained)
    return verdict(comparisons)


def told(comparisons: Iterable[Comparison], tell: Callable[[str], None]) -> list[Comparison]:
    """The comparisons, each with its line as it is made, and how many agree."""
    tell(f"{'':40}{'stated':>12}{'found':>12}{'within':>12}")
    made, first = [], {}  # problem -> the number that it was told of
    for one in comparisons:
        known = first.setdefault(one.problem, one.stated) if one.problem else one.stated
        tell(line(one if known is one.stated else one._replace(problem=f"as {named(known)}")))
        made.append(one)
    tell(f"{sum(one.agrees for one in made)} of {len(made)} agree")
    return made


def tell_left_out(jobs: Iterable[Job], tell: Callable[[str], None]) -> None:
    """Say which of the evaluations were not made for the sake of time."""
    if left := [f"{job.protocol} on {job.data}" for job in jobs if slow(job)]:
        tell(f"left out by --quick: {', '.join(left)}")


def verdict(comparisons: Sequence[Comparison]) -> int:
    if any(one.found and not one.agrees for one in comparisons):
        return 1
    return 0 if comparisons and all(one.found for one in comparisons) else 2


def of_repository(name: str, *, quick: bool, cache, tell: Callable[[str], None]) -> int:
    """A card on the Hub, owner/name or owner/name@revision, by the results that lie beside it."""
    repo, _, revision = name.removeprefix("hf-hub:").partition("@")
    file = pull(f"{repo}@{revision}" if revision else repo)
    commit, sha256 = commit_of(file), hashlib.sha256(file.read_bytes()).hexdigest()
    ours = repo.partition("/")[2]
    results = read(download(repo, "results.jsonl", commit))
    if any(type(r.settings.get("level", "")) is not str for r in results):
        raise ValueError(f"{repo}: its results.jsonl names levels of labels that are no words")
    stated = [r for r in results if r.model == ours and r.command.startswith(REPRODUCE)]
    if not stated or any(r.weights != sha256 for r in stated):
        raise ValueError(f"{repo} states no numbers of these weights (sha256 {sha256[:12]}...)")
    check_card(repo, commit, stated)
    tell(f"{repo} at {commit[:12]}: sha256 {sha256}, which its numbers are of")

    def again(job: Job) -> list[Result]:
        return of_published(job, ours, f"hf-hub:{repo}@{commit}", sha256, cache)

    comparisons = told(compared(stated, again, quick), tell)
    tell_left_out(stated_jobs(stated) if quick else [], tell)
    return verdict(comparisons)


def check_card(repo: str, commit: str, stated: Sequence[Result]) -> None:
    """Refuse a card whose head states accuracies that its results have not.

    Raises:
        ValueError: for one that does, that states none, or whose head cannot be read.
    """
    try:
        card = ModelCard(download(repo, "README.md", commit).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{repo}: the head of its card is no YAML: {error}") from None
    measured = {round(r.value, 6) for r in stated}
    claimed = [one.metric_value for one in card.data.eval_results or ()]
    if wrong := [value for value in claimed if value not in measured]:
        raise ValueError(f"{repo}: the card claims {wrong[0]}, which its results.jsonl has not")
    if not claimed:
        raise ValueError(f"{repo}: the card states no numbers that could be measured again")


def card_results(entry: Entry) -> list[Result]:
    """What cards are made of: the book of a checkout, or what lies beside weights on the Hub."""
    path = CARDS / "results.jsonl"
    if not path.exists() and entry.hub:
        path = download(entry.hub, "results.jsonl", entry.revision)
    return read(path)


def stated_results(book: Iterable[Result], name: str) -> list[Result]:
    """The numbers of a card that were measured on the published weights.

    Raises:
        FileNotFoundError: if there are none.
    """
    stated = [r for r in book if r.model == name and r.command.startswith(REPRODUCE)]
    if not stated:
        raise FileNotFoundError(
            f"no stated numbers of {name} are here: run this in a checkout of the repository"
        )
    return stated
