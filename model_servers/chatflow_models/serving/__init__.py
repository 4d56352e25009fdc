"""The intent model as a KServe model server: V1 and Open Inference Protocol over REST, the latter over gRPC too."""
