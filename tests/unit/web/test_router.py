"""Which route a path leads to."""

from __future__ import annotations

import pytest

from ecomcharge.base.errors import MethodNotAllowed, RouteNotFound
from ecomcharge.web.messages import Request, Response
from ecomcharge.web.router import Route, Router


async def handler(request: Request) -> Response:
    raise NotImplementedError


ROUTER = Router(
    [
        *(Route(method, "/customers/{}", handler) for method in ("GET", "PUT")),
        Route("GET", "/customers/{}/export", handler),
        Route("PUT", "/customers/external/{*}", handler),
    ]
)


@pytest.mark.parametrize(
    ("path", "route", "argument"),
    [
        ("/customers/external/42", "/customers/external/{*}", "42"),
        ("/customers/external/a/b", "/customers/external/{*}", "a/b"),
        ("/customers/external/export", "/customers/external/{*}", "export"),
        ("/customers/external/a/export", "/customers/external/{*}", "a/export"),
        ("/customers/external/a/", "/customers/external/{*}", "a/"),
        ("/customers/external//a//b", "/customers/external/{*}", "/a//b"),
        ("//customers/external/42", "/customers/external/{*}", "42"),
        ("/customers//external/a//b/", "/customers/external/{*}", "a//b/"),
        ("/customers/external/..", "/customers/external/{*}", ".."),
        ("/customers/external", "/customers/{}", "external"),
        ("/customers/external/", "/customers/{}", "external"),
        ("/customers/other", "/customers/{}", "other"),
    ],
)
def test_the_rest_of_a_path_is_one_argument(path: str, route: str, argument: str) -> None:
    found, found_argument = ROUTER.find("PUT", path)

    assert (found.path, found_argument) == (route, argument)


def test_other_routes_keep_their_arguments() -> None:
    assert ROUTER.find("GET", "/customers/cst_1/export")[1] == "cst_1"
    with pytest.raises(MethodNotAllowed):
        ROUTER.find("DELETE", "/customers/external/a/b")
    with pytest.raises(RouteNotFound):
        ROUTER.find("GET", "/customers/cst_1/other")


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/custmers/jane@shop.test", "/{}/{}"),
        ("/customers/cst_1/export/x", "/customers/{}/export/{}"),
        ("//customers/", "//customers/"),
        ("/a/b/c/d/e/f/g/h", "/{}/{}/{}/{}/{}/{}/..."),
        ('/"\\\n', "/{}"),
        ("*", "/"),
        ("", "/"),
    ],
)
def test_the_shape_of_a_path_has_words_of_routes_only(path: str, shape: str) -> None:
    assert ROUTER.shape_of(path) == shape


def test_an_exact_path_has_one_spelling() -> None:
    router = Router([Route("GET", "/metrics", handler, exact=True), Route("GET", "/customers/{}", handler)])
    assert router.find("GET", "/metrics")[0].path == "/metrics"
    for path in ("/metrics/", "//metrics", "/./metrics", "/x/../metrics", "/metrics//"):
        with pytest.raises(RouteNotFound):
            router.find("GET", path)
