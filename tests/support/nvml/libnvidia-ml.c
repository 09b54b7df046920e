/* A stand-in for NVIDIA's driver library: the calls that lockkit makes, with the layouts of nvml.h, on cards that a file describes.

   The file is read at each call, so a test may change it at any moment. It has a row for each value:

     count 2
     init 9                             what nvmlInit answers
     card 0 uuid GPU-...                also name, total, reserved, used, gpu (utilisation), ecc, mig (1), slices (how many)
     card 0.1 uuid MIG-...              slice 1 of card 0; also gi, ci (its GPU instance and compute instance)
     card 0 process 4711 1048576        pid, bytes
     card 0 field 230 1                 number, value
     card 0 rows 0 0 1 0                nvmlDeviceGetRemappedRows
     card 0 xid 79                      each is an event once
     card 0 fail nvmlDeviceGetName 15   what a call answers for this card
     hang nvmlDeviceGetName 3           seconds that a call takes
     card 0 stuck nvmlDeviceGetName 1   a call for this card does not return as long as this row is there
     meet nvmlDeviceGetName 8           a call for a card returns once so many threads are in it, or fails after 20 s
     log /path                          where each call is noted
*/
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int card, slice; } device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned id, scope; long long at, latency; unsigned type, answer; union { unsigned ui; unsigned long long ull; } value; } field_t;
typedef struct { device_t *device; unsigned long long type, data; unsigned gi, ci; } event_t;
typedef struct { int told[64]; int listens[64]; } set_t;

enum { OK, UNINITIALIZED, INVALID, UNSUPPORTED, NO_PERMISSION, ALREADY, NOT_FOUND, TOO_SMALL, TIMEOUT = 10, VERSION = 25 };

static device_t cards[64], slices[64][8];
static pid_t begun;
static _Atomic int inside;

/* The rest of the n-th row that begins with these words, or 0. */
static const char *row(const char *words, int n) {
    static _Thread_local char text[4096];
    const char *path = getenv("NVML_STATE");
    FILE *file = path ? fopen(path, "r") : 0;
    size_t length = strlen(words);
    if (!file) return 0;
    while (fgets(text, sizeof text, file))
        if (!strncmp(text, words, length) && text[length] == ' ' && n-- == 0) {
            fclose(file);
            text[strcspn(text, "\n")] = 0;
            return text + length + 1;
        }
    fclose(file);
    return 0;
}

static const char *of(device_t *device, const char *key, int n) {
    char words[128];
    if (device->slice < 0) snprintf(words, sizeof words, "card %d %s", device->card, key);
    else snprintf(words, sizeof words, "card %d.%d %s", device->card, device->slice, key);
    return row(words, n);
}

static unsigned long long number(device_t *device, const char *key, unsigned long long otherwise) {
    const char *text = of(device, key, 0);
    return text ? strtoull(text, 0, 10) : otherwise;
}

/* Every call begins here. */
static int enter(const char *call, device_t *device) {
    char words[128];
    const char *text = row("log", 0);
    if (text) {
        FILE *file = fopen(text, "a");
        if (device) fprintf(file, "%s %d.%d\n", call, device->card, device->slice);
        else fprintf(file, "%s\n", call);
        fclose(file);
    }
    snprintf(words, sizeof words, "hang %s", call);
    if ((text = row(words, 0))) usleep((useconds_t)(1e6 * atof(text)));
    snprintf(words, sizeof words, "stuck %s", call);
    while (device && of(device, words, 0)) usleep(1000);
    snprintf(words, sizeof words, "meet %s", call);
    if (device && (text = row(words, 0))) {
        int all = atoi(text), waited = 0;
        for (inside++; inside < all; usleep(1000)) if (++waited > 20000) return TIMEOUT;
    }
    if (begun != getpid()) return UNINITIALIZED;
    snprintf(words, sizeof words, "fail %s", call);
    if (device && (text = of(device, words, 0))) return atoi(text);
    return (text = row(words, 0)) ? atoi(text) : OK;
}
#define ENTER(device) do { int answer = enter(__func__, device); if (answer) return answer; } while (0)

int nvmlInitWithFlags(unsigned flags) {
    const char *text = row("init", 0);
    (void)flags;
    begun = getpid();
    enter(__func__, 0);
    if (text) { begun = 0; return atoi(text); }
    for (int card = 0; card < 64; card++) {
        cards[card] = (device_t){card, -1};
        for (int slice = 0; slice < 8; slice++) slices[card][slice] = (device_t){card, slice};
    }
    return OK;
}

int nvmlShutdown(void) { ENTER(0); begun = 0; return OK; }

const char *nvmlErrorString(int error) { (void)error; return "an error"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    const char *text;
    ENTER(0);
    *count = (text = row("count", 0)) ? atoi(text) : 0;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) {
    ENTER(&cards[index]);
    *device = &cards[index];
    return OK;
}

static int text_of(device_t *device, const char *key, char *into, unsigned size) {
    const char *text = of(device, key, 0);
    if (!text) return UNSUPPORTED;
    snprintf(into, size, "%s", text);
    return OK;
}

