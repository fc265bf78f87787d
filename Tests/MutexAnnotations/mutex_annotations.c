// Tells ThreadSanitizer what Synchronization.Mutex does when it has to wait.
//
// Without contention, the lock is taken by an atomic operation that the compiler puts into our own code, where the
// sanitizer sees it. With contention, the runtime's library asks the kernel (FUTEX_LOCK_PI), which it does not see: it
// would report a race for whatever the lock protects. These functions stand before those of the library, which they
// call. The names are those of Swift's ABI.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>

#define HANDLE __attribute__((swift_context)) void *handle
#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define TRY_LOCK_SLOW "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

void __tsan_acquire(void *address);
void __tsan_release(void *address);

__attribute__((swiftcall)) void annotated_lock_slow(uint32_t thread, HANDLE) __asm__(LOCK_SLOW);
__attribute__((swiftcall)) bool annotated_try_lock_slow(HANDLE) __asm__(TRY_LOCK_SLOW);
__attribute__((swiftcall)) void annotated_unlock_slow(HANDLE) __asm__(UNLOCK_SLOW);

__attribute__((swiftcall)) void annotated_lock_slow(uint32_t thread, HANDLE) {
    __attribute__((swiftcall)) void (*lock)(uint32_t, HANDLE) = dlsym(RTLD_NEXT, LOCK_SLOW);
    lock(thread, handle);
    __tsan_acquire(handle);
}

__attribute__((swiftcall)) bool annotated_try_lock_slow(HANDLE) {
    __attribute__((swiftcall)) bool (*try_lock)(HANDLE) = dlsym(RTLD_NEXT, TRY_LOCK_SLOW);
    bool is_locked = try_lock(handle);
    if (is_locked) __tsan_acquire(handle);
    return is_locked;
}

__attribute__((swiftcall)) void annotated_unlock_slow(HANDLE) {
    __tsan_release(handle);
    __attribute__((swiftcall)) void (*unlock)(HANDLE) = dlsym(RTLD_NEXT, UNLOCK_SLOW);
    unlock(handle);
}
#endif
#endif
