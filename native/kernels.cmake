# The kernels: they know nothing of Python.
find_package(Threads REQUIRED)

set(native ${CMAKE_CURRENT_LIST_DIR})
add_library(spherequant_kernels STATIC
  ${native}/encode.cpp
  ${native}/encode/levels.cpp
  ${native}/encode/portable.cpp
  ${native}/ranking.cpp
  ${native}/scan/buckets.cpp
  ${native}/scan/byte_tables.cpp
  ${native}/scan/flat.cpp
  ${native}/scan/layout.cpp
  ${native}/scan/levels.cpp
  ${native}/scan/numbering.cpp
  ${native}/scan/portable.cpp
  ${native}/scan/query.cpp
  ${native}/scan/search.cpp
  ${native}/sparse.cpp)

# One file an instruction set, with its flags: all others must run everywhere.
function(add_level file)
  target_sources(spherequant_kernels PRIVATE ${native}/${file})
  set_source_files_properties(${native}/${file} PROPERTIES COMPILE_OPTIONS "${ARGN}")
endfunction()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_level(encode/avx2.cpp -mavx2 -mfma)
  add_level(encode/avx512f.cpp -mavx512f)
  add_level(scan/avx2.cpp -mavx2)
  add_level(scan/avx512bw.cpp -mavx512f -mavx512bw)
  add_level(scan/avx512vbmi.cpp -mavx512f -mavx512bw -mavx512vbmi)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  add_level(scan/neon.cpp)
endif()

set_target_properties(spherequant_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_compile_features(spherequant_kernels PUBLIC cxx_std_20)
target_include_directories(spherequant_kernels PUBLIC ${native})
# One order of operations on every machine: a product and a sum are never fused.
target_compile_options(spherequant_kernels PRIVATE -O3 -ffp-contract=off -Wall -Wextra)
target_link_libraries(spherequant_kernels PUBLIC Threads::Threads)
