#include "encode/rows.h"

namespace spherequant {

const EncodingLevel kAvx2Encoding = {"avx2", &multiply, &encode};

}  // namespace spherequant
