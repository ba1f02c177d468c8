"""Schemas: a client can have them without the server."""

import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError

from spherequant.service import schemas


def test_they_load_nothing_of_the_server():
    code = (
        "import sys, spherequant.service.schemas; "
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'torch', 'lance', 'numpy'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "schema",
    [
        kind
        for kind in vars(schemas).values()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and hasattr(kind, "examples")
    ],
)
def test_examples_fit_their_schema(schema):
    assert schema.examples
    for example in schema.examples.values():
        fitted = schema.model_validate(example["value"])
        assert fitted.model_dump(mode="json", exclude_unset=True) == example["value"]


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, float("nan"), 10**400])
def test_metadata_values_that_are_none(value):
    with pytest.raises(ValidationError):
        schemas.METADATA.validate_python({"x": value})


def test_what_others_stored_is_told_whatever_its_length():
    """Bounds are on what is put through the service, not on what an index holds."""
    metadata = {f"c{n}": "x" * 16_385 for n in range(101)}
    hit = schemas.Hit(rank=1, key="a", score=0.5, labels=[], metadata=metadata)
    assert hit.metadata == metadata
    with pytest.raises(ValidationError):
        schemas.ItemVector(vector=[1.0], metadata=metadata)


@pytest.mark.parametrize("value", [None, 0, -(2**63), 2**63 - 1, 1.5, "", "text"])
def test_metadata_values(value):
    assert schemas.METADATA.validate_python({"x": value}) == {"x": value}
