"""The kernels under the sanitizers of addresses and of undefined behaviour.

The thread sanitizer cannot run them: it dies before main where a function has several versions.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The C++ test, built as the module is, with the sanitizers."""
    folder = Path(sys.executable).parent  # the development environment has a cmake of its own
    cmake = shutil.which("cmake", path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    if cmake is None:
        pytest.skip("needs cmake: pip install cmake")
    build = tmp_path_factory.mktemp("sanitized")
    (build / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\n"
        "project(kernels_test LANGUAGES CXX)\n"
        f'include("{ROOT}/native/kernels.cmake")\n'
        f'add_executable(kernels_test "{ROOT}/tests/native/kernels_test.cpp")\n'
        "target_link_libraries(kernels_test PRIVATE spherequant_kernels)\n",
        encoding="utf-8",
    )
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    configure = [cmake, "-S", build, "-B", build / "out", "-DCMAKE_BUILD_TYPE=None"]
    run([*configure, f"-DCMAKE_CXX_FLAGS={flags}"])
    run([cmake, "--build", build / "out", "--parallel", "2"])
    return build / "out" / "kernels_test"


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kernels(program):
    assert "40 rounds" in run([program, "40"])
