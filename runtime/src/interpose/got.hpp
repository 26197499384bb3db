// Finding and rewriting the slots through which loaded objects call the functions of the table.
//
// A slot is a word of a global offset table, or of data, that a relocation (JUMP_SLOT, GLOB_DAT, absolute 64 bits)
// fills with the address of a symbol. Slots are touched only inside dl_iterate_phdr, so their object cannot be unloaded
// meanwhile.
// Invariant: every slot that holds a replacement is on record with what it held before.
#pragma once

#include <cstddef>

namespace culm::runtime::interpose::got {

struct Outcome {
    int failure = 0;         // errno of the first slot that could not be written
    bool unsettled = false;  // an object was seen that the loader had not finished with
};

// Patches every slot that is not patched yet; forgets objects that are gone. One call at a time.
Outcome patch(const void* interpreter_object) noexcept;
// Puts back what the slots held. One call at a time, not during patch().
void unpatch() noexcept;

// How often objects have been loaded in this process so far.
unsigned long long loads() noexcept;

std::size_t object_count() noexcept;
std::size_t slot_count() noexcept;

}  // namespace culm::runtime::interpose::got
