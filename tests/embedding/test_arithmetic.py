"""The switches of a GPU's arithmetic, which torch has on every machine."""

import threading

import pytest
import torch

from spherequant.embedding.arithmetic import exact_float32, steady_kernels

GPU = torch.device("cuda")
cudnn = torch.backends.cudnn


def switches():
    """Everything that can be asked of them; torch refuses to tell of some mixtures."""
    asked = {
        "cuDNN": lambda: cudnn.enabled,
        "benchmark": lambda: cudnn.benchmark,
        "deterministic": lambda: cudnn.deterministic,
        "cuDNN's TF32": lambda: cudnn.allow_tf32,
        "products": torch.get_float32_matmul_precision,
        "products' TF32": lambda: torch.backends.cuda.matmul.allow_tf32,
    }
    for backend in ("cuda", "mkldnn", "cudnn"):
        for name in ("matmul", "conv", "rnn"):
            part = getattr(getattr(torch.backends, backend), name, None)
            if hasattr(part, "fp32_precision"):
                asked[f"{backend} {name}"] = lambda part=part: part.fp32_precision
    told = {}
    for name, ask in asked.items():
        try:
            told[name] = ask()
        except RuntimeError:
            told[name] = "refused"
    return told


@pytest.fixture(
    params=[
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(cudnn, "allow_tf32", False),
        lambda: setattr(cudnn, "benchmark", True),
        lambda: setattr(cudnn.conv, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    ],
    ids=["usual", "high", "tf32 products", "no tf32", "benchmark", "newer ieee", "newer tf32"],
)
def before(request):
    """Switches as a program may have turned them."""
    if "newer" in request.node.name and not hasattr(cudnn, "conv"):
        pytest.skip("this torch has the older switches alone")
    products, convolutions = torch.backends.cuda.matmul, getattr(cudnn, "conv", None)
    precision = getattr(products, "fp32_precision", None)
    of_convolutions = getattr(convolutions, "fp32_precision", None)
    request.param()
    yield switches()
    torch.set_float32_matmul_precision("highest")
    if convolutions is not None:
        convolutions.fp32_precision = of_convolutions
        products.fp32_precision = precision
    cudnn.allow_tf32, cudnn.benchmark = True, False


def test_float32_is_exact_inside_and_all_is_as_before_outside(before):
    with exact_float32(GPU):
        inside = switches()
    assert switches() == before
    assert inside["cuDNN"]
    assert inside["deterministic"]
    assert not inside["benchmark"]
    assert inside["products"] == "highest"
    assert inside["products' TF32"] is False
    # One switch for all of cuDNN before torch 2.9, one for convolutions since.
    assert inside.get("cudnn conv", "ieee") == "ieee"
    assert "cudnn conv" in inside or inside["cuDNN's TF32"] is False


def test_an_error_inside_turns_them_back(before):
    with pytest.raises(ValueError, match="inside"), exact_float32(GPU):
        raise ValueError("inside")
    assert switches() == before


def test_steady_kernels_leave_the_precision(before):
    with steady_kernels(GPU):
        inside = switches()
    assert switches() == before
    assert inside == before | {"benchmark": False, "deterministic": True}


def test_a_processor_has_no_switches():
    before = switches()
    for turned in (exact_float32, steady_kernels):
        with turned(torch.device("cpu")):
            assert switches() == before


def test_two_threads_turn_them_one_after_the_other():
    before, inside = switches(), threading.Event()

    def second():
        with exact_float32(GPU):
            inside.set()

    with exact_float32(GPU):
        with exact_float32(GPU):  # of one thread they may be nested
            pass
        thread = threading.Thread(target=second)
        thread.start()
        assert not inside.wait(0.1)
        assert torch.get_float32_matmul_precision() == "highest"
    thread.join()
    assert inside.is_set()
    assert switches() == before
