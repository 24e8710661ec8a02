// What a layer's specification must hold, given what it reads. Every message names the layer and shows the values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "host/network/layer.h"

namespace bracket {

class SpecCheck {
 public:
  static constexpr std::int64_t kLargestWindow = 65536;
  static constexpr std::int64_t kLargestMaxWindow = 16;  // a choice in it is one byte

  /// The layer is number `index` of the list that `path` names ("" or "2.body.").
  SpecCheck(const std::string& path, std::size_t index, const Features& input) : index_(index), input_(input) {
    label_ = "layer " + path + std::to_string(index);
  }

  void operator()(const LinearSpec& s, const UnflattenSpec* behind) const;
  void operator()(const BatchNormSpec& s) const;
  void operator()(const AffineSpec& s) const;
  void operator()(const FourierFeaturesSpec& s) const;
  void operator()(const MonotoneCouplingSpec& s) const;
  void operator()(const RationalQuadraticCouplingSpec& s) const;
  /// Of a fixed map of columns.
  void columns(const char* type) const;
  void operator()(const ConfinementSpec& s) const;
  void operator()(const FlattenSpec& s) const;
  void operator()(const UnflattenSpec& s) const;
  /// The image that comes out.
  ImageShape operator()(const Conv2dSpec& s) const;
  ImageShape operator()(const ConvTranspose2dSpec& s) const;
  ImageShape operator()(const UpsampleSpec& s) const;
  ImageShape pool(const char* type, std::int64_t window, std::int64_t largest) const;

 private:
  void require(bool holds, const std::string& what) const;
  void plain_rows(const char* type) const;
  void image(const char* type) const;
  void coupling(const std::string& type, std::int64_t active_first, std::int64_t active_count,
                const std::vector<std::int64_t>& hidden) const;
  void convolution(const char* type, std::int64_t channels, std::int64_t kernel, std::int64_t stride,
                   std::int64_t padding, double deviation) const;
  ImageShape sized(const char* type, std::int64_t channels, std::int64_t height, std::int64_t width) const;

  std::size_t index_;
  const Features& input_;
  std::string label_;
};

}  // namespace bracket
