// The walk over loaded objects and their relocations. See got.hpp for what a slot is.
//
// Left alone: libc and its companions, the loader, name service modules (they keep per-thread state across waits), the
// sanitizer runtimes, and the object that holds this code. An object that another thread is just loading is listed
// before its slots are filled: a slot is rewritten only if it points into executable memory of some object, else it is
// left for the next walk. Pages that the loader has made read-only are opened for the write and closed again.
#include "got.hpp"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "flat_array.hpp"
#include "memory_map.hpp"
#include "real.hpp"
#include "table.hpp"

// The ELF header of the object that holds this code, named by the linker: it tells the CPU without a conditional.
extern "C" const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

namespace culm::runtime::interpose::got {

namespace {

struct RelocationTypes {
    std::uint32_t jump_slot, glob_dat, absolute;
};

RelocationTypes relocation_types() noexcept {
    if (__ehdr_start.e_machine == EM_AARCH64) return {R_AARCH64_JUMP_SLOT, R_AARCH64_GLOB_DAT, R_AARCH64_ABS64};
    return {R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT, R_X86_64_64};
}

struct Object {
    ElfW(Addr) base;
    const ElfW(Phdr) * headers;
    unsigned tries;  // walks that found a slot not filled yet
    bool complete;
    bool seen;
};
struct Slot {
    void** address;
    void* before;
    const Entry* entry;
    const ElfW(Phdr) * object;
};

FlatArray<Object> objects;
FlatArray<Slot> slots;

// A constructor that runs long keeps its object unsettled; after so many walks what is not filled never will be.
constexpr unsigned kTriesMax = 64;

struct Walk {
    const void* interpreter_object;
    RelocationTypes types;
    MemoryMap map;
    Outcome outcome;
};

bool contains(const dl_phdr_info& object, const void* address, std::uint32_t flags = 0) noexcept {
    const auto at = reinterpret_cast<ElfW(Addr)>(address);
    for (int i = 0; i < object.dlpi_phnum; ++i) {
        const ElfW(Phdr)& header = object.dlpi_phdr[i];
        if (header.p_type != PT_LOAD || (header.p_flags & flags) != flags) continue;
        const ElfW(Addr) start = object.dlpi_addr + header.p_vaddr;
        if (at >= start && at < start + header.p_memsz) return true;
    }
    return false;
}

bool left_alone(const dl_phdr_info& object) noexcept {
    constexpr std::string_view kPrefixes[] = {
        "libc.so",    "libc-",      "ld-",        "ld64.so",     "ld.so",      "libm.so",      "libm-",
        "libpthread", "libdl.so",   "libdl-",     "librt.so",    "librt-",     "libresolv",    "libnss_",
        "linux-vdso", "libasan.so", "libtsan.so", "libubsan.so", "liblsan.so", "libhwasan.so", "libclang_rt"};
    if (contains(object, &real)) return true;
    std::string_view name = object.dlpi_name ? object.dlpi_name : "";
    name.remove_prefix(name.rfind('/') + 1);  // npos + 1 is 0
    for (const std::string_view prefix : kPrefixes) {
        if (name.starts_with(prefix)) return true;
    }
    return false;
}

// What the dynamic section says about relocations.
struct Dynamic {
    const ElfW(Rela) * plt = nullptr;
    std::size_t plt_count = 0;
    const ElfW(Rela) * data = nullptr;
    std::size_t data_count = 0;
    const ElfW(Sym) * symbols = nullptr;
    const char* strings = nullptr;
};

Dynamic read_dynamic(const dl_phdr_info& object) noexcept {
    Dynamic result;
    const ElfW(Dyn)* entry = nullptr;
    for (int i = 0; i < object.dlpi_phnum; ++i) {
        if (object.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
        entry = reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
    }
    if (!entry) return result;
    // glibc adds the base to these values when it loads an object; elsewhere they may be as they were linked.
    const auto at = [&object](ElfW(Addr) value) noexcept {
        return value < object.dlpi_addr ? value + object.dlpi_addr : value;
    };
    for (; entry->d_tag != DT_NULL; ++entry) {
        switch (entry->d_tag) {
            case DT_JMPREL:
                result.plt = reinterpret_cast<const ElfW(Rela)*>(at(entry->d_un.d_ptr));
                break;
            case DT_PLTRELSZ:
                result.plt_count = entry->d_un.d_val / sizeof(ElfW(Rela));
                break;
            case DT_RELA:
                result.data = reinterpret_cast<const ElfW(Rela)*>(at(entry->d_un.d_ptr));
                break;
            case DT_RELASZ:
                result.data_count = entry->d_un.d_val / sizeof(ElfW(Rela));
                break;
            case DT_SYMTAB:
                result.symbols = reinterpret_cast<const ElfW(Sym)*>(at(entry->d_un.d_ptr));
                break;
            case DT_STRTAB:
                result.strings = reinterpret_cast<const char*>(at(entry->d_un.d_ptr));
                break;
            default:
                break;
        }
    }
    return result;
}

bool in_scope(Scope scope, bool is_interpreter) noexcept {
    switch (scope) {
        case Scope::kEveryObject:
            return true;
        case Scope::kInterpreterOnly:
            return is_interpreter;
        case Scope::kAllButInterpreter:
            return !is_interpreter;
    }
    return false;
}

// 0, or the errno. The word is written in one piece: other threads call through it all the while.
int write_slot(MemoryMap& map, void** slot, void* value) noexcept {
    const int protection = map.protection(slot);
    if (protection < 0) return EFAULT;
    if ((protection & PROT_WRITE) != 0) {
        __atomic_store_n(slot, value, __ATOMIC_RELEASE);
        return 0;
    }
    const auto page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    void* page = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(slot) & ~(page_bytes - 1));
    if (::mprotect(page, page_bytes, protection | PROT_WRITE) != 0) return errno;
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    return ::mprotect(page, page_bytes, protection) == 0 ? 0 : errno;
}

bool recorded(void** address) noexcept {
    for (const Slot& slot : slots) {
        if (slot.address == address) return true;
    }
    return false;
}

// False: the slot is not filled yet.
bool patch_slot(Walk& walk, Object& object, void** address, const Entry& entry) noexcept {
    void* present = __atomic_load_n(address, __ATOMIC_ACQUIRE);
    if (present == entry.replacement && recorded(address)) return true;
    if (present == nullptr || !walk.map.executable(present)) return false;
    if (!slots.reserve(slots.size() + 1)) {
        walk.outcome.failure = ENOMEM;
        return true;
    }
    if (const int failure = write_slot(walk.map, address, entry.replacement); failure != 0) {
        if (walk.outcome.failure == 0) walk.outcome.failure = failure;
        return true;
    }
    for (Slot& slot : slots) {
        if (slot.address != address) continue;
        slot.before = present;  // the loader filled it again after an early patch
        return true;
    }
    slots.push({address, present, &entry, object.headers});
    return true;
}

void patch_relocations(Walk& walk, Object& object, const dl_phdr_info& info, const Dynamic& dynamic,
                       const ElfW(Rela) * relocations, std::size_t count) noexcept {
    const bool is_interpreter = walk.interpreter_object && contains(info, walk.interpreter_object);
    for (std::size_t i = 0; i < count; ++i) {
        const ElfW(Rela)& relocation = relocations[i];
        const auto type = static_cast<std::uint32_t>(ELF64_R_TYPE(relocation.r_info));
        const bool absolute = type == walk.types.absolute && relocation.r_addend == 0;
        if (type != walk.types.jump_slot && type != walk.types.glob_dat && !absolute) continue;
        const ElfW(Sym)& symbol = dynamic.symbols[ELF64_R_SYM(relocation.r_info)];
        const Entry* entry = find_entry(dynamic.strings + symbol.st_name);
        if (!entry || !in_scope(entry->scope, is_interpreter)) continue;
        auto** address = reinterpret_cast<void**>(info.dlpi_addr + relocation.r_offset);
        if (!patch_slot(walk, object, address, *entry)) object.complete = false;
    }
}

bool still_patched(const Object& object) noexcept {
    for (const Slot& slot : slots) {
        if (slot.object != object.headers) continue;
        if (__atomic_load_n(slot.address, __ATOMIC_ACQUIRE) != slot.entry->replacement) return false;
    }
    return true;
}

Object* find_or_add(const dl_phdr_info& info) noexcept {
    for (Object& object : objects) {
        if (object.base == info.dlpi_addr && object.headers == info.dlpi_phdr) return &object;
    }
    if (!objects.reserve(objects.size() + 1)) return nullptr;
    objects.push({info.dlpi_addr, info.dlpi_phdr, 0, false, false});
    return &objects[objects.size() - 1];
}

int patch_object(dl_phdr_info* info, std::size_t, void* argument) noexcept {
    Walk& walk = *static_cast<Walk*>(argument);
    if (left_alone(*info)) return 0;
    Object* object = find_or_add(*info);
    if (!object) {
        walk.outcome.failure = ENOMEM;
        return 1;
    }
    object->seen = true;
    if (object->complete && still_patched(*object)) return 0;
    const Dynamic dynamic = read_dynamic(*info);
    object->complete = true;
    if (dynamic.symbols && dynamic.strings) {
        if (dynamic.plt) patch_relocations(walk, *object, *info, dynamic, dynamic.plt, dynamic.plt_count);
        if (dynamic.data) patch_relocations(walk, *object, *info, dynamic, dynamic.data, dynamic.data_count);
    }
    if (object->complete) return 0;
    if (++object->tries < kTriesMax) {
        walk.outcome.unsettled = true;
    } else {
        object->complete = true;
    }
    return 0;
}

void forget_unseen() noexcept {
    FlatArray<Object>& all = objects;
    for (std::size_t i = 0; i < all.size();) {
        if (all[i].seen) {
            ++i;
            continue;
        }
        for (std::size_t j = 0; j < slots.size();) {
            if (slots[j].object != all[i].headers) {
                ++j;
                continue;
            }
            slots[j] = slots[slots.size() - 1];
            slots.pop();
        }
        all[i] = all[all.size() - 1];
        all.pop();
    }
}

int unpatch_object(dl_phdr_info* info, std::size_t, void* argument) noexcept {
    MemoryMap& map = *static_cast<MemoryMap*>(argument);
    for (const Slot& slot : slots) {
        if (slot.object != info->dlpi_phdr) continue;
        if (__atomic_load_n(slot.address, __ATOMIC_ACQUIRE) != slot.entry->replacement) continue;
        static_cast<void>(write_slot(map, slot.address, slot.before));
    }
    return 0;
}

}  // namespace

Outcome patch(const void* interpreter_object) noexcept {
    Walk walk{interpreter_object, relocation_types(), {}, {}};
    if (!walk.map.read()) return {ENOMEM, true};
    for (Object& object : objects) object.seen = false;
    ::dl_iterate_phdr(&patch_object, &walk);
    if (walk.outcome.failure != ENOMEM) forget_unseen();
    return walk.outcome;
}

void unpatch() noexcept {
    MemoryMap map;
    if (!map.read()) return;
    ::dl_iterate_phdr(&unpatch_object, &map);
    slots.clear();
    objects.clear();
}

unsigned long long loads() noexcept {
    unsigned long long count = 0;
    ::dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* argument) {
            *static_cast<unsigned long long*>(argument) = info->dlpi_adds;
            return 1;
        },
        &count);
    return count;
}

std::size_t object_count() noexcept { return objects.size(); }
std::size_t slot_count() noexcept { return slots.size(); }

}  // namespace culm::runtime::interpose::got
