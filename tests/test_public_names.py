"""The public names are those of the design, importable, and cheap to import."""

import pickle
import subprocess
import sys

import pytest

import spherequant
from spherequant import errors

DESIGN = {
    "SphericalQuantizer",
    "Codebooks",
    "TrainConfig",
    "train",
    "Model",
    "Index",
    "SearchResult",
    "evaluate",
    "SpherequantError",
}


def error_names():
    return {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SpherequantError)
    }


def test_all_is_the_list_of_the_design_and_the_errors():
    assert set(spherequant.__all__) == DESIGN | error_names()
    assert spherequant.__all__ == sorted(spherequant.__all__)
    assert set(spherequant.__all__) <= set(dir(spherequant))


def test_every_name_is_importable():
    for name in spherequant.__all__:
        assert getattr(spherequant, name) is not None


def test_average_precision_has_its_place():
    from spherequant.evaluation.metrics import average_precision

    assert average_precision([0.9, 0.5], [True, False]) == 1.0


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "lance", "faiss", "ray", "sklearn", "numpy", "PIL", "matplotlib"}
    heavy |= {"fastapi", "pydantic", "uvicorn", "starlette", "prometheus_client", "httpx2"}
    code = f"import sys, spherequant; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(spherequant, "Indexx")


def environment():
    import os
    from pathlib import Path

    return os.environ | {"PYTHONPATH": str(Path(spherequant.__file__).parents[1])}


@pytest.mark.parametrize("name", sorted(error_names()))
def test_errors_survive_a_process(name):
    arguments = {
        "UnknownKeyError": (["a", "b"],),
        "MissingDependencyError": ("faiss-cpu", "faiss", "this"),
    }
    error = getattr(errors, name)(*arguments.get(name, ("what was wrong",)))
    if name == "ServiceError":
        error = errors.ServiceError("busy", status=503, title="t", detail="d")
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
