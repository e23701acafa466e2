// A sequence's newest tokens and where each stood before. Tokens stand in a ring, with each a link: the
// position of its previous occurrence; a table says where every token of the vocabulary stood last. Both hold
// a position plus one, 0: nowhere. What has left the ring is known by its position alone, so nothing is ever
// cleared.
#pragma once
#include "speckv/predictor.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t WALK = SPECKV_PREDICTOR_WALK;

// With a token that is not stored yet at position `count`.
struct History {
  const ap_uint<512>* states;
  StatePlaces places;
  uint32_t capacity, count, oldest, token;
};

SPECKV_INLINE History history_of(const ap_uint<512>* states, const StatePlaces& places, uint32_t capacity,
                                 uint32_t count, uint32_t token) {
  return History{states, places, capacity, count, count < capacity ? 0 : count + 1 - capacity, token};
}

SPECKV_INLINE uint32_t token_at(const History& h, uint32_t position) {
  return position == h.count
             ? h.token
             : load_value<uint32_t>(h.states, h.places.ring, 2 * uint64_t(position & (h.capacity - 1)));
}

// The newest position of a token of the vocabulary, or NOWHERE.
SPECKV_INLINE uint32_t last_of(const History& h, uint32_t token) {
  if (token == h.token) return h.count;
  const uint32_t after = load_value<uint32_t>(h.states, h.places.newest, token);
  return after > h.oldest && after <= h.count ? after - 1 : NOWHERE;
}

// A token that followed the newest one before.
struct Follower {
  uint32_t token, position;
  uint8_t match, count;
};

struct Followers {
  Follower entry[WALK];
  uint32_t size;
};

// How many tokens up to `at` equal the newest ones.
SPECKV_INLINE uint32_t match_at(const History& h, uint32_t at) {
  uint32_t length = 1;
MATCH:
  for (; length < SPECKV_PREDICTOR_MATCH; ++length) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 8
    if (at < h.oldest + length || token_at(h, at - length) != token_at(h, h.count - length)) break;
  }
  return length;
}

// Occurrences come newest first: of equal matches the first position stays.
SPECKV_INLINE void note_follower(Followers& f, uint32_t token, uint32_t match, uint32_t position) {
  uint32_t i = 0;
FIND:
  for (; i < f.size && f.entry[i].token != token; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
  }
  Follower& e = f.entry[i];
  if (i == f.size) {
    e = Follower{token, position, uint8_t(match), 1};
    ++f.size;
  } else if (match > e.match) {
    e = Follower{token, position, uint8_t(match), 1};
  } else if (match == e.match && e.count < SPECKV_PREDICTOR_COUNT) {
    ++e.count;
  }
}

SPECKV_INLINE void find_followers(const History& h, uint32_t vocabulary, Followers& f) {
  f.size = 0;
  uint32_t before = h.count, after = load_value<uint32_t>(h.states, h.places.newest, h.token);
WALKED:
  for (uint32_t i = 0; i < WALK; ++i) {
    // Positions go down and stay within the ring; a damaged state ends the walk.
    if (after <= h.oldest || after > before) break;
    const uint32_t at = after - 1, token = token_at(h, after);
    if (token < vocabulary) note_follower(f, token, match_at(h, at), after);
    before = at;
    after = load_value<uint32_t>(h.states, h.places.ring, 2 * uint64_t(at & (h.capacity - 1)) + 1);
  }
}

// Stores the token.
SPECKV_INLINE void push_token(ap_uint<512>* states, const History& h) {
  const uint64_t slot = 2 * uint64_t(h.count & (h.capacity - 1));
  store_value(states, h.places.ring, slot, h.token);
  store_value(states, h.places.ring, slot + 1, load_value<uint32_t>(states, h.places.newest, h.token));
  store_value(states, h.places.newest, h.token, h.count + 1);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
