// Which function codes a block: scheme and element type to codec. A new scheme joins here and in LAST_SCHEME.
// What has_scheme() denies is constant, so a build without a scheme has none of its hardware.
#pragma once
#include "speckv/int4_decode.hpp"
#include "speckv/int4_encode.hpp"
#include "speckv/int8_delta_rle.hpp"
#include "speckv/klt_decode.hpp"
#include "speckv/klt_encode.hpp"
#include "speckv/lossless_decode.hpp"
#include "speckv/lossless_encode.hpp"
#include "speckv/validate.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

// The codebook image of a call.
struct CodebookPort {
  const ap_uint<512>* image;
  uint32_t lines;
};

// What a calibrated scheme needs besides the block.
struct Calibrated {
  const ap_uint<512>* image;
  const Unit* unit;
  uint32_t first_position;
};

// scheme: the one asked for; becomes the one used, where klt hands a block that it cannot hold to int4.
static inline Coded encode_payload(uint8_t& scheme, uint8_t dtype, const Geometry& g, const Calibrated& with,
                                   const uint16_t block[][LANES], uint8_t payload[][BEAT_BYTES]) {
  const bool fp16 = dtype == SPECKV_DTYPE_FP16;
  if (scheme == SPECKV_SCHEME_KLT) {
    SPECKV_ONCHIP(KltEncodeWork, klt);
    const uint32_t limit = int4_bytes(g);
    const Coded coded =
        fp16 ? klt_encode_fp16(g, with.image, *with.unit, with.first_position, limit, block, klt, payload)
             : klt_encode_bf16(g, with.image, *with.unit, with.first_position, limit, block, klt, payload);
    if (coded.coded) return coded;
    scheme = SPECKV_SCHEME_INT4;
  }
  SPECKV_ONCHIP(Int4Groups, work);  // by reference: natively its address is looked up once
  switch (scheme) {
    case SPECKV_SCHEME_INT8_DELTA_RLE:
      if (!has_scheme(SPECKV_SCHEME_INT8_DELTA_RLE)) break;
      return fp16 ? int8_encode_fp16(g, block, payload) : int8_encode_bf16(g, block, payload);
    case SPECKV_SCHEME_INT4:
      if (!has_scheme(SPECKV_SCHEME_INT4)) break;
      return fp16 ? int4_encode_fp16(g, block, work, payload) : int4_encode_bf16(g, block, work, payload);
    case SPECKV_SCHEME_LOSSLESS: {
      if (!has_scheme(SPECKV_SCHEME_LOSSLESS)) break;
      SPECKV_ONCHIP(LosslessEncodeWork, lossless);
      return fp16                         ? lossless_encode_fp16(g, block, lossless, payload)
             : dtype == SPECKV_DTYPE_BF16 ? lossless_encode_bf16(g, block, lossless, payload)
                                          : lossless_encode_fp32(g, block, lossless, payload);
    }
    default:
      break;
  }
  return Coded{false, 0, 0};  // raw
}

static inline Verdict decode_payload(uint8_t scheme, uint8_t dtype, const Geometry& g, const Calibrated& with,
                                     uint64_t params, uint32_t bytes, const uint8_t payload[][BEAT_BYTES],
                                     uint16_t block[][LANES]) {
  const bool fp16 = dtype == SPECKV_DTYPE_FP16;
  SPECKV_ONCHIP(Int4Scales, scales);
  switch (scheme) {
    case SPECKV_SCHEME_INT8_DELTA_RLE:
      if (!has_scheme(SPECKV_SCHEME_INT8_DELTA_RLE)) break;
      return fp16 ? int8_decode_fp16(g, params, bytes, payload, block)
                  : int8_decode_bf16(g, params, bytes, payload, block);
    case SPECKV_SCHEME_INT4:
      if (!has_scheme(SPECKV_SCHEME_INT4)) break;
      return fp16 ? int4_decode_fp16(g, params, scales, payload, block)
                  : int4_decode_bf16(g, params, scales, payload, block);
    case SPECKV_SCHEME_KLT: {
      if (!has_scheme(SPECKV_SCHEME_KLT)) break;
      SPECKV_ONCHIP(KltDecodeWork, klt);
      return fp16 ? klt_decode_fp16(g, with.image, *with.unit, with.first_position, params, bytes, payload,
                                    klt, block)
                  : klt_decode_bf16(g, with.image, *with.unit, with.first_position, params, bytes, payload,
                                    klt, block);
    }
    case SPECKV_SCHEME_LOSSLESS: {
      if (!has_scheme(SPECKV_SCHEME_LOSSLESS)) break;
      SPECKV_ONCHIP(LosslessDecodeWork, lossless);
      return fp16                         ? lossless_decode_fp16(g, params, bytes, payload, lossless, block)
             : dtype == SPECKV_DTYPE_BF16 ? lossless_decode_bf16(g, params, bytes, payload, lossless, block)
                                          : lossless_decode_fp32(g, params, bytes, payload, lossless, block);
    }
    default:
      break;
  }
  return wrong(SPECKV_STATUS_BAD_SCHEME, scheme, LAST_SCHEME);
}

// Payload bytes that the scheme can have made from this shape.
SPECKV_INLINE Verdict check_payload_bytes(const speckv_record_header& h, const Geometry& g) {
  uint32_t low = g.raw_bytes, high = g.raw_bytes;
  if (!(h.flags & SPECKV_FLAG_RAW)) {
    const bool int4 = h.scheme == SPECKV_SCHEME_INT4, klt = h.scheme == SPECKV_SCHEME_KLT;
    const bool lossless = h.scheme == SPECKV_SCHEME_LOSSLESS;
    low = int4       ? int4_bytes(g)
          : klt      ? STATE_BYTES
          : lossless ? lossless_least_bytes(h.dtype, g)
                     : int8_least_bytes(g);
    high = int4 ? int4_bytes(g) : g.raw_bytes - 1;
  }
  return check_range(SPECKV_STATUS_BAD_PAYLOAD_BYTES, h.payload_bytes, low, high);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
