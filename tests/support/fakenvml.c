/* A fake libnvidia-ml: GPU readings on a machine without a GPU. Ours; it holds nothing of NVIDIA's.

   build:  cc -shared -fPIC -DSTEER='"/path/of/a/file"' -o libnvidia-ml.so.1 fakenvml.c
   -DOLD leaves out what old drivers do not have: power limit and events.

   Every answer is looked up in the file STEER, a line `key value` each, at every call; without a line there is a default.
   A key may end in the index of a GPU: `temperature.1 90` is of GPU 1 alone.
     init N             what the library answers when it is opened: 9 = no driver
     count N            GPUs
     hang 1             every question of a GPU waits until this is gone
     lost 15            what every question of a GPU answers: 15 = fallen off the bus
     fail_READING N     what this one answers: 3 = not supported; READING as below, and uuid, events, mig
     utilization, memory_used, power, power_limit, temperature, clock, throttling (bits), corrected, uncorrected
     xids N, xid CODE   N errors so far, the last of them CODE
     mig 1              divided, into `instances` instances */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int R;
typedef unsigned u32;
typedef unsigned long long u64;
typedef void *D;

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SHORT = 7, TIMEOUT = 10 };
enum { WHOLE = 0x1000, INSTANCE = 0x2000, PLACES = 16 };

static int is_instance(D d) { return (size_t)d >= INSTANCE; }
static int index_of(D d) { return is_instance(d) ? ((int)(size_t)d - INSTANCE) / PLACES : (int)(size_t)d - WHOLE; }
static int place_of(D d) { return ((int)(size_t)d - INSTANCE) % PLACES; }

/* The value of `key.index`, else of `key`, else the default. */
static u64 look(const char *key, int index, u64 otherwise) {
  char own[64], name[64];
  u64 value, found = otherwise;
  int exact = 0;
  FILE *file = fopen(STEER, "r");
  if (!file) return otherwise;
  snprintf(own, sizeof own, "%s.%d", key, index);
  while (fscanf(file, "%63s %llu", name, &value) == 2) {
    if (!strcmp(name, own)) found = value, exact = 1;
    else if (!exact && !strcmp(name, key)) found = value;
  }
  fclose(file);
  return found;
}

/* What a question of a GPU answers before anything else. */
static R state(D d, const char *reading) {
  char key[64];
  while (look("hang", index_of(d), 0)) usleep(5000);
  snprintf(key, sizeof key, "fail_%s", reading);
  u64 lost = look("lost", index_of(d), 0);
  if (lost) return (R)lost;
  return (R)look(key, index_of(d), OK);
}

static R number(D d, const char *reading, u64 otherwise, u32 *out) {
  R r = is_instance(d) ? NOT_SUPPORTED : state(d, reading);
  if (r == OK) *out = (u32)look(reading, index_of(d), otherwise);
  return r;
}

static R text(char *out, u32 room, const char *format, int a, int b) {
  return snprintf(out, room, format, a, b) < (int)room ? OK : SHORT;
}

R nvmlInit_v2(void) { return (R)look("init", 0, OK); }
R nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(R r) { (void)r; return "fake"; }
R nvmlSystemGetDriverVersion(char *out, u32 room) { return text(out, room, "570.00", 0, 0); }
R nvmlDeviceGetCount_v2(u32 *out) { *out = (u32)look("count", 0, 1); return OK; }

R nvmlDeviceGetHandleByIndex_v2(u32 index, D *out) {
  if (index >= look("count", 0, 1)) return INVALID;
  *out = (D)(size_t)(WHOLE + index);
  return OK;
}

R nvmlDeviceGetName(D d, char *out, u32 room) {
  return is_instance(d) ? text(out, room, "Fake GPU MIG", 0, 0) : text(out, room, "Fake GPU", 0, 0);
}

