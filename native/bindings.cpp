// Python's view of the kernels: shapes and limits are checked here, arithmetic is done elsewhere.
// Codes, ids and bits are taken as they are, never converted: 300 must not become a byte of 44.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "encode.h"
#include "ranking.h"
#include "scan/layout.h"
#include "scan/levels.h"
#include "scan/numbering.h"
#include "scan/search.h"
#include "sparse.h"

namespace nb = nanobind;
using spherequant::Columns;
using spherequant::EncodingLevel;
using spherequant::EncodingTables;
using spherequant::Layout;
using spherequant::LayoutBuilder;
using spherequant::LayoutImage;
using spherequant::SparseColumns;

namespace {

using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatCube = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const std::string& message) {
  if (!condition) throw nb::value_error(message.c_str());
}

static_assert(EncodingTables::kMaxCodebooks == spherequant::kMaxCodebooks);
static_assert(EncodingTables::kMaxCodewords == spherequant::kMaxCodewords);

void check_shape(std::size_t m, std::size_t k) {
  require(m >= 1 && m <= spherequant::kMaxCodebooks, "the number of codebooks must be 1 to 16");
  require(k >= 1 && k <= spherequant::kMaxCodewords, "the number of codewords must be 1 to 256");
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

constexpr std::size_t kMostResults = PTRDIFF_MAX / sizeof(std::int64_t);

// The fastest level for an empty name.
const EncodingLevel& encoding_level(const std::string& name) {
  for (const EncodingLevel* level : spherequant::encoding_levels()) {
    if (name.empty() || name == level->name) return *level;
  }
  throw nb::value_error(("this machine does not encode with " + name).c_str());
}

std::vector<std::string> encoding_level_names() {
  std::vector<std::string> names;
  for (const EncodingLevel* level : spherequant::encoding_levels()) {
    names.emplace_back(level->name);
  }
  return names;
}

std::unique_ptr<Columns> make_columns(FloatMatrix y) {
  nb::gil_scoped_release release;
  return std::make_unique<Columns>(y.data(), y.shape(0), y.shape(1));
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> inner_products(const Columns& columns, FloatMatrix x,
                                                          std::size_t threads,
                                                          const std::string& level) {
  require(x.shape(1) == columns.dim(), "x has rows of " + std::to_string(x.shape(1)) +
                                           " values, y of " + std::to_string(columns.dim()));
  require(threads >= 1, "threads must be at least 1");
  const EncodingLevel& chosen = encoding_level(level);
  Owned<float> out(x.shape(0) * columns.size());
  {
    nb::gil_scoped_release release;
    columns.inner_products(x.data(), out.data, x.shape(0), threads, chosen);
  }
  return {out.data, {x.shape(0), columns.size()}, out.owner};
}

std::unique_ptr<SparseColumns> make_sparse_columns(FloatMatrix y) {
  require(y.shape(1) >= 1 && y.shape(1) <= SparseColumns::kMaxDim,
          "sparse rows have 1 to 65536 dimensions");
  nb::gil_scoped_release release;
  return std::make_unique<SparseColumns>(y.data(), y.shape(0), y.shape(1));
}

// None where leaving out the zeros would not give the same bits.
std::optional<nb::ndarray<nb::numpy, float, nb::ndim<2>>> sparse_inner_products(
    const SparseColumns& columns, FloatMatrix x, std::size_t threads, const std::string& level) {
  require(x.shape(1) == columns.dim(), "x has rows of " + std::to_string(x.shape(1)) +
                                           " values, y of " + std::to_string(columns.dim()));
  require(threads >= 1, "threads must be at least 1");
  const EncodingLevel& chosen = encoding_level(level);
  if (!columns.exact(x.data(), x.shape(0))) return std::nullopt;
  Owned<float> out(x.shape(0) * columns.size());
  {
    nb::gil_scoped_release release;
    columns.inner_products(x.data(), out.data, x.shape(0), threads, chosen);
  }
  return nb::ndarray<nb::numpy, float, nb::ndim<2>>(out.data, {x.shape(0), columns.size()},
                                                    out.owner);
}

std::unique_ptr<EncodingTables> make_tables(FloatCube codebooks, std::size_t threads,
                                            const std::string& level) {
  const std::size_t m = codebooks.shape(0);
  const std::size_t k = codebooks.shape(1);
  check_shape(m, k);
  require(codebooks.shape(2) >= 1, "codewords need at least one dimension");
  require(threads >= 1, "threads must be at least 1");
  const EncodingLevel& chosen = encoding_level(level);
  nb::gil_scoped_release release;
  return std::make_unique<EncodingTables>(codebooks.data(), m, k, codebooks.shape(2), threads,
                                          chosen);
}

nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>> encode(const EncodingTables& tables,
                                                         FloatMatrix x, std::size_t beam,
                                                         std::size_t icm_rounds,
                                                         std::size_t icm_starts,
                                                         std::size_t threads) {
  require(x.shape(1) == tables.dim(), "x has rows of " + std::to_string(x.shape(1)) +
                                          " values, the codebooks of " +
                                          std::to_string(tables.dim()));
  require(beam >= 1 && beam <= EncodingTables::kMaxBeam, "beam must be 1 to 4096");
  require(icm_starts >= 1, "icm_starts must be at least 1");
  require(threads >= 1, "threads must be at least 1");
  Owned<std::uint8_t> codes(x.shape(0) * tables.n_codebooks());
  {
    nb::gil_scoped_release release;
    tables.encode(x.data(), codes.data, x.shape(0), {beam, icm_rounds, icm_starts}, threads);
  }
  return {codes.data, {x.shape(0), tables.n_codebooks()}, codes.owner};
}

using ByteMatrix = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>> number_codewords(FloatCube codebooks,
                                                                   std::size_t threads) {
  const std::size_t m = codebooks.shape(0);
  const std::size_t k = codebooks.shape(1);
  check_shape(m, k);
  require(threads >= 1, "threads must be at least 1");
  Owned<std::uint8_t> numbers(m * k);
  {
    nb::gil_scoped_release release;
    spherequant::number_codewords(codebooks.data(), m, k, codebooks.shape(2), threads,
                                  numbers.data);
  }
  return {numbers.data, {m, k}, numbers.owner};
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> sum_tables(FloatCube tables, ByteMatrix codes) {
  const std::size_t m = tables.shape(1);
  const std::size_t k = tables.shape(2);
  check_shape(m, k);
  require(codes.shape(1) == m, "codes have another number of codebooks");
  const std::uint8_t* end = codes.data() + codes.size();
  require(std::all_of(codes.data(), end, [k](std::uint8_t code) { return code < k; }),
          "a code names no codeword");
  Owned<float> scores(tables.shape(0) * codes.shape(0));
  {
    nb::gil_scoped_release release;
    spherequant::sum_tables(tables.data(), tables.shape(0), m, k, codes.data(), codes.shape(0),
                            scores.data);
  }
  return {scores.data, {tables.shape(0), codes.shape(0)}, scores.owner};
}

nb::ndarray<nb::numpy, std::int64_t, nb::ndim<1>> copied(const std::vector<std::int64_t>& values) {
  Owned<std::int64_t> copy(values.size());
  std::copy(values.begin(), values.end(), copy.data);
  return {copy.data, {values.size()}, copy.owner};
}

template <class Score>
nb::tuple find_ties(Vector<Score> scores, Vector<Score> relevant) {
  spherequant::Ties ties;
  {
    nb::gil_scoped_release release;
    ties = spherequant::find_ties(scores.data(), scores.size(), relevant.data(), relevant.size());
  }
  return nb::make_tuple(copied(ties.before), copied(ties.size), copied(ties.relevant),
                        copied(ties.relevant_before), ties.any_tied);
}

spherequant::Numbering numbering_of(const ByteMatrix& numbers) {
  const std::size_t m = numbers.shape(0);
  const std::size_t k = numbers.shape(1);
  check_shape(m, k);
  for (std::size_t j = 0; j < m; ++j) {
    bool used[spherequant::kExact] = {};
    for (std::size_t c = 0; c < k; ++c) {
      bool& one = used[numbers.data()[j * k + c]];
      require(!one, "two codewords of a codebook have the same number");
      one = true;
    }
  }
  return {numbers.data(), m, k};
}

// A LayoutBuilder or a LayoutImage; a flat one where `first` is negative.
template <class T>
std::unique_ptr<T> make_layout(std::size_t n, ByteMatrix numbers, std::int64_t first,
                               std::int64_t second) {
  require(n <= Layout::kMaxItems, "a layout holds at most 4,294,967,295 items");
  const std::size_t m = numbers.shape(0);
  const std::size_t k = numbers.shape(1);
  const spherequant::Numbering numbering = numbering_of(numbers);
  if (first < 0) return std::make_unique<T>(n, m, k, numbering, nullptr);
  const auto books = static_cast<std::int64_t>(m);
  require(first < books && second >= 0 && second < books && (first != second || m == 1),
          "buckets need two codebooks, or the only one");
  const spherequant::BucketBooks chosen{static_cast<std::size_t>(first),
                                        static_cast<std::size_t>(second)};
  return std::make_unique<T>(n, m, k, numbering, &chosen);
}

// Codes are trusted nowhere else: a number from K on would be read outside its table.
void check_codes(const LayoutBuilder& builder, const ByteMatrix& codes, std::size_t done) {
  require(codes.shape(1) == builder.n_codebooks(), "codes have another number of codebooks");
  require(done + codes.shape(0) <= builder.size(), "more codes than were announced");
  if (builder.n_codewords() > 255) return;
  const std::size_t size = codes.shape(0) * codes.shape(1);
  std::uint8_t highest = 0;
  for (std::size_t i = 0; i < size; ++i) highest = std::max(highest, codes.data()[i]);
  require(size == 0 || highest < builder.n_codewords(), "a code names no codeword");
}

void count(LayoutBuilder& builder, ByteMatrix codes) {
  require(!builder.finished() && builder.counting(), "there is nothing to count");
  check_codes(builder, codes, builder.counted());
  nb::gil_scoped_release release;
  builder.count(codes.data(), codes.shape(0));
}

void place(LayoutBuilder& builder, ByteMatrix codes, std::size_t threads) {
  require(!builder.finished() && !builder.counting(),
          "codes are placed when all are counted and before the layout is taken");
  require(threads >= 1, "threads must be at least 1");
  check_codes(builder, codes, builder.placed());
  nb::gil_scoped_release release;
  if (!builder.place(codes.data(), codes.shape(0), threads)) {
    nb::gil_scoped_acquire acquire;
    require(false, "the codes placed are not those that were counted");
  }
}

std::unique_ptr<Layout> finish(LayoutBuilder& builder) {
  require(!builder.finished(), "the layout was taken already");
  require(!builder.counting() && builder.placed() == builder.size(),
          "fewer codes were placed than were announced");
  return builder.finish();
}

nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>> read_codes(const Layout& layout) {
  require(layout.whole(), "a subset does not know all positions");
  Owned<std::uint8_t> codes(layout.size() * layout.n_codebooks());
  {
    nb::gil_scoped_release release;
    layout.read(codes.data);
  }
  return {codes.data, {layout.size(), layout.n_codebooks()}, codes.owner};
}

// A NumPy array of values that `owner` holds.
template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> view(std::span<T> values, nb::handle owner) {
  return {values.data(), {values.size()}, owner};
}

nb::tuple layout_arrays(nb::pointer_and_handle<Layout> self) {
  const Layout& layout = *self.p;
  require(layout.bucketed() || layout.order().empty(), "a subset has no arrays of its own");
  return nb::make_tuple(view(layout.blocks(), self.h), view(layout.order(), self.h),
                        view(layout.starts(), self.h));
}

nb::tuple image_arrays(nb::pointer_and_handle<LayoutImage> self) {
  return nb::make_tuple(view(self.p->blocks(), self.h), view(self.p->order(), self.h),
                        view(self.p->starts(), self.h));
}

std::optional<std::pair<std::size_t, std::size_t>> layout_books(const Layout& layout) {
  if (!layout.bucketed()) return std::nullopt;
  return std::pair{layout.books().first, layout.books().second};
}

std::shared_ptr<Layout> finish_image(const LayoutImage& image, std::size_t threads) {
  require(threads >= 1, "threads must be at least 1");
  bool valid = false;
  {
    nb::gil_scoped_release release;
    valid = image.valid(threads);
  }
  require(valid, "these arrays are no layout");
  return image.layout();
}

void check_words(const Layout& layout, const Words& words) {
  const std::size_t n = layout.size();
  require(words.shape(0) == layout.n_blocks(), "one word is needed for each 64 items");
  require(n % 64 == 0 || words.data()[n / 64] >> (n % 64) == 0, "bits are set behind the last item");
}

nb::ndarray<nb::numpy, std::uint64_t, nb::ndim<1>> to_slots(const Layout& layout, Words positions) {
  require(layout.whole(), "a subset does not know all positions");
  check_words(layout, positions);
  Owned<std::uint64_t> words(layout.n_blocks());
  {
    nb::gil_scoped_release release;
    layout.to_slots(positions.data(), words.data);
  }
  return {words.data, {layout.n_blocks()}, words.owner};
}

std::unique_ptr<Layout> subset(const Layout& layout, Words slots) {
  check_words(layout, slots);
  nb::gil_scoped_release release;
  return layout.subset(slots.data());
}

const spherequant::ByteScan* level_named(const std::string& name) {
  if (name == "float") return nullptr;
  std::string known;
  for (const spherequant::ByteScan* level : spherequant::available_levels()) {
    if (name == level->name) return level;
    known += std::string(level->name) + ", ";
  }
  throw nb::value_error(("this machine runs " + known + "float; not " + name).c_str());
}

std::vector<std::string> level_names() {
  std::vector<std::string> names;
  for (const spherequant::ByteScan* level : spherequant::available_levels()) {
    names.emplace_back(level->name);
  }
  names.emplace_back("float");
  return names;
}

nb::tuple search(const std::vector<const Layout*>& layouts,
                 const std::vector<std::optional<Ids>>& ids,
                 const std::vector<std::optional<Words>>& allowed, FloatCube lut,
                 const std::optional<Ids>& exclude, std::size_t k, float min_score,
                 std::size_t threads, const std::string& route, const std::string& level) {
  require(layouts.size() == ids.size() && layouts.size() == allowed.size(),
          "each layout needs ids or None, and a bitmap or None");
  require(k >= 1 && threads >= 1, "k and threads must be at least 1");
  std::vector<spherequant::Part> parts;
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    require(layouts[i] != nullptr, "a layout is missing");
    const Layout& layout = *layouts[i];
    require(layout.n_codebooks() == lut.shape(1) && layout.n_codewords() == lut.shape(2),
            "the tables have another number of codebooks or codewords than the codes");
    if (allowed[i]) check_words(layout, *allowed[i]);
    require(!ids[i] || ids[i]->shape(0) >= layout.positions(), "there are too few ids");
    parts.push_back({&layout, ids[i] ? ids[i]->data() : nullptr,
                     allowed[i] ? allowed[i]->data() : nullptr});
  }
  const std::size_t n_queries = lut.shape(0);
  require(k <= kMostResults / std::max<std::size_t>(n_queries, 1),
          "no memory holds so many results");
  require(!exclude || exclude->shape(0) == n_queries, "exclude needs one id a query");
  spherequant::SearchOptions options{.k = k, .min_score = min_score, .threads = threads};
  options.scan = level_named(level);
  require(route == "auto" || route == "flat" || route == "buckets",
          "route is auto, flat or buckets");
  if (route != "auto") {
    options.route = route == "flat" ? spherequant::Route::kFlat : spherequant::Route::kBuckets;
  }
  Owned<float> scores(n_queries * k);
  Owned<std::int64_t> found(n_queries * k);
  Owned<std::uint64_t> visited(n_queries);
  {
    nb::gil_scoped_release release;
    spherequant::search(parts, lut.data(), n_queries, exclude ? exclude->data() : nullptr, options,
                        scores.data, found.data, visited.data);
  }
  using Scores = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
  using FoundIds = nb::ndarray<nb::numpy, std::int64_t, nb::ndim<2>>;
  using Counts = nb::ndarray<nb::numpy, std::uint64_t, nb::ndim<1>>;
  return nb::make_tuple(Scores(scores.data, {n_queries, k}, scores.owner),
                        FoundIds(found.data, {n_queries, k}, found.owner),
                        Counts(visited.data, {n_queries}, visited.owner));
}

}  // namespace

NB_MODULE(_native, module) {
  // What caches still hold when the interpreter ends is no leak.
  nb::set_leak_warnings(false);
  module.doc() = "Kernels of spherequant, behind its quantizer, its index and its evaluation.";
  nb::class_<Columns>(module, "Columns")
      .def(nb::new_(&make_columns), nb::arg("y_KD"))
      .def("inner_products", &inner_products, nb::arg("x_ND"), nb::arg("threads"),
           nb::arg("level") = "");
  nb::class_<SparseColumns>(module, "SparseColumns")
      .def(nb::new_(&make_sparse_columns), nb::arg("y_KD"))
      .def("inner_products", &sparse_inner_products, nb::arg("x_ND"), nb::arg("threads"),
           nb::arg("level") = "");
  module.def("encoding_levels", &encoding_level_names);
  nb::class_<EncodingTables>(module, "EncodingTables")
      .def(nb::new_(&make_tables), nb::arg("codebooks_MKD"), nb::arg("threads"),
           nb::arg("level") = "")
      .def("encode", &encode, nb::arg("x_ND"), nb::arg("beam"), nb::arg("icm_rounds"),
           nb::arg("icm_starts"), nb::arg("threads"));

  nb::class_<Layout>(module, "Layout")
      .def("__len__", &Layout::size)
      .def_prop_ro("bucketed", &Layout::bucketed)
      .def_prop_ro("books", &layout_books)
      .def_prop_ro("memory_bytes", &Layout::memory_bytes)
      .def("arrays", &layout_arrays)
      .def("codes", &read_codes)
      .def("to_slots", &to_slots, nb::arg("positions").noconvert())
      .def("subset", &subset, nb::arg("slots").noconvert());
  nb::class_<LayoutBuilder>(module, "LayoutBuilder")
      .def(nb::new_(&make_layout<LayoutBuilder>), nb::arg("n"), nb::arg("numbers_MK").noconvert(),
           nb::arg("first"), nb::arg("second"))
      .def("count", &count, nb::arg("codes_NM").noconvert())
      .def("place", &place, nb::arg("codes_NM").noconvert(), nb::arg("threads"))
      .def("finish", &finish);
  nb::class_<LayoutImage>(module, "LayoutImage")
      .def(nb::new_(&make_layout<LayoutImage>), nb::arg("n"), nb::arg("numbers_MK").noconvert(),
           nb::arg("first"), nb::arg("second"))
      .def("arrays", &image_arrays)
      .def("finish", &finish_image, nb::arg("threads"));
  module.def("sum_tables", &sum_tables, nb::arg("tables_QMK"), nb::arg("codes_NM").noconvert());
  module.def("find_ties", &find_ties<float>, nb::arg("scores").noconvert(),
             nb::arg("relevant").noconvert());
  module.def("find_ties", &find_ties<double>, nb::arg("scores").noconvert(),
             nb::arg("relevant").noconvert());
  module.def("levels", &level_names);
  module.def("number_codewords", &number_codewords, nb::arg("codebooks_MKD"), nb::arg("threads"));
  module.def("search", &search, nb::arg("layouts"), nb::arg("ids").noconvert(),
             nb::arg("allowed").noconvert(), nb::arg("lut_QMK"),
             nb::arg("exclude").noconvert().none(), nb::arg("k"), nb::arg("min_score"),
             nb::arg("threads"), nb::arg("route"), nb::arg("level"));
}
