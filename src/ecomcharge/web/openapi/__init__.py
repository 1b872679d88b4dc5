"""The API's description, made of the definitions that the code itself checks with.

Fields, limits, patterns and errors are read from where they rule; only the prose is written here. One file for each room.
"""

from ecomcharge.web.openapi.parts import ERRORS
from ecomcharge.web.openapi.routes import OpenApiRoutes, document

__all__ = ["ERRORS", "OpenApiRoutes", "document"]
