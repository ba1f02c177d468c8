#include "encode/rows.h"
#include "encode/sparse_rows.h"

namespace spherequant {

const EncodingLevel kPortableEncoding = {"portable", &multiply, &multiply_sparse, &encode};

}  // namespace spherequant
