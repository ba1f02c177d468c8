#include "encode/rows.h"

namespace spherequant {

const EncodingLevel kAvx512Encoding = {"avx512f", &multiply, &encode};

}  // namespace spherequant
