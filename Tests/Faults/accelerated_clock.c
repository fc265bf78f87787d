// For week.py: a clock on the wall that runs CLOCK_SPEED times as fast, and with it the clock that it is compared
// with to notice that somebody set it. CLOCK_MONOTONIC, by which work is timed, stays as it is. Loaded with LD_PRELOAD.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int (*real_gettime)(clockid_t, struct timespec *);
static long speed = 1;

static struct {
    clockid_t clock;
    struct timespec start;
} accelerated[] = {{CLOCK_REALTIME, {0, 0}}, {CLOCK_BOOTTIME, {0, 0}}};

__attribute__((constructor)) static void begin(void) {
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *text = getenv("CLOCK_SPEED");
    if (text) speed = atol(text);
    for (int i = 0; i < 2; i++) real_gettime(accelerated[i].clock, &accelerated[i].start);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_gettime) begin();
    int result = real_gettime(clock, time);
    for (int i = 0; i < 2 && result == 0; i++) {
        if (accelerated[i].clock != clock) continue;
        long long passed = (time->tv_sec - accelerated[i].start.tv_sec) * 1000000000LL
            + (time->tv_nsec - accelerated[i].start.tv_nsec);
        long long now = accelerated[i].start.tv_nsec + passed * speed;
        time->tv_sec = accelerated[i].start.tv_sec + now / 1000000000LL;
        time->tv_nsec = now % 1000000000LL;
    }
    return result;
}