R nvmlDeviceGetUUID(D d, char *out, u32 room) {
  R r = state(d, "uuid");
  if (r != OK) return r;
  if (is_instance(d)) return text(out, room, "MIG-%08d-%04d", index_of(d), place_of(d));
  return text(out, room, "GPU-%08d-%04d", index_of(d), 0);
}

R nvmlDeviceGetUtilizationRates(D d, u32 *out) {
  if (look("mig", index_of(d), 0)) return NOT_SUPPORTED;
  out[1] = 41;
  return number(d, "utilization", 73, out);
}

R nvmlDeviceGetMemoryInfo_v2(D d, void *out) {
  struct { u32 version; u64 total, reserved, free, used; } *memory = out;
  R r = state(d, "memory");
  u64 gib = 1ull << 30, whole = is_instance(d) ? 10 : 80;
  if (r != OK) return r;
  memory->total = whole * gib;
  memory->used = look("memory_used", index_of(d), is_instance(d) ? 5 : 60) * gib;
  memory->reserved = 0;
  memory->free = memory->total - memory->used;
  return OK;
}

R nvmlDeviceGetTemperature(D d, int sensor, u32 *out) { (void)sensor; return number(d, "temperature", 66, out); }
R nvmlDeviceGetPowerUsage(D d, u32 *out) { return number(d, "power", 512000, out); }
#ifndef OLD
R nvmlDeviceGetEnforcedPowerLimit(D d, u32 *out) { return number(d, "power_limit", 700000, out); }
#endif
R nvmlDeviceGetClockInfo(D d, int clock, u32 *out) { return number(d, "clock", clock == 2 ? 2619 : 1755, out); }
R nvmlDeviceGetMaxClockInfo(D d, int clock, u32 *out) { return number(d, "clock_most", clock == 2 ? 2619 : 1980, out); }

R nvmlDeviceGetCurrentClocksThrottleReasons(D d, u64 *out) {
  u32 bits = 0;
  R r = number(d, "throttling", 0, &bits);
  *out = bits;
  return r;
}

R nvmlDeviceGetTotalEccErrors(D d, int error, int counter, u64 *out) {
  u32 count = 0;
  R r = state(d, "ecc");
  (void)counter;
  if (r == OK) r = number(d, error == 0 ? "corrected" : "uncorrected", 0, &count);
  *out = count;
  return r;
}

R nvmlDeviceGetMigMode(D d, u32 *now, u32 *next) {
  u32 on = 0;
  R r = number(d, "mig", 0, &on);
  *now = *next = on;
  return r;
}

R nvmlDeviceGetMaxMigDeviceCount(D d, u32 *out) { (void)d; *out = 7; return OK; }

R nvmlDeviceGetMigDeviceHandleByIndex(D d, u32 place, D *out) {
  if (place >= look("instances", index_of(d), 2)) return NOT_FOUND;
  *out = (D)(size_t)(INSTANCE + index_of(d) * PLACES + (int)place);
  return OK;
}

#ifndef OLD
struct set { D device; u64 told; };

R nvmlDeviceGetSupportedEventTypes(D d, u64 *out) {
  R r = state(d, "events");
  *out = 8; /* XID errors */
  return r;
}

R nvmlEventSetCreate(struct set **out) { *out = calloc(1, sizeof **out); return OK; }
R nvmlEventSetFree(struct set *set) { free(set); return OK; }

R nvmlDeviceRegisterEvents(D d, u64 types, struct set *set) {
  (void)types;
  set->device = d;
  set->told = look("xids", index_of(d), 0);
  return OK;
}

R nvmlEventSetWait_v2(struct set *set, void *out, u32 milliseconds) {
  struct { D device; u64 type, data; u32 gpu_instance, compute_instance; } *event = out;
  R r = state(set->device, "events");
  if (r != OK) return r;
  if (set->told >= look("xids", index_of(set->device), 0)) { usleep(milliseconds * 1000); return TIMEOUT; }
  set->told++;
  event->device = set->device;
  event->type = 8;
  event->data = look("xid", index_of(set->device), 79);
  return OK;
}
#endif
