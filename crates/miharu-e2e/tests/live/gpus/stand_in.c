/* A stand-in for NVIDIA's management library: the few calls that miharud makes, with the names, structures and return values
 * that NVML's interface gives them. What it tells is in the file that MIHARU_STAND_IN names, read anew at each call: lines
 * "GPU PID COMPUTE GRAPHICS PERCENT", or "hang", with which every call waits until the file says something else. There are
 * three GPUs, of which the third is divided (MIG). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, NOT_FOUND = 6 };
enum { GPUS = 3, DIVIDED = 2, MAX = 64 };

typedef struct { int index; } device;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process;
typedef struct { unsigned pid; unsigned long long time; unsigned sm, memory, encoder, decoder; } sample;
typedef struct { int gpu; unsigned pid; unsigned long long compute, graphics; unsigned percent; } line;

static device devices[GPUS] = {{0}, {1}, {2}};
static unsigned long long now;

static int told(line *lines) {
    for (;;) {
        int count = 0, hangs = 0;
        char text[256];
        FILE *file = fopen(getenv("MIHARU_STAND_IN"), "r");
        while (file && fgets(text, sizeof text, file)) {
            line *l = &lines[count];
            if (!strncmp(text, "hang", 4)) hangs = 1;
            else if (count < MAX && sscanf(text, "%d %u %llu %llu %u", &l->gpu, &l->pid, &l->compute, &l->graphics, &l->percent) == 5) count++;
        }
        if (file) fclose(file);
        if (!hangs) return count;
        usleep(20000);
    }
}

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "an error"; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, "550.54.14"); return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = GPUS; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **handle) {
    if (index >= GPUS) return NOT_FOUND;
    *handle = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(device *d, char *uuid, unsigned length) { snprintf(uuid, length, "GPU-%d", d->index); return SUCCESS; }

/* A GPU that cannot be divided says that this is not supported. */
int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending) {
    if (d->index == 0) return NOT_SUPPORTED;
    *current = *pending = d->index == DIVIDED;
    return SUCCESS;
}

static int processes(device *d, unsigned *count, process *out, int graphics) {
    line lines[MAX];
    unsigned found = 0, room = *count, lines_told = told(lines);
    for (unsigned i = 0; i < lines_told; i++) {
        unsigned long long memory = graphics ? lines[i].graphics : lines[i].compute;
        if (lines[i].gpu != d->index || !memory) continue;
        if (out && found < room) out[found] = (process){lines[i].pid, memory, ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process *out) { return processes(d, count, out, 0); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, unsigned *count, process *out) { return processes(d, count, out, 1); }

int nvmlDeviceGetProcessUtilization(device *d, sample *out, unsigned *count, unsigned long long since) {
    line lines[MAX];
    unsigned found = 0, room = *count, lines_told = told(lines);
    now = now > since ? now + 1 : since + 1;
    for (unsigned i = 0; i < lines_told; i++) {
        if (lines[i].gpu != d->index || !lines[i].percent) continue;
        if (out && found < room) out[found] = (sample){lines[i].pid, now, lines[i].percent, 0, 0, 0};
        found++;
    }
    *count = found;
    if (!found) return NOT_FOUND;
    return !out || found > room ? INSUFFICIENT_SIZE : SUCCESS;
}
