"""What the server says of itself, described."""

from __future__ import annotations

from ecomcharge.base import errors
from ecomcharge.web.docs_page import ASSETS
from ecomcharge.web.openapi import parts
from ecomcharge.web.openapi.parts import Json, answer, open_get


def paths() -> Json:
    text = {"text/plain": {"schema": {"type": "string"}}}
    page = {"text/html": {"schema": {"type": "string"}}}
    described = {"application/json": {"schema": {"type": "object", "required": ["openapi", "info", "paths"]}}}
    alive = answer("It is.", {"application/json": _status_schema("ok")})
    ready = answer("Yes.", {"application/json": _status_schema("ready")})
    files = {asset.name: asset.media_type for asset in ASSETS}
    return {
        "/healthz": {"get": open_get("operations", "healthy", "Is the process alive?", alive)},
        "/readyz": {"get": open_get("operations", "ready", "Can it serve, with its database?", ready, errors.Unavailable.code)},
        "/metrics": {"get": open_get("operations", "metrics", "Metrics for Prometheus", answer("In its text format.", text))},
        "/openapi.json": {"get": open_get("documentation", "openapi", "This document", answer("OpenAPI 3.1.", described))},
        "/docs": {"get": open_get("documentation", "docs", "A page to read and try the API", answer("The page.", page))},
        "/docs/{file}": {"get": parts.open_file("documentation", "docsFile", "A file of that page", files)},
    }


def _status_schema(status: str) -> Json:
    return {"schema": {"type": "object", "required": ["status"], "properties": {"status": {"const": status}}}}
