// What the hooks of the loader ask of the installation. Both do nothing while nothing is installed.
#pragma once

namespace culm::runtime::interpose {

// Patches objects loaded since the last time. Cheap when there are none. Keeps errno.
void patch_new_objects() noexcept;
// Objects may have been unloaded: their slots are no more.
void forget_unloaded_objects() noexcept;

// False in a child made by vfork, whose memory is its parent's, and by a raw clone: nothing of ours may change there.
bool in_this_process() noexcept;

}  // namespace culm::runtime::interpose
