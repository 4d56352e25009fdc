"""What can go wrong between the operator and the API server.

OperatorError
└── ApiError            the server refused, or did not answer
    ├── NotFound        no such object, or no such kind
    ├── Conflict        the object has changed, or is another one
    └── Unavailable     no answer, too busy, or broken for now: worth another attempt
"""

from __future__ import annotations


class OperatorError(Exception):
    """Root of the operator's errors."""

    code = "operator_error"
    is_retryable = False


class ApiError(OperatorError):
    """The API server's refusal; the message is its own."""

    code = "api_refused"

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Forbidden(ApiError):
    """The operator's role does not allow it."""

    code = "forbidden"


class NotFound(ApiError):
    """No such object, or no such kind."""

    code = "not_found"


class Conflict(ApiError):
    """The object is another one, or newer, than the request says."""

    code = "conflict"
    is_retryable = True


class Unavailable(ApiError):
    """No answer for now."""

    code = "unavailable"
    is_retryable = True
