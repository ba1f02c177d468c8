"""The C++ kernels by themselves: under sanitizers, and as another processor would run them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each a set of flags; the kernels are compiled anew with them.
SANITIZERS = {
    "addresses": "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all",
    "threads": "-O1 -g -fsanitize=thread",
}


def build(folder, flags, *options):
    """The C++ test, built as the module is, with these flags."""
    tools = Path(sys.executable).parent  # the development environment has a cmake of its own
    cmake = shutil.which("cmake", path=f"{tools}{os.pathsep}{os.environ['PATH']}")
    if cmake is None:
        pytest.skip("needs cmake: pip install cmake")
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\n"
        "project(kernels_test LANGUAGES CXX)\n"
        f'include("{ROOT}/native/kernels.cmake")\n'
        f'add_executable(kernels_test "{ROOT}/tests/native/kernels_test.cpp")\n'
        "target_link_libraries(kernels_test PRIVATE spherequant_kernels)\n",
        encoding="utf-8",
    )
    configure = [cmake, "-S", folder, "-B", folder / "out", "-DCMAKE_BUILD_TYPE=None", *options]
    run([*configure, f"-DCMAKE_CXX_FLAGS={flags}"])
    run([cmake, "--build", folder / "out", "--parallel", "2"])
    return folder / "out" / "kernels_test"


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_under_a_sanitizer(sanitizer, tmp_path):
    program = build(tmp_path, SANITIZERS[sanitizer])
    assert "20 rounds" in run([program, "20"])


def test_neon(tmp_path):
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("needs Debian's g++-aarch64-linux-gnu and qemu-user-static")
    program = build(
        tmp_path,
        "-O2",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )
    assert "40 rounds" in run([emulator, program, "40"])
