#include "host/network/layer.h"
namespace bracket {
std::unique_ptr<Layer> make_max_pool_layer(const ImageShape&, std::int64_t) { return nullptr; }
}  // namespace bracket
