"""The API description of what the server says about itself: health, metrics and documentation."""

from __future__ import annotations

from ecomcharge.base.errors import Unavailable
from ecomcharge.web.docs_page import ASSETS
from ecomcharge.web.health import READY_TIMEOUT_SECONDS
from ecomcharge.web.openapi import HTML, Part, answer, public_file, public_get
from ecomcharge.web.wire_forms import Json

_METRICS = 'ecomcharge_requests_total{method="GET",route="/customers",status="200"} 12.0\n'


def parts() -> list[Part]:
    metrics = {"text/plain": {"schema": {"type": "string"}, "example": _METRICS}}
    keys = {"openapi": {"type": "string"}, "info": {"type": "object"}, "paths": {"type": "object"}}
    described = {"application/json": {"schema": {"type": "object", "required": list(keys), "properties": keys}}}
    files = {asset.name: asset.media_type for asset in ASSETS}
    alive, ready = answer("It is alive.", _status("ok")), answer("It is ready.", _status("ready"))
    operations = [
        public_get("/healthz", "healthy", "Is the process alive?", "The process answers. The database is not asked.", alive),
        public_get(
            "/readyz",
            "ready",
            "Can it serve requests?",
            f"Asks the database, and waits at most {READY_TIMEOUT_SECONDS:.0f} seconds.",
            ready,
            Unavailable,
        ),
        public_get(
            "/metrics", "metrics", "Metrics for Prometheus", "In the text format of Prometheus.", answer("The metrics.", metrics)
        ),
    ]
    documentation = [
        public_get(
            "/openapi.json",
            "openapi",
            "This document",
            "OpenAPI 3.1 for machines. The page at `/docs` shows it.",
            answer("OpenAPI 3.1.", described),
        ),
        public_get("/docs", "docs", "A page to read and try the API", "Works without internet.", answer("The page.", dict(HTML))),
        public_file("/docs/{file}", "docsFile", "A file of that page", files),
    ]
    return [
        Part("operations", "The state of the server itself, for monitoring.", operations),
        Part("documentation", "This document, as JSON and as a page.", documentation),
    ]


def _status(status: str) -> Json:
    schema = {"type": "object", "required": ["status"], "properties": {"status": {"const": status}}}
    return {"application/json": {"schema": schema, "example": {"status": status}}}
