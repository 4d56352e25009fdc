"""The build Job of a flow on a cluster: trains the intent model, indexes the knowledge and puts both in force.

    python -m chatflow_cli.build_artefacts --flow FILE --configmaps DIR [--volume CLAIM=DIR ...] --artefacts DIR
        [--ready-file FILE]

FILE is the ChatFlow as JSON; ConfigMaps are mounted as DIR/NAME/KEY. A new flow answers from its knowledge before its
intent model is trained: first an index is put in force, with the intent model that is in force if there is one; then
the ready file is written; then the whole pair is put in force. The status is 0, or 1 with a line for each problem on
standard error. What came of it stands in CHATFLOW_TERMINATION_LOG, else in /dev/termination-log where that exists:
the problems, or a JSON summary.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Small matrices: more BLAS threads cost many times what they save. numpy reads this when it is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from chatflow_api import v1alpha1 as api  # noqa: E402
from chatflow_api.runtime_config import derive  # noqa: E402
from pydantic import ValidationError  # noqa: E402

from chatflow_cli.local.artefact_store import ArtefactStore, Pair  # noqa: E402
from chatflow_cli.local.build_request import BuildRequest  # noqa: E402
from chatflow_cli.local.content import ContentFile, ContentMissing, source_files  # noqa: E402
from chatflow_cli.local.example_files import Example, read_examples  # noqa: E402
from chatflow_cli.local.objects import Data  # noqa: E402
from chatflow_cli.local.references import Content  # noqa: E402

TERMINATION_LOG = "/dev/termination-log"
TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a termination message."""
_READ = ("apiVersion", "kind", "metadata", "spec")


