"""How is a request answered? URL to call, call to rows, rows to a streamed reply."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import unquote_plus

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from common.errors import PhedexRucioError
from datasvc import envelope, faults, refusal, store
from datasvc.calls.call import Call
from datasvc.calls.table import CALLS, WRITING
from datasvc.encode import chunks
from datasvc.faults import Fault, Kind
from datasvc.options import checked, pairs
from datasvc.refusal import Refusal

ROOT = "/phedex/datasvc"
NO_CALL = "API call was not defined.  Correct URL format is /FORMAT/INSTANCE/CALL?OPTIONS"
NO_INSTANCE = "Invalid instance: The instance you requested is not known to this installation of the data-service"
LOGIN_PAGE = (
    "<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>Account, password</form></body></html>"
)


class Asking(msgspec.Struct, frozen=True):
    """A request as far as it is read: path parts in lower case, and the options as text."""

    form: str
    instance: str
    call: str
    options: str
    method: str
    url: str


class Reply(msgspec.Struct, frozen=True):
    """A reply that is ready to be sent: its first chunk is there, so that errors before it still have a status."""

    body: Iterator[bytes]
    headers: dict[str, str]


def application(snapshot: Path, faults_file: Path | None = None) -> Starlette:
    """The data service of this snapshot. Raises UsageError where the snapshot cannot be read."""
    store.reader(snapshot).close()
    book = faults.Book(faults_file)

    async def endpoint(request: Request) -> Response:
        return await _respond(snapshot, book, request)

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])


async def _respond(snapshot: Path, book: faults.Book, request: Request) -> Response:
    agent = request.headers.get("user-agent", "")
    try:
        asking = await _asking(request)
        fault = book.take(asking.call, _decoded(asking.options))
        early = await _misbehave(fault)
        if early is not None:
            return early
        reply = await anyio.to_thread.run_sync(_answer, snapshot, asking, fault)
    except Refusal as error:
        return _refused(error.message, error.status, agent)
    except (PhedexRucioError, sqlite3.Error) as error:
        return _refused(str(error), 500, agent)
    if isinstance(reply, Response):
        return reply
    return StreamingResponse(_sent(reply.body, fault), headers=reply.headers)


def _refused(message: str, status: int, agent: str) -> Response:
    body, media_type = refusal.body(message, status, agent)
    return Response(body, status, media_type=media_type)


async def _asking(request: Request) -> Asking:
    """The whole path is case-insensitive; a form that is POSTed counts like the query string."""
    path = request.url.path.lower()
    if not f"{path}/".startswith(f"{ROOT}/"):
        raise Refusal(404, f"nothing at {path}: the data service is below {ROOT}/")
    form, instance, call, *_ = [*path.removeprefix(ROOT).strip("/").split("/"), "", "", ""]
    body = (await request.body()).decode("utf-8", "replace") if request.method == "POST" else ""
    options = "&".join(part for part in (request.url.query, body) if part)
    return Asking(form, instance, call, options, request.method, str(request.base_url).rstrip("/") + path)


def _decoded(options: str) -> str:
    return unquote_plus(options)


async def _misbehave(fault: Fault | None) -> Response | None:
    """A reply that is wrong from its first byte, or none; waits where the fault is to wait."""
    if fault is None:
        return None
    if fault.kind is Kind.FREEZE:
        await anyio.sleep_forever()
    if fault.kind is Kind.DELAY:
        await anyio.sleep(fault.amount(1.0))
    if fault.kind is Kind.STATUS:
        return Response("Service Unavailable", int(fault.amount(503)), media_type="text/html")
    if fault.kind is Kind.LOGIN:
        return Response(LOGIN_PAGE, 200, media_type="text/html")
    if fault.kind is Kind.ERROR_DOCUMENT:
        document = msgspec.json.encode({"error": "ORA-03113: end-of-file on communication channel"})
        return Response(document, 200, media_type="text/javascript")
    return None


def _answer(snapshot: Path, asking: Asking, fault: Fault | None) -> Response | Reply:
    if asking.form not in envelope.FORMATS:
        text = refusal.body(asking.form, 200, "")[0]
        return Response(f"<error>Unsupported format '{text}'</error>", 200, media_type="text/xml")
    if not asking.call:
        return Response(msgspec.json.encode({"error": NO_CALL}), 200, media_type=envelope.FORMATS[asking.form])
    connection = store.reader(snapshot)
    try:
        return _called(connection, asking, fault)
    except BaseException:
        connection.close()
        raise


def _called(connection: sqlite3.Connection, asking: Asking, fault: Fault | None) -> Response | Reply:
    about = store.meta(connection)
    if asking.instance != about["instance"]:
        raise Refusal(404, NO_INSTANCE)
    call = CALLS.get(asking.call)
    if call is None:
        connection.close()
        return _not_served(asking)
    clock = envelope.Clock(time.time(), time.monotonic())
    given = pairs(asking.options)
    query = checked(call.spec, given, clock.now)
    if fault is not None and fault.kind is Kind.OTHER_ROWS:
        query = faults.other_rows(connection, query, fault)
    asked = _envelope(asking, about["version"], clock, fault)
    payload = call.answer(connection, query)
    if fault is not None:
        payload = faults.spoiled(connection, query, payload, fault)
    footer = fault is None or fault.kind is not Kind.NO_CALL_TIME
    body = _owning(connection, chunks(envelope.written(asked, payload, spooled=call.spooled, footer=footer)))
    nocache = any(name == "nocache" for name, _ in given)
    return Reply(_started(body), _headers(asking, call, clock.now, nocache=nocache))


def _headers(asking: Asking, call: Call, now: float, *, nocache: bool) -> dict[str, str]:
    return {"Content-Type": envelope.FORMATS[asking.form], **envelope.cache_headers(call.max_age, now, nocache=nocache)}


def _envelope(asking: Asking, version: str, clock: envelope.Clock, fault: Fault | None) -> envelope.Asked:
    asked = envelope.Asked(asking.form, asking.instance, asking.call, asking.url, version, clock)
    if fault is None:
        return asked
    if fault.kind is Kind.OTHER_INSTANCE:
        return msgspec.structs.replace(asked, instance=str(fault.value or "debug"))
    if fault.kind is Kind.OTHER_CALL:
        return msgspec.structs.replace(asked, call=str(fault.value or "bounce"))
    if fault.kind is Kind.STALE:
        aged = envelope.Clock(clock.now - fault.amount(86400), clock.started)
        return msgspec.structs.replace(asked, clock=aged)
    return asked


def _not_served(asking: Asking) -> Response:
    if asking.call not in WRITING:
        raise Refusal(404, f"failed to initialize data service API '{asking.call}': error loading/compiling module")
    if asking.method == "GET":
        document = msgspec.json.encode({"error": "method GET is not allowed"})
        return Response(document, 200, media_type=envelope.FORMATS[asking.form])
    raise Refusal(401, "Certificate authentication required")


def _owning(connection: sqlite3.Connection, body: Iterator[bytes]) -> Iterator[bytes]:
    """The body; the connection, and with it the read transaction, ends with it."""
    try:
        yield from body
    finally:
        connection.close()


def _started(body: Iterator[bytes]) -> Iterator[bytes]:
    first = next(body, b"")
    return chain([first], body)


async def _sent(body: Iterator[bytes], fault: Fault | None) -> AsyncIterator[bytes]:
    """The chunks, each read in a thread of its own; a body that is to be cut ends in its first chunk."""
    while (chunk := await anyio.to_thread.run_sync(next, body, None)) is not None:
        if fault is not None and fault.kind in {Kind.TRUNCATED, Kind.TORN}:
            yield chunk[: int(fault.amount(len(chunk) // 2))]
            if fault.kind is Kind.TORN:
                raise ConnectionAbortedError("torn on purpose by the faults file")
            return
        yield chunk
