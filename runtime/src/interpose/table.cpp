// The one list of what is interposed. Aliases that glibc exports (`__read`, `__poll`) share the real function of the
// plain name; the `_chk` names are what its fortified headers call.
#include "table.hpp"

#include <algorithm>
#include <array>

#include "hooks.hpp"
#include "real.hpp"

namespace culm::runtime::interpose {

RealFunctions real{};

namespace {

template <class Hook, class Real>
Entry entry(std::string_view name, Hook* replacement, Real*& real_function, Scope scope = Scope::kEveryObject) {
    return {name, reinterpret_cast<void*>(replacement), reinterpret_cast<void**>(&real_function), scope};
}

auto make_table() noexcept {
    constexpr Scope kInterpreter = Scope::kInterpreterOnly;
    constexpr Scope kOthers = Scope::kAllButInterpreter;
    std::array all = {
        entry("socket", hooks::socket, real.socket),
        entry("socketpair", hooks::socketpair, real.socketpair),
        entry("setsockopt", hooks::setsockopt, real.setsockopt),
        entry("connect", hooks::connect, real.connect),
        entry("__connect", hooks::connect, real.connect),
        entry("accept", hooks::accept, real.accept),
        entry("accept4", hooks::accept4, real.accept4),
        entry("recv", hooks::recv, real.recv),
        entry("recvfrom", hooks::recvfrom, real.recvfrom),
        entry("recvmsg", hooks::recvmsg, real.recvmsg),
        entry("send", hooks::send, real.send),
        entry("__send", hooks::send, real.send),
        entry("sendto", hooks::sendto, real.sendto),
        entry("sendmsg", hooks::sendmsg, real.sendmsg),
        entry("__recv_chk", hooks::recv_chk, real.recv_chk),
        entry("__recvfrom_chk", hooks::recvfrom_chk, real.recvfrom_chk),
        entry("read", hooks::read, real.read),
        entry("__read", hooks::read, real.read),
        entry("__read_chk", hooks::read_chk, real.read_chk),
        entry("readv", hooks::readv, real.readv),
        entry("write", hooks::write, real.write),
        entry("__write", hooks::write, real.write),
        entry("writev", hooks::writev, real.writev),
        entry("eventfd_read", hooks::eventfd_read, real.eventfd_read),
        entry("eventfd_write", hooks::eventfd_write, real.eventfd_write),
        entry("close", hooks::close, real.close),
        entry("__close", hooks::close, real.close),
        entry("close_range", hooks::close_range, real.close_range),
        entry("closefrom", hooks::closefrom, real.closefrom),
        entry("dup", hooks::dup, real.dup),
        entry("dup2", hooks::dup2, real.dup2),
        entry("__dup2", hooks::dup2, real.dup2),
        entry("dup3", hooks::dup3, real.dup3),
        entry("fcntl", hooks::fcntl, real.fcntl),
        entry("__fcntl", hooks::fcntl, real.fcntl),
        entry("fcntl64", hooks::fcntl, real.fcntl),
        entry("ioctl", hooks::ioctl, real.ioctl),
        entry("poll", hooks::poll, real.poll),
        entry("__poll", hooks::poll, real.poll),
        entry("__poll_chk", hooks::poll_chk, real.poll_chk),
        entry("ppoll", hooks::ppoll, real.ppoll),
        entry("__ppoll_chk", hooks::ppoll_chk, real.ppoll_chk),
        entry("select", hooks::select, real.select),
        entry("__select", hooks::select, real.select),
        entry("pselect", hooks::pselect, real.pselect),
        entry("epoll_wait", hooks::epoll_wait, real.epoll_wait),
        entry("epoll_pwait", hooks::epoll_pwait, real.epoll_pwait),
        entry("epoll_pwait2", hooks::epoll_pwait2, real.epoll_pwait2),
        entry("nanosleep", hooks::nanosleep, real.nanosleep),
        entry("__nanosleep", hooks::nanosleep, real.nanosleep),
        entry("clock_nanosleep", hooks::clock_nanosleep, real.clock_nanosleep),
        entry("usleep", hooks::usleep, real.usleep),
        entry("sleep", hooks::sleep, real.sleep),
        entry("sem_wait", hooks::sem_wait, real.sem_wait, kInterpreter),
        entry("sem_timedwait", hooks::sem_timedwait, real.sem_timedwait, kInterpreter),
        entry("sem_clockwait", hooks::sem_clockwait, real.sem_clockwait, kInterpreter),
        entry("sem_post", hooks::sem_post, real.sem_post, kInterpreter),
        entry("sem_destroy", hooks::sem_destroy, real.sem_destroy, kInterpreter),
        entry("pthread_mutex_lock", hooks::pthread_mutex_lock, real.pthread_mutex_lock, kOthers),
        entry("pthread_mutex_trylock", hooks::pthread_mutex_trylock, real.pthread_mutex_trylock, kOthers),
        entry("pthread_mutex_timedlock", hooks::pthread_mutex_timedlock, real.pthread_mutex_timedlock, kOthers),
        entry("pthread_mutex_clocklock", hooks::pthread_mutex_clocklock, real.pthread_mutex_clocklock, kOthers),
        entry("pthread_mutex_unlock", hooks::pthread_mutex_unlock, real.pthread_mutex_unlock, kOthers),
        entry("dlopen", hooks::dlopen, real.dlopen),
        entry("dlmopen", hooks::dlmopen, real.dlmopen),
        entry("dlsym", hooks::dlsym, real.dlsym),
        entry("dlclose", hooks::dlclose, real.dlclose),
        entry("pthread_self", hooks::pthread_self, real.pthread_self, kInterpreter),
        entry("pthread_kill", hooks::pthread_kill, real.pthread_kill, kInterpreter),
        entry("pthread_sigqueue", hooks::pthread_sigqueue, real.pthread_sigqueue, kInterpreter),
        entry("pthread_getcpuclockid", hooks::pthread_getcpuclockid, real.pthread_getcpuclockid, kInterpreter),
        entry("pthread_getattr_np", hooks::pthread_getattr_np, real.pthread_getattr_np, kInterpreter),
        entry("pthread_detach", hooks::pthread_detach, real.pthread_detach, kInterpreter),
        entry("pthread_join", hooks::pthread_join, real.pthread_join, kInterpreter),
        entry("pthread_setname_np", hooks::pthread_setname_np, real.pthread_setname_np, kInterpreter),
        entry("pthread_getname_np", hooks::pthread_getname_np, real.pthread_getname_np, kInterpreter),
        entry("pthread_getschedparam", hooks::pthread_getschedparam, real.pthread_getschedparam, kInterpreter),
        entry("pthread_setschedparam", hooks::pthread_setschedparam, real.pthread_setschedparam, kInterpreter),
        entry("pthread_getaffinity_np", hooks::pthread_getaffinity_np, real.pthread_getaffinity_np, kInterpreter),
        entry("pthread_setaffinity_np", hooks::pthread_setaffinity_np, real.pthread_setaffinity_np, kInterpreter),
    };
    std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    return all;
}

// Built at the first use, which is inside install(): never during the initialisation of another file's globals.
const auto& entries() noexcept {
    static const auto all = make_table();
    return all;
}

}  // namespace

std::span<const Entry> table() noexcept { return entries(); }

const Entry* find_entry(std::string_view name) noexcept {
    const auto all = table();
    const auto found = std::lower_bound(
        all.begin(), all.end(), name, [](const Entry& entry, std::string_view wanted) { return entry.name < wanted; });
    if (found == all.end() || found->name != name || *found->real == nullptr) return nullptr;
    return &*found;
}

void resolve_real_functions() noexcept {
    // Aliases share their member with the plain name, which every libc has: only plain names are looked up.
    for (const Entry& each : table()) {
        if (each.name.starts_with("__") && !each.name.ends_with("_chk")) continue;
        if (*each.real == nullptr) *each.real = ::dlsym(RTLD_DEFAULT, each.name.data());
    }
    // Used by the hooks themselves, patched nowhere.
    real.sem_trywait = reinterpret_cast<decltype(real.sem_trywait)>(::dlsym(RTLD_DEFAULT, "sem_trywait"));
}

}  // namespace culm::runtime::interpose
