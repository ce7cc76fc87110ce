"""A small Hugging Face Hub on a loopback port, in memory, for tests with the real client.

It speaks what huggingface_hub 1.x and 2.x ask when they create repositories, commit (with files
kept as LFS objects), tag, propose, list and download. Nothing of the package under test is used
here; only the standard library and PyYAML.

    with LoopbackHub(tokens={"hf_writer": "org"}) as hub:
        api = HfApi(endpoint=hub.url, token="hf_writer")
        hub.fault = lambda n, method, path: Fault(cut="after") if n == 3 else None
"""

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_ENDINGS = (".safetensors", ".png", ".bin", ".onnx")


@dataclass(frozen=True)
class Fault:
    """What happens to one request instead of, or around, its answer."""

    status: int = 0  # answer this, and do nothing
    headers: dict = field(default_factory=dict)
    cut: str = ""  # "before" it is carried out, "after" it, or "half" way through the answer
    delay: float = 0.0  # seconds before it is carried out
    then: Callable[[], None] = lambda: None  # called where it is cut


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        return git_oid(self.content)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Repo:
    owner: str
    private: bool = False
    gated: bool = False  # to be read only by those in `granted`, and its owner
    granted: set = field(default_factory=set)
    trees: dict = field(default_factory=dict)  # commit -> path -> Blob
    log: list = field(default_factory=list)  # commits of main, oldest first
    tags: dict = field(default_factory=dict)
    pulls: dict = field(default_factory=dict)  # number -> (title, commit)

    @property
    def head(self) -> str:
        return self.log[-1]

    def files(self, revision: str) -> tuple[str, dict]:
        """(commit, its tree) of a branch, tag, pull request or commit."""
        names = {"main": self.head, **self.tags}
        names |= {f"refs/pr/{number}": commit for number, (_, commit) in self.pulls.items()}
        commit = names.get(revision, revision)
        if commit not in self.trees:
            raise Refusal(404, "RevisionNotFound")
        return commit, self.trees[commit]

    def add(self, tree: dict, title: str) -> str:
        facts = [title, sorted((path, blob.sha256) for path, blob in tree.items()), len(self.trees)]
        commit = hashlib.sha1(json.dumps(facts).encode()).hexdigest()
        self.trees[commit] = tree
        return commit


class Refusal(Exception):
    """An answer other than success: status and the Hub's own code for it."""

    def __init__(self, status: int, code: str = "", message: str = "refused"):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def git_oid(content: bytes) -> str:
    """git's object id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class LoopbackHub:
    """The Hub's state and its server; `fault` is asked before every request is answered."""

    def __init__(self, tokens: dict[str, str]):
        self.tokens = tokens  # token -> user or organization, which may write to its own
        self.readers: dict[str, str] = {}  # tokens that may only read
        self.identities: dict[str, str] = {}  # of CI workflows -> the token each is given
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[int, str, str], Fault | None] = lambda n, method, path: None
        self.lock = threading.Lock()
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> "LoopbackHub":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def put(self, name: str, files: dict[str, bytes], **settings) -> str:
        """A repository with these files, as somebody else would have made it; its head."""
        if name not in self.repos:
            self.create(name, name.split("/")[0], **settings)
        repo = self.repos[name]
        tree = {path: Blob(c, path.endswith(LFS_ENDINGS)) for path, c in files.items()}
        repo.log.append(repo.add({**repo.trees[repo.head], **tree}, "somebody's"))
        return repo.head

    def create(self, name: str, owner: str, **settings) -> Repo:
        repo = self.repos[name] = Repo(owner, **settings)
        start = {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}
        repo.log.append(repo.add(start, "initial commit"))
        return repo


