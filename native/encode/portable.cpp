#include "encode/rows.h"

namespace spherequant {

const EncodingLevel kPortableEncoding = {"portable", &multiply, &encode};

}  // namespace spherequant
