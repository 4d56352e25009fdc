"""Knowledge: sources to passages, passages to an index, the index to answers."""

from chatflow_runtime.adapters.knowledge.entries import Entry, Knowledge, TrainingExample
from chatflow_runtime.adapters.knowledge.index import BuiltIndex, KnowledgeIndex, build_index
from chatflow_runtime.adapters.knowledge.retriever import KnowledgeRetriever
from chatflow_runtime.adapters.knowledge.sources import SourceFile, read_files
from chatflow_runtime.adapters.knowledge.vectors import PROBE
from chatflow_runtime.errors import SourcesInvalid

__all__ = [
    "PROBE",
    "BuiltIndex",
    "Entry",
    "Knowledge",
    "KnowledgeIndex",
    "KnowledgeRetriever",
    "SourceFile",
    "SourcesInvalid",
    "TrainingExample",
    "build_index",
    "read_files",
]
