"""The OpenAPI document: whole, with examples, and true to what the service answers."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from spherequant.service.schemas import ProblemDocument

PATHS = {
    "/v1/search": {"post"},
    "/v1/items": {"get", "put", "patch", "delete"},
    "/v1/items:batch": {"post"},
    "/v1/items/duplicates": {"get"},
    "/v1/thumbnail": {"get"},
    "/v1/original": {"get"},
    "/v1/labels": {"get"},
    "/v1/latest": {"get"},
    "/v1/columns": {"get"},
    "/v1/collection": {"get"},
    "/v1/duplicates": {"get"},
    "/v1/refresh": {"post"},
    "/health": {"get"},
    "/ready": {"get"},
    "/metrics": {"get"},
}


@pytest.fixture(scope="module")
def served(serve_copy):
    with serve_copy() as served:
        yield served


@pytest.fixture(scope="module")
def document(served):
    with served.client() as client:
        return client.get("/openapi.json").json()


def test_every_route_is_described(document):
    assert {path: set(methods) for path, methods in document["paths"].items()} == PATHS
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            where = f"{method} {path}"
            assert told["summary"], where
            assert told["description"], where
            for status, answer in told["responses"].items():
                if status >= "400":
                    schema = answer["content"]["application/problem+json"]["schema"]
                    assert schema["$ref"].endswith(f"/{ProblemDocument.__name__}"), where
            if path.startswith("/v1"):
                assert told["security"], where


def test_bodies_have_examples(document):
    for path in ("/v1/search", "/v1/items", "/v1/items:batch"):
        for told in document["paths"][path].values():
            for kind, body in told.get("requestBody", {}).get("content", {}).items():
                if kind == "application/json":
                    assert body["examples"], path


def references(node):
    if isinstance(node, dict):
        yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(document):
    for reference in references(document):
        *_, name = reference.split("/")
        assert name in document["components"]["schemas"], reference


CONFORMANCE = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    ("path", "method"), [(path, method) for path, some in PATHS.items() for method in sorted(some)]
)
def test_no_request_makes_it_fail(served, path, method, mode):
    """Requests that fit the document, and some that do not: none a 5xx, every answer described."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operation = schema[path][method.upper()]

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def ask(case):
        statuses.append(case.call_and_validate(checks=list(CONFORMANCE), timeout=60).status_code)

    statuses: list[int] = []
    try:
        ask()
    except Unsatisfiable:
        pytest.skip("nothing about this request can be wrong")
    assert statuses
    assert max(statuses) < 500
