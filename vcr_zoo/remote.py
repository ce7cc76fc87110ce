"""Files on the Hugging Face Hub, and its refusals in words that say what to do. Never the token.

HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME and the proxies' variables are huggingface_hub's.
"""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors, hf_hub_download

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
# Of Trusted Publishers; the first releases of huggingface_hub 1 have not heard of them.
OIDCError = getattr(errors, "OIDCError", errors.LocalTokenNotFoundError)


def get_token() -> str | None:
    """The token that the client would use, or None."""
    try:
        return huggingface_hub.get_token()
    except (OIDCError, errors.HfHubHTTPError):
        return None


def download(hub: str, file: str, revision: str, endpoint: str | None = None) -> Path:
    """A file of a repository at a revision, from the cache if it is there.

    Raises:
        OSError: if it cannot be had, saying why and what to do.
    """
    try:
        return Path(hf_hub_download(hub, file, revision=revision, endpoint=endpoint))
    except Exception as error:
        raise explained(error, f"{file} of {hub} at {revision[:12]}") from None


def explained(error: Exception, what: str) -> OSError:
    """A client's error as one that says what was wanted, what happened and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OIDCError):
        kind, why = PermissionError, f"no token from this CI: {redacted(error)}"
    elif constants.HF_HUB_OFFLINE:
        kind, why = (
            ConnectionError,
            "HF_HUB_OFFLINE is set and it is not in the cache: unset it once",
        )
    elif isinstance(error, errors.GatedRepoError):
        kind, why = (
            PermissionError,
            "the repository is gated: ask for access on its page, set HF_TOKEN",
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        kind, why = FileNotFoundError, "the repository has no such revision"
    elif isinstance(error, errors.RepositoryNotFoundError):
        advice = "this HF_TOKEN may not read it" if get_token() else "set HF_TOKEN if it is private"
        kind, why = FileNotFoundError, f"there is no such repository, or {advice}"
    elif isinstance(error, errors.RemoteEntryNotFoundError):
        kind, why = FileNotFoundError, "the repository has no such file"
    elif status in (401, 403):
        reason = "HF_TOKEN needs the right to do this"
        if status == 401:
            reason = "this HF_TOKEN is not accepted" if get_token() else "set HF_TOKEN"
        kind, why = PermissionError, f"the Hub refused ({status}): {reason}"
    elif status == 412:
        kind, why = OSError, "the repository has changed meanwhile: do it again"
    elif status == 409:
        kind, why = FileExistsError, "it is there already, as something else"
    elif status == 429:
        kind, why = ConnectionError, "the Hub asks to wait (429): do it again later"
    elif unreachable(error):
        advice = "look after the network, HF_ENDPOINT and proxies"
        kind, why = ConnectionError, f"{constants.ENDPOINT} does not answer: {advice}"
    else:
        kind, why = ConnectionError, f"the Hub could not do it ({redacted(whole(error))})"
    return kind(f"{what}: {why}")


def unreachable(error: BaseException | None) -> bool:
    """Whether an error says that nothing answered at all."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError) or "Connection refused" in str(error):
            return True
        if "Name or service not known" in str(error) or "name resolution" in str(error):
            return True
        error = error.__cause__
    return False


def whole(error: BaseException) -> str:
    """An error's message with those of its causes."""
    causes = []
    while error is not None:
        causes.append(str(error) or type(error).__name__)
        error = error.__cause__
    return ": ".join(causes)


def redacted(message: object) -> str:
    """A message in one line without tokens, and without what follows the ? of an address, where
    signatures stand."""
    line = " ".join(str(message).split())
    if token := get_token():
        line = line.replace(token, "***")
    line = re.sub(r"hf_\w{8,}", "***", line)
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1?...", line)[:500]
