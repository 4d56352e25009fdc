"""A small order service with sample data, which the `shop-support` example's actions call.

Started by `chatflow up` through the Procfile, and on a cluster by order-service.yaml. Needs the standard library alone;
orders.json lies beside it. Cancellations are kept in memory, so a restart brings the sample data back.

    GET  /orders/{number}                one order
    POST /orders/{number}/cancellation   cancels it: {"phone_tail": "0000"}
    GET  /healthz                        200 once it listens
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from types import FrameType
from typing import Any, assert_never
from urllib.parse import unquote, urlsplit

Json = Mapping[str, object]

MAX_BODY_BYTES = 4096
"""Longest request body that is read; a cancellation needs some 50 bytes."""


class Status(StrEnum):
    """Where an order stands."""

    UNPAID = "unpaid"
    PREPARING = "preparing"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


STATUS_TEXTS = {
    Status.UNPAID: "待付款",
    Status.PREPARING: "正在备货",
    Status.IN_TRANSIT: "正在运输途中",
    Status.OUT_FOR_DELIVERY: "正在派送",
    Status.DELIVERED: "已经签收",
    Status.CANCELLED: "已经取消",
}


@dataclass(frozen=True)
class Item:
    """One line of an order."""

    name: str
    quantity: int


@dataclass(frozen=True)
class Order:
    """An order as the shop keeps it. `eta_days` counts from today, so that the samples never grow old."""

    number: str
    phone_tail: str
    status: Status
    paid_yuan: int
    carrier: str | None
    tracking: str | None
    eta_days: int | None
    items: tuple[Item, ...]

    def eta(self, today: date) -> date | None:
        """The day of (expected) delivery."""
        return None if self.eta_days is None else today + timedelta(days=self.eta_days)


@dataclass(frozen=True)
class Cancellation:
    """How a cancellation ended, in words for the customer, and the order afterwards."""

    order: Order
    is_cancelled: bool
    text: str


class OrderBook:
    """The orders by number; safe to use from several threads."""

    def __init__(self, orders: Iterable[Order]) -> None:
        self._orders = {order.number: order for order in orders}
        self._lock = Lock()

    @classmethod
    def read(cls, path: Path) -> OrderBook:
        """The orders of a JSON file; KeyError, TypeError or ValueError when it is malformed."""
        return cls(_order(entry) for entry in json.loads(path.read_text("utf-8")))

    def find(self, number: str) -> Order | None:
        """The order of a number, in upper or lower case."""
        with self._lock:
            return self._orders.get(number.upper())

    def cancel(self, number: str, phone_tail: str) -> Cancellation | None:
        """Cancels an order that has not left the warehouse; None if no order has this number and phone tail."""
        with self._lock:
            order = self._orders.get(number.upper())
            if order is None or order.phone_tail != phone_tail:
                return None
            result = _cancelled(order)
            self._orders[order.number] = result.order
            return result


def _order(entry: Mapping[str, Any]) -> Order:
    items = tuple(Item(**item) for item in entry["items"])
    return Order(**{**entry, "status": Status(entry["status"]), "items": items})


def _cancelled(order: Order) -> Cancellation:
    done = replace(order, status=Status.CANCELLED, eta_days=None)
    match order.status:
        case Status.UNPAID:
            return Cancellation(done, True, "已经取消，还没有付款，所以不会扣款。")
        case Status.PREPARING:
            return Cancellation(done, True, f"已经取消，实付的 {order.paid_yuan} 元今天就会发起原路退款。")
        case Status.IN_TRANSIT | Status.OUT_FOR_DELIVERY:
            text = "货已经出库，不能取消了。您可以在送到时拒收，或者签收后七天内申请无理由退货。"
            return Cancellation(order, False, text)
        case Status.DELIVERED:
            return Cancellation(order, False, "货已经签收，不能取消了。需要退货的话，请在“我的订单 → 申请售后”里办理。")
        case Status.CANCELLED:
            return Cancellation(order, True, "之前已经取消过了，不用再操作。")
        case _:
            assert_never(order.status)


def delivery_text(order: Order, today: date) -> str:
    """A sentence on the delivery, for the customer."""
    eta = order.eta(today)
    day = f"{eta.month} 月 {eta.day} 日" if eta is not None else "日期待定"
    parcel = f"由{order.carrier}承运，运单号 {order.tracking}"
    match order.status:
        case Status.UNPAID:
            return "请在 30 分钟内付款，超时订单会自动关闭。"
        case Status.PREPARING:
            return f"仓库正在打包，预计 {day}送达，出库后会发短信通知您。"
        case Status.IN_TRANSIT:
            return f"{parcel}，预计 {day}送达。"
        case Status.OUT_FOR_DELIVERY:
            return f"{parcel}，今天送到，请保持电话畅通。"
        case Status.DELIVERED:
            return f"{parcel}，{day}送达。"
        case Status.CANCELLED:
            return "如果已经付过款，钱会原路退回。"
        case _:
            assert_never(order.status)


def order_body(order: Order, today: date) -> Json:
    """An order as the API shows it: to anybody who knows the number, hence without name, address and phone."""
    eta = order.eta(today)
    return {
        "number": order.number,
        "status": order.status,
        "status_text": STATUS_TEXTS[order.status],
        "carrier": order.carrier,
        "tracking": order.tracking,
        "eta": eta.isoformat() if eta is not None else None,
        "items": [{"name": item.name, "quantity": item.quantity} for item in order.items],
        "delivery_text": delivery_text(order, today),
    }


class OrderHandler(BaseHTTPRequestHandler):
    """The routes; answers are JSON in UTF-8."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # Seconds after which an idle connection is closed.
    disable_nagle_algorithm = True  # Head and body are two writes; Nagle would delay the second by 40 ms.
    book: OrderBook

    def do_GET(self) -> None:
        """Answers a GET request."""
        match self._parts():
            case ["healthz"]:
                self._send(HTTPStatus.OK, {"status": "ok"})
            case ["orders", number]:
                order = self.book.find(number)
                if order is None:
                    self._send(HTTPStatus.NOT_FOUND, {"error": f"no order has the number {number!r}"})
                else:
                    self._send(HTTPStatus.OK, order_body(order, date.today()))
            case _:
                self._send(HTTPStatus.NOT_FOUND, {"error": "unknown path; use /orders/{number} or /healthz"})

    def do_POST(self) -> None:
        """Answers a POST request."""
        body = self._body()
        match self._parts():
            case ["orders", number, "cancellation"]:
                tail = body.get("phone_tail") if body is not None else None
                if not isinstance(tail, str):
                    error = 'the body must be a JSON object such as {"phone_tail": "0000"}'
                    self._send(HTTPStatus.BAD_REQUEST, {"error": error})
                else:
                    self._cancel(number, tail)
            case _:
                self._send(HTTPStatus.NOT_FOUND, {"error": "unknown path; use /orders/{number}/cancellation"})

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Logs requests, but not the probes, which come every few seconds."""
        if self.path != "/healthz":
            super().log_request(code, size)

    def _cancel(self, number: str, phone_tail: str) -> None:
        result = self.book.cancel(number, phone_tail)
        if result is None:
            # A wrong tail reads like a wrong number, so that numbers cannot be tried out here.
            self._send(HTTPStatus.NOT_FOUND, {"error": "no order has this number and phone tail"})
            return
        body = {"number": result.order.number, "cancelled": result.is_cancelled, "result_text": result.text}
        self._send(HTTPStatus.OK, body)

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _body(self) -> dict[str, object] | None:
        """The JSON object that was sent; None if it is something else."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # What is left unread would be taken for the next request.
            return None
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            return None
        return body if isinstance(body, dict) else None

    def _send(self, status: HTTPStatus, body: Json) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Serves on $HOST (127.0.0.1) and $PORT (8091) until SIGTERM or Ctrl-C."""
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8091"))
    OrderHandler.book = OrderBook.read(Path(__file__).with_name("orders.json"))
    # As process 1 of a container Python would ignore SIGTERM without a handler of its own.
    signal.signal(signal.SIGTERM, _stop)
    with ThreadingHTTPServer((host, port), OrderHandler) as server:
        print(f"orders are served on http://{host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
