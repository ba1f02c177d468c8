#include "encode/rows.h"
#include "encode/sparse_rows.h"

namespace spherequant {

const EncodingLevel kAvx512Encoding = {"avx512f", &multiply, &multiply_sparse, &encode};

}  // namespace spherequant
