// What fork() means for fibers. The runtime sees to it by itself, whoever calls fork().
//
// The child has one OS thread, and on it one fiber: the one that forked. All others belong to the parent; in the child
// they have ended without being unwound, as other threads do. If the forking fiber is not the thread's main one, it is
// the main one from then on, and the child ends with status 0 when its last fiber has finished.
// A child made by vfork() or posix_spawn() shares the parent's memory until it calls exec: nothing is done there.
#pragma once

namespace culm::runtime {

// From now on all fibers of the forking thread go on in the child too. For the whole process; default: false.
void keep_fibers_after_fork(bool keep) noexcept;

}  // namespace culm::runtime
