"""What does the service say when it does not answer?"""

from __future__ import annotations


class Refusal(Exception):
    """The request is refused: an HTTP status and a bare message, as the real service sent them."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def body(message: str, status: int, user_agent: str) -> tuple[str, str]:
    """The error body and its content type: the bare message, or a page if a browser asks."""
    text = message.replace("<", "&lt;").replace(">", "&gt;").replace("\n", "\\n")
    if "Mozilla" not in user_agent:
        return text, "text/plain"
    title = {400: "Bad Request", 404: "Not Found", 401: "Unauthorized", 500: "Internal Server Error"}[status]
    head = f"<html><head><title>{status} {title}</title></head>"
    return f"{head}<body><h1>{status} {title}</h1><p>{text}</p></body></html>", "text/html"