class Unusable(Exception):
    """The flow or its content cannot be used; one line for each problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Job:
    """What the command line asks for."""

    flow: Path
    configmaps: Path
    volumes: Mapping[str, Path]
    artefacts: Path
    ready_file: Path | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Job:
        """The job; argparse ends the process where the arguments are wrong."""
        parser = argparse.ArgumentParser(prog="chatflow_cli.build_artefacts", description="Build a flow's artefacts.")
        parser.add_argument("--flow", type=Path, required=True, metavar="FILE", help="the ChatFlow, as JSON")
        parser.add_argument("--configmaps", type=Path, required=True, metavar="DIR", help="ConfigMaps, as DIR/NAME/KEY")
        parser.add_argument("--volume", type=_volume, action="append", default=[], metavar="CLAIM=DIR")
        parser.add_argument("--artefacts", type=Path, required=True, metavar="DIR", help="where gateways look for them")
        parser.add_argument("--ready-file", type=Path, metavar="FILE", help="written once an index is in force")
        given = parser.parse_args(arguments)
        return cls(given.flow, given.configmaps, dict(given.volume), given.artefacts, given.ready_file)

    def run(self) -> str:
        """Build what is not there yet; a summary as JSON. Unusable names what is wrong."""
        flow = _flow(self.flow)
        store = ArtefactStore(self.artefacts)
        try:
            store.make()
            request = BuildRequest.of(derive(flow), self._content(flow.spec))
            with store.held(_say):
                pair = store.built(request.fingerprint()) or self._built(request, store)
                self._put_in_force(store, pair)
        except OSError as error:
            raise Unusable(
                f"{error.filename or self.artefacts}: {error.strerror}; see the volume's rights and space"
            ) from error
        return _summary(flow, self.artefacts, pair)

    def _built(self, request: BuildRequest, store: ArtefactStore) -> Pair:
        # The readers bring HTML and PDF libraries; a build that finds everything made does not wait for them.
        from chatflow_cli.local.build import Build, BuildFailed

        try:
            build = Build(request, self.artefacts, _say)
            first = build.first(store.model_in_force())
            if first is not None:
                self._put_in_force(store, first)
            return build.whole()
        except BuildFailed as error:
            raise Unusable(str(error)) from error

    def _put_in_force(self, store: ArtefactStore, pair: Pair) -> None:
        if pair != store.in_force():
            store.put_in_force(pair)
            _say(f"in force: intent model {pair.intent}, knowledge {pair.knowledge}")
        if self.ready_file is not None:
            self.ready_file.touch()

    def _content(self, spec: api.ChatFlowSpec) -> Content:
        """All that training and indexing read; Unusable with every problem."""
        configmaps, problems = _mounted(self.configmaps), list[str]()

        def files(sources: Sequence[api.Source], path: str) -> Iterator[ContentFile]:
            for index, source in enumerate(sources):
                try:
                    if source.config_map is not None and source.config_map.name not in configmaps:
                        what = f"ConfigMap {source.config_map.name} is not mounted"
                        raise ContentMissing(what, "create it in the flow's namespace")
                    yield from source_files(source, configmaps, self.volumes)
                except ContentMissing as error:
                    problems.append(f"{path}[{index}]: {error}; {error.remedy}")

        intent = spec.models.intent
        content = Content(knowledge=list(files(spec.knowledge.sources, "spec.knowledge.sources")))
        for name, texts in intent.examples.items():
            content.examples += [Example(text, name, "models.intent.examples") for text in texts]
        sources = list(files(intent.example_sources, "spec.models.intent.exampleSources"))
        remarks: list[str] = []
        content.examples += read_examples(sources, problems, remarks)
        for remark in remarks:
            _say(remark)
        if problems:
            raise Unusable(*problems)
        return content


def _volume(value: str) -> tuple[str, Path]:
    claim, separator, folder = value.partition("=")
    if not claim or not separator or not folder:
        raise argparse.ArgumentTypeError(f"{value!r}: write CLAIM=DIR")
    return claim, Path(folder)


def _flow(file: Path) -> api.ChatFlow:
    try:
        content = json.loads(file.read_bytes())
        # What the API server adds beside these is of no interest.
        picked = json.dumps({name: content[name] for name in _READ if name in content})
        return api.ChatFlow.model_validate_json(picked, strict=True, by_alias=True, by_name=False)
    except OSError as error:
        raise Unusable(f"{file}: {error.strerror}; give the ChatFlow's file with --flow") from error
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise Unusable(*(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)) from error
    except (ValueError, TypeError) as error:
        raise Unusable(f"{file}: it holds no ChatFlow as JSON ({error})") from error


def _mounted(root: Path) -> dict[str, Data]:
    """ConfigMaps as a kubelet mounts them: each key is a link into a folder named `..` and a time."""
    if not root.is_dir():
        return {}
    return {
        folder.name: {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if not file.name.startswith("..") and file.is_file()
        }
        for folder in sorted(root.iterdir())
        if not folder.name.startswith(".") and folder.is_dir()
    }


def _summary(flow: api.ChatFlow, artefacts: Path, pair: Pair) -> str:
    """What is in force, as JSON that fits a termination message: warnings that do not are left out."""
    index = _manifest(artefacts / "knowledge" / pair.knowledge)
    model = {} if pair.intent is None else _manifest(artefacts / "intent" / pair.intent)
    trained = model.get("trainedOn", {})
    summary: dict[str, Any] = {
        "intent": pair.intent,
        "knowledge": pair.knowledge,
        "entries": index.get("counts", {}).get("entries"),
        "examples": trained.get("examples", 0),
        "intents": trained.get("intents", 0),
        "accuracy": trained.get("accuracy"),
        "warnings": [*_idle_actions(flow.spec, model.get("labels", [])), *trained.get("warnings", [])],
    }
    while len(text := json.dumps(summary, ensure_ascii=False)) and len(text.encode()) > TERMINATION_BYTES:
        summary["warnings"].pop()
    return text


def _idle_actions(spec: api.ChatFlowSpec, labels: Sequence[str]) -> Iterator[str]:
    for index, action in enumerate(spec.dialogue.actions):
        if action.intent not in labels:
            what = f"no example teaches the intent {action.intent!r}, so the action never starts"
            yield f"spec.dialogue.actions[{index}].intent: {what}; add examples of it"


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _leave_word(text: str, environ: Mapping[str, str]) -> None:
    """Tell Kubernetes what came of it."""
    named = environ.get("CHATFLOW_TERMINATION_LOG")
    file = Path(named or TERMINATION_LOG)
    if named or file.exists():
        file.write_bytes(text.encode()[:TERMINATION_BYTES].decode("utf-8", "ignore").encode())


def main() -> int:
    """Run the job of the command line; 1 when its flow cannot be built."""
    # The first process of a container ignores signals that it does not handle, and would hold the folder until killed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    job = Job.parse(sys.argv[1:])
    try:
        word, status = job.run(), 0
    except Unusable as error:
        word, status = str(error), 1
    (sys.stderr if status else sys.stdout).write(word + "\n")
    _leave_word(word, os.environ)
    return status


if __name__ == "__main__":
    sys.exit(main())
