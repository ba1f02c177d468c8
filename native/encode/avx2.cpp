#include "encode/rows.h"
#include "encode/sparse_rows.h"

namespace spherequant {

const EncodingLevel kAvx2Encoding = {"avx2", &multiply, &multiply_sparse, &encode};

}  // namespace spherequant