int nvmlDeviceGetUUID(device_t *device, char *into, unsigned size) { ENTER(device); return text_of(device, "uuid", into, size); }
int nvmlDeviceGetName(device_t *device, char *into, unsigned size) { ENTER(device); return text_of(device, "name", into, size); }

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *into) {
    ENTER(device);
    if (!of(device, "total", 0)) return UNSUPPORTED;
    into->total = number(device, "total", 0);
    into->used = number(device, "used", 0) + number(device, "reserved", 0);
    into->free = into->total - into->used;
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(device_t *device, memory_v2_t *into) {
    ENTER(device);
    if (into->version != 0x02000028 || sizeof *into != 40) return VERSION;
    if (!of(device, "total", 0)) return UNSUPPORTED;
    into->total = number(device, "total", 0);
    into->used = number(device, "used", 0);
    into->reserved = number(device, "reserved", 0);
    into->free = into->total - into->used - into->reserved;
    return OK;
}

static int processes(device_t *device, unsigned *count, process_t *into) {
    unsigned found = 0, room = into ? *count : 0;
    const char *text;
    for (; (text = of(device, "process", found)); found++)
        if (found < room) {
            char *rest;
            into[found] = (process_t){.pid = strtoul(text, &rest, 10), .gi = ~0u, .ci = ~0u};
            into[found].used = *rest ? strtoull(rest, 0, 10) : ~0ull; /* not available */
        }
    *count = found;
    return found > room ? TOO_SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t *device, unsigned *count, process_t *into) { ENTER(device); return processes(device, count, into); }
int nvmlDeviceGetComputeRunningProcesses_v2(device_t *device, unsigned *count, process_t *into) { ENTER(device); return processes(device, count, into); }

int nvmlDeviceGetUtilizationRates(device_t *device, rates_t *into) {
    ENTER(device);
    *into = (rates_t){number(device, "gpu", 0), 0};
    return OK;
}

int nvmlDeviceGetMigMode(device_t *device, unsigned *current, unsigned *pending) {
    ENTER(device);
    if (!of(device, "mig", 0)) return UNSUPPORTED;
    *current = *pending = number(device, "mig", 0);
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t *device, unsigned *count) {
    ENTER(device);
    *count = of(device, "mig", 0) ? 7 : 0;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device_t *device, unsigned index, device_t **slice) {
    ENTER(device);
    *slice = &slices[device->card][index];
    return of(*slice, "uuid", 0) ? OK : NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(device_t *device, unsigned *id) {
    ENTER(device);
    if (!of(device, "gi", 0)) return UNSUPPORTED;
    *id = number(device, "gi", 0);
    return OK;
}

int nvmlDeviceGetComputeInstanceId(device_t *device, unsigned *id) {
    ENTER(device);
    *id = number(device, "ci", 0);
    return OK;
}

int nvmlDeviceGetFieldValues(device_t *device, int count, field_t *fields) {
    ENTER(device);
    for (int each = 0; each < count; each++) {
        char words[64];
        const char *text;
        snprintf(words, sizeof words, "field %u", fields[each].id);
        text = of(device, words, 0);
        fields[each].answer = text ? OK : UNSUPPORTED;
        fields[each].type = fields[each].id == 4 ? 3 : 1; /* unsigned long long, unsigned int */
        if (text && fields[each].type == 3) fields[each].value.ull = strtoull(text, 0, 10);
        else if (text) { fields[each].value.ull = ~0ull; fields[each].value.ui = atoi(text); }
    }
    return OK;
}

int nvmlDeviceGetTotalEccErrors(device_t *device, unsigned kind, unsigned counter, unsigned long long *count) {
    ENTER(device);
    if (kind != 1 || counter != 0) return INVALID;
    if (!of(device, "ecc", 0)) return UNSUPPORTED;
    *count = number(device, "ecc", 0);
    return OK;
}

int nvmlDeviceGetRemappedRows(device_t *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failure) {
    const char *text;
    ENTER(device);
    if (!(text = of(device, "rows", 0))) return UNSUPPORTED;
    sscanf(text, "%u %u %u %u", corrected, uncorrected, pending, failure);
    return OK;
}

int nvmlEventSetCreate(set_t **set) {
    ENTER(0);
    *set = calloc(1, sizeof **set);
    return OK;
}

int nvmlDeviceRegisterEvents(device_t *device, unsigned long long types, set_t *set) {
    int told = 0;
    ENTER(device);
    if (types != 8) return INVALID;
    while (of(device, "xid", told)) told++;
    set->told[device->card] = told;
    set->listens[device->card] = 1;
    return OK;
}

int nvmlEventSetWait_v2(set_t *set, event_t *event, unsigned wait) {
    ENTER(0);
    (void)wait;
    for (int card = 0; card < 64; card++) {
        const char *text = set->listens[card] ? of(&cards[card], "xid", set->told[card]) : 0;
        if (text) {
            set->told[card]++;
            *event = (event_t){&cards[card], 8, strtoull(text, 0, 10), ~0u, ~0u};
            return OK;
        }
    }
    return TIMEOUT;
}

int nvmlEventSetFree(set_t *set) { ENTER(0); free(set); return OK; }