class Handler(BaseHTTPRequestHandler):
    """Routes; `hub` is set on a subclass."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for an acknowledgement
    wbufsize = -1
    hub: LoopbackHub

    def log_message(self, *_) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def answer(self) -> None:
        """Carry out one request, with its fault if it has one."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        with self.hub.lock:
            self.hub.requests.append((self.command, self.path))
            number = len(self.hub.requests) - 1
        fault = self.hub.fault(number, self.command, self.path) or Fault()
        time.sleep(fault.delay)
        if fault.cut == "before":
            return self.cut(fault)
        if fault.status:
            return self.send(fault.status, {"error": "as told", "url": self.hub.url}, fault.headers)
        url = urlsplit(self.path)
        try:
            with self.hub.lock:
                status, content, headers = self.route(unquote(url.path), parse_qs(url.query), body)
        except Refusal as refusal:
            status, content = refusal.status, {"error": refusal.message}
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
        if fault.cut == "after":
            return self.cut(fault)
        self.send(status, content, headers, half=fault.cut == "half")
        if fault.cut == "half":
            self.cut(fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def cut(self, fault: Fault) -> None:
        fault.then()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)

    def send(self, status: int, content, headers: dict, half: bool = False) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        self.wfile.flush()

    # Who asks, and for what

    @property
    def address(self) -> str:
        """Ours as the client knows it, which may have come through a proxy."""
        return f"http://{self.headers['Host']}"

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    @property
    def user(self) -> str | None:
        return {**self.hub.tokens, **self.hub.readers}.get(self.token)

    def repo(self, name: str, write: bool = False) -> Repo:
        """A repository that who asks may read, or write to."""
        repo = self.hub.repos.get(name)
        if self.token and self.user is None:
            raise Refusal(401, "", "Invalid username or password.")
        if repo is None or (repo.private and self.user != repo.owner):
            raise Refusal(404 if self.token else 401, "RepoNotFound", "Repository Not Found")
        if write and self.hub.tokens.get(self.token) != repo.owner:
            raise Refusal(403 if self.token else 401, "", "You have no right to write here")
        return repo

    def route(self, path: str, query: dict, body: bytes) -> tuple[int, object, dict]:
        words = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            if self.user is None:
                raise Refusal(401, "", "Invalid user token.")
            return 200, {"type": "user", "name": self.user, "auth": {}, "orgs": []}, {}
        if path == "/oauth/token":
            identity = json.loads(body)["subject_token"]
            if identity not in self.hub.identities:
                raise Refusal(401, "", "no publisher is trusted by this name")
            return 200, {"access_token": self.hub.identities[identity], "expires_in": 3600}, {}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch("/".join(words[:2]).removesuffix(".git"), json.loads(body))
        if words[0] == "lfs-objects":
            return self.store(words[1], body)
        if words[:2] == ["api", "models"] and len(words) >= 4:
            name, action, rest = "/".join(words[2:4]), words[4:5], "/".join(words[5:])
            kind = action[0] if action else "revision"
            return getattr(self, f"model_{kind}", self.unknown)(name, rest or "main", query, body)
        if len(words) >= 5 and words[2] == "resolve":
            return self.resolve("/".join(words[:2]), words[3], "/".join(words[4:]))
        return self.unknown()

    def unknown(self, *_):
        raise Refusal(404, "", f"no route {self.command} {self.path}")

    def create(self, wanted: dict):
        owner = wanted.get("organization") or self.user
        if self.user is None:
            raise Refusal(401, "", "Invalid username or password.")
        if self.hub.tokens.get(self.token) != owner:
            raise Refusal(403, "", f"You have no right to create a repository under {owner}")
        name = f"{owner}/{wanted['name']}"
        answer = {"url": f"{self.address}/{name}", "name": name}
        if name in self.hub.repos:
            return 409, {**answer, "error": "You already created this model repo"}, {}
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.create(name, owner, private=bool(private))
        return 200, answer, {}

    def validate(self, wanted: dict):
        try:
            head = wanted["content"].split("---\n")[1]
            errors = [] if isinstance(yaml.safe_load(head), dict) else ["no metadata"]
        except (IndexError, yaml.YAMLError) as error:
            errors = [str(error)]
        return 200, {"errors": [{"message": e} for e in errors], "warnings": []}, {}

    # Models

    def model_revision(self, name, revision, query, body):
        repo = self.repo(name)
        commit, tree = repo.files(revision)
        siblings = []
        for path, blob in tree.items():
            sibling = {"rfilename": path}
            if "blobs" in query:
                sibling |= {"size": len(blob.content), "blobId": blob.oid}
            if "blobs" in query and blob.lfs:
                sibling["lfs"] = {"sha256": blob.sha256, "size": len(blob.content)}
                sibling["lfs"]["pointerSize"] = 130
            siblings.append(sibling)
        facts = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
        facts |= {"private": repo.private, "gated": "auto" if repo.gated else False}
        return 200, {**facts, "disabled": False, "downloads": 0, "likes": 0}, {}

    def model_refs(self, name, rest, query, body):
        repo = self.repo(name)

        def rows(kind: str, refs: dict) -> list[dict]:
            return [
                {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in refs.items()
            ]

        branches, tags = rows("heads", {"main": repo.head}), rows("tags", repo.tags)
        return 200, {"branches": branches, "tags": tags, "converts": [], "pullRequests": []}, {}

    def model_tree(self, name, revision, query, body):
        _, tree = self.repo(name).files(revision)
        rows = []
        for path, blob in tree.items():
            row = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
            lfs = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
            rows.append({**row, "lfs": lfs} if blob.lfs else row)
        return 200, rows, {}

    def model_discussions(self, name, rest, query, body):
        found = [
            {
                "title": title,
                "num": number,
                "author": {"name": self.hub.repos[name].owner},
                "createdAt": "2026-01-01T00:00:00.000Z",
                "status": "open",
                "repo": {"name": name, "type": "model"},
                "isPullRequest": True,
            }
            for number, (title, _) in self.repo(name).pulls.items()
        ]
        return 200, {"count": len(found), "start": 0, "discussions": found}, {}

    def model_preupload(self, name, revision, query, body):
        _, tree = self.repo(name, write="create_pr" not in query).files(revision)
        files = []
        for file in json.loads(body)["files"]:
            lfs, known = file["path"].endswith(LFS_ENDINGS), tree.get(file["path"])
            oid = known and (known.sha256 if known.lfs else known.oid)
            mode = {"uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid}
            files.append({"path": file["path"], **mode})
        return 200, {"files": files}, {}

    def model_commit(self, name, revision, query, body):
        proposed = "create_pr" in query
        repo = self.repo(name, write=not proposed)
        if self.user is None:
            raise Refusal(401, "", "Invalid username or password.")
        items = [json.loads(line) for line in body.splitlines() if line]
        header = items[0]["value"]
        parent, tree = repo.files(revision)
        if header.get("parentCommit", parent) != parent:
            raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
        tree = dict(tree)
        for item in items[1:]:
            value = item["value"]
            if item["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Refusal(400, "", f"{value['path']} was not uploaded")
                tree[value["path"]] = Blob(self.hub.objects[value["oid"]], True)
            elif item["key"] == "deletedFile":
                del tree[value["path"]]
        commit = repo.add(tree, header["summary"])
        answer = {"success": True, "commitOid": commit}
        answer["commitUrl"] = f"{self.address}/{name}/commit/{commit}"
        if proposed:
            number = len(repo.pulls) + 1
            repo.pulls[number] = (header["summary"], commit)
            answer["pullRequestUrl"] = f"{self.address}/{name}/discussions/{number}"
        else:
            repo.log.append(commit)
        return 200, answer, {}

    def model_tag(self, name, rest, query, body):
        repo = self.repo(name, write=True)
        if self.command == "DELETE":
            if rest not in repo.tags:
                raise Refusal(404, "RevisionNotFound")
            del repo.tags[rest]
            return 200, {}, {}
        tag = json.loads(body)["tag"]
        if tag in repo.tags:
            raise Refusal(409, "", "this tag exists already")
        repo.tags[tag], _ = repo.files(rest)
        return 200, {}, {}

    # Large files, and reading

    def batch(self, name: str, wanted: dict):
        self.repo(name)
        objects = []
        for item in wanted["objects"]:
            signed = f"{self.address}/lfs-objects/{item['oid']}?X-Signature=secret-of-the-url"
            known = item["oid"] in self.hub.objects  # then there is nothing to be done
            actions = {} if known else {"actions": {"upload": {"href": signed}}}
            objects.append({**item, "authenticated": True, **actions})
        return 200, {"transfer": "basic", "objects": objects}, {}

    def store(self, oid: str, body: bytes):
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(422, "", "the content is not what its name says")
        self.hub.objects[oid] = body
        return 200, b"", {}

    def resolve(self, name: str, revision: str, path: str):
        repo = self.repo(name)
        if repo.gated and self.user != repo.owner and self.user not in repo.granted:
            raise Refusal(403 if self.token else 401, "GatedRepo", "Access is restricted")
        commit, tree = repo.files(revision)
        if path not in tree:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        blob = tree[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {
                "X-Linked-Etag": f'"{blob.sha256}"',
                "X-Linked-Size": str(len(blob.content)),
            }
        content, status = blob.content, 200
        if begin := (self.headers.get("Range") or "").removeprefix("bytes=").partition("-")[0]:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            content, status = content[int(begin) :], 206
        return status, content, {**headers, "Content-Type": "application/octet-stream"}
