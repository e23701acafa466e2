// The C border of the directory.
#include "border.h"
#include "directory.h"
#include "speckv_directory.h"

struct speckv_directory {
  explicit speckv_directory(uint64_t lease_ns) : directory(lease_ns) {}
  speckv::Directory directory;
};

extern "C" {

int32_t speckv_directory_create(uint64_t lease_ns, speckv_directory** directory) {
  return speckv::guarded(nullptr, [&] {
    speckv::require(lease_ns >= 1 && lease_ns <= 1ull << 62, 0, lease_ns, 1ull << 62);
    *directory = new speckv_directory(lease_ns);
  });
}

void speckv_directory_destroy(speckv_directory* directory) { delete directory; }

int32_t speckv_directory_register(speckv_directory* directory, uint64_t now_ns, speckv_directory_agent* agent,
                                  speckv_core_error* error) {
  return speckv::guarded(error, [&] { directory->directory.enroll(now_ns, *agent); });
}

int32_t speckv_directory_acquire(speckv_directory* directory, uint32_t agent, uint64_t epoch, uint64_t now_ns,
                                 uint32_t write, uint32_t count, const uint64_t* keys, uint8_t* answers,
                                 uint64_t* deadline_ns, speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    *deadline_ns = directory->directory.acquire(agent, epoch, now_ns, write != 0, count, keys, answers);
  });
}

int32_t speckv_directory_release(speckv_directory* directory, uint32_t agent, uint64_t epoch, uint32_t dirty,
                                 uint32_t count, const uint64_t* keys, speckv_core_error* error) {
  const auto event = dirty != 0 ? SPECKV_DIRECTORY_EVENT_PUT_DIRTY : SPECKV_DIRECTORY_EVENT_PUT_CLEAN;
  return speckv::guarded(error, [&] { directory->directory.give(agent, epoch, event, count, keys); });
}

int32_t speckv_directory_write_back(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                    uint32_t count, const uint64_t* keys, speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    directory->directory.give(agent, epoch, SPECKV_DIRECTORY_EVENT_WRITE_BACK, count, keys);
  });
}

int32_t speckv_directory_acknowledge(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                     uint32_t count, const uint64_t* keys, speckv_core_error* error) {
  return speckv::guarded(
      error, [&] { directory->directory.give(agent, epoch, SPECKV_DIRECTORY_EVENT_ACK, count, keys); });
}

int32_t speckv_directory_poll(speckv_directory* directory, uint32_t agent, uint64_t epoch, uint64_t now_ns,
                              uint32_t room, speckv_directory_recall* recalls, uint32_t* count,
                              uint64_t* deadline_ns, speckv_core_error* error) {
  return speckv::guarded(
      error, [&] { *deadline_ns = directory->directory.poll(agent, epoch, now_ns, room, recalls, *count); });
}

int32_t speckv_directory_expire(speckv_directory* directory, uint64_t now_ns, uint64_t* fenced) {
  return speckv::guarded(nullptr, [&] { *fenced = directory->directory.expire(now_ns); });
}

int32_t speckv_directory_fence(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                               speckv_core_error* error) {
  return speckv::guarded(error, [&] { directory->directory.fence(agent, epoch); });
}

uint64_t speckv_directory_take_lost(speckv_directory* directory, uint64_t room, uint64_t* keys) {
  return directory->directory.take_lost(room, keys);
}

void speckv_directory_look(speckv_directory* directory, uint64_t key, speckv_directory_block* block) {
  directory->directory.look(key, *block);
}

void speckv_directory_get_stats(speckv_directory* directory, speckv_directory_stats* stats) {
  directory->directory.stats(*stats);
}

}  // extern "C"
