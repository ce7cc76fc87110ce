"""Releases of a few bytes, and clients in processes of their own that can be killed."""

import hashlib
import multiprocessing
import os
import time

import torch
from huggingface_hub import constants
from safetensors.torch import save

from vcr_zoo.hub.push import Options, push
from vcr_zoo.hub.release import Release

TOKEN = "hf_LoopbackSecretToken0123456789abcdef"
NAME, REPO = "test_resnet.vcr_made", "org/test_resnet.vcr_made"
HEAD = "---\nlicense: mit\n---\n"


def made(version: int = 1, **files: bytes) -> Release:
    """A release whose every file depends on the version."""
    weights = save({"w": torch.full((64,), float(version))}, {"format": "pt"})
    content = {"model.safetensors": weights, "config.json": b'{"version": %d}' % version}
    content |= {"README.md": f"{HEAD}version {version}\n".encode(), **files}
    content["spectrum.png"] = b"\x89PNG" + bytes([version]) * 40
    fields = {"sha256": hashlib.sha256(weights).hexdigest(), "license": "mit"}
    return Release(NAME, REPO, content, fields)


def contents(repo, revision: str = "main") -> dict[str, bytes]:
    """What a repository of the loopback Hub holds, without the Hub's own file."""
    _, tree = repo.files(revision)
    return {path: blob.content for path, blob in tree.items() if path != ".gitattributes"}


def as_client(setattr=setattr) -> None:
    """No Xet storage, and no progress bars."""
    setattr(constants, "HF_HUB_DISABLE_XET", True)


def push_in_child(url: str, release: Release, options: Options) -> None:
    """What a client process does: push, without waiting between attempts."""
    as_client()
    time.sleep = lambda seconds: None
    push(release, options, endpoint=url, token=TOKEN)
    os._exit(0)


def process(*arguments) -> multiprocessing.Process:
    """A client process, forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.hub.clients"])
    child = context.Process(target=push_in_child, args=arguments, daemon=True)
    child.start()
    return child
