"""A small ticket service with sample data, which the `saas-support` example's actions call.

Started by `chatflow up` through the Procfile, and on a cluster by ticket-service.yaml. Needs the standard
library alone.

    GET /tickets/{number}   one ticket; the number with or without its prefix: TL-10482, 10482
    GET /status             state of the product's parts
    GET /healthz            200 once it listens
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from urllib.parse import unquote, urlsplit

Json = Mapping[str, object]


@dataclass(frozen=True)
class Ticket:
    """One support ticket, as far as anybody who knows its number may see it: no names, no addresses."""

    number: str
    subject: str
    status: str
    team: str
    updated_on: str
    next_step: str


TICKETS = {
    ticket.number: ticket
    for ticket in (
        Ticket("TL-10482", "Invoice shows the old address", "being worked on", "Billing", "2031-03-12",
               "A corrected invoice will reach you by email within one working day."),
        Ticket("TL-10483", "Refund for a yearly plan", "solved", "Billing", "2031-03-10",
               "The refund was sent on 10 March; cards show it after 5 to 10 days."),
        Ticket("TL-10517", "SAML login loops", "waiting for your answer", "Identity", "2031-03-13",
               "Please answer our email with the entity ID that your identity provider uses."),
        Ticket("TL-10533", "Board is slow in Firefox", "being worked on", "Apps", "2031-03-13",
               "A fix is being tested and is planned for next week's release."),
        Ticket("TL-10540", "Webhook deliveries stopped", "solved", "Developer support", "2031-03-11",
               "The webhook was paused after failed deliveries and is active again."),
        Ticket("TL-10561", "Trello import skipped attachments", "being worked on", "Imports", "2031-03-14",
               "We run the import of the missing files again tonight."),
        Ticket("TL-10574", "Transfer of ownership", "waiting for your answer", "Accounts", "2031-03-09",
               "Please confirm the request from an address of your company's domain."),
        Ticket("TL-10588", "Push messages missing on Android", "new", "Apps", "2031-03-14",
               "Somebody from the team will look at it today."),
        Ticket("TL-10602", "Signed data processing agreement", "solved", "Privacy", "2031-03-07",
               "The signed agreement is under Settings > Legal."),
        Ticket("TL-10615", "Export has been running for a day", "escalated", "Data platform", "2031-03-14",
               "An engineer is looking into it; the next update comes within four hours."),
        Ticket("TL-10629", "Quote for 300 seats", "waiting for a colleague", "Sales", "2031-03-13",
               "The offer is being prepared and will be sent to you tomorrow."),
        Ticket("TL-10644", "Slack posts arrive twice", "new", "Integrations", "2031-03-14",
               "Somebody from the team will look at it today."),
    )
}  # fmt: skip

SERVICE_STATUS: Json = {
    "summary": "All parts of Tideline are running normally",
    "parts": {"app": "running", "api": "running", "notifications": "running", "integrations": "running"},
    "page": "https://status.tideline.example.com",
}

_NUMBER = re.compile(r"(?:TL-?)?(\d{5})", re.IGNORECASE)


def find_ticket(number: str) -> Ticket | None:
    """The ticket of a number such as `TL-10482`, `tl10482` or `10482`; None if there is none."""
    match = _NUMBER.fullmatch(number)
    return TICKETS.get(f"TL-{match.group(1)}") if match else None


def answer(path: str) -> tuple[HTTPStatus, Json]:
    """Status and JSON body for a GET of `path`."""
    match urlsplit(path).path.strip("/").split("/"):
        case ["healthz"]:
            return HTTPStatus.OK, {"status": "ok"}
        case ["status"]:
            return HTTPStatus.OK, SERVICE_STATUS
        case ["tickets", number]:
            ticket = find_ticket(unquote(number))
            if ticket is not None:
                return HTTPStatus.OK, asdict(ticket)
            return HTTPStatus.NOT_FOUND, {"error": f"no ticket has the number {unquote(number)!r}"}
        case _:
            return HTTPStatus.NOT_FOUND, {"error": "unknown path; use /tickets/{number}, /status or /healthz"}


class TicketHandler(BaseHTTPRequestHandler):
    """Writes what `answer` says as JSON."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # Seconds after which an idle connection is closed.
    disable_nagle_algorithm = True  # Head and body are two writes; Nagle would delay the second by 40 ms.

    def do_GET(self) -> None:
        """Answers a GET request."""
        status, body = answer(self.path)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Logs requests, but not the probes, which come every few seconds."""
        if self.path != "/healthz":
            super().log_request(code, size)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Serves on $HOST (127.0.0.1) and $PORT (8090) until SIGTERM or Ctrl-C."""
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8090"))
    # As process 1 of a container Python would ignore SIGTERM without a handler of its own.
    signal.signal(signal.SIGTERM, _stop)
    with ThreadingHTTPServer((host, port), TicketHandler) as server:
        print(f"tickets are served on http://{host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
