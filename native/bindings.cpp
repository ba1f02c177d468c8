// Python's view of the kernels: shapes and limits are checked here, arithmetic is done elsewhere.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/unique_ptr.h>

#include <cstdint>
#include <memory>
#include <string>

#include "encode.h"

namespace nb = nanobind;
using spherequant::EncodingTables;

namespace {

using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatCube = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const std::string& message) {
  if (!condition) throw nb::value_error(message.c_str());
}

// A NumPy array that owns `size` values, and where they lie.
template <class T>
struct Owned {
  T* data;
  nb::capsule owner;
  explicit Owned(std::size_t size)
      : data(new T[size == 0 ? 1 : size]),
        owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); }) {}
};

nb::ndarray<nb::numpy, float, nb::ndim<2>> inner_products(FloatMatrix x, FloatMatrix y,
                                                          std::size_t threads) {
  require(x.shape(1) == y.shape(1), "x has rows of " + std::to_string(x.shape(1)) +
                                        " values, y of " + std::to_string(y.shape(1)));
  require(threads >= 1, "threads must be at least 1");
  Owned<float> out(x.shape(0) * y.shape(0));
  {
    nb::gil_scoped_release release;
    spherequant::inner_products(x.data(), y.data(), out.data, x.shape(0), y.shape(0), x.shape(1),
                                threads);
  }
  return {out.data, {x.shape(0), y.shape(0)}, out.owner};
}

std::unique_ptr<EncodingTables> make_tables(FloatCube codebooks, std::size_t threads) {
  const std::size_t m = codebooks.shape(0);
  const std::size_t k = codebooks.shape(1);
  require(m >= 1 && m <= EncodingTables::kMaxCodebooks, "the number of codebooks must be 1 to 16");
  require(k >= 1 && k <= EncodingTables::kMaxCodewords, "the number of codewords must be 1 to 256");
  require(codebooks.shape(2) >= 1, "codewords need at least one dimension");
  require(threads >= 1, "threads must be at least 1");
  nb::gil_scoped_release release;
  return std::make_unique<EncodingTables>(codebooks.data(), m, k, codebooks.shape(2), threads);
}

nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>> encode(const EncodingTables& tables,
                                                         FloatMatrix x, std::size_t beam,
                                                         std::size_t icm_rounds,
                                                         std::size_t threads) {
  require(x.shape(1) == tables.dim(), "x has rows of " + std::to_string(x.shape(1)) +
                                          " values, the codebooks of " +
                                          std::to_string(tables.dim()));
  require(beam >= 1 && beam <= EncodingTables::kMaxBeam, "beam must be 1 to 4096");
  require(threads >= 1, "threads must be at least 1");
  Owned<std::uint8_t> codes(x.shape(0) * tables.n_codebooks());
  {
    nb::gil_scoped_release release;
    tables.encode(x.data(), codes.data, x.shape(0), beam, icm_rounds, threads);
  }
  return {codes.data, {x.shape(0), tables.n_codebooks()}, codes.owner};
}

}  // namespace

NB_MODULE(_native, module) {
  module.doc() = "Kernels of spherequant. Call them through spherequant.quantizer.";
  module.def("inner_products", &inner_products, nb::arg("x_ND"), nb::arg("y_KD"),
             nb::arg("threads"));
  nb::class_<EncodingTables>(module, "EncodingTables")
      .def(nb::new_(&make_tables), nb::arg("codebooks_MKD"), nb::arg("threads"))
      .def("encode", &encode, nb::arg("x_ND"), nb::arg("beam"), nb::arg("icm_rounds"),
           nb::arg("threads"));
}
