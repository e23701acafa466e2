// The C border of the page table.
#include <algorithm>
#include <mutex>

#include "border.h"
#include "page_table.h"

struct speckv_page_table {
  std::mutex mutex;
  size_t metadata_bytes = sizeof(speckv_page_table);
  speckv::PageTable table{&metadata_bytes};
};

namespace {

using Guard = std::lock_guard<std::mutex>;

void check(uint32_t count, const speckv_block_key* keys) {
  for (uint32_t i = 0; i < count; ++i) speckv::require(keys[i].layer <= 0xFFFF, i, keys[i].layer, 0xFFFF);
}

}  // namespace

extern "C" {

int32_t speckv_page_table_create(speckv_page_table** table) {
  return speckv::guarded(nullptr, [&] { *table = new speckv_page_table(); });
}

void speckv_page_table_destroy(speckv_page_table* table) { delete table; }

int32_t speckv_page_table_map(speckv_page_table* table, uint32_t count, const speckv_block_key* keys,
                              const uint64_t* handles, uint64_t* replaced, speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    check(count, keys);
    for (uint32_t i = 0; i < count; ++i) speckv::require(handles[i] != 0, i, 0, 1);
    Guard guard(table->mutex);
    table->table.map(count, keys, handles, replaced);
  });
}

int32_t speckv_page_table_unmap(speckv_page_table* table, uint32_t count, const speckv_block_key* keys,
                                uint64_t* handles, speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    check(count, keys);
    Guard guard(table->mutex);
    table->table.unmap(count, keys, handles);
  });
}

int32_t speckv_page_table_lookup(speckv_page_table* table, uint32_t count, const speckv_block_key* keys,
                                 uint64_t* handles, speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    check(count, keys);
    Guard guard(table->mutex);
    table->table.find(count, keys, handles);
  });
}

uint64_t speckv_page_table_blocks(speckv_page_table* table, uint32_t request, uint64_t room,
                                  speckv_block_key* keys, uint64_t* handles) {
  Guard guard(table->mutex);
  table->table.list(request, room, keys, handles);
  return table->table.blocks(request);
}

uint64_t speckv_page_table_free(speckv_page_table* table, uint32_t request, uint64_t room,
                                uint64_t* handles) {
  Guard guard(table->mutex);
  const uint64_t count = table->table.blocks(request);
  if (count > room) return count;
  for (uint64_t i = 0; i < count; ++i) handles[i] = table->table.take_block(request);
  table->table.shrink();
  return count;
}

void speckv_page_table_get_stats(speckv_page_table* table, speckv_page_table_stats* stats) {
  Guard guard(table->mutex);
  const speckv::PageTable& t = table->table;
  *stats = speckv_page_table_stats{t.entries(), t.requests(), t.capacity(), table->metadata_bytes};
}

}  // extern "C"
